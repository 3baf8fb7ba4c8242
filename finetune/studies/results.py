"""The finished pieces of a study, as its runs left them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finetune.metrics import Scores
from skesl_mug.files import read_json


class StudyResults:
    """`checkpoints/SETTING/seed-N/VARIANT.json` and the arrays beside it."""

    def __init__(self, checkpoints: Path, seeds: Sequence[int]):
        self.checkpoints, self.seeds = checkpoints, list(seeds)

    def folder(self, setting: str, seed: int) -> Path:
        """Where the pieces of a setting's seed lie."""
        return self.checkpoints / setting / f"seed-{seed}"

    def pieces(self, setting: str, variant: str) -> list[dict[str, Any]]:
        """A variant's JSON by seed."""
        return [read_json(self.folder(setting, seed) / f"{variant}.json") for seed in self.seeds]

    def scores(self, setting: str, variant: str, test: str | None = None) -> list[Scores]:
        """Its metrics by seed, on the evaluated split or on one of the setting's `tests`."""
        pieces = self.pieces(setting, variant)
        return [piece["metrics"] if test is None else piece["tests"][test] for piece in pieces]

    def arrays(self, setting: str, variant: str, kind: str) -> list[dict[str, np.ndarray]]:
        """Its "predictions" (pred_M and those of its heads [N], label units) or learned "labels" by modality [N], by seed."""
        found = []
        for seed in self.seeds:
            path = self.folder(setting, seed) / f"{variant}_{kind}.npz"
            with np.load(path) as stored:
                found.append({key: stored[key] for key in stored.files})
        return found


def maes(scores: Sequence[Scores]) -> list[float]:
    """MAE by seed."""
    return [float(score["MAE"] or 0.0) for score in scores]


def mean_std(scores: Sequence[Scores]) -> tuple[float, float]:
    """Mean and population deviation of MAE over the seeds."""
    return float(np.mean(maes(scores))), float(np.std(maes(scores)))


def mean_scores(parts: Sequence[Sequence[Scores]]) -> list[Scores]:
    """Scores by seed, averaged over several lists of them; a figure that is None anywhere is None."""
    averaged: list[Scores] = []
    for scores in zip(*parts, strict=True):
        columns = {key: [score[key] for score in scores] for key in scores[0]}
        averaged.append({key: None if None in column else float(np.mean(np.array(column, float))) for key, column in columns.items()})
    return averaged
