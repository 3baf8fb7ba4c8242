"""The installed command: `skesl-mug NAME …` runs what `python <room>/<file>.py …` runs in a checkout."""

import sys
from importlib import import_module

from skesl_mug.console import print_and_leave, run_command

COMMANDS = {  # name: module, and its options or the function that reads them
    "preprocess": ("preprocessing.run:Options", "turn videos into an utterance dataset"),
    "remask": ("preprocessing.remask:Options", "recompute the masks of a dataset with another lexicon"),
    "show": ("preprocessing.show:Options", "show a dataset, or one of its utterances"),
    "push": ("preprocessing.push:Options", "push a dataset to the Hugging Face hub, with a card"),
    "sample": ("preprocessing.sample_corpus:SampleOptions", "generate the sample corpus (synthetic data)"),
    "lexicons": ("lexicons.compare:CompareOptions", "compare lexicons on a corpus"),
    "pretrain": ("pretrain.run:start", "pretrain with SKESL (several processes: accelerate launch -m pretrain.run)"),
    "finetune": ("finetune.run_mug:MugOptions", "fine-tune with MUG, run its controls and write the report"),
    "study": ("finetune.studies.__main__:start", "answer one question about the method, over several seeds"),
    "search": ("finetune.studies.search:SearchOptions", "search training options on the development split"),
    "compare": ("finetune.compare:CompareOptions", "compare several runs in one table"),
    "starter": ("finetune.starter:StarterOptions", "train the starter model, which reads words only (needs no data)"),
    "predict": ("finetune.predict:Options", "predict the sentiment of recordings or texts"),
    "web": ("finetune.web:Options", "open a web page for a model"),
    "to-mmsa": ("finetune.to_mmsa:Options", "write a labelled dataset as a feature file of MMSA"),
    "export": ("finetune.export:Options", "export a model's network as ONNX"),
}


def usage() -> str:
    """The commands, one per line."""
    lines = [f"  {name:<11} {about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(["usage: skesl-mug NAME [OPTIONS]", "", *lines, "", "Run `skesl-mug NAME --help` for the options of a command."])


def main() -> None:
    """Run the command named by the first argument."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print_and_leave(usage())
    if name not in COMMANDS:
        print(f"error: skesl-mug {name}: unknown command; choose from {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"skesl-mug {name}", *sys.argv[2:]]
    place, _, entry = COMMANDS[name][0].partition(":")
    module = import_module(place)  # imported, not run as a script: worker processes unpickle its functions by name
    if isinstance(getattr(module, entry), type):
        run_command(getattr(module, entry), module.main)
    else:
        getattr(module, entry)()
