"""The folder of a pretraining run: its config, its model, its results, and when it may be used again."""

import importlib.metadata
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError

from pretrain.options import PretrainOptions
from pretrain.text_models import quiet_loading
from skesl_mug.console import COMMAND_FIELDS, read_stored_options, to_plain, with_defaults
from skesl_mug.errors import UserError
from skesl_mug.files import read_json, write_atomically
from skesl_mug.locks import run_lock

CONFIG_FILE = "config.yaml"
RESULTS_FILE = "results.json"
TEXT_STATES = "text_states"
MASKED_TEXTS = "masked_texts"
# what may differ between two starts of one run: it changes no number
FREE_OPTIONS = ("output", "plugin", "overwrite", "num_workers", "keep_checkpoints", "checkpoint_steps")
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "numpy", "safetensors", "skesl-mug")


def open_run_folder(options: PretrainOptions, held: ExitStack) -> bool:
    """Make the folder or check that what is in it belongs to the same command; its lock is `held`.

    Returns:
        Whether the run is already finished.

    Raises:
        UserError: the folder holds something else, or a run with other options, or another run is writing there.
    """
    folder = options.output
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder}: is a file; give a folder")
    held.enter_context(run_lock(folder))
    wanted = to_plain(options, leave_out=COMMAND_FIELDS)
    if options.overwrite:
        _clear(folder)
    config = folder / CONFIG_FILE
    if config.is_file():
        others = other_options(config, wanted)
        if not others:
            return (folder / RESULTS_FILE).is_file()
        if _trained(folder):
            raise UserError(f"{folder}: holds a run with other options: {', '.join(others)}; give another --output, or --overwrite")
        _clear(folder)  # that run ended before its first step (too little data, no such model): nothing is lost with it
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"--output {folder}: holds other files and no {CONFIG_FILE} of a run; give an empty folder")
    text = yaml.safe_dump({**wanted, "overwrite": False}, sort_keys=False, allow_unicode=True)
    write_atomically(config, lambda path: path.write_text(text, encoding="utf-8"))
    return False


def _trained(folder: Path) -> bool:
    """Whether a run got as far as training. Masked texts, and text states that last no longer than the run, can be made again."""
    return any((folder / name).exists() for name in (RESULTS_FILE, "model", "checkpoints", "logs"))


def _clear(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()) and not (folder / CONFIG_FILE).is_file():
        raise UserError(f"--overwrite {folder}: is not the folder of a run (no {CONFIG_FILE}); nothing was deleted")
    for name in (RESULTS_FILE, "model", "checkpoints", "logs", TEXT_STATES, MASKED_TEXTS, CONFIG_FILE):
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def other_options(config: Path, wanted: dict[str, Any]) -> list[str]:
    """The options in which the run of a config differs from the wanted ones, both values of each."""
    defaults = to_plain(PretrainOptions(data=[""], output=Path()), leave_out=COMMAND_FIELDS)
    old, new = _flat(with_defaults(read_stored_options(config), defaults)), _flat(wanted)
    differing = [name for name in {**new, **old} if name not in FREE_OPTIONS and old.get(name) != new.get(name)]
    return [f"--{name.replace('_', '-')} {old.get(name)} (now {new.get(name)})" for name in differing]


def _flat(entries: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in entries.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the failures of writing weights and their like into one line: torch and safetensors have errors of their own for a full disk.

    Raises:
        UserError: what is written in the block could not be.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(f"{path}: cannot be written ({error}); make room and give the same command again, it goes on from there") from error


def save_model(folder: Path, model: Any, tokenizer: Any, describe: Callable[[Path], None]) -> None:
    """Write weights (safetensors), config, tokenizer and card to `folder`; what was there stays until the new ones are whole."""
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
    """Versions of Python and of the packages that decide the numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
