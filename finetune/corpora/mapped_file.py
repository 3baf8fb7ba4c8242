"""Files mapped into memory, whose pages leave the process again after use: gigabytes pass through, some hundred megabytes stay."""

import codecs
import mmap
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

RESIDENT_BYTES = 128 << 20
"""So much of a map is touched before its pages are given back; they stay in the system's page cache, which processes share."""


class MappedFile:
    """A file mapped read-only, opened on first use and again in each process that it is handed to."""

    def __init__(self, path: Path):
        self.path = path
        self._map: mmap.mmap | None = None
        self._touched = 0

    def array(self, dtype: np.dtype[Any] | type, offset: int, count: int) -> np.ndarray:
        """`count` numbers from byte `offset` on, [count], read-only; nothing is copied."""
        if self._map is None:
            with open(self.path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(self._map, dtype, count, offset)

    def touched(self, size: int) -> None:
        """Count bytes that are about to be read, and give pages back when they have become many."""
        self._touched += size
        if self._touched > RESIDENT_BYTES:
            self._touched = 0
            release(self._map)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_map": None, "_touched": 0}


def release(mapped: mmap.mmap | None) -> None:
    """Give the pages of a map back; arrays over it stay valid and read them anew when asked."""
    if mapped is not None and hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_DONTNEED)


def map_beneath(array: np.ndarray) -> mmap.mmap | None:
    """The map that an array looks into, None where it holds its numbers itself."""
    below: Any = array
    while isinstance(below, np.ndarray):
        below = below.base
    if isinstance(below, memoryview):
        below = below.obj
    return below if isinstance(below, mmap.mmap) else None


class MappedFrames(Sequence[np.ndarray | None]):
    """Features of N samples in one flat file: item i is [T_i, D] float32 (read-only), None where sample i lacks the modality.

    `starts`, `lengths` [N] count frames. Seeds in parallel processes share the file's pages.
    """

    def __init__(self, file: MappedFile, starts: np.ndarray, lengths: np.ndarray, width: int):
        self.file, self.starts, self.lengths, self.width = file, starts, lengths, width

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> np.ndarray | None:  # type: ignore[override]  # slices are not offered: see `select`
        start, length = int(self.starts[index]), int(self.lengths[index])
        if not length:
            return None
        row = 4 * self.width
        self.file.touched(length * row)
        return self.file.array(np.float32, start * row, length * self.width).reshape(length, self.width)

    def __iter__(self) -> Iterator[np.ndarray | None]:
        return (self[index] for index in range(len(self)))

    def select(self, indices: Iterable[int]) -> "MappedFrames":
        """The samples at `indices`, in that order; nothing is copied."""
        chosen = np.fromiter(indices, np.int64)
        return MappedFrames(self.file, self.starts[chosen], self.lengths[chosen], self.width)


class FrameWriter:
    """Writes `MappedFrames`, one sample at a time."""

    def __init__(self, path: Path):
        self.path = path
        self._file = open(path, "wb")  # noqa: SIM115 - closed by `frames` or `__exit__`
        self._lengths: list[int] = []
        self._width = 0

    def append(self, frames: np.ndarray | None) -> None:
        """The next sample's features [T, D]; None or no frame: it lacks them."""
        self._lengths.append(0 if frames is None else len(frames))
        if frames is not None and len(frames):
            self._width = frames.shape[1]
            self._file.write(np.ascontiguousarray(frames, np.float32).data)

    def frames(self) -> MappedFrames:
        """What was written."""
        self._file.close()
        lengths = np.asarray(self._lengths, np.int64)
        return MappedFrames(MappedFile(self.path), np.cumsum(lengths) - lengths, lengths, self._width)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


CHUNK = 1 << 20


class FileSlice:
    """`size` bytes of a file from `offset` on; an array of them looks into the mapped file."""

    def __init__(self, file: MappedFile, offset: int, size: int):
        self.file, self.offset, self.size = file, offset, size

    def array(self, dtype: np.dtype, count: int) -> np.ndarray:
        """The first numbers of it, [count], read-only; nothing is copied."""
        return self.file.array(dtype, self.offset, count)

    def __bytes__(self) -> bytes:
        return self.array(np.dtype(np.uint8), self.size).tobytes()

    def __str__(self) -> str:
        return bytes(self).decode("utf-8", errors="replace")


class FileText(FileSlice):
    """The same of a text in UTF-8: old protocols write the bytes of arrays so."""

    def latin1(self, scratch: Path | None) -> FileSlice:
        """The bytes that the text stands for, one a character, in a nameless file in `scratch` (None: the system's own place).

        Raises:
            UnicodeError: it is no such text.
        """
        decoder = codecs.getincrementaldecoder("utf-8")()
        with tempfile.NamedTemporaryFile(dir=scratch) as file:
            size = 0
            for start in range(0, self.size, CHUNK):
                length = min(CHUNK, self.size - start)
                raw = self.file.array(np.uint8, self.offset + start, length).tobytes()
                self.file.touched(length)
                size += file.write(decoder.decode(raw, final=start + length == self.size).encode("latin1"))
            file.flush()
            written = FileSlice(MappedFile(Path(file.name)), 0, size)
            written.array(np.dtype(np.uint8), 0)  # open it while it has a name
            return written
