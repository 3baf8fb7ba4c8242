"""The folder of a pretraining run: when it may be used again, its checkpoints, its model, and its results."""

import importlib.metadata
import json
import pickle
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from pretrain.options import PretrainOptions
from pretrain.text_models import quiet_loading
from skesl_mug.console import COMMAND_FIELDS, to_plain
from skesl_mug.errors import UserError
from skesl_mug.files import read_json, write_json
from skesl_mug.run_folder import RunFolder, differences

if TYPE_CHECKING:
    from accelerate import Accelerator

RESULTS_FILE = "results.json"
TEXT_STATES = "text_states"
MASKED_TEXTS = "masked_texts"
PROGRESS_FILE = "progress.json"
TEXT_MODEL = "text_model."
FREE_OPTIONS = frozenset({"output", "plugin", "overwrite", "num_workers", "keep_checkpoints", "checkpoint_steps"})
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "numpy", "safetensors", "skesl-mug")


def run_folder(output: Path) -> RunFolder:
    """The output folder of a pretraining run."""
    return RunFolder(
        output,
        "a pretraining run",
        free=FREE_OPTIONS,
        defaults=to_plain(PretrainOptions(data=[""], output=Path()), leave_out=COMMAND_FIELDS),
        is_ours=lambda entries: "lm_lr" in entries,
    )


def open_run_folder(options: PretrainOptions, held: ExitStack) -> bool:
    """Claim the folder for these options; its lock is kept in `held`.

    A run with other options that ended before its first step (too little data, unknown model) is replaced: nothing is lost.

    Returns:
        Whether the run is already finished.

    Raises:
        UserError: as `RunFolder.claim`, or another run is writing there.
    """
    folder = run_folder(options.output)
    if options.output.is_file():
        folder.check({})
    held.enter_context(folder.lock())
    folder.claim(to_plain(options, leave_out=COMMAND_FIELDS), overwrite=options.overwrite or is_false_start(options))
    return (options.output / RESULTS_FILE).is_file()


def is_false_start(options: PretrainOptions) -> bool:
    """Whether the folder holds a run with other options that did not get as far as training."""
    if any((options.output / name).exists() for name in (RESULTS_FILE, "model", "checkpoints", "logs")):
        return False
    return has_other_options(options)


def has_other_options(options: PretrainOptions) -> bool:
    """Whether the folder holds a run whose options differ in a way that matters."""
    stored = run_folder(options.output).stored()
    wanted = to_plain(options, leave_out=COMMAND_FIELDS | FREE_OPTIONS)
    return stored is not None and bool(differences(stored, wanted))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Report a failure to write weights in one line: torch and safetensors raise their own errors for a full disk.

    Raises:
        UserError: writing failed in the block.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(f"{path}: cannot be written ({error}); free some space, then run the same command again to resume") from error


def save_model(folder: Path, model: Any, tokenizer: Any, describe: Callable[[Path], None]) -> None:
    """Write weights (safetensors), config, tokenizer and card to `folder`; the old ones are kept until the new ones are complete."""
    fresh, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    with writing(folder), quiet_loading():
        model.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
        describe(fresh)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def read_results(folder: Path) -> dict[str, Any]:
    """`results.json` of a finished run."""
    return dict(read_json(folder / RESULTS_FILE))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect the results."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@dataclass
class Progress:
    """State of a run that a checkpoint stores beside weights and optimiser."""

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
    split: str = ""
    """Fingerprint of the validation samples; empty in runs of older versions."""
    history: list[dict[str, Any]] = field(default_factory=list)


def leave_out_frozen_text_model(accelerator: "Accelerator") -> None:
    """Do not store the text encoder, which never changes, in checkpoints."""

    def drop(models: list[Any], weights: list[dict[str, Any]], folder: str) -> None:
        for place, state in enumerate(weights):
            weights[place] = {name: value for name, value in state.items() if TEXT_MODEL not in name}

    accelerator.register_save_state_pre_hook(drop)


def save_checkpoint(accelerator: "Accelerator", folder: Path, progress: Progress, keep: int) -> None:
    """Write `folder/step-N` whole or not at all, then delete all but the newest `keep` checkpoints."""
    name = f"step-{progress.step:08d}"
    temporary = folder / f".{name}.tmp"
    if accelerator.is_main_process:
        for leftover in folder.glob(".step-*.tmp"):  # left by a run that was killed while writing
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


def load_checkpoint(accelerator: "Accelerator", folder: Path) -> Progress | None:
    """Load the newest checkpoint; None if there is none.

    Raises:
        UserError: it cannot be read.
    """
    found = find_checkpoints(folder)
    if not found:
        return None
    newest = found[-1]
    try:
        accelerator.load_state(str(newest), strict=False)  # a frozen text encoder is left out
        progress = Progress(**json.loads((newest / PROGRESS_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise UserError(
            f"{newest}: cannot be read ({error}); delete this folder to resume from the previous one, or use --overwrite"
        ) from error
    accelerator.print(f"Resuming from {newest} (epoch {progress.epoch + 1}, step {progress.step}).")
    return progress


def find_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    return sorted(path.parent for path in folder.glob(f"step-*/{PROGRESS_FILE}"))
