"""Writing a run's pieces whole or not at all; a full disk is one line and leaves what was there before."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.torch import save_file
from torch import Tensor

from finetune.model.networks import MugModel
from pretrain.run_folder import writing
from skesl_mug.files import write_atomically, write_json

__all__ = ["write_arrays", "write_entries", "write_model", "write_weights"]


def write_entries(path: Path, entries: object) -> None:
    """JSON."""
    with writing(path):
        write_json(path, entries)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """An npz."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    _write(path, write)


def write_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Tensors as safetensors."""
    _write(path, lambda temporary: save_file(weights, temporary))


def write_model(folder: Path, model: MugModel) -> None:
    """A model's folder."""
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
