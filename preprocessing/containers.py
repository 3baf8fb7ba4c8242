"""What files contain and FFmpeg passes over: the length of a cut WAV file, empty sound chunks of AVI, joined and damaged Matroska files."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import av.error

from preprocessing.channels import MediaError

CHUNKS = 2_000_000  # chunks that are read at most
EBML = b"\x1a\x45\xdf\xa3"
BLOCK = 1 << 20  # bytes
CLUSTER_ID, SIMPLE_BLOCK, LACING = b"\x1f\x43\xb6\x75", b"\xa3", 0x06
ELEMENTS = (SIMPLE_BLOCK, b"\xa0", b"\x1f", b"\x1c", b"")  # a block, a group, a cluster, the index, the end of the part
CLUSTER = 16 << 20  # bytes of a cluster, at most
UNKNOWN = (0, 0x7FFF0000)  # sizes below and above which a program that wrote a stream left the size open


@contextmanager
def media_errors() -> Iterator[None]:
    """Report FFmpeg's errors as `MediaError`."""
    try:
        yield
    except (av.error.FFmpegError, OSError, ValueError, EOFError) as error:
        raise MediaError("unreadable", _plain_message(error)) from error


def not_a_file(path: Path) -> str:
    """Why a path is no file."""
    if path.is_symlink() and not path.exists():
        return "is a broken link"
    return "is a folder" if path.is_dir() else "is not a regular file" if path.exists() else "no such file"


def _plain_message(error: BaseException) -> str:
    """The error's message without the file name (which is in the manifest) and without the number."""
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


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


class Block(NamedTuple):
    """A packet in a Matroska file: the number of its track, its time in milliseconds, and its content."""

    track: int
    time: int
    content: bytes


def blocks_between(path: Path, start: int, end: int, tracks: int) -> list[Block]:
    """The intact packets in a part of a Matroska file that FFmpeg passed over, because it resumes only at the next cluster.

    A packet (SimpleBlock without lacing) counts as intact if it belongs to one of the first tracks and another element follows it.
    """
    begin = max(0, start - CLUSTER)
    with path.open("rb") as file:
        file.seek(begin)
        data = file.read(min(end - begin, 2 * CLUSTER))
    head = data.rfind(CLUSTER_ID, 0, start - begin)
    stamp = data.find(b"\xe7", head, head + 24) if head >= 0 else -1
    if stamp < 0:
        return []
    time = int.from_bytes(data[stamp + 2 : stamp + 2 + (data[stamp + 1] & 0x7F)])
    found, at = [], start - begin
    while 0 <= (at := data.find(SIMPLE_BLOCK, at)) < len(data) - 8:
        width = 9 - data[at + 1].bit_length()  # of the size: the number of leading zeros, plus one
        body = at + 1 + width
        stop = body + (int.from_bytes(data[at + 1 : body]) & ((1 << 7 * width) - 1))
        header = data[body : body + 4]
        follows = data[stop : stop + 1] in ELEMENTS and body + len(header) < stop <= len(data)
        if width > 4 or not follows or not 0x80 < header[0] <= 0x80 + tracks or header[3] & LACING:
            at += 1
            continue
        found.append(Block(header[0] & 0x7F, time + int.from_bytes(header[1:3], signed=True), data[body + 4 : stop]))
        at = stop
    return found


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
