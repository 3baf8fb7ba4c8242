"""The output folder of a command: one run at a time, resumable with the same options, never overwritten by accident."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from skesl_mug.console import read_stored_options
from skesl_mug.errors import DamagedError, UserError
from skesl_mug.files import read_json, write_atomically, write_json
from skesl_mug.locks import run_lock

CONFIG_FILE = "config.yaml"


@dataclass
class RunFolder:
    """What a command's output folder may hold, and what has to agree before a run resumes in it.

    Attributes:
        path: the folder (`--output`).
        kind: what it holds, as messages call it ("a pretraining run").
        free: options that may differ when a run resumes: they change nothing that is already there.
        defaults: values of options that older versions did not store.
        is_ours: whether stored options are those of this command; a folder with any other content is refused.
        identity_file: file, relative to the folder, with the fingerprints of the run's inputs.
        keep_on_overwrite: names that --overwrite does not delete.
    """

    path: Path
    kind: str
    free: frozenset[str] = frozenset()
    defaults: dict[str, Any] = field(default_factory=dict)
    is_ours: Callable[[dict[str, Any]], bool] = bool
    identity_file: str = "identity.json"
    keep_on_overwrite: frozenset[str] = frozenset()

    @property
    def config(self) -> Path:
        """The file with the resolved options."""
        return self.path / CONFIG_FILE

    def lock(self) -> AbstractContextManager[None]:
        """Hold the folder for one run; see `run_lock`."""
        return run_lock(self.path)

    def stored(self) -> dict[str, Any] | None:
        """The options of the run in the folder, completed with defaults; None where there is no run.

        Raises:
            UserError: the stored options are damaged, or belong to another command.
        """
        if not self.config.is_file():
            return None
        entries = read_stored_options(self.config)
        if not self.is_ours(entries):
            raise UserError(f"--output {self.path}: does not hold {self.kind}; choose another folder")
        return with_defaults(entries, self.defaults)

    def check(self, wanted: dict[str, Any], overwrite: bool = False) -> bool:
        """See that the folder is new or empty, or holds a run with the same options; says whether there is one.

        Raises:
            UserError: it is a file, holds a run with other options (each shown, old and new), or something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--output {self.path}: is a file; choose a folder")
        try:
            stored = self.stored()
        except DamagedError:
            if overwrite and (self.path / self.identity_file).is_file():
                return True  # that file shows that the toolkit wrote it
            raise
        if stored is None:
            if self.path.is_dir() and (found := sorted(entry.name for entry in self.path.iterdir() if not entry.name.startswith(".lock"))):
                raise UserError(f"--output {self.path}: is not empty ({found[0]}) and does not hold {self.kind}; choose another folder")
            return False
        if overwrite:
            return True
        changes = differences(stored, {name: value for name, value in wanted.items() if name not in self.free})
        if changes:
            raise UserError(
                f"--output {self.path}: holds {self.kind} with other options ({'; '.join(changes)}); choose another folder, or add "
                "--overwrite to start again"
            )
        return True

    def claim(self, wanted: dict[str, Any], identity: dict[str, Any] | None = None, overwrite: bool = False) -> None:
        """Take the folder, whose lock is held: check it again, empty it if asked, write the options and the fingerprints of the inputs.

        Args:
            wanted: the resolved options.
            identity: fingerprints by the option that they belong to ("data", "encoder"), or by what they are ("code of plugin study x"); a
                run does not resume if one has changed.
            overwrite: delete the run that is there. Only a folder that holds a run of this command is ever emptied.

        Raises:
            UserError: as `check`, or an input's content has changed.
        """
        if self.check(wanted, overwrite) and overwrite:
            self.clear()
        path = self.path / self.identity_file
        before = read_json(path) if path.is_file() else {}
        if identity is not None:
            changed = [name for name, value in identity.items() if name in before and before[name] != value]
            if changed:
                what = " and ".join(f"the {name}" if " " in name else f"the content of --{name}" for name in changed)
                raise UserError(
                    f"--output {self.path}: {what} has changed since this run started; choose another folder, or add --overwrite to start "
                    "again"
                )
        self.write_config(wanted)  # first: a run that is killed in between leaves a folder that is recognised
        if identity is not None and {**before, **identity} != before:
            write_json(path, {**before, **identity})

    def write_config(self, options: dict[str, Any]) -> None:
        """Write the resolved options."""
        text = yaml.safe_dump({**options, **({"overwrite": False} if "overwrite" in options else {})}, sort_keys=False, allow_unicode=True)
        write_atomically(self.config, lambda path: path.write_text(text, encoding="utf-8"))

    def clear(self) -> None:
        """Delete what the folder holds; the folder itself stays, because its lock is held."""
        for path in self.path.iterdir():
            if path.name in self.keep_on_overwrite:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    @contextmanager
    def claimed(self, wanted: dict[str, Any], identity: dict[str, Any] | None = None, overwrite: bool = False) -> Iterator[None]:
        """`lock` and `claim` for the length of a block."""
        with self.lock():
            self.claim(wanted, identity, overwrite)
            yield


def with_defaults(stored: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Stored options, with defaults for the options that are newer than the run, so that an older run can be resumed."""
    filled = dict(stored)
    for name, value in defaults.items():
        if name not in stored:
            filled[name] = value
        elif isinstance(value, dict) and isinstance(stored[name], dict):
            filled[name] = with_defaults(stored[name], value)
    return filled


def differences(stored: dict[str, Any], wanted: dict[str, Any], prefix: str = "--") -> list[str]:
    """The options of `wanted` that have another value in `stored`, each as `--flag was OLD, now NEW`."""
    changes = []
    for name, value in wanted.items():
        flag, before = f"{prefix}{name.replace('_', '-')}", stored.get(name)
        if isinstance(value, dict):
            changes += differences(before if isinstance(before, dict) else {}, value, f"{flag}.")
        elif before != value and [before] != value:  # an option that took one value may have become a list
            changes.append(f"{flag} was {_shown(before)}, now {_shown(value)}")
    return changes


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "empty"
    if isinstance(value, bool):
        return "on" if value else "off"
    return "not set" if value is None else str(value)
