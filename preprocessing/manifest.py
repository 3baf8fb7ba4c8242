"""`clips.csv`: what became of every clip, so that a job goes on where it stopped.

Rows are appended after the shard that holds their utterances is on disk. A job that dies between the two leaves a shard that no row
names: it is deleted at the next start, and its clips are taken from the journal again. A job on a part of the corpus writes a file of
its own (`clips-2-of-4.csv`); together they are the manifest.
"""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from preprocessing.parts import Part
from preprocessing.store import SHARD_FOLDER, shard_path
from skesl_mug.errors import UserError

MANIFEST_STEM, MANIFEST_SUFFIX = "clips", ".csv"
MANIFEST_FILE = MANIFEST_STEM + MANIFEST_SUFFIX
KEPT, SKIPPED = "kept", "skipped"


@dataclass(slots=True)
class ManifestRow:
    """One clip: its path below the root, `kept` or `skipped`, the skip's reason and detail, or the number of its shard."""

    id: str
    path: str
    state: str
    reason: str = ""
    detail: str = ""
    shard: str = ""


COLUMNS = [entry.name for entry in fields(ManifestRow)]


@dataclass
class Tally:
    """What a manifest comes to: the ids that are done, kept and skipped clips, the shards that rows name."""

    ids: set[str] = field(default_factory=set)
    kept: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    shards: set[int] = field(default_factory=set)

    def add(self, row: ManifestRow) -> None:
        """Count a row."""
        self.ids.add(row.id)
        if row.state == KEPT:
            self.kept += 1
            self.shards.add(int(row.shard))
        else:
            self.skipped[row.reason] += 1


def manifest_files(folder: Path) -> list[Path]:
    """The files of a dataset's manifest."""
    return sorted([*folder.glob(MANIFEST_FILE), *folder.glob(f"{MANIFEST_STEM}-*-of-*{MANIFEST_SUFFIX}")])


def read_manifest(folder: Path) -> Iterator[ManifestRow]:
    """The rows of a dataset's manifest; none where there is none. A last line that was cut off (or is being written) is left out.

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
            if first != COLUMNS:
                raise ValueError(f"its first line is not {','.join(COLUMNS)}")
            for line in lines:
                row = ManifestRow(**dict(zip(COLUMNS, line, strict=True)))
                if row.state == KEPT:
                    int(row.shard)
                yield row
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: is damaged ({error}); run again with --overwrite") from error


def drop_torn_line(path: Path) -> None:
    """Cut off a last line that a killed job left unfinished; only for the job that holds the file's lock."""
    if not path.is_file():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("rb+") as file:
            file.truncate(whole)


def append_rows(path: Path, rows: Sequence[ManifestRow]) -> None:
    """Add rows to a file of the manifest and wait until they are on disk."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    if not path.is_file() or path.stat().st_size == 0:
        writer.writerow(COLUMNS)
    # a detail may be of several lines, whose breaks would look like rows that were cut off
    writer.writerows([" ".join(getattr(row, name).split()) if name == "detail" else getattr(row, name) for name in COLUMNS] for row in rows)
    with path.open("ab") as file:
        file.write(text.getvalue().encode("utf-8", "surrogateescape"))
        file.flush()
        os.fsync(file.fileno())


def delete_orphans(folder: Path, named: set[int], part: Part) -> int:
    """Delete this part's shards that no row names and its half-written files; give the number of its next shard.

    Raises:
        UserError: a shard that rows name is gone.
    """
    for number in sorted(named):
        if not shard_path(folder, number).is_file():
            raise UserError(f"{shard_path(folder, number)}: is gone though {MANIFEST_FILE} names it; run again with --overwrite")
    for path in [*(folder / SHARD_FOLDER).glob("*.parquet"), *(folder / SHARD_FOLDER).glob(".*.tmp")]:
        digits = path.name.removeprefix(".").removeprefix("part-").partition(".")[0]
        if digits.isdigit() and part.owns_shard(int(digits)) and (path.suffix == ".tmp" or int(digits) not in named):
            path.unlink()
    if part.whole:
        for path in folder.glob(".*.tmp"):
            path.unlink()
    return next(number for number in range(max(named, default=-1) + 1, 1 << 62) if part.owns_shard(number))
