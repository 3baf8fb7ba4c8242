"""The installed command: `skesl-mug NAME …` runs what `python <room>/<file>.py …` runs in a checkout."""

import sys
from importlib import import_module

from skesl_mug.console import print_and_leave, run_command

COMMANDS = {  # name: module, and its options or the function that reads them
    "preprocess": ("preprocessing.run:Options", "turn videos into an utterance dataset"),
    "remask": ("preprocessing.remask:Options", "recompute the masks of a dataset with another lexicon"),
    "show": ("preprocessing.show:Options", "show a dataset, or one of its utterances"),
    "sample": ("preprocessing.sample_corpus:SampleOptions", "make the sample corpus (synthetic data)"),
    "lexicons": ("lexicons.compare:run", "compare lexicons on a corpus"),
    "pretrain": ("pretrain.run:start", "SKESL pretraining; several processes: accelerate launch -m pretrain.run"),
    "finetune": ("finetune.run_mug:MugOptions", "MUG fine-tuning, its controls and the report"),
    "study": ("finetune.studies.__main__:start", "one question about the method, answered over seeds"),
    "search": ("finetune.studies.search:SearchOptions", "search training options on the development split"),
    "compare": ("finetune.compare:CompareOptions", "several runs in one table"),
    "starter": ("finetune.starter:StarterOptions", "train the starter model: words alone, no data of yours"),
    "predict": ("finetune.predict:Options", "the sentiment of recordings, or of texts"),
    "web": ("finetune.web:Options", "a page in the browser for a model"),
    "export": ("finetune.export:Options", "a model's network as ONNX"),
}


def usage() -> str:
    """The names, one a line."""
    lines = [f"  {name:<11} {about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(["usage: skesl-mug NAME [OPTIONS]", "", *lines, "", "skesl-mug NAME --help names the options of one."])


def main() -> None:
    """Run the command that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print_and_leave(usage())
    if name not in COMMANDS:
        print(f"error: skesl-mug {name}: is no command; choose from {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"skesl-mug {name}", *sys.argv[2:]]
    place, _, entry = COMMANDS[name][0].partition(":")
    module = import_module(place)  # imported, not run as a script: worker processes find its functions by their names
    if isinstance(getattr(module, entry), type):
        run_command(getattr(module, entry), module.main)
    else:
        getattr(module, entry)()
