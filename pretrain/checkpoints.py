"""Checkpoints: written whole or not at all, without a frozen text encoder, the old ones pruned, the newest found again."""

import json
import pickle
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError

from pretrain.run_folder import writing
from skesl_mug.errors import UserError
from skesl_mug.files import write_json

PROGRESS_FILE = "progress.json"
TEXT_MODEL = "text_model."


@dataclass
class Progress:
    """Where a run stands: what a checkpoint holds beside weights and optimiser."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    loss_count: float = 0.0
    micro_batch: int = 0
    best_MAE: float | None = None  # noqa: N815 - the field's name
    best_epoch: int = 0
    finished: bool = False
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


def leave_out_frozen_text_model(accelerator: Accelerator) -> None:
    """Keep the text encoder, which never changes and has its own place, out of the checkpoints to come."""

    def drop(models: list[Any], weights: list[dict[str, Any]], folder: str) -> None:
        for place, state in enumerate(weights):
            weights[place] = {name: value for name, value in state.items() if TEXT_MODEL not in name}

    accelerator.register_save_state_pre_hook(drop)


def save_checkpoint(accelerator: Accelerator, folder: Path, progress: Progress, keep: int) -> None:
    """Write `folder/step-N`, then delete all but the newest `keep`."""
    name = f"step-{progress.step:08d}"
    temporary = folder / f".{name}.tmp"
    if accelerator.is_main_process:
        for leftover in folder.glob(".step-*.tmp"):  # of a run that was killed while writing
            shutil.rmtree(leftover, ignore_errors=True)
        with writing(folder / name):
            temporary.mkdir(parents=True)
    accelerator.wait_for_everyone()
    with writing(folder / name):
        accelerator.save_state(str(temporary))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        with writing(folder / name):
            write_json(temporary / PROGRESS_FILE, asdict(progress))
        shutil.rmtree(folder / name, ignore_errors=True)
        temporary.rename(folder / name)
        for old in find_checkpoints(folder)[:-keep]:
            shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(accelerator: Accelerator, folder: Path) -> Progress | None:
    """Load the newest checkpoint; None where there is none.

    Raises:
        UserError: it cannot be read.
    """
    found = find_checkpoints(folder)
    if not found:
        return None
    newest = found[-1]
    try:
        accelerator.load_state(str(newest), strict=False)  # a frozen text encoder is not in it
        progress = Progress(**json.loads((newest / PROGRESS_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise UserError(
            f"{newest}: cannot be read ({error}); delete this folder to resume from the one before, or use --overwrite"
        ) from error
    accelerator.print(f"Resuming from {newest} (epoch {progress.epoch + 1}, step {progress.step}).")
    return progress


def find_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    return sorted(path.parent for path in folder.glob(f"step-*/{PROGRESS_FILE}"))
