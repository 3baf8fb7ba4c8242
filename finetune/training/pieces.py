"""The pieces of a run on disk, one folder per seed: each is written completely or not at all, so that a stopped run resumes."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor

from finetune.model.networks import MugModel
from finetune.options import MugOptions
from finetune.training.stages import Epoch
from finetune.training.variants import Start, Variant
from pretrain.run_folder import writing
from skesl_mug.files import read_json, write_atomically, write_json

PERMUTED = "permuted"
"""The piece with the headline model's scores with the audio and vision of other utterances."""


@dataclass(frozen=True)
class SeedFolder:
    """The pieces of one setting and seed: `NAME.json` per model, with its predictions and labels as npz, and stage 1 per start."""

    path: Path

    def piece(self, name: str) -> Path:
        """A model's results; the model is finished when this file is there."""
        return self.path / f"{name}.json"

    def results(self, name: str) -> dict[str, Any]:
        """A finished model's results.

        Raises:
            UserError: the file is damaged.
        """
        return dict(read_json(self.piece(name)))

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of one npz file; empty if it is absent."""
        path = self.path / f"{name}.npz"
        if not path.is_file():
            return {}
        with np.load(path) as stored:
            return {key: stored[key] for key in stored.files}

    def has_stage_one(self, start: Start) -> bool:
        """Whether stage 1 of a start is finished."""
        return all(path.is_file() for path in self._stage_one(start))

    def stage_one(self, start: Start) -> tuple[dict[str, Tensor], list[Epoch], float]:
        """Weights, learning curve and seconds of a finished stage 1."""
        weights, log = self._stage_one(start)
        done = read_json(log)
        return load_file(weights), [Epoch(**epoch) for epoch in done["history"]], done["seconds"]

    def write_stage_one(self, start: Start, weights: dict[str, Tensor], history: list[Epoch], seconds: float) -> None:
        """Keep what `stage_one` returns."""
        path, log = self._stage_one(start)
        _write(path, lambda temporary: save_file(weights, temporary))
        write_entries(log, {"history": [asdict(epoch) for epoch in history], "seconds": seconds})

    def _stage_one(self, start: Start) -> tuple[Path, Path]:
        return self.path / f"stage1_{start.name}.safetensors", self.path / f"stage1_{start.name}.json"


class Pieces:
    """The finished pieces of every seed, as an `Experiment` left them."""

    def __init__(self, folder: Path, seeds: list[int], variants: list[Variant]):
        self.folder, self.seeds, self.variants = folder, seeds, variants
        self.results = {(v.name, seed): self.seed_folder(seed).results(v.name) for v in variants for seed in seeds}

    def seed_folder(self, seed: int) -> SeedFolder:
        """Where one seed's pieces lie."""
        return SeedFolder(self.folder / f"seed-{seed}")

    def arrays(self, seed: int, name: str) -> dict[str, np.ndarray]:
        """One npz file of one seed; empty if it is absent."""
        return self.seed_folder(seed).arrays(name)

    def column(self, variant: str, key: str) -> list[Any]:
        """One entry of a variant's results per seed."""
        return [self.results[variant, seed].get(key) for seed in self.seeds]

    def permuted(self, options: MugOptions) -> list[dict[str, float | None]]:
        """Scores with permuted audio and vision per seed; empty if that control was not run."""
        paths = [self.seed_folder(seed).piece(PERMUTED) for seed in self.seeds] if "permuted" in options.controls else []
        return [read_json(path) for path in paths if path.is_file()]

    @property
    def peak_memory_mb(self) -> float:
        """Peak memory of all processes."""
        return float(max(result["peak_memory_mb"] for result in self.results.values()))

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Seconds per stage of the headline model, summed over the seeds."""
        per_seed = self.column(self.variants[0].name, "seconds")
        return {stage: round(sum(seed[stage] for seed in per_seed), 2) for stage in per_seed[0]}

    @property
    def predictions(self) -> list[np.ndarray]:
        """The headline's predictions [N] on the evaluated split per seed."""
        return [self.arrays(seed, f"{self.variants[0].name}_predictions")["pred_M"] for seed in self.seeds]


def mean_prediction(predictions: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of several models' predictions [N]."""
    return np.asarray(np.mean(np.stack(predictions), axis=0, dtype=np.float64), np.float32)


def write_entries(path: Path, entries: object) -> None:
    """Write JSON."""
    with writing(path):
        write_json(path, entries)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an npz file."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    _write(path, write)


def write_model(folder: Path, model: MugModel) -> None:
    """Write a model's folder."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with writing(folder):
            model.save_pretrained(temporary)
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(path: Path, write: Callable[[Path], object]) -> None:
    with writing(path):
        write_atomically(path, write)
