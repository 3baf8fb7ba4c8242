"""What the labelled corpora share: a table with a row an utterance, and videos cut into utterances or whole."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from preprocessing.corpora.clip import Clip, Corpus, check_root, find_videos, read_corpus_file
from preprocessing.corpora.folder import SPLITS, check_range, parse_label
from skesl_mug.errors import UserError
from skesl_mug.wording import counted

TABLE_NAMES = ("label.csv", "labels.csv", "meta.csv")
NAMES: Mapping[str, tuple[str, ...]] = {
    "video": ("video_id", "video", "id"),
    "clip": ("clip_id", "segment_id", "segment", "clip"),
    "start": ("start", "start_time"),
    "end": ("end", "end_time"),
    "text": ("text", "transcript"),
    "split": ("mode", "split"),
    "label": ("label", "sentiment"),
    "label_T": ("label_t",),
    "label_A": ("label_a",),
    "label_V": ("label_v",),
}
"""The columns, in lower case, by the names that the corpora's releases give them."""


@dataclass(frozen=True)
class Layout:
    """What differs between the labelled corpora."""

    name: str
    language: str
    label_range: tuple[float, float]


def find_labelled(layout: Layout, root: Path, labels: Path | None, folds: Mapping[str, str] | None = None) -> Corpus:
    """The utterances of a table whose videos lie under `root`.

    A row's video is `<video>/<clip>.mp4`, `<video>_<clip>.mp4`, or the whole `<video>.mp4`, cut at the row's times; in this order, in
    any folder below the root. `folds` (video id -> split) fills what the table does not say.

    Raises:
        UserError: no table or no video is there, or the table is at fault.
    """
    check_root(root)
    table = labels if labels is not None else find_table(root, layout.name)
    rows = read_rows(table)
    videos = VideoIndex(root)
    clips: list[Clip] = []
    absent: list[str] = []
    taken: set[str] = set()
    for line, row in rows:
        video, number = _names(row, table, line)
        name = f"{video}/{number}"
        if name in taken:
            raise UserError(f"{table}: line {line} has the utterance {name} a second time")
        taken.add(name)
        found = videos.find(video, number)
        if found is None:
            absent.append(name)
            continue
        path, whole = found
        start, end = _times(row, table, line, name) if whole else (0.0, None)
        known = {key: row[key] for key in ("label", "label_T", "label_A", "label_V") if row.get(key)}
        split = row.get("split", "").lower()
        if split and split not in SPLITS:
            raise UserError(f"{table}: line {line} has the split {split!r}; it is train, valid or test")
        clips.append(
            Clip(
                id=name,
                path=path,
                speaker=video,
                video_id=video,
                split=SPLITS[split] if split else (folds or {}).get(video),
                labels={key: value for key, cell in known.items() if (value := parse_label(cell, key, table, line)) is not None},
                start=start,
                end=end,
                transcript=row.get("text") or None,
                language=layout.language if row.get("text") else None,
            )
        )
    if not clips:
        first = absent[0] if absent else "none"  # a table may have no row at all
        raise UserError(
            f"--root {root}: none of the {counted(len(rows), 'utterance')} of {table.name} has a video there (first: {first}); "
            f"{layout.name} wants <video>/<clip>.mp4, <video>_<clip>.mp4 or <video>.mp4"
        )
    about, span = read_corpus_file(root)
    check_range(clips, span or layout.label_range, table)
    info = {"name": layout.name, **about, "layout": layout.name, "root": str(root)}
    clips.sort(key=lambda clip: clip.id)
    return Corpus(clips, info, span or layout.label_range, _notes(table, rows, absent, clips))


def find_table(root: Path, layout: str) -> Path:
    """The table in the root: `label.csv` and its like, else the one csv file that names videos and segments.

    Raises:
        UserError: there is none, or more than one could be it.
    """
    for name in TABLE_NAMES:
        if (root / name).is_file():
            return root / name
    able = [path for path in sorted(root.glob("*.csv")) if _heading(path) and {"video", "clip"} <= set(_heading(path))]
    if len(able) != 1:
        what = "has no table of utterances" if not able else f"has several tables ({', '.join(path.name for path in able)})"
        raise UserError(f"--root {root}: {what}; give it with --labels FILE ({layout}: video id, clip id, text, label...)")
    return able[0]


