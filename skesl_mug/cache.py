"""The cache folder: what is converted or downloaded once, whole or not at all, also where several processes want it at once."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from skesl_mug.errors import UserError

CACHE_VARIABLE = "SKESL_MUG_CACHE"
DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG, errno.ENOTDIR, errno.EEXIST)
"""What a disk that cannot be written says; other faults are the source's."""


def cache_folder(given: Path | None = None) -> Path:
    """`given`, else what the variable SKESL_MUG_CACHE names, else `skesl-mug` in the user's cache folder (XDG)."""
    named = given or os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "skesl-mug"


def make_once(folder: Path, make: Callable[[Path], None]) -> None:
    """Have `folder`: where it is not there, `make(temporary)` fills a folder beside it, which is then renamed.

    One process makes it, others wait; what a killed process left is removed. Where `make` fails nothing stays.

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
            f"{folder.parent}: cannot be written ({error.strerror or error}); make room, or name another folder by --cache "
            f"or {CACHE_VARIABLE}"
        ) from error
