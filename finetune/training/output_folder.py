"""The output folder of a run: whose it is, what may be added to it, and how long its sessions took."""

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from finetune.options import MugOptions
from skesl_mug.console import COMMAND_FIELDS, to_plain, with_defaults
from skesl_mug.errors import UserError
from skesl_mug.files import read_json, write_atomically, write_json
from skesl_mug.locks import run_lock

if TYPE_CHECKING:
    from finetune.corpora import LabelledCorpus
    from finetune.model.encoders import EncoderSource

MARGINS = ("label_margin", "retrieval_factor", "av_margin")
ADDING_OPTIONS = frozenset(
    {"seeds", "compare_labels", "controls", "cache", "workers", "threads", "bootstrap", "title", "made", "plugin", "overwrite", *MARGINS}
)
"""Options that may differ when a run goes on: they add pieces, or change nothing that was trained."""
BY_CONTENT = frozenset({"data", "output"})
"""Paths: a file may be moved; its content is what must stay."""
CHECKPOINTS = "checkpoints"
IDENTITY_FILE = "identity.json"
SESSIONS_FILE = "sessions.json"


def check_output(options: MugOptions) -> None:
    """See that the output folder is new, or holds a run that these options go on with or add to.

    Raises:
        UserError: it holds a run of other options (shown, old and new), or something that is no run.
    """
    stored = stored_config(options.output)
    if stored is not None and not options.overwrite:
        defaults = to_plain(MugOptions(dataset="custom", data="", output=Path(), lm=""), leave_out=COMMAND_FIELDS | {"lm"})
        stored = with_defaults(stored, defaults)
        changes = differences(stored, to_plain(options, leave_out=COMMAND_FIELDS | ADDING_OPTIONS | BY_CONTENT))
        if changes:
            raise UserError(
                f"--output {options.output}: holds a run of other options ({'; '.join(changes)}); name another or add --overwrite"
            )
        first = stored.get("seeds") or options.seeds
        if options.few is not None and first[0] != options.seeds[0]:
            raise UserError(
                f"--seeds {options.seeds[0]}: the first seed draws --few's utterances, and this run began with {first[0]}; keep it first"
            )
    elif stored is None and options.output.exists() and any(options.output.iterdir()):
        raise UserError(f"--output {options.output}: is not empty and holds no run of this command; name another folder")


def differences(stored: dict[str, Any], wanted: dict[str, Any], prefix: str = "--") -> list[str]:
    """The options of `wanted` that have another value in `stored`, each as `--flag was OLD, now NEW`."""
    changes = []
    for name, value in wanted.items():
        flag, before = f"{prefix}{name.replace('_', '-')}", stored.get(name)
        if isinstance(value, dict):
            changes += differences(before if isinstance(before, dict) else {}, value, f"{flag}.")
        elif before != value:
            changes.append(f"{flag} was {_shown(before)}, now {_shown(value)}")
    return changes


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "empty"
    if isinstance(value, bool):
        return "on" if value else "off"
    return "not given" if value is None else str(value)


def stored_config(run: Path) -> dict[str, Any] | None:
    """The options of the run that a folder holds; None where it holds none."""
    try:
        stored = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return None
    return stored if isinstance(stored, dict) and {"dataset", "data", "labels", "training"} <= set(stored) else None


def claim_output(options: MugOptions, corpus: "LabelledCorpus", source: "EncoderSource", held: ExitStack) -> None:
    """Take the run's folder, now that everything could be read: write the resolved options and what they were read from. Its lock is
    `held`.

    Raises:
        UserError: the folder holds a run of the same options over other data or another encoder, or another run is writing there.
    """
    held.enter_context(run_lock(options.output))
    check_output(options)  # again: another run may have taken it while the data were read
    if options.overwrite and stored_config(options.output) is not None:  # nothing but a run of this command is ever deleted
        empty(options.output)
    identity = {"data": corpus.sha256, "encoder": source.fingerprint()}
    path = options.output / CHECKPOINTS / IDENTITY_FILE
    if path.is_file():
        stored = read_json(path)
        changed = [f"--{name}" for name in identity if stored.get(name) != identity[name]]
        if changed:
            raise UserError(f"--output {options.output}: was begun with other content behind {' and '.join(changed)}; add --overwrite")
    else:
        write_json(path, {**identity, "margins": {name: getattr(options, name) for name in MARGINS}})
    text = yaml.safe_dump(to_plain(options, leave_out=COMMAND_FIELDS), sort_keys=False, allow_unicode=True)
    write_atomically(options.output / "config.yaml", lambda path: path.write_text(text, encoding="utf-8"))


def empty(folder: Path) -> None:
    """Delete what a folder holds; the folder itself stays, for its lock is held."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def first_margins(output: Path) -> dict[str, float]:
    """The margins that were set before anything was trained; a later session may have others, and the report then says so."""
    return dict(read_json(output / CHECKPOINTS / IDENTITY_FILE)["margins"])


@dataclass
class Session:
    """One stay at a run; `worked` is set to False where it found all pieces finished."""

    worked: bool = True


@contextmanager
def timed_session(output: Path, began: float, writes: bool) -> Iterator[Session]:
    """Add the seconds since `began` (of `time.perf_counter`) to the run's own count, however the session ends; `writes` on one process."""
    session = Session()
    try:
        yield session
    finally:
        if writes and session.worked:
            write_json(output / CHECKPOINTS / SESSIONS_FILE, [*_sessions(output), round(time.perf_counter() - began, 2)])


def seconds_of_sessions(output: Path) -> float:
    """Seconds of all sessions that trained something; a session that was killed outright could not count its own."""
    return round(sum(_sessions(output)), 1)


def _sessions(output: Path) -> list[float]:
    path = output / CHECKPOINTS / SESSIONS_FILE
    return read_json(path) if path.is_file() else []
