"""The layout `folder`: any folder of videos, with an optional csv file of labels, splits and speakers."""

import math
import unicodedata
from collections.abc import Collection
from pathlib import Path

from preprocessing.layouts import SPLITS, VIDEO_SUFFIXES, Clip, Corpus, clip_ids, find_videos, no_videos, read_corpus_file
from preprocessing.schema import LABEL_COLUMNS
from skesl_mug.errors import UserError
from skesl_mug.tables import parse_number, plain_name, printable, read_table
from skesl_mug.wording import counted

COLUMNS = ("clip", *LABEL_COLUMNS, "split", "speaker", "video_id", "transcript")

MISSING = ("nan", "na", "n/a", "null", "none")
"""How programs write that a label is missing."""
FEW_LABELS = 50
"""With fewer labels, their extremes may not be those of the scale."""


def find_folder(root: Path, labels: Path | None = None) -> Corpus:
    """The videos below a folder, at any depth. Speaker and video come from the csv file, else from the folder of the clip.

    The csv file (`labels`, or `labels.csv` in the root if it exists) has the column `clip`, the path below the root with or without
    suffix, and any of `label, label_T, label_A, label_V, split, speaker, video_id, transcript`.

    Raises:
        UserError: there are no videos, or the csv file is faulty or about other videos.
    """
    paths = find_videos(root)
    if not paths:
        raise no_videos(root, "folder")
    table = labels if labels is not None else root / "labels.csv"
    ids = clip_ids(paths, root)
    rows, table_notes = read_rows(table, ids) if labels is not None or table.is_file() else ({}, _unread_workbook(root))
    if rows and not rows.keys() & {same_name(name) for name in ids}:
        raise UserError(
            f"{table}: none of its {counted(len(rows), 'row')} names a video below {root}: the first row's clip is {next(iter(rows))}; "
            f"a video here is {ids[0]}"
        )
    clips = []
    for name, path in zip(ids, paths, strict=True):
        row = rows.get(same_name(name), {})
        folder = path.parent.relative_to(root).as_posix()
        video_id = row.get("video_id") or (folder if folder != "." else name)
        clips.append(
            Clip(
                id=name,
                path=path,
                speaker=row.get("speaker") or video_id,
                video_id=video_id,
                split=_split(row, table),
                labels=_labels(row, table),
                transcript=row.get("transcript") or None,
            )
        )
    about, span = read_corpus_file(root)
    labelled = any(clip.labels for clip in clips)
    if labelled and span is not None:
        check_range(clips, span, table)
    info = {"name": root.resolve().name, **about, "layout": "folder", "root": str(root)}
    return Corpus(clips, info, span if labelled else None, [*table_notes, *_notes(clips, rows, table), *_speaker_notes(clips)])


