"""Runs a small study in this process on a synthetic corpus."""

import json
from pathlib import Path

import numpy as np
import torch
from synthetic_corpus import write_pickle

from finetune.studies.__main__ import main
from finetune.studies.study import find_study
from pretrain.encoder import SkeslModel, load_tokenizer
from skesl_mug.console import parse_options

__all__ = ["run_study", "write_encoder", "write_pickle"]

SMALL = ["--training.align-epochs", 1, "--training.joint-epochs", 1, "--model.frames", "statistics", "--model.dim", 8]
SMALL += ["--generators.crossfit.steps", 10, "--generators.meta.steps", 3]


def run_study(name: str, made: tuple[Path, Path], output: Path, *arguments: object) -> dict:
    """Run a study on the corpus and language model (or pretraining run) of `made`; returns its study.json."""
    start = "--encoder" if (made[1] / "results.json").is_file() else "--lm"
    flags = ["--dataset", "sims", "--data", made[0], "--synthetic", start, made[1], "--freeze-lm", "--output", output, *SMALL, *arguments]
    main(name, parse_options(find_study(name).options, [str(flag) for flag in flags]))
    return json.loads((output / "study.json").read_text(encoding="utf-8"))


def write_encoder(folder: Path, lm: Path, used: int, seed: int = 0) -> Path:
    """The folder of a pretraining run on `used` utterances, with random weights."""
    torch.manual_seed(seed)
    encoder = SkeslModel.from_text_model(lm, audio_dim=5, vision_dim=3, attention_dim=8, num_blocks=1)
    encoder.set_feature_statistics(audio=(np.zeros(5), np.ones(5)), vision=(np.zeros(3), np.ones(3)))
    encoder.save_pretrained(folder / "model")
    load_tokenizer(lm).save_pretrained(folder / "model")
    (folder / "config.yaml").write_text(f"lm: {lm}\n")
    (folder / "results.json").write_text(json.dumps({"data": {"used": used}}))
    return folder