def _heading(path: Path) -> dict[str, str]:
    """Our name of a column -> the file's."""
    with path.open(encoding="utf-8-sig", newline="", errors="replace") as file:
        given = next(csv.reader(file), [])
    return _columns(given)


def _columns(given: Sequence[str]) -> dict[str, str]:
    lower = {name.strip().lower(): name for name in given}
    found = {ours: lower[name] for ours, names in NAMES.items() for name in reversed(names) if name in lower}
    if "source_key" in lower:  # `<video>/<clip>` in one column
        found["video"] = found["clip"] = lower["source_key"]
    return found


def read_rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    """Line numbers and rows of a table, under our names of the columns.

    Raises:
        UserError: the file is no csv, or lacks the columns of the video and the clip.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = _columns(reader.fieldnames or [])
            if not {"video", "clip"} <= set(columns):
                raise UserError(f"{table}: has no columns of the video and the clip (such as video_id and clip_id)")
            return [
                (reader.line_num, {ours: (row[theirs] or "").strip() for ours, theirs in columns.items() if row.get(theirs) is not None})
                for row in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table}: is no readable csv file ({getattr(error, 'strerror', None) or error})") from error


def _names(row: dict[str, str], table: Path, line: int) -> tuple[str, str]:
    video, number = row.get("video", ""), row.get("clip", "")
    if video == number and "/" in video:
        video, _, number = video.rpartition("/")
    if not video or not number:
        raise UserError(f"{table}: line {line} names no video or no clip")
    return video, number


def _times(row: dict[str, str], table: Path, line: int, name: str) -> tuple[float, float]:
    try:
        start, end = float(row["start"]), float(row["end"])
    except (KeyError, ValueError):
        start = end = math.nan
    if not (math.isfinite(start) and math.isfinite(end)):
        raise UserError(f"{table}: line {line} has no start and end for {name}, whose video is whole; give both in seconds")
    return max(0.0, start), end


class VideoIndex:
    """The videos below a folder, by the names that a table may call them."""

    def __init__(self, root: Path):
        self._by_stem: dict[str, Path] = {}
        self._by_folder: dict[tuple[str, str], Path] = {}
        for path in find_videos(root):
            self._by_stem.setdefault(path.stem, path)
            for stem in {path.stem, path.stem.lstrip("0") or "0"}:  # spreadsheets turn 0001 into 1
                self._by_folder.setdefault((path.parent.name, stem), path)

    def find(self, video: str, clip: str) -> tuple[Path, bool] | None:
        """The file of an utterance, and whether it is the whole video."""
        folder = video.rpartition("/")[2]
        for place in ((folder, clip), (folder, clip.lstrip("0") or "0")):
            if place in self._by_folder:
                return self._by_folder[place], False
        if f"{video}_{clip}" in self._by_stem:
            return self._by_stem[f"{video}_{clip}"], False
        return (self._by_stem[video], True) if video in self._by_stem else None


def _notes(table: Path, rows: Sequence[tuple[int, dict[str, str]]], absent: Sequence[str], clips: Sequence[Clip]) -> list[str]:
    notes = []
    if absent:
        notes.append(f"{table.name}: {len(absent)} of {counted(len(rows), 'row')} without a video (first: {absent[0]})")
    spoken = sum(clip.transcript is not None for clip in clips)
    if spoken:
        notes.append(f"{table.name}: transcripts of {spoken} of {len(clips)} utterances are taken as they are; the others are recognised")
    unsplit = sum(clip.split is None for clip in clips)
    if unsplit:
        notes.append(f"{table.name}: {unsplit} of {counted(len(clips), 'utterance')} in no split")
    return notes
