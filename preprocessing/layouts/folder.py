"""The layout `folder`: any folder of videos and sound files, with an optional csv file of labels, splits and speakers."""

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from preprocessing.layouts import CORPUS_FILE, SPLITS, Clip, Corpus, no_recordings, read_corpus_file
from preprocessing.layouts.files import RECORDING_SUFFIXES, beside_note, clip_ids, composed, list_files, pair_tracks, same_name_note
from preprocessing.schema import LABEL_COLUMNS
from skesl_mug.errors import UserError
from skesl_mug.tables import excerpt, parse_number, plain_name, read_table
from skesl_mug.wording import counted, printable

COLUMNS = ("clip", *LABEL_COLUMNS, "split", "speaker", "video_id", "transcript")

MISSING = ("nan", "na", "n/a", "null", "none")
"""How programs write that a label is missing."""
FEW_LABELS = 50
"""With fewer labels, their extremes may not be those of the scale."""


def find_folder(root: Path, labels: Path | None = None) -> Corpus:
    """The videos and sound files below a folder, at any depth. Speaker and video come from the csv file, else from the folder of the clip.

    The csv file (`labels`, or `labels.csv` in the root if it exists) has the column `clip`, the path below the root with or without
    suffix, and any of `label, label_T, label_A, label_V, split, speaker, video_id, transcript`. A sound file beside a video of the same
    name is that video's sound track, in case it has none. Rows of `CLIP#left` and `CLIP#right` make an utterance of each channel.

    Raises:
        UserError: there are no recordings, or the csv file is faulty or about other recordings.
    """
    files = list_files(root)
    paths, tracks = pair_tracks(files.recordings)
    if not paths:
        raise no_recordings(root, "folder")
    table = labels if labels is not None else root / "labels.csv"
    ids = clip_ids(paths, root)
    known = {composed(name): name for name in ids}
    numbers = Counter(map(as_number, known))
    known |= {short: name for name in ids if numbers[short := as_number(composed(name))] == 1 and short not in known}
    rows, table_notes = read_rows(table, known) if labels is not None or table.is_file() else ({}, _unread_table(root))
    parts = _rows_of_channels(rows, ids)
    if rows and not parts and not rows.keys() & set(ids):
        raise UserError(
            f"{table}: none of its {counted(len(rows), 'row')} names a recording below {root}: the first row's clip is {next(iter(rows))}; "
            f"a recording here is {ids[0]}"
        )
    clips = []
    named = [(file_id, path, name) for file_id, path in zip(ids, paths, strict=True) for name in parts.get(file_id, [file_id])]
    for file_id, path, name in named:
        row, channel = rows.get(name, {}), name.removeprefix(file_id)
        folder = printable(path.parent.relative_to(root).as_posix())
        video_id = row.get("video_id") or (folder if folder != "." else file_id)
        clips.append(
            Clip(
                id=name,
                path=path,
                speaker=row.get("speaker") or video_id + channel,
                channel=channel[1:] or None,
                video_id=video_id,
                split=_split(row, table),
                labels=_labels(row, table),
                transcript=row.get("transcript") or None,
                sound=tracks.get(path),
            )
        )
    about, span = read_corpus_file(root)
    labelled = any(clip.labels for clip in clips)
    if labelled and span is not None:
        check_range(clips, span, table)
    info = {"name": root.resolve().name, **about, "layout": "folder", "root": str(root)}
    left_out = files.left_out([table, root / CORPUS_FILE])
    if left_out:
        info["left_out"] = left_out
    notes = [
        *table_notes,
        *files.notes(left_out),
        *beside_note(files.recordings, paths, "used where the video has no sound track"),
        *same_name_note(root, paths),
        *_notes(clips, rows, table),
        *_speaker_notes(clips),
    ]
    return Corpus(clips, info, span if labelled else None, notes)


