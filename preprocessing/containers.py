"""What files say and FFmpeg does not pass on: the length of a cut WAV file, empty sound chunks of AVI, Matroska files that were joined."""

import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

CHUNKS = 2_000_000  # chunks that are read at most
EBML = b"\x1a\x45\xdf\xa3"
BLOCK = 1 << 20  # bytes
UNKNOWN = (0, 0x7FFF0000)  # sizes below and above which a program that wrote a stream left the size open


def wave_seconds(path: Path) -> float | None:
    """The length that the header of a WAV file states; None if it states none."""
    rate = 0
    with path.open("rb") as file:
        if file.read(12)[8:12] != b"WAVE":
            return None
        for name, size, start in _chunks(file, 12, path.stat().st_size):
            if name == b"fmt ":
                file.seek(start + 8)
                rate = int.from_bytes(file.read(4), "little")
            elif name == b"data":
                return size / rate if rate and UNKNOWN[0] < size < UNKNOWN[1] else None
    return None


def empty_sounds(path: Path) -> dict[int, list[int]]:
    """The places in an AVI file of the empty sound chunks, by stream: each stands for a packet of silence. The result is kept."""
    about = path.stat()
    return _empty_sounds(path, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=8)  # a recording is opened several times
def _empty_sounds(path: Path, size: int, changed: int) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    with path.open("rb") as file:
        for name, length, start in _chunks(file, 0, size):
            if length == 0 and name[2:] == b"wb" and name[:2].isdigit():
                found.setdefault(int(name[:2]), []).append(start)
    return found


def find_header(path: Path, start: int) -> int | None:
    """The byte at which the next Matroska file within a file starts; None if there is none from `start` on."""
    with path.open("rb") as file:
        file.seek(start)
        kept = b""
        while block := file.read(BLOCK):
            found = (kept + block).find(EBML)
            if found >= 0:
                return start + found - len(kept)
            start += len(block)
            kept = block[-len(EBML) + 1 :]
    return None


def _chunks(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, size and place of the chunks of a file, those within the lists of recordings (`movi`) included."""
    for _ in range(CHUNKS):
        file.seek(start)
        header = file.read(12)
        if start >= end or len(header) < 8:
            return
        name, size = struct.unpack("<4sI", header[:8])
        if name == b"RIFF" or (name == b"LIST" and header[8:12] in (b"movi", b"rec ")):
            start += 12
            continue
        yield name, size, start + 8
        start += 8 + size + size % 2
