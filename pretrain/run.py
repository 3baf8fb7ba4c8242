"""Pretrain a SKESL encoder on utterance datasets: `accelerate launch pretrain/run.py --data DATASET --output RUN`."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: import from the checkout, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from preprocessing.console import run_command
from pretrain.options import PretrainOptions


def main(options: PretrainOptions) -> None:
    """Pretrain (heavy imports wait until here, so that `--help` answers at once)."""
    from pretrain.pretraining import pretrain

    pretrain(options)


if __name__ == "__main__":
    run_command(PretrainOptions, main, ["--no-freeze-lm" if argument == "--train-lm" else argument for argument in sys.argv[1:]])
