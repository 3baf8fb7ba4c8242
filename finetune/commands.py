"""The installed command: `skesl-mug NAME …` runs what `python <room>/<file>.py …` runs in a checkout."""

import runpy
import sys

COMMANDS = {
    "preprocess": ("preprocessing.run", "videos into an utterance dataset"),
    "remask": ("preprocessing.remask", "the masks of a dataset anew, with another lexicon"),
    "show": ("preprocessing.show", "a dataset, or one utterance of it"),
    "sample": ("preprocessing.sample_corpus", "make the sample corpus (made data)"),
    "lexicons": ("lexicons.compare", "compare lexicons on a corpus"),
    "pretrain": ("pretrain.run", "SKESL pretraining; several processes: accelerate launch -m pretrain.run"),
    "finetune": ("finetune.run_mug", "MUG fine-tuning, its controls and the report"),
    "study": ("finetune.studies.__main__", "one question about the method, answered over seeds"),
    "search": ("finetune.studies.search", "search training options on the development split"),
    "compare": ("finetune.compare", "several runs in one table"),
    "predict": ("finetune.predict", "the sentiment of recordings"),
    "web": ("finetune.web", "a page in the browser for a model"),
    "export": ("finetune.export", "a model's network as ONNX"),
}


def usage() -> str:
    """The names, one a line."""
    lines = [f"  {name:<11} {about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(["usage: skesl-mug NAME [OPTIONS]", "", *lines, "", "skesl-mug NAME --help names the options of one."])


def main() -> None:
    """Run the command that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(usage())
        sys.exit(0)
    if name not in COMMANDS:
        print(f"error: skesl-mug {name}: is no command; choose from {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"skesl-mug {name}", *sys.argv[2:]]
    runpy.run_module(COMMANDS[name][0], run_name="__main__", alter_sys=False)
