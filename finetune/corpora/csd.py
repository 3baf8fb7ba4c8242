"""CMU-MultimodalSDK's computational sequences: a folder of `.csd` files, or one HDF5 file that holds several.

A sequence is `ROOT/data/KEY/features` [T, D] and `intervals` [T, 2] in seconds, where KEY is a video, or `VIDEO[SEGMENT]` after the SDK's
alignment to the labels. Sequences of videos are cut at the segments of the labels, as the SDK does without a collapse function.

Source: https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK (MIT), `mmdatasdk/dataset/dataset.py`, `align`.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from finetune.corpora.cached import FOLD_SUFFIXES, entries_of
from finetune.corpora.context import numbers_in
from finetune.corpora.mapped_file import most_unpacked
from finetune.corpora.readers import Columns, Reading, read_columns
from finetune.corpora.splits import Findings, LabelledSplit
from preprocessing.layouts.labelled import read_folds, standard_folds
from skesl_mug.errors import UserError
from skesl_mug.transcripts import join_words

COVERED = 0.5
"""Share of the videos that a standard list of folds must contain to be the corpus's; the others are dropped and counted."""
LEAD = 1.25
"""It must contain so many times as many as any other list: 459 of POM's 903 videos are MOSEI's too."""
LONGEST_NAMES = 1 << 20
"""Bytes of a fixed-width text with the names of columns."""
EPSILON = 1e-5
"""Seconds by which intervals have to overlap, as in the SDK."""
LABELS, WORDS, VECTORS, AUDIO, VISION = "labels", "words", "text", "audio", "vision"
ROLES = {
    LABELS: r"label|opinion|sentiment",
    VECTORS: r"glove|word|bert|vector|embed|text|language",
    AUDIO: r"covarep|smile|acoust|audio|voice|speech|egemaps|librosa|mfcc|wav",
    VISION: r"facet|face|vis|video|mesh|image|resnet",
}
"""What a sequence is, by its name: the first pattern that is found."""
PREFERRED = re.compile(r"covarep|facet[ _]?4\.?2")
"""Of several sequences of one modality, those that the field's results are based on."""
EMOTIONS = 7
"""Columns of MOSEI's labels; the first one is sentiment."""


class Segment(NamedTuple):
    """One utterance: segment `number` of a video, in seconds."""

    video: str
    number: str
    start: float
    end: float
    label: float

    @property
    def key(self) -> str:
        """Its key in aligned sequences."""
        return f"{self.video}[{self.number}]"


