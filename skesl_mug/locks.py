"""Locks on output folders: one run at a time writes to a folder."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from skesl_mug.errors import UserError


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a run on its output folder (created if absent) while the block runs.

    The folder itself is locked, so no lock file is left in it. File systems without locks (some network ones) are not protected.

    Raises:
        UserError: another run holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not try_lock(handle, exclusive=True):
            raise UserError(f"--output {folder}: another run is writing there; wait for it, or choose another folder")
        yield
    finally:
        os.close(handle)


def try_lock(file: IO[str] | int, exclusive: bool, patience: float = 2.0) -> bool:
    """Take a lock on an open file, trying for `patience` seconds: the dying workers of a run that was just killed may still hold it.

    Returns:
        Whether the lock is held, or the file system has no locks.
    """
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.1)
