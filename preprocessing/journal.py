"""The journal of a job: every finished clip is on file at once, so that a killed job loses only the clips it was working on.

Shards are written whole, some hundred clips at a time; until a clip's shard and its manifest row are on disk, its record is here. A
record is a header (length and CRC-32 of what follows), the manifest row as a line of JSON and, for an utterance, its row as an Arrow
stream. The records survive the death of the process; those of the last shard may be lost with the machine's power.
"""

import json
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from preprocessing.manifest import ManifestRow

JOURNAL_STEM, JOURNAL_SUFFIX = ".journal", ".bin"
HEADER = struct.Struct("<II")  # bytes of the record after the header, their CRC-32


class Entry(NamedTuple):
    """A finished clip: its manifest row (without the shard, not known yet) and its one-row table (None: skipped)."""

    row: ManifestRow
    table: pa.Table | None


class Journal:
    """A journal opened for writing; what a record that was cut off left at its end is dropped."""

    def __init__(self, path: Path):
        self.path = path
        whole = sum(HEADER.size + len(record) for record in _records(path))
        self._file: FileIO = path.open("ab", buffering=0)
        self._file.truncate(whole)

    def add(self, entry: Entry) -> None:
        """Write one finished clip."""
        _write(self._file, _record(entry))

    def keep_only(self, entries: Sequence[Entry]) -> None:
        """Forget all records but these: the others' shard and rows are on disk."""
        if not entries:
            self._file.truncate(0)
            return
        fresh = self.path.with_name(f".{self.path.name}.tmp")
        with fresh.open("wb", buffering=0) as file:
            for entry in entries:
                _write(file, _record(entry))
        os.replace(fresh, self.path)
        self._file.close()
        self._file = self.path.open("ab", buffering=0)

    def close(self) -> None:
        """Close the file; an empty journal is deleted."""
        self._file.close()
        if self.path.is_file() and self.path.stat().st_size == 0:
            self.path.unlink()


def read_journal(path: Path) -> Iterator[Entry]:
    """The whole records of a journal, in the order they were written; none where there is no such file."""
    for content in _records(path):
        line, _, stream = content.partition(b"\n")
        yield Entry(ManifestRow(**json.loads(line)), pa.ipc.open_stream(stream).read_all() if stream else None)


def _records(path: Path) -> Iterator[bytes]:
    if not path.is_file():
        return
    with path.open("rb") as file:
        while len(header := file.read(HEADER.size)) == HEADER.size:
            length, checksum = HEADER.unpack(header)
            content = file.read(length)
            if len(content) < length or zlib.crc32(content) != checksum:
                return
            yield content


def _record(entry: Entry) -> bytes:
    content = json.dumps(asdict(entry.row)).encode() + b"\n"
    if entry.table is not None:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, entry.table.schema) as writer:
            writer.write_table(entry.table)
        content += sink.getvalue().to_pybytes()
    return HEADER.pack(len(content), zlib.crc32(content)) + content


def _write(file: FileIO, record: bytes) -> None:
    written = 0
    while written < len(record):  # a full disk takes a part of it; the next write says why
        written += file.write(record[written:])
