"""The labelled corpora MOSI, MOSEI, CH-SIMS v1 and v2, raw: a table with one row per utterance, and videos cut into utterances or whole."""

import ast
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from preprocessing.layouts import CORPUS_FILE, SPLITS, Clip, Corpus, read_corpus_file
from preprocessing.layouts.files import VIDEO_SUFFIXES, Files, composed, list_files
from preprocessing.layouts.folder import as_number, check_range, parse_label
from skesl_mug.errors import UserError
from skesl_mug.tables import parse_number, plain_name, read_table
from skesl_mug.text_files import read_text
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
"""Our names of the columns, and those of the corpora's releases in lower case."""


@dataclass(frozen=True)
class Layout:
    """What differs between the labelled corpora."""

    name: str
    language: str
    label_range: tuple[float, float]


MOSI = Layout("mosi", "en", (-3.0, 3.0))
MOSEI = Layout("mosei", "en", (-3.0, 3.0))
SIMS = Layout("sims", "zh", (-1.0, 1.0))
SIMS_V2 = Layout("simsv2", "zh", (-1.0, 1.0))
FOLDS_FILE = "cmu_mosei_std_folds.py"
FOLD_LISTS = {"standard_train_fold": "train", "standard_valid_fold": "valid", "standard_test_fold": "test"}


def find_mosi(root: Path, labels: Path | None = None, folds: Path | None = None) -> Corpus:
    """CMU-MOSI; see `find_labelled`. Splits that the table lacks come from `folds`, else from the standard folds."""
    return find_labelled(MOSI, root, labels, folds)


def find_mosei(root: Path, labels: Path | None = None, folds: Path | None = None) -> Corpus:
    """CMU-MOSEI; see `find_labelled`. Splits are those of the table's column `mode` or `split`.

    The official csv of 23,259 labels has none; then they come from `folds`, else from the SDK's `cmu_mosei_std_folds.py` in the root, else
    from the standard folds.
    """
    if folds is None and (root / FOLDS_FILE).is_file():
        folds = root / FOLDS_FILE
    return find_labelled(MOSEI, root, labels, folds)


def find_sims(root: Path, labels: Path | None = None) -> Corpus:
    """CH-SIMS, `Raw/<video>/<clip>.mp4` with unimodal labels too; see `find_labelled`."""
    return find_labelled(SIMS, root, labels)


def find_simsv2(root: Path, labels: Path | None = None) -> Corpus:
    """CH-SIMS v2; see `find_labelled`."""
    return find_labelled(SIMS_V2, root, labels)


def find_labelled(layout: Layout, root: Path, labels: Path | None, folds: Path | None = None) -> Corpus:
    """The utterances of a table whose videos lie under `root`.

    A row's video is `<video>/<clip>.mp4`, `<video>_<clip>.mp4`, or the whole `<video>.mp4` cut at the row's times; in this order, in
    any folder below the root. A sound file of such a name is used if there is no video. The file `folds` (see `read_folds`), else the
    standard folds of the corpus, supply splits that the table lacks.

    Raises:
        UserError: there is no table or no video, or the table is faulty.
    """
    table = labels if labels is not None else find_table(root, layout.name)
    known_folds = read_folds(folds) if folds is not None else standard_folds().get(layout.name, {})
    files = list_files(root)
    videos = VideoIndex(files)
    rows, table_notes = read_rows(table, videos.names)
    clips: list[Clip] = []
    absent: list[str] = []
    taken: set[str] = set()
    for line, row in rows:
        video, number = _names(row, table, line)
        name = f"{video}/{number}"
        if name in taken:
            raise UserError(f"{table}: line {line} repeats the utterance {name}")
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
            raise UserError(f"{table}: line {line} has the split {split!r}; use train, valid or test")
        clips.append(
            Clip(
                id=name,
                path=path,
                speaker=video,
                video_id=video,
                split=SPLITS[split] if split else known_folds.get(video),
                labels={key: value for key, cell in known.items() if (value := parse_label(cell, key, table, line)) is not None},
                start=start,
                end=end,
                transcript=row.get("text") or None,
                language=layout.language if row.get("text") else None,
            )
        )
    if not clips:
        first = absent[0] if absent else "none"  # the table may be empty
        raise UserError(
            f"--root {root}: none of the {counted(len(rows), 'utterance')} of {table.name} has a video there (first: {first}); "
            f"{layout.name} expects <video>/<clip>.mp4, <video>_<clip>.mp4 or <video>.mp4"
        )
    about, span = read_corpus_file(root)
    check_range(clips, span or layout.label_range, table)
    info = {"name": layout.name, **about, "layout": layout.name, "root": str(root)}
    used = {clip.path for clip in clips}
    standard = sum(clip.split is not None for clip in clips) if folds is None and not any(row.get("split") for _, row in rows) else 0
    if standard:
        table_notes.append(f"{table.name}: has no splits; {standard} of {counted(len(clips), 'utterance')} have one in the standard folds")
    left_out = files.left_out([table, root / CORPUS_FILE, folds], [path for path in files.recordings if path not in used])
    if left_out:
        info["left_out"] = left_out
    clips.sort(key=lambda clip: clip.id)
    notes = [*files.notes(left_out), *table_notes, *_notes(table, rows, absent, clips)]
    return Corpus(clips, info, span or layout.label_range, notes)


