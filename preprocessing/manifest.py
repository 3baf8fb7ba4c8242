"""`clips.csv`: what became of every clip, so that a job goes on where it stopped.

Rows are appended after the shard that holds their utterances is on disk. A job that dies between the two leaves a shard that no row
names: it is deleted at the next start, and its clips are done again.
"""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from lexicons.errors import UserError
from preprocessing.store import SHARD_FOLDER, shard_path

MANIFEST_FILE = "clips.csv"
KEPT, SKIPPED = "kept", "skipped"


@dataclass
class ManifestRow:
    """One clip: its path below the root, `kept` or `skipped`, the skip's reason and detail, or the number of its shard."""

    id: str
    path: str
    state: str
    reason: str = ""
    detail: str = ""
    shard: str = ""


COLUMNS = [field.name for field in fields(ManifestRow)]


def read_manifest(folder: Path) -> list[ManifestRow]:
    """The rows of a dataset's manifest; empty where there is none. A last line that was cut off is dropped, in the file too.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("rb+") as file:
            file.truncate(len(whole))
    try:
        reader = csv.reader(io.StringIO(whole.decode("utf-8"), newline=""))
        lines = list(reader)
        if lines and lines[0] != COLUMNS:
            raise ValueError(f"its first line is not {','.join(COLUMNS)}")
        return [ManifestRow(**dict(zip(COLUMNS, line, strict=True))) for line in lines[1:]]
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); run again with --overwrite") from error


def append_rows(folder: Path, rows: Sequence[ManifestRow]) -> None:
    """Add rows and wait until they are on disk."""
    path = folder / MANIFEST_FILE
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    if not path.is_file() or path.stat().st_size == 0:
        writer.writerow(COLUMNS)
    # one line a row: a line break inside a cell would look like a row that was cut off
    writer.writerows([" ".join(getattr(row, name).split()) if name == "detail" else getattr(row, name) for name in COLUMNS] for row in rows)
    with path.open("ab") as file:
        file.write(text.getvalue().encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())


def delete_orphans(folder: Path, rows: Sequence[ManifestRow]) -> int:
    """Delete the shards that no row names and half-written files; give the number of the next shard.

    Raises:
        UserError: a shard that rows name is gone.
    """
    named = {int(row.shard) for row in rows if row.state == KEPT}
    for number in sorted(named):
        if not shard_path(folder, number).is_file():
            raise UserError(f"{shard_path(folder, number)}: is gone though {MANIFEST_FILE} names it; run again with --overwrite")
    keep = {shard_path(folder, number) for number in named}
    for path in [*(folder / SHARD_FOLDER).glob("*.parquet"), *(folder / SHARD_FOLDER).glob(".*.tmp"), *folder.glob(".*.tmp")]:
        if path not in keep:
            path.unlink()
    return max(named, default=-1) + 1
