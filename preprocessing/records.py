"""The files in which a job records its clips: the manifest `clips.csv` and the journal, for the whole corpus or for one part of it.

Manifest rows are appended after the shard with their utterances is on disk. A job that dies between the two leaves a shard that no row
names: it is deleted at the next start, and its clips are recovered from the journal.

The journal records every finished clip at once, so that a killed job loses only the clips it was working on; shards hold hundreds of
clips. A record is a header (length and CRC-32 of the rest), the manifest row as a line of JSON and, for an utterance, its row as an Arrow
stream. Records survive the death of the process; those of the last shard may be lost in a power failure.
"""

import csv
import fcntl
import io
import json
import os
import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from preprocessing.store import SHARD_FOLDER, shard_path
from preprocessing.timeline import Faults, places, total
from skesl_mug.errors import UserError
from skesl_mug.locks import try_lock

LOCK_FILE = ".lock"
INFO_LOCK_FILE = ".lock-info"
MANIFEST_STEM, MANIFEST_SUFFIX = "clips", ".csv"
MANIFEST_FILE = MANIFEST_STEM + MANIFEST_SUFFIX
JOURNAL_STEM, JOURNAL_SUFFIX = ".journal", ".bin"
KEPT, SKIPPED = "kept", "skipped"
COUNTED = ("holes", "hole_seconds", "jumps", "lost_seconds")  # numbers among the columns
HEADER = struct.Struct("<II")  # bytes of the record after the header, their CRC-32


@dataclass(frozen=True)
class Part:
    """Part `index` of `count` (1 of 1: the whole corpus). Every clip belongs to one part, by the CRC-32 of its id."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Read `i/n`.

        Raises:
            UserError: it does not have this form, or i is not in 1..n.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        part = cls(int(found[1]), int(found[2])) if found else cls(0, 0)
        if not 1 <= part.index <= part.count:
            raise UserError(f"--part {text}: use i/n with i from 1 to n, such as 1/4")
        return part

    @property
    def whole(self) -> bool:
        """Whether this is the whole corpus."""
        return self.count == 1

    def owns_clip(self, clip_id: str) -> bool:
        """Whether a clip belongs to this part."""
        return zlib.crc32(clip_id.encode("utf-8", "surrogateescape")) % self.count == self.index - 1

    def owns_shard(self, number: int) -> bool:
        """Whether this part may write a shard of this number; parts of one count never share a number."""
        return number % self.count == self.index - 1

    def file_name(self, stem: str, suffix: str) -> str:
        """The name of a file that only this part writes: `clips.csv` for the whole corpus, `clips-2-of-4.csv` for a part."""
        return f"{stem}{suffix}" if self.whole else f"{stem}-{self.index}-of-{self.count}{suffix}"


@contextmanager
def job_lock(folder: Path, part: Part | None = None) -> Iterator[None]:
    """Hold the locks of a job on an output folder while the block runs; a killed job releases them.

    A job on the whole corpus excludes every other job; a part excludes the same part, and parts of another count.

    Raises:
        UserError: another job holds one of them.
    """
    part = part or Part()
    folder.mkdir(parents=True, exist_ok=True)
    other = f"--output {folder}: another job is writing there; wait for it, or choose another folder"
    with (folder / LOCK_FILE).open("a") as common:
        if not try_lock(common, exclusive=part.whole):
            raise UserError(other + (", or divide the work with --part i/n in every job" if part.whole else ""))
        if part.whole:
            yield
            return
        with (folder / part.file_name(LOCK_FILE, "")).open("a") as own:
            if not try_lock(own, exclusive=True):
                raise UserError(f"--part {part.index}/{part.count}: another job is working on this part of {folder}")
            _refuse_other_counts(folder, part)
            yield


def _refuse_other_counts(folder: Path, part: Part) -> None:
    for path in folder.glob(f"{LOCK_FILE}-*-of-*"):
        if path.name.endswith(f"-of-{part.count}"):
            continue
        with path.open("a") as file:
            if not try_lock(file, exclusive=False):
                running = path.name.removeprefix(f"{LOCK_FILE}-").replace("-of-", "/")
                raise UserError(f"--part {part.index}/{part.count}: a job with --part {running} is running; all parts need the same count")


@contextmanager
def info_lock(folder: Path) -> Iterator[None]:
    """Wait for and hold the lock under which parts change shared files (`dataset.json`, `config.yaml`)."""
    with (folder / INFO_LOCK_FILE).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(slots=True)
class ManifestRow:
    """One clip: its path below the root, `kept` or `skipped`, the skip's reason and detail, or notes and the number of its shard.

    The faults of its recording (see `Faults`) follow; they are empty for an ordinary one. `lost_at` lists seconds of the recording.
    """

    id: str
    path: str
    state: str
    reason: str = ""
    detail: str = ""
    shard: str = ""
    holes: str = ""
    hole_seconds: str = ""
    jumps: str = ""
    lost_seconds: str = ""
    lost_at: str = ""

    def note_faults(self, faults: Faults) -> None:
        """Fill in the columns of the faults."""
        if faults.holes:
            self.holes, self.hole_seconds = str(len(faults.holes)), f"{total(faults.holes):.2f}"
        if faults.jumps:
            self.jumps = str(len(faults.jumps))
        if faults.lost or faults.lost_pictures:
            self.lost_seconds = f"{total(faults.lost or faults.lost_pictures):.2f}"
            pictures = f"pictures {places(faults.lost_pictures)}" if faults.lost_pictures else ""
            self.lost_at = "; ".join(filter(None, [places(faults.lost), pictures]))


COLUMNS = [entry.name for entry in fields(ManifestRow)]
FORMER_COLUMNS = COLUMNS[: COLUMNS.index("holes")]  # of manifests written before faults were recorded


@dataclass
class Tally:
    """Totals of a manifest: ids of finished clips, kept and skipped clips, shards that rows name, faults of the kept clips."""

    ids: set[str] = field(default_factory=set)
    kept: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    shards: set[int] = field(default_factory=set)
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, row: ManifestRow) -> None:
        """Count a row."""
        self.ids.add(row.id)
        if row.state == KEPT:
            self.kept += 1
            self.shards.add(int(row.shard))
            found = {name: float(getattr(row, name)) for name in COUNTED if getattr(row, name)}
            self.faults.update(found | {"clips": 1} if found else {})
        else:
            self.skipped[row.reason] += 1


def manifest_files(folder: Path) -> list[Path]:
    """The files of a dataset's manifest."""
    return sorted([*folder.glob(MANIFEST_FILE), *folder.glob(f"{MANIFEST_STEM}-*-of-*{MANIFEST_SUFFIX}")])


