"""The table of speakers that VoxCeleb comes with, and the filter by their nationality."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from preprocessing.corpora.clip import Corpus
from skesl_mug.errors import UserError

TABLE_NAMES = ("vox1_meta.csv", "vox2_meta.csv", "meta.csv", "metadata.csv")


def find_table(root: Path) -> Path | None:
    """The table of speakers in the root or up to two folders above it."""
    here = root.resolve()
    places = [folder / name for folder in (here, *list(here.parents)[:2]) for name in TABLE_NAMES]
    return next((path for path in places if path.is_file()), None)


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a table of speakers, separated by tabs (VoxCeleb1) or commas (VoxCeleb2); column names in lower case.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        separator = "\t" if lines and "\t" in lines[0] else ","
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: is no readable table of speakers ({getattr(error, 'strerror', None) or error})") from error
    if not rows:
        raise UserError(f"{path}: is empty; it wants a line of column names (with `Nationality`) and a line a speaker")
    names = [name.lower() for name in rows[0]]
    return [dict(zip(names, row, strict=False)) for row in rows[1:]]


def names(root: Path) -> dict[str, str]:
    """Speaker id -> name (the column `VGGFace1 ID`), by which VoxCeleb1's face pictures are filed; empty without a table."""
    path = find_table(root)
    rows = read_table(path) if path is not None else []
    return {next(iter(row.values())): row["vggface1 id"] for row in rows if "vggface1 id" in row}


def keep_nationalities(corpus: Corpus, nationalities: Sequence[str], root: Path, table: Path | None = None) -> None:
    """Mark the clips of other speakers as filtered: `nationality`, or `nationality_unknown` where the table lacks the speaker.

    Raises:
        UserError: there is no table, it has no column of nationalities, or no speaker is left.
    """
    path = table if table is not None else find_table(root)
    if path is None:
        raise UserError(f"--nationality: no table of speakers ({', '.join(TABLE_NAMES)}) in or above {root}; give it with --metadata FILE")
    rows = read_table(path)
    if not rows or "nationality" not in rows[0]:
        raise UserError(f"{path}: has no column Nationality; leave --nationality out, or give a table that has one with --metadata FILE")
    known = {next(iter(row.values())): row.get("nationality", "") for row in rows}
    wanted = {name.casefold() for name in nationalities}
    for place, clip in enumerate(corpus.clips):
        land = known.get(clip.speaker, "")
        if not land:
            corpus.clips[place] = replace(clip, filtered=("nationality_unknown", f"{path.name} has none of speaker {clip.speaker}"))
        elif land.casefold() not in wanted:
            corpus.clips[place] = replace(clip, filtered=("nationality", land))
    if all(clip.filtered for clip in corpus.clips):
        lands = sorted({known[clip.speaker] for clip in corpus.clips if known.get(clip.speaker)})
        raise UserError(f"--nationality {' '.join(nationalities)}: no speaker is left; {path.name} has {', '.join(lands) or 'none'}")
    corpus.info["nationalities"] = list(nationalities)