def find_table(root: Path, layout: str) -> Path:
    """The table in the root: one of `TABLE_NAMES`, else the only csv file with columns for video and clip.

    Raises:
        UserError: there is none, or several candidates.
    """
    for name in TABLE_NAMES:
        if (root / name).is_file():
            return root / name
    able = [path for path in sorted(root.glob("*.csv")) if _heading(path) and {"video", "clip"} <= set(_heading(path))]
    if len(able) != 1:
        what = "has no table of utterances" if not able else f"has several tables ({', '.join(path.name for path in able)})"
        raise UserError(f"--root {root}: {what}; choose it with --labels FILE ({layout}: video id, clip id, text, label, ...)")
    return able[0]


def _heading(path: Path) -> dict[str, str]:
    """Our name of a column -> the file's; empty for a file that is not a table."""
    try:
        return _columns(list(read_table(path, KNOWN, long_rows="skip").columns))
    except UserError:
        return {}


KNOWN = (*(name for names in NAMES.values() for name in names), "source_key")


def _columns(given: Sequence[str]) -> dict[str, str]:
    plain = {plain_name(name): name for name in given}
    found = {ours: plain[name] for ours, names in NAMES.items() for name in reversed(names) if name in plain}
    if "source_key" in plain:  # `<video>/<clip>` in one column
        found["video"] = found["clip"] = plain["source_key"]
    return found


def read_rows(table: Path, names: Collection[str] = ()) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """Line numbers and rows of a table, under our column names, and notes; names of the videos help to detect the encoding.

    Raises:
        UserError: the file is not a csv file, or lacks columns for video and clip.
    """
    found = read_table(table, KNOWN, names=names)
    columns = _columns(list(found.columns))
    if not {"video", "clip"} <= set(columns):
        raise UserError(f"{table}: has no columns for video and clip (such as video_id and clip_id)")
    return list(found.renamed(columns)), [f"{table.name}: {note}" for note in found.notes]


def _names(row: dict[str, str], table: Path, line: int) -> tuple[str, str]:
    video, number = row.get("video", ""), row.get("clip", "")
    if video == number and "/" in video:
        video, _, number = video.rpartition("/")
    if not video or not number:
        raise UserError(f"{table}: line {line} has no video or no clip")
    return video, number


def _times(row: dict[str, str], table: Path, line: int, name: str) -> tuple[float, float]:
    start, end = parse_number(row.get("start", "")), parse_number(row.get("end", ""))
    if start is None or end is None:
        raise UserError(f"{table}: line {line} has no start and end (seconds) for {name}, whose video is not cut")
    return max(0.0, start), end