def read_rows(table: Path, ids: Mapping[str, str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The rows of a csv file by clip id, and notes.

    Args:
        table: the file.
        ids: the clips' ids, by their form with composed letters (macOS takes file names apart: é as e and an accent); they also help to
            detect the encoding.

    Raises:
        UserError: the file cannot be read, has no column `clip`, or lists a clip twice.
    """
    known = {plain_name(column): column for column in COLUMNS}
    found = read_table(table, COLUMNS, names={part for name in ids for part in (name, name.rpartition("/")[2])})
    names = {known.get(plain_name(name), name): name for name in reversed(found.columns)}
    if "clip" not in names:
        columns = ", ".join(f"`{excerpt(name)}`" for name in found.columns) or "none"
        raise UserError(f"{table}: has no column `clip` (the path of a recording below --root, without suffix); its columns are {columns}")
    rows: dict[str, dict[str, str]] = {}
    nameless = []
    for line, row in found.renamed(dict(reversed(names.items()))):
        if not row["clip"]:
            nameless.append(line)
            continue
        name = _id_of(row["clip"], ids)
        if name in rows:
            raise UserError(f"{table}: line {line} repeats the clip {name}")
        rows[name] = {**row, "line": str(line)}
    notes = [f"{table.name}: {note}" for note in found.notes]
    if nameless:
        notes.append(f"{table.name}: {counted(len(nameless), 'row')} without a clip (first: line {nameless[0]})")
    return rows, notes


def _rows_of_channels(rows: Collection[str], ids: Collection[str]) -> dict[str, list[str]]:
    """The rows about single channels (`CLIP#left`), by the id of their recording."""
    known = set(ids)
    found: dict[str, list[str]] = {}
    for row in rows:
        name, mark, _ = row.rpartition("#")
        if mark and name in known and row not in known:
            found.setdefault(name, []).append(row)
    return found


def _unread_table(root: Path) -> list[str]:
    """A note about a table that is named labels but is not csv."""
    workbooks, texts = (".xlsx", ".xls", ".ods"), (".tsv", ".txt")
    found = next((path for path in sorted(root.glob("labels.*")) if path.suffix.lower() in (*workbooks, *texts)), None)
    if found is None:
        return []
    return [
        f"{found.name} is not read; {'save it as labels.csv (UTF-8)' if found.suffix.lower() in workbooks else 'pass it with --labels'}"
    ]


def as_number(name: str) -> str:
    """A name as spreadsheets and pandas change one of digits: 0001 becomes 1, and 1 may become 1.0."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + str(int(float(last))) if re.fullmatch(r"[0-9]{1,15}(\.0)?", last) else name


def _id_of(cell: str, ids: Mapping[str, str]) -> str:
    name = printable(cell.strip())
    if composed(name) in ids:
        return ids[composed(name)]
    whole, mark, channel = name.rpartition("#")
    if mark and composed(found := _id_of(whole, ids)) in ids:
        return f"{found}#{channel.strip().lower()}"
    path = Path(name.replace("\\", "/").removeprefix("./"))
    bare = path.with_suffix("") if path.suffix.lower() in RECORDING_SUFFIXES else path
    forms = [composed(path.as_posix()), composed(bare.as_posix()), as_number(composed(bare.as_posix()))]
    return next((ids[form] for form in forms if form in ids), bare.as_posix())


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
        raise UserError(f"{table}: line {line} has the {name} {excerpt(cell)!r}, which is not a number; leave it empty if unknown")
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
    ids = {clip.id for clip in clips}
    absent = [name for name in rows if name not in ids]
    bare = [name for name in ids if name not in rows]
    notes = []
    unknown = [name for name in next(iter(rows.values())) if name and name not in (*COLUMNS, "line")]
    if unknown:
        notes.append(f"{table.name}: unknown columns: {', '.join(unknown)} (known: {', '.join(COLUMNS)})")
    if any(clip.split for clip in clips) and not any(clip.labels for clip in clips):
        notes.append(f"{table.name}: no clip has a label (column label, or label_T, label_A, label_V): fine-tuning needs them")
    if any(clip.labels for clip in clips) and not any(clip.split for clip in clips):
        notes.append(f"{table.name}: no clip has a split (column split: train, valid or test): fine-tuning needs them")
    spoken = sum(bool(clip.transcript) for clip in clips)
    if spoken:
        notes.append(f"{table.name}: transcripts of {spoken} of {len(clips)} clips are used as they are; the others are recognised")
    if absent:
        notes.append(f"{table.name}: {len(absent)} of {counted(len(rows), 'row')} without a recording (first: {absent[0]})")
    if bare:
        notes.append(f"{table.name}: {len(bare)} of {counted(len(ids), 'recording')} without a row (first: {min(bare)})")
    return notes
