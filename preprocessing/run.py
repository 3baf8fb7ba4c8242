"""Preprocessing as a command: videos of people talking in, utterance dataset out."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: import from the checkout, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from preprocessing.options import Options
from preprocessing.preprocess import check_used, run_job
from skesl_mug.console import run_command


def main(options: Options) -> None:
    """Preprocess and print what came out."""
    info, processed = run_job(options)
    if processed:
        from preprocessing.show import summarise

        summarise(info, options.output, options.folder)
    check_used(info, options)


if __name__ == "__main__":
    run_command(Options, main)