class VideoIndex:
    """The recordings below a folder, by the names that a table may use; videos are preferred to sound files."""

    def __init__(self, files: Files):
        self._kinds: tuple[_Names, _Names] = _Names(), _Names()
        for path in files.recordings:
            self._kinds[path.suffix.lower() not in VIDEO_SUFFIXES].add(path)
        self.names = {composed(name) for path in files.recordings for name in (path.stem, path.parent.name)}

    def find(self, video: str, clip: str) -> tuple[Path, bool] | None:
        """The file of an utterance, and whether it is the whole video."""
        return next((found for names in self._kinds if (found := names.find(composed(video), composed(clip))) is not None), None)


class _Names:
    def __init__(self) -> None:
        self._by_stem: dict[str, Path] = {}
        self._by_folder: dict[tuple[str, str], Path] = {}

    def add(self, path: Path) -> None:
        folder, name = composed(path.parent.name), composed(path.stem)
        self._by_stem.setdefault(name, path)
        for stem in {name, as_number(name)}:  # spreadsheets turn 0001 into 1
            self._by_folder.setdefault((folder, stem), path)

    def find(self, video: str, clip: str) -> tuple[Path, bool] | None:
        folder = video.rpartition("/")[2]
        for number in (clip, as_number(clip)):
            if (folder, number) in self._by_folder:
                return self._by_folder[folder, number], False
            if f"{video}_{number}" in self._by_stem:
                return self._by_stem[f"{video}_{number}"], False
        return (self._by_stem[video], True) if video in self._by_stem else None


def _notes(table: Path, rows: Sequence[tuple[int, dict[str, str]]], absent: Sequence[str], clips: Sequence[Clip]) -> list[str]:
    notes = []
    if absent:
        notes.append(f"{table.name}: {len(absent)} of {counted(len(rows), 'row')} without a recording (first: {absent[0]})")
    spoken = sum(clip.transcript is not None for clip in clips)
    if spoken:
        notes.append(f"{table.name}: transcripts of {spoken} of {len(clips)} utterances are used as they are; the others are recognised")
    unsplit = sum(clip.split is None for clip in clips)
    if unsplit:
        notes.append(f"{table.name}: {unsplit} of {counted(len(clips), 'utterance')} without a split")
    return notes


def standard_folds() -> dict[str, dict[str, str]]:
    """The split (train, valid, test) of every video by corpus: mosi, mosei and pom, as the CMU-MultimodalSDK lists them (MIT)."""
    known = json.loads(Path(__file__).with_name("standard_folds.json").read_text(encoding="utf-8"))["folds"]
    return {corpus.lower(): {video: name for name, ids in folds.items() for video in ids.split()} for corpus, folds in known.items()}


def read_folds(path: Path) -> dict[str, str]:
    """Video id -> split, from the SDK's Python file (three lists of ids, parsed as literals, never executed) or a csv `video_id,split`.

    Raises:
        UserError: the file is neither.
    """
    if path.suffix.lower() != ".py":
        return _fold_table(path)
    try:
        return _fold_lists(path, read_text(path)[0])
    except (SyntaxError, ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read as a list of folds ({error}); use the SDK's .py file or a csv video_id,split") from error


def _fold_lists(path: Path, text: str) -> dict[str, str]:
    folds: dict[str, str] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in FOLD_LISTS:
            folds.update(dict.fromkeys(ast.literal_eval(node.value), FOLD_LISTS[node.targets[0].id]))
    if not folds:
        raise UserError(f"{path}: has none of the lists {', '.join(FOLD_LISTS)}; use the unmodified file of CMU's SDK")
    return folds


def _fold_table(path: Path) -> dict[str, str]:
    table = read_table(path, ("video_id", "split"), quiet=False)
    names = {name: theirs for name in ("video_id", "split") if (theirs := table.column_named(name)) is not None}
    if len(names) < 2:
        raise UserError(f"{path}: has no columns video_id and split")
    folds: dict[str, str] = {}
    for line, row in table.renamed(names):
        video, split = row["video_id"], row["split"].lower()
        if not video or split not in SPLITS:
            raise UserError(f"{path}: line {line} has the video {video!r} in the split {split!r}; use train, valid or test")
        if folds.setdefault(video, SPLITS[split]) != SPLITS[split]:
            raise UserError(f"{path}: line {line} gives the video {video} a second split")
    return folds
