"""A study run in this process on a made corpus, as small as it gets."""

import json
from pathlib import Path

from test_finetune_run import write_pickle

from finetune.studies.__main__ import main
from finetune.studies.catalogue import STUDIES
from preprocessing.console import parse_options

__all__ = ["run_study", "write_pickle"]

SMALL = ["--training.align-epochs", 1, "--training.joint-epochs", 1, "--model.frames", "statistics", "--model.dim", 8]
SMALL += ["--generators.crossfit.steps", 10, "--generators.meta.steps", 3]


def run_study(name: str, made: tuple[Path, Path], output: Path, *arguments: object) -> dict:
    """Its study.json, on the corpus and language model of `made`."""
    flags = ["--dataset", "sims", "--data", made[0], "--made", "--lm", made[1], "--freeze-lm", "--output", output, *SMALL, *arguments]
    main(name, parse_options(STUDIES[name].options, [str(flag) for flag in flags]))
    return json.loads((output / "study.json").read_text(encoding="utf-8"))
