"""Several jobs on one output folder: disjoint parts of the corpus, and the locks that keep jobs from working on the same clips."""

import fcntl
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from skesl_mug.errors import UserError
from skesl_mug.locks import try_lock

LOCK_FILE = ".lock"
INFO_LOCK_FILE = ".lock-info"


@dataclass(frozen=True)
class Part:
    """Part `index` of `count` (1 of 1: the whole corpus). Every clip belongs to one part of a count, by the CRC-32 of its id."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Read `i/n`.

        Raises:
            UserError: it is not of that form, or i is not in 1..n.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        part = cls(int(found[1]), int(found[2])) if found else cls(0, 0)
        if not 1 <= part.index <= part.count:
            raise UserError(f"--part {text}: give i/n with i from 1 to n, such as 1/4")
        return part

    @property
    def whole(self) -> bool:
        """Whether this is the whole corpus."""
        return self.count == 1

    def owns_clip(self, clip_id: str) -> bool:
        """Whether a clip belongs to this part."""
        return zlib.crc32(clip_id.encode("utf-8", "surrogateescape")) % self.count == self.index - 1

    def owns_shard(self, number: int) -> bool:
        """Whether a shard's number is one that this part may write; parts that run side by side never share a number."""
        return number % self.count == self.index - 1

    def file_name(self, stem: str, suffix: str) -> str:
        """The name of a file that this part writes alone: `clips.csv` for the whole, `clips-2-of-4.csv` for a part."""
        return f"{stem}{suffix}" if self.whole else f"{stem}-{self.index}-of-{self.count}{suffix}"


@contextmanager
def sole_writer(folder: Path, part: Part | None = None) -> Iterator[None]:
    """Hold the locks of a job on an output folder while the block runs; a job that is killed loses them.

    The whole corpus excludes every other job; parts of one count exclude only themselves, and parts of another count.

    Raises:
        UserError: another job holds one of them.
    """
    part = part or Part()
    folder.mkdir(parents=True, exist_ok=True)
    other = f"--output {folder}: another job is writing there; wait for it, or give another folder"
    with (folder / LOCK_FILE).open("a") as common:
        if not try_lock(common, exclusive=part.whole):
            raise UserError(other + (", or share the work with --part i/n in every job" if part.whole else ""))
        if part.whole:
            yield
            return
        with (folder / part.file_name(LOCK_FILE, "")).open("a") as own:
            if not try_lock(own, exclusive=True):
                raise UserError(f"--part {part.index}/{part.count}: another job works on this part of {folder}")
            _refuse_other_counts(folder, part)
            yield


def _refuse_other_counts(folder: Path, part: Part) -> None:
    for path in folder.glob(f"{LOCK_FILE}-*-of-*"):
        if path.name.endswith(f"-of-{part.count}"):
            continue
        with path.open("a") as file:
            if not try_lock(file, exclusive=False):
                running = path.name.removeprefix(f"{LOCK_FILE}-").replace("-of-", "/")
                raise UserError(f"--part {part.index}/{part.count}: a job with --part {running} is running; give parts of one count")


@contextmanager
def info_lock(folder: Path) -> Iterator[None]:
    """Wait for, and hold, the lock under which parts change the files they share (`dataset.json`, `config.yaml`)."""
    with (folder / INFO_LOCK_FILE).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