def read_manifest(folder: Path) -> Iterator[ManifestRow]:
    """The rows of a dataset's manifest, without a last line that is incomplete.

    Raises:
        UserError: a file is damaged.
    """
    for path in manifest_files(folder):
        yield from _read_rows(path)


def tally_manifest(folder: Path) -> Tally:
    """Count the rows of a dataset's manifest.

    Raises:
        UserError: a file is damaged.
    """
    tally = Tally()
    for row in read_manifest(folder):
        tally.add(row)
    return tally


def _read_rows(path: Path) -> Iterator[ManifestRow]:
    try:
        with path.open("rb") as file:
            lines = csv.reader(line.decode("utf-8", "surrogateescape") for line in file if line.endswith(b"\n"))
            first = next(lines, COLUMNS)
            if first not in (COLUMNS, FORMER_COLUMNS):
                raise ValueError(f"its first line is not {','.join(COLUMNS)}")
            for line in lines:
                row = ManifestRow(**dict(zip(first, line, strict=True)))
                if row.state == KEPT:
                    int(row.shard)
                _ = [float(getattr(row, name) or 0) for name in COUNTED]
                yield row
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: is damaged ({error}); run again with --overwrite") from error


def repair_manifest(path: Path) -> None:
    """Remove an incomplete last line that a killed job left, and add the columns of faults; only for the job that holds the file's lock.

    Raises:
        UserError: the file is damaged.
    """
    if not path.is_file():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("rb+") as file:
            file.truncate(whole)
    if content[:whole].partition(b"\n")[0].decode("utf-8", "replace").strip() == ",".join(FORMER_COLUMNS):
        fresh = path.with_name(f".{path.name}.tmp")
        fresh.unlink(missing_ok=True)
        append_rows(fresh, list(_read_rows(path)))
        os.replace(fresh, path)


def append_rows(path: Path, rows: Sequence[ManifestRow]) -> None:
    """Append rows to a manifest file and wait until they are on disk."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    if not path.is_file() or path.stat().st_size == 0:
        writer.writerow(COLUMNS)
    # line breaks in a detail would look like incomplete rows
    writer.writerows([" ".join(getattr(row, name).split()) if name == "detail" else getattr(row, name) for name in COLUMNS] for row in rows)
    with path.open("ab") as file:
        file.write(text.getvalue().encode("utf-8", "surrogateescape"))
        file.flush()
        os.fsync(file.fileno())


def delete_orphans(folder: Path, named: set[int], part: Part) -> int:
    """Delete this part's shards that no row names and its unfinished files.

    Returns:
        the number of its next shard.

    Raises:
        UserError: a shard that rows name is missing.
    """
    for number in sorted(named):
        if not shard_path(folder, number).is_file():
            raise UserError(f"{shard_path(folder, number)}: is missing though {MANIFEST_FILE} names it; run again with --overwrite")
    for path in [*(folder / SHARD_FOLDER).glob("*.parquet"), *(folder / SHARD_FOLDER).glob(".*.tmp")]:
        digits = path.name.removeprefix(".").removeprefix("part-").partition(".")[0]
        if digits.isdigit() and part.owns_shard(int(digits)) and (path.suffix == ".tmp" or int(digits) not in named):
            path.unlink()
    if part.whole:
        for path in folder.glob(".*.tmp"):
            path.unlink()
    return next(number for number in range(max(named, default=-1) + 1, 1 << 62) if part.owns_shard(number))


class Entry(NamedTuple):
    """A finished clip: its manifest row (its shard is not known yet) and its one-row table (None: skipped)."""

    row: ManifestRow
    table: pa.Table | None


class Journal:
    """A journal opened for writing; an incomplete last record is dropped."""

    def __init__(self, path: Path):
        self.path = path
        whole = sum(HEADER.size + len(record) for record in _records(path))
        self._file: FileIO = path.open("ab", buffering=0)
        self._file.truncate(whole)

    def add(self, entry: Entry) -> None:
        """Write one finished clip."""
        _write(self._file, _record(entry))

    def keep_only(self, entries: Sequence[Entry]) -> None:
        """Delete all records but these: the others' shard and rows are on disk."""
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
    """The complete records of a journal in the order of writing; none if there is no such file."""
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
    while written < len(record):  # a full disk accepts only a part; the next write raises the error
        written += file.write(record[written:])
