"""Features in memory-mapped files: gigabytes can be read while a few hundred megabytes are resident."""

import codecs
import mmap
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

RESIDENT_BYTES = 128 << 20
"""Bytes read from a map before its pages are released; they remain in the page cache, which processes share."""
UNPACKED, UNPACKED_LEAST = 100, 1 << 20
"""How many times its size a compressed file may hold; any file may hold the second number of bytes."""


def most_unpacked(size: int) -> int:
    """The bytes that a compressed file of `size` bytes may hold; features take up to about 20 times its size."""
    return max(UNPACKED * size, UNPACKED_LEAST)


class MappedFile:
    """A file mapped read-only; it is opened when first used, in each process."""

    def __init__(self, path: Path):
        self.path = path
        self._map: mmap.mmap | None = None
        self._touched = 0

    def array(self, dtype: np.dtype[Any] | type, offset: int, count: int) -> np.ndarray:
        """`count` numbers from byte `offset`: [count], read-only, not copied."""
        if self._map is None:
            with open(self.path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(self._map, dtype, count, offset)

    def touched(self, size: int) -> None:
        """Count bytes to be read, and release pages from time to time."""
        self._touched += size
        if self._touched > RESIDENT_BYTES:
            self._touched = 0
            release(self._map)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_map": None, "_touched": 0}


def release(mapped: mmap.mmap | None) -> None:
    """Release the pages of a map; arrays over it stay valid and read them again."""
    if mapped is not None and hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_DONTNEED)


def map_beneath(array: np.ndarray) -> mmap.mmap | None:
    """The map that an array is a view of; None if it has memory of its own."""
    below: Any = array
    while isinstance(below, np.ndarray):
        below = below.base
    if isinstance(below, memoryview):
        below = below.obj
    return below if isinstance(below, mmap.mmap) else None


class MappedFrames(Sequence[np.ndarray | None]):
    """Features of N samples in one flat file: item i is [T_i, D] float32 (read-only), or None if sample i lacks the modality.

    `starts` and `lengths` [N] are in frames. Parallel processes share the file's pages.
    """

    def __init__(self, file: MappedFile, starts: np.ndarray, lengths: np.ndarray, width: int):
        self.file, self.starts, self.lengths, self.width = file, starts, lengths, width

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> np.ndarray | None:  # type: ignore[override]  # no slices: see `select`
        start, length = int(self.starts[index]), int(self.lengths[index])
        if not length:
            return None
        row = 4 * self.width
        self.file.touched(length * row)
        return self.file.array(np.float32, start * row, length * self.width).reshape(length, self.width)

    def __iter__(self) -> Iterator[np.ndarray | None]:
        return (self[index] for index in range(len(self)))

    def select(self, indices: Iterable[int]) -> "MappedFrames":
        """The samples at `indices`, in that order, without copying them."""
        chosen = np.fromiter(indices, np.int64)
        return MappedFrames(self.file, self.starts[chosen], self.lengths[chosen], self.width)


class JoinedFrames(Sequence[np.ndarray | None]):
    """Features of the samples of several parts, one after the other (`places` [N, 2]: part and sample), without copying them."""

    def __init__(self, parts: Sequence[Sequence[np.ndarray | None]], places: np.ndarray | None = None):
        counts = [len(part) for part in parts]
        rows = [np.arange(count) for count in counts]
        self.parts = list(parts)
        self.places = np.stack([np.repeat(np.arange(len(parts)), counts), np.concatenate(rows)], 1) if places is None else places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> np.ndarray | None:  # type: ignore[override]  # no slices: see `select`
        part, row = self.places[index]
        frames: np.ndarray | None = self.parts[part][int(row)]
        return frames

    def __iter__(self) -> Iterator[np.ndarray | None]:
        return (self[index] for index in range(len(self)))

    def select(self, indices: Iterable[int]) -> "JoinedFrames":
        """The samples at `indices`, in that order."""
        return JoinedFrames(self.parts, self.places[np.fromiter(indices, np.int64)])


class FrameWriter:
    """Writes `MappedFrames`, one sample at a time."""

    def __init__(self, path: Path):
        self.path = path
        self._file = open(path, "wb")  # noqa: SIM115 - closed by `frames` or `__exit__`
        self._lengths: list[int] = []
        self._width = 0

    def append(self, frames: np.ndarray | None) -> None:
        """Add the next sample's features [T, D]; None if it has none."""
        self._lengths.append(0 if frames is None else len(frames))
        if frames is not None and len(frames):
            self._width = frames.shape[1]
            self._file.write(np.ascontiguousarray(frames, np.float32).data)

    def frames(self) -> MappedFrames:
        """The features that were written."""
        self._file.close()
        lengths = np.asarray(self._lengths, np.int64)
        return MappedFrames(MappedFile(self.path), np.cumsum(lengths) - lengths, lengths, self._width)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


CHUNK = 1 << 20


class FileSlice:
    """`size` bytes of a file from `offset`, for long contents of a pickle that are not loaded."""

    def __init__(self, file: MappedFile, offset: int, size: int):
        self.file, self.offset, self.size = file, offset, size

    def array(self, dtype: np.dtype, count: int) -> np.ndarray:
        """Its first numbers: [count], read-only, not copied."""
        return self.file.array(dtype, self.offset, count)

    def __bytes__(self) -> bytes:
        return self.array(np.dtype(np.uint8), self.size).tobytes()

    def __str__(self) -> str:
        return bytes(self).decode("utf-8", errors="replace")


class FileText(FileSlice):
    """A text in UTF-8: old pickle protocols write the bytes of arrays as text."""

    def latin1(self, scratch: Path | None) -> FileSlice:
        """The bytes that the text encodes, one per character, in a temporary file in the folder `scratch` (None: the system's).

        Raises:
            UnicodeError: it does not encode bytes.
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
            written.array(np.dtype(np.uint8), 0)  # open it before it is deleted
            return written