@dataclass(frozen=True)
class CompSequence:
    """A computational sequence: its name, its file, its group `data` and the names of its columns."""

    name: str
    path: Path
    data: Any
    columns: Sequence[str]

    @cached_property
    def keys(self) -> frozenset[str]:
        """Videos, or segments of videos."""
        return frozenset(self.data)

    @cached_property
    def width(self) -> int:
        """Columns of its features."""
        first = self.data[next(iter(self.data))]["features"]
        return int(first.shape[1]) if first.ndim == 2 else 1

    @cached_property
    def role(self) -> str | None:
        """What it holds; None if neither its content nor its name says so."""
        first = self.data[next(iter(self.data))]["features"]
        if first.dtype.kind in "SOU":
            return None if "phon" in f"{self.name} {self.path.stem}".lower() else WORDS
        names = (self.name.lower(), self.path.stem.lower())
        return next((role for name in names for role, pattern in ROLES.items() if re.search(pattern, name)), None)

    def read(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Features [T, D] and intervals [T, 2] of a video or a segment.

        Raises:
            UserError: they are damaged, or their numbers differ.
        """
        try:
            stored = self.data[key]["features"], self.data[key]["intervals"]
            size, most = sum(part.nbytes for part in stored), most_unpacked(self.path.stat().st_size)
            if size > most:
                raise UserError(f"{self.path}: `{key}` of {self.name} claims {size:,} bytes, too many for this file; download it again")
            features, intervals = np.asarray(stored[0]), np.asarray(stored[1], float)
        except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{self.path}: `{key}` of {self.name} cannot be read ({error}); download the file again") from error
        features = features[:, None] if features.ndim == 1 else features
        if features.ndim != 2 or intervals.shape != (len(features), 2):
            shapes = f"features {list(features.shape)} and intervals {list(intervals.shape)}"
            raise UserError(f"{self.path}: `{key}` of {self.name} has {shapes}, not [T, D] and [T, 2]")
        return features, intervals


class Cuts(Sequence[np.ndarray]):
    """The features of a sequence in each segment, [T, D]; [0, D] where there are none. One video is held in memory at a time."""

    def __init__(self, sequence: CompSequence, segments: Sequence[Segment]):
        self.sequence, self.segments = sequence, segments
        self._key, self._read = "", (np.zeros((0, 0)), np.zeros((0, 2)))

    def __len__(self) -> int:
        return len(self.segments)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]  # slices are not supported
        segment, known = self.segments[index], self.sequence.keys
        if segment.key in known:
            return self._of(segment.key)[0]
        if segment.video not in known:
            return np.zeros((0, self.sequence.width), np.float32)
        features, intervals = self._of(segment.video)
        if self.sequence.role == WORDS:  # a word at the border belongs to one segment
            middle = intervals.mean(1)
            inside = (middle >= segment.start) & (middle < segment.end)
        else:
            inside = (intervals[:, 1] - segment.start > EPSILON) & (segment.end - intervals[:, 0] > EPSILON)
        cut: np.ndarray = features[inside]
        return cut

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

    def _of(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        if key != self._key:
            self._key, self._read = key, self.sequence.read(key)
        return self._read


def read_sequences(path: Path, files: Sequence[Path], reading: Reading) -> dict[str, LabelledSplit]:
    """The splits of a corpus of computational sequences; `files` are its `sequence_files`.

    Raises:
        UserError: h5py is not installed, a file is damaged, or there are no labels or folds.
    """
    try:
        import h5py
    except ImportError as error:
        raise UserError(f"{path}: computational sequences need h5py; `pip install h5py` (extra `csd`)") from error
    try:
        return _read(path, files, h5py, reading)
    except UserError:
        raise
    except Exception as error:  # whatever h5py raises for a damaged file
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
        raise UserError(f"{path}: a sequence is damaged ({reason}); download the files again") from error


def _read(path: Path, files: Sequence[Path], h5py: Any, reading: Reading) -> dict[str, LabelledSplit]:
    lists = [file for file in files if file.suffix.lower() in FOLD_SUFFIXES]
    with ExitStack() as opened:
        sequences: list[CompSequence] = []
        for file in files[: len(files) - len(lists)]:
            try:
                content = opened.enter_context(h5py.File(file, "r"))
            except OSError as error:
                raise UserError(f"{file}: is not an HDF5 file, or damaged; download it again") from error
            sequences += _sequences(file, content, reading.findings)
        chosen = _choose(sequences, path, reading.findings)
        segments = list(_segments(chosen[LABELS], reading.findings))
        folds = _folds(path, lists, {segment.video for segment in segments}, reading.findings)
        unknown = [segment for segment in segments if segment.video not in folds]
        if unknown:
            reading.findings.warn("folds", "segments of videos that are in no fold, dropped", len(unknown))
        divided = {name: [segment for segment in segments if folds.get(segment.video) == name] for name in ("train", "valid", "test")}
        reading.places = {name: [(segment.start, *numbers_in(segment.number)) for segment in part] for name, part in divided.items()}
        parts = {name: _columns(part, chosen) for name, part in divided.items()}
        return read_columns({name: columns for name, columns in parts.items() if columns["id"]}, reading)


def _sequences(path: Path, content: Any, findings: Findings) -> Iterator[CompSequence]:
    for name, root in content.items():
        data = entries_of(root)
        if data is None:
            count = len(root) if hasattr(root, "keys") else 1
            findings.warn(f"{path.name}/{name}", "entries that are not a sequence (`data/VIDEO/features`): not used", count)
            continue
        yield CompSequence(name, path, data, _column_names(root))


def _column_names(root: Any) -> list[str]:
    """The metadata `dimension names`; empty if there is none."""
    try:
        stored = root["metadata"]["dimension names"]
        names = json.loads(stored[0]) if stored.shape == (1,) and stored.dtype.itemsize < LONGEST_NAMES else None
    except (KeyError, ValueError, TypeError, AttributeError, OSError):
        return []
    return [str(name).lower() for name in names] if isinstance(names, list) else []


def _choose(sequences: Iterable[CompSequence], path: Path, findings: Findings) -> dict[str, CompSequence]:
    """One sequence for each role; the others are findings."""
    chosen: dict[str, CompSequence] = {}
    for sequence in sorted(sequences, key=lambda one: (not PREFERRED.search(f"{one.name} {one.path.stem}".lower()), one.name)):
        where, role = f"{sequence.path.name}/{sequence.name}", sequence.role
        if role is None:
            what = "entries that are neither labels, words, audio nor vision by their name: not used; rename the file after its modality"
            findings.warn(where, what, len(sequence.keys))
        elif role in chosen:
            kept = f"{chosen[role].path.name}/{chosen[role].name}"
            findings.warn(
                where, f"entries not used, because {role} is read from {kept}; move that one away to use this", len(sequence.keys)
            )
        else:
            chosen[role] = sequence
    if LABELS not in chosen:
        found = ", ".join(sorted(sequence.name for sequence in sequences)) or "no sequence"
        what = "choose the folder of all .csd files" if path.is_file() else "put the corpus's labels (.csd) into the folder"
        raise UserError(f"{path}: has no sequence of labels (there is {found}); {what}")
    for role, sequence in chosen.items():
        used = "its vectors are not used, because there are words" if role == VECTORS and WORDS in chosen else f"read as {role}"
        findings.note(f"{sequence.path.name}/{sequence.name}", used, 1)
    return chosen


def _segments(labels: CompSequence, findings: Findings) -> Iterator[Segment]:
    """The labelled segments, in the order of their videos and times."""
    names = labels.columns
    column = names.index("sentiment") if len(names) == labels.width and "sentiment" in names else 0
    if labels.width not in (1, EMOTIONS) and "sentiment" not in names:
        raise UserError(f"{labels.path}: has {labels.width} labels without the name `sentiment`; keep the column of sentiment only")
    if labels.width > 1:
        findings.warn("label", f"columns of labels not used: column {column} is read as sentiment", labels.width - 1)
    for key in sorted(labels.keys, key=lambda key: (key.split("[")[0], [int(n) for n in re.findall(r"\[(\d+)\]$", key)])):
        features, intervals = labels.read(key)
        match = re.fullmatch(r"(.+)\[([^\[\]]+)\]", key)
        for place, (values, (start, end)) in enumerate(zip(features, intervals, strict=True)):
            video, number = (match[1], match[2]) if match else (key, str(place))
            if match and place:
                raise UserError(f"{labels.path}: segment `{key}` has {len(features)} labels, not one; align the labels to themselves")
            yield Segment(video, number, float(start), float(end), float(values[column]))


def _folds(path: Path, lists: Sequence[Path], videos: set[str], findings: Findings) -> Mapping[str, str]:
    """Video id -> split, from a list of folds in the folder, or else the standard one of the corpus."""
    if lists:
        findings.note("folds", f"read from {lists[0].name}", 1)
        return read_folds(lists[0])
    standard = standard_folds()
    covered = {corpus: len(videos & set(folds)) for corpus, folds in standard.items()}
    first, second, *_ = sorted(covered, key=lambda corpus: -covered[corpus])
    enough = covered[first] > COVERED * len(videos)
    if enough and covered[first] >= LEAD * covered[second]:
        findings.note("folds", f"the standard folds of {first.upper()}", 1)
        return standard[first]
    fault = (
        f"are in the standard folds of {first.upper()} ({covered[first]}) and of {second.upper()} ({covered[second]})"
        if enough
        else f"are not in the standard folds of {', '.join(map(str.upper, standard))}"
    )
    raise UserError(
        f"{path}: its {len(videos)} videos {fault}; put a folds.csv with video_id,split, or a file of folds of the SDK, into the folder"
    )


def _columns(segments: Sequence[Segment], chosen: Mapping[str, CompSequence]) -> Columns:
    columns: dict[str, Any] = {
        "id": [(segment.video, segment.number) for segment in segments],
        "labels": np.array([segment.label for segment in segments], np.float32),
    }
    for role, sequence in chosen.items():
        if role == WORDS:
            columns["raw_text"] = [join_words(words, f"{sequence.path}: {sequence.name}") for words in Cuts(sequence, segments)]
        elif role != LABELS:
            columns[role] = Cuts(sequence, segments)
    return columns