def read_rows(table: Path, ids: Collection[str] = ()) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The rows of a csv file by clip id (see `same_name`), and notes; the clips' ids help to detect the encoding.

    Raises:
        UserError: the file cannot be read, has no column `clip`, or lists a clip twice.
    """
    known = {plain_name(column): column for column in COLUMNS}
    found = read_table(table, COLUMNS, names={part for name in ids for part in (same_name(name), same_name(name).rpartition("/")[2])})
    names = {known.get(plain_name(name), name): name for name in reversed(found.columns)}
    if "clip" not in names:
        columns = ", ".join(f"`{printable(name)}`" for name in found.columns) or "none"
        raise UserError(f"{table}: has no column `clip` (the path of a video below --root, without suffix); its columns are {columns}")
    rows: dict[str, dict[str, str]] = {}
    nameless = []
    for line, row in found.renamed(dict(reversed(names.items()))):
        name = same_name(_id_of(row["clip"]))
        if not name:
            nameless.append(line)
            continue
        if name in rows:
            raise UserError(f"{table}: line {line} repeats the clip {name}")
        rows[name] = {**row, "line": str(line)}
    notes = [f"{table.name}: {note}" for note in found.notes]
    if nameless:
        notes.append(f"{table.name}: {counted(len(nameless), 'row')} without a clip (first: line {nameless[0]})")
    return rows, notes


def same_name(name: str) -> str:
    """A name in composed Unicode (NFC): macOS writes é in a file name as two characters, spreadsheets as one."""
    return unicodedata.normalize("NFC", name)


def _unread_workbook(root: Path) -> list[str]:
    found = next((path for path in sorted(root.glob("labels.*")) if path.suffix.lower() in (".xlsx", ".xls", ".ods", ".tsv", ".txt")), None)
    fix = (
        "save it as labels.csv (UTF-8)"
        if found is not None and found.suffix.lower() in (".xlsx", ".xls", ".ods")
        else "pass it with --labels"
    )
    return [] if found is None else [f"{found.name} is not read; {fix}"]


def _id_of(cell: str) -> str:
    name = cell.strip().replace("\\", "/").removeprefix("./")
    path = Path(name)
    return path.with_suffix("").as_posix() if path.suffix.lower() in VIDEO_SUFFIXES else name


def _split(row: dict[str, str], table: Path) -> str | None:
    given = row.get("split", "")
    if given and given.lower() not in SPLITS:
        raise UserError(f"{table}: line {row['line']} has the split {given!r}; use train, valid or test")
    return SPLITS[given.lower()] if given else None


def _labels(row: dict[str, str], table: Path) -> dict[str, float]:
    found = ((name, parse_label(row.get(name, ""), name, table, row.get("line", "?"))) for name in LABEL_COLUMNS)
    return {name: value for name, value in found if value is not None}


def parse_label(cell: str, name: str, table: Path, line: int | str) -> float | None:
    """The number in a label cell, with a decimal point or comma; None if it is empty or one of `MISSING`.

    Raises:
        UserError: it is not a number.
    """
    if not cell or cell.lower() in MISSING:
        return None
    value = parse_number(cell)
    if value is None:
        raise UserError(f"{table}: line {line} has the {name} {printable(cell)!r}, which is not a number; leave it empty if unknown")
    return value


def check_range(clips: list[Clip], span: tuple[float, float], source: object) -> None:
    """Raise `UserError` if a label lies outside the label range."""
    for clip in clips:
        for name, value in clip.labels.items():
            if not span[0] <= value <= span[1]:
                raise UserError(
                    f"{source}: the {name} of {clip.id} is {value:g}, outside the label range {span[0]:g} to {span[1]:g}; see --label-range"
                )


def observed_range(values: Collection[float]) -> tuple[float, float]:
    """The symmetric range that contains every label, rounded up to a whole number (at least 1)."""
    limit = float(max(1, math.ceil(max(map(abs, values)))))
    return (-limit, limit)


def describe_range(values: Collection[float], inferred: tuple[float, float]) -> str:
    """The message about a label range inferred from the labels, and how far to trust it."""
    low, high = inferred
    text = (
        f"label range inferred as {low:g} to {high:g}: {counted(len(values), 'label')} from {min(values):g} to {max(values):g}, rounded "
        "up and made symmetric; --label-range LOW HIGH overrides it"
    )
    if len(values) < FEW_LABELS:
        text += (
            f"\nwarning: {counted(len(values), 'label')} may not span your scale: if it is wider, set --label-range, because "
            "training, metrics and scores use its units"
        )
    return text


def _speaker_notes(clips: list[Clip]) -> list[str]:
    if len(clips) < 2 or any(clip.speaker != clip.id for clip in clips):
        return []
    return ["speakers are unknown: each clip counts as its own speaker, so one person may be in training and test (column speaker)"]


def _notes(clips: list[Clip], rows: dict[str, dict[str, str]], table: Path) -> list[str]:
    if not rows:
        return []
    ids = {same_name(clip.id) for clip in clips}
    absent = [name for name in rows if name not in ids]
    bare = [name for name in ids if name not in rows]
    notes = []
    unknown = [name for name in next(iter(rows.values())) if name not in (*COLUMNS, "line")]
    if unknown:
        notes.append(f"{table.name}: unknown columns: {', '.join(unknown)} (known: {', '.join(COLUMNS)})")
    if any(clip.split for clip in clips) and not any(clip.labels for clip in clips):
        notes.append(f"{table.name}: no clip has a label (column label, or label_T, label_A, label_V): fine-tuning needs them")
    if any(clip.labels for clip in clips) and not any(clip.split for clip in clips):
        notes.append(f"{table.name}: no clip has a split (column split: train, valid or test): fine-tuning needs them")
    if absent:
        notes.append(f"{table.name}: {len(absent)} of {counted(len(rows), 'row')} without a video (first: {absent[0]})")
    if bare:
        notes.append(f"{table.name}: {len(bare)} of {counted(len(ids), 'video')} without a row (first: {min(bare)})")
    return notes
