"""Pretrain a SKESL encoder on utterance datasets: `accelerate launch pretrain/run.py --data DATASET --output RUN`."""

import os
import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: import from the checkout, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pretrain.options import PretrainOptions
from skesl_mug.console import check_writable, run_command, say_loading


def main(options: PretrainOptions) -> None:
    """Pretrain and print the summary. Heavy imports come after the cheap checks, so that mistakes are reported at once."""
    from lexicons.rated import PUBLISHED, rated_file
    from preprocessing.object_store import is_url
    from preprocessing.store import read_info
    from pretrain.text_models import resolve_text_model

    for folder in options.data:
        if not is_url(folder):
            read_info(Path(folder))
    if options.objective.rated and options.rated not in PUBLISHED:
        rated_file(options.rated)
    resolve_text_model(options.lm)
    check_writable(options.output)
    say_loading("transformers")
    if not options.debug:  # DDP's notice about unused parameters
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from pretrain.pretraining import PretrainResult, run_pretraining

    result = PretrainResult(options.output, run_pretraining(options))
    if os.environ.get("RANK", "0") == "0":
        print(result)


def start() -> None:
    """Parse the command line, where `--train-lm` is another name of `--no-freeze-lm`."""
    run_command(PretrainOptions, main, ["--no-freeze-lm" if argument == "--train-lm" else argument for argument in sys.argv[1:]])


if __name__ == "__main__":
    start()
