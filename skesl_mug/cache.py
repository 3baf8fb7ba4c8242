"""The cache folder: what is converted or downloaded once, completely or not at all, also by several processes at the same time."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from skesl_mug.errors import UserError

CACHE_VARIABLE = "SKESL_MUG_CACHE"
DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG, errno.ENOTDIR, errno.EEXIST)
"""Errors of a disk that cannot be written; others come from the source."""


def cache_folder(given: Path | None = None) -> Path:
    """`given`, else the folder in SKESL_MUG_CACHE, else `skesl-mug` in the user's cache folder (XDG)."""
    named = given or os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "skesl-mug"


def make_once(folder: Path, make: Callable[[Path], None]) -> None:
    """Create `folder` if it does not exist: `make(temporary)` fills a folder beside it, which is then renamed.

    One process creates it, others wait; the remains of a killed process are removed. If `make` fails, nothing is left.

    Raises:
        UserError: the folder cannot be written, naming `--cache`.
    """
    if folder.is_dir():
        return
    temporary = folder.with_name(f"{folder.name}.part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if folder.is_dir():
                return
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            try:
                make(temporary)
                os.replace(temporary, folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        if error.errno not in DISK_FAULTS:
            raise
        raise UserError(
            f"{folder.parent}: cannot be written ({error.strerror or error}); free some space, or choose another folder with --cache "
            f"or {CACHE_VARIABLE}"
        ) from error
