"""The three forms of labelled corpora: MMSA's pickles, SKESL's pickles, and utterance datasets of preprocessing.

MMSA (https://github.com/thuiar/MMSA) distributes MOSI, MOSEI and CH-SIMS as `{"train": {...}, "valid": {...}, "test": {...}}`; SKESL uses
the same splits with `raw_text`, `audio` [N, 400, 33], `video` [N, 55, 709] and `labels`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from finetune.corpora import checks
from finetune.corpora.cached import FrameSink
from finetune.corpora.checks import FeatureColumn
from finetune.corpora.mapped_file import MappedFrames
from finetune.corpora.splits import Findings, FrameSequence, LabelledSplit
from preprocessing.layouts import SPLITS
from preprocessing.store import UtteranceDataset
from skesl_mug.errors import UserError


@dataclass(frozen=True)
class KeyNames:
    """The keys of the columns in one kind of pickle (default: MMSA)."""

    label: str = "regression_labels"
    text: str = "raw_text"
    audio: str = "audio"
    vision: str = "vision"
    unimodal: dict[str, str] = field(
        default_factory=lambda: {f"label_{letter}": f"regression_labels_{letter}" for letter in ("T", "A", "V")}
    )


@dataclass
class Reading:
    """What reading a pickle needs besides its content: its name for messages, where features and findings go, and options."""

    file: str
    sink: FrameSink
    findings: Findings
    keys: KeyNames = field(default_factory=KeyNames)
    text_bert: bool = False


def read_mmsa(content: Mapping[str, Any], reading: Reading) -> dict[str, LabelledSplit]:
    """The splits of a pickle by the names "train", "valid" and "test", without empty ones.

    Raises:
        UserError: a key is missing or an array has the wrong shape; the message names the key and the split.
    """
    file, findings = reading.file, reading.findings
    splits: dict[str, LabelledSplit] = {}
    for raw_name, entries in content.items():
        name = SPLITS.get(str(raw_name).lower())
        if name is None:
            findings.note(str(raw_name)[:40], "an entry that is not a split, ignored", 1)
            continue
        if name in splits:
            raise UserError(f"{file}: has two splits named `{name}`; rename or remove one")
        if not isinstance(entries, dict):
            raise UserError(f"{file}: split `{raw_name}` is a {type(entries).__name__}, not a dictionary of columns")
        split = read_split(entries, name, reading)
        if len(split):
            splits[name] = split
        else:
            findings.warn(name, "an empty split, dropped", 0)
    _check_same_keys(splits, reading.keys, file)
    return splits


def read_split(entries: Mapping[str, Any], name: str, reading: Reading) -> LabelledSplit:
    """One split of a pickle. Transcripts are read, to be tokenised for the run's own language model; with `reading.text_bert`, also the
    token ids of `text_bert`. The states of another language model (`text`) are ignored.

    Raises:
        UserError: the labels are missing, or a column has the wrong length or shape.
    """
    file, keys, findings = reading.file, reading.keys, reading.findings
    if keys.label not in entries:
        there = ", ".join(sorted(f"`{key}`" for key in entries)) or "nothing"
        raise UserError(f"{file}: split `{name}` has no `{keys.label}` (there is {there}); use a file with labels")
    label = checks.check_labels(entries[keys.label], keys.label, name, file, None)
    count = len(label)
    ids, video_ids = _read_ids(entries.get("id"), name, file, count, findings)
    features: dict[str, MappedFrames | None] = {}
    for modality, key in (("audio", keys.audio), ("vision", keys.vision)):
        if entries.get(key) is None or not count:
            features[modality] = None
            continue
        column = FeatureColumn(entries[key], key, name, file, count)
        spans = checks.real_frames(column, entries.get(f"{key}_lengths"), findings)
        features[modality] = reading.sink.write(name, modality, column.cut(spans))
    tokens = read_text_bert(entries.get("text_bert"), name, file, count) if reading.text_bert else None
    unimodal = _read_unimodal(entries, name, file, keys, count)
    split = LabelledSplit(
        ids=ids,
        video_ids=video_ids,
        label=label,
        text=_read_text(entries, name, reading, count) or ([""] * count if tokens else None),
        tokens=tokens,
        audio=features["audio"],
        vision=features["vision"],
        label_T=unimodal.get("label_T"),
        label_A=unimodal.get("label_A"),
        label_V=unimodal.get("label_V"),
    )
    checks.check_annotations(_sequence(entries.get("annotations")), label, name, file, findings)
    return checks.drop_unlabelled(split, name, findings)


def _read_unimodal(entries: Mapping[str, Any], name: str, file: str, keys: KeyNames, count: int) -> dict[str, np.ndarray]:
    """The unimodal labels, except columns without a single known label."""
    columns = {
        mine: checks.check_labels(entries[theirs], theirs, name, file, count)
        for mine, theirs in keys.unimodal.items()
        if entries.get(theirs) is not None
    }
    return {mine: labels for mine, labels in columns.items() if np.isfinite(labels).any()}


def read_text_bert(values: Any, name: str, file: str, count: int) -> list[list[int]]:
    """MMSA's `text_bert` [N, 3, L] (token ids, mask, segment ids) as token ids of each sample, without padding.

    Raises:
        UserError: it is missing or has another shape.
    """
    if values is None:
        raise UserError(f"{file}: split `{name}` has no `text_bert`; without --text-bert, its transcripts are used")
    rows: np.ndarray = values if isinstance(values, np.ndarray) and values.dtype.kind in "iuf" else np.zeros(0)
    if rows.ndim != 3 or rows.shape[:2] != (count, 3):
        raise UserError(f"{file}: `text_bert` of split `{name}` has shape {list(np.shape(values))}, not [{count}, 3, L]")
    return [[int(token) for token, real in zip(row[0], row[1], strict=True) if real > 0] for row in rows]


def _read_ids(values: Any, name: str, file: str, count: int, findings: Findings) -> tuple[list[str], list[str]]:
    """Sample ids "video$_$clip" and their videos; other known forms are "video/clip" and [video, start, end]."""
    rows = _sequence(values)
    if rows is None:
        findings.note(f"{name}/id", "samples without ids: each is treated as a video of its own", count)
        made = [f"{name}$_${place}" for place in range(count)]
        return made, list(made)
    if len(rows) != count:
        raise UserError(f"{file}: `id` of split `{name}` has {len(rows)} entries, but there are {count} labels")
    ids = []
    for row in rows:
        parts = [_text(part) for part in row] if isinstance(row, (list, tuple, np.ndarray)) and np.ndim(row) else [_text(row)]
        ids.append("$_$".join(parts))
    videos = []
    for sample_id in ids:
        separator = next((mark for mark in ("$_$", "/") if mark in sample_id), None)
        videos.append(sample_id.split(separator)[0] if separator else f"{name}$_${sample_id}")
    if not any(mark in sample_id for sample_id in ids for mark in ("$_$", "/")):
        findings.note(f"{name}/id", "ids without a video: each sample is treated as a video of its own", count)
    return ids, videos


def _read_text(entries: Mapping[str, Any], name: str, reading: Reading, count: int) -> list[str] | None:
    file, keys, findings = reading.file, reading.keys, reading.findings
    rows = _sequence(entries.get(keys.text))
    if rows is None:
        if not reading.text_bert and (entries.get("text_bert") is not None or entries.get("text") is not None):
            findings.warn(
                f"{name}/{keys.text}",
                "no transcripts: text is treated as missing (`text_bert` needs --text-bert)",
                count,
            )
        return None
    if len(rows) != count:
        raise UserError(f"{file}: `{keys.text}` of split `{name}` has {len(rows)} transcripts, but there are {count} labels")
    texts = [_text(row[0] if isinstance(row, (list, tuple, np.ndarray)) and np.size(row) == 1 and np.ndim(row) else row) for row in rows]
    empty = sum(not text.strip() for text in texts)
    if empty:
        findings.note(f"{name}/{keys.text}", "empty transcripts", empty)
    return texts


def _sequence(values: Any) -> Sequence[Any] | None:
    """The values if they are a sequence."""
    listed = isinstance(values, (list, tuple)) or (isinstance(values, np.ndarray) and values.ndim > 0)
    return values if listed else None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return "" if value is None else str(value)


def _check_same_keys(splits: Mapping[str, LabelledSplit], keys: KeyNames, file: str) -> None:
    """Check that a modality is in all splits or in none, with the same width."""
    for modality, key in (("text", keys.text), ("audio", keys.audio), ("vision", keys.vision)):
        present = [name for name, split in splits.items() if getattr(split, modality) is not None]
        missing = [name for name in splits if name not in present]
        if present and missing:
            raise UserError(f"{file}: split `{missing[0]}` has no `{key}`, but `{present[0]}` has; add it, or remove it from all splits")
    for modality, key in (("audio", keys.audio), ("vision", keys.vision)):
        widths = {name: width_of(getattr(split, modality)) for name, split in splits.items()}
        known = {name: width for name, width in widths.items() if width}
        if len(set(known.values())) > 1:
            shown = ", ".join(f"{width} in `{name}`" for name, width in known.items())
            raise UserError(f"{file}: `{key}` has different widths: {shown}; all splits need features of the same extractor")


def width_of(arrays: FrameSequence | None) -> int:
    """The number of feature columns, 0 if all samples lack them."""
    if isinstance(arrays, MappedFrames):
        return arrays.width if arrays.lengths.any() else 0
    return next((int(array.shape[1]) for array in arrays or () if array is not None), 0)


KEYS = KeyNames(label="labels", vision="video", unimodal={f"label_{letter}": f"labels_{letter}" for letter in ("T", "A", "V")})


def is_skesl(content: Mapping[str, Any]) -> bool:
    """Whether a pickle is in SKESL's form, not MMSA's."""
    parts = [entries for entries in content.values() if isinstance(entries, dict)]
    return any("labels" in entries or "video" in entries for entries in parts) and not any(
        "regression_labels" in entries for entries in parts
    )


def read_skesl(content: Mapping[str, Any], reading: Reading) -> dict[str, LabelledSplit]:
    """The splits of a SKESL pickle; see `read_mmsa`."""
    return read_mmsa(content, replace(reading, keys=KEYS))


def check_not_unlabelled(content: Mapping[str, Any], file: str) -> None:
    """Check that a pickle is not SKESL's unlabelled one, which has no splits.

    Raises:
        UserError: it is.
    """
    if "raw_text" in content and ("video" in content or "vision" in content or "audio" in content):
        raise UserError(f"{file}: is SKESL's unlabelled pickle, for pretraining; fine-tuning needs labels")


UNIMODAL = ("label_T", "label_A", "label_V")


def read_utterances(folder: Path, sink: FrameSink, findings: Findings) -> dict[str, LabelledSplit]:
    """The labelled rows of an utterance dataset (from `preprocessing/run.py`) by split; others are counted and dropped.

    Raises:
        UserError: the folder is not a dataset, or its rows have no labels or no splits.
    """
    data = UtteranceDataset(folder)
    names = [SPLITS.get(str(name).lower()) for name in data.column("split")]
    labels = np.asarray([np.nan if label is None else label for label in data.column("label")], np.float32)
    if not np.isfinite(labels).any():
        raise UserError(f"{folder}: has no labels (column `label`), so it can only be used for pretraining; choose a labelled dataset")
    if not any(names):
        raise UserError(
            f"{folder}: has no splits (column `split`: train, valid, test); add them to the table of the corpus and run preprocessing again"
        )
    unlabelled = int(np.sum(~np.isfinite(labels) & np.asarray([name is not None for name in names])))
    without_split = int(np.sum(np.isfinite(labels) & np.asarray([name is None for name in names])))
    if unlabelled:
        findings.warn("label", "utterances without a label, dropped", unlabelled)
    if without_split:
        findings.warn("split", "labelled utterances without a split, dropped", without_split)
    _check_speakers(data, names, findings)
    splits: dict[str, LabelledSplit] = {}
    for name in ("train", "valid", "test"):
        places = [place for place, split in enumerate(names) if split == name and np.isfinite(labels[place])]
        if places:
            splits[name] = _read_split(data, places, name, sink, findings)
    return splits


def _check_speakers(data: UtteranceDataset, names: Sequence[str | None], findings: Findings) -> None:
    """Count the speakers in two splits, where the dataset knows more of speakers than the video or the clip."""
    splits: dict[str, set[str]] = defaultdict(set)
    for speaker, video, own, name in zip(*(data.column(key) for key in ("speaker", "video_id", "id")), names, strict=True):
        if speaker and speaker not in (video, own) and name is not None:
            splits[speaker].add(name)
    shared = sum(len(found) > 1 for found in splits.values())
    if shared:
        findings.warn("speaker", "speakers in more than one split: scores for new people may be lower", shared)


def _read_split(data: UtteranceDataset, places: list[int], name: str, sink: FrameSink, findings: Findings) -> LabelledSplit:
    features: dict[str, MappedFrames | None] = {"audio": None, "vision": None}
    for modality, info in (("audio", data.info.audio), ("vision", data.info.vision)):
        if info is not None:
            features[modality] = _read_features(data, places, name, modality, sink, findings)
    columns = {key: data.column(key) for key in ("id", "video_id", "text", "label", *UNIMODAL)}
    rows = {key: [values[place] for place in places] for key, values in columns.items()}
    texts = [text or "" for text in rows["text"]]
    empty = sum(not text.strip() for text in texts)
    if empty:
        findings.note(f"{name}/text", "empty transcripts", empty)
    unimodal: dict[str, np.ndarray] = {}
    for key in UNIMODAL:
        values = rows[key]
        if any(value is not None for value in values):
            known = [np.nan if value is None else value for value in values]
            unimodal[key] = checks.check_labels(known, key, name, str(data.folder), len(places))
    return LabelledSplit(
        ids=rows["id"],
        video_ids=[video or own for video, own in zip(rows["video_id"], rows["id"], strict=True)],
        label=np.asarray(rows["label"], np.float32),
        text=texts,
        audio=features["audio"],
        vision=features["vision"],
        label_T=unimodal.get("label_T"),
        label_A=unimodal.get("label_A"),
        label_V=unimodal.get("label_V"),
    )


def _read_features(
    data: UtteranceDataset, places: list[int], name: str, modality: str, sink: FrameSink, findings: Findings
) -> MappedFrames:
    """One modality of a split, without frames that have no face, as in pretraining."""
    repaired = absent = 0
    with sink.writer(name, modality) as writer:
        for place in places:
            row = data[place]
            array = getattr(row, modality)
            if array is not None and modality == "vision" and row.vision_valid is not None:
                array = array[np.asarray(row.vision_valid, bool)]
            if array is None or not array.any():
                absent += 1
                writer.append(None)
                continue
            finite = np.isfinite(array)
            if not finite.all():
                repaired += int((~finite).sum())
                array = np.where(finite, array, np.float32(0))
            writer.append(array)
        frames = writer.frames()
    if absent:
        findings.note(f"{name}/{modality}", "utterances that lack it", absent)
    if repaired:
        findings.warn(f"{name}/{modality}", "values that are NaN or infinite, replaced with 0", repaired)
    return frames
