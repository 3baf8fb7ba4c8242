"""Labelled utterance datasets, as `skesl-mug preprocess` writes them."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from finetune.corpora import checks
from finetune.corpora.cached import FrameSink
from finetune.corpora.context import numbers_in
from finetune.corpora.mapped_file import MappedFrames
from finetune.corpora.splits import Findings, LabelledSplit, Turn
from preprocessing.layouts import SPLITS
from preprocessing.store import UtteranceDataset
from skesl_mug.errors import UserError
from skesl_mug.transcripts import read_transcripts

UNIMODAL = ("label_T", "label_A", "label_V")


def read_utterances(folder: Path, sink: FrameSink, findings: Findings) -> dict[str, LabelledSplit]:
    """The labelled rows of an utterance dataset (from `skesl-mug preprocess`) by split; others are counted and dropped.

    Raises:
        UserError: the folder is not a dataset, or its rows have no labels or no splits.
    """
    data = UtteranceDataset(folder)
    labels, names = labels_and_splits(data)
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
    turns, texts = turns_of(data), read_transcripts(data.column("text"))[0]
    for name in ("train", "valid", "test"):
        places = [place for place, split in enumerate(names) if split == name and np.isfinite(labels[place])]
        rest = [place for place, split in enumerate(names) if split == name and not np.isfinite(labels[place])]
        if places:
            splits[name] = _read_split(data, places, name, sink, findings)
            splits[name].turns = [turns[place] for place in places]
            splits[name].unlabelled = [(turns[place], texts[place]) for place in rest]
    return splits


def labels_and_splits(data: UtteranceDataset) -> tuple[np.ndarray, list[str | None]]:
    """The label of each row [N] float32, NaN if it has none, and its split: train, valid, test or None."""
    labels = np.asarray([np.nan if label is None else label for label in data.column("label")], np.float32)
    return labels, [SPLITS.get(str(name).lower()) for name in data.column("split")]


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
    texts, counts = read_transcripts(rows["text"])
    for what, number in counts.items():
        findings.note(f"{name}/text", what, number)
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


def turns_of(data: UtteranceDataset) -> list[Turn]:
    """Where each utterance is in its video, by start, and by the clip's number where each clip is a file; the channels of a recording
    (`CLIP#left`) are recordings of their own."""
    found = []
    for own, video, start in zip(*(data.column(key) for key in ("id", "video_id", "start")), strict=True):
        name, channel = (match[1], match[2]) if (match := re.fullmatch(r"(.*)(#[a-z0-9]+)", own)) else (own, "")
        clip = name.rpartition("/")[2].removeprefix(video or "")
        found.append(Turn((video or name) + channel, (float(start or 0.0), *numbers_in(clip))))
    return found


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
            if array is not None:
                array, count = checks.finite_only(array)
                repaired += count
            if array is None or not array.any():  # after the repair: frames of NaN alone are not features
                absent += 1
                array = None
            writer.append(array)
        frames = writer.frames()
    if absent:
        findings.note(f"{name}/{modality}", "utterances that lack it", absent)
    if repaired:
        findings.warn(f"{name}/{modality}", "values that are NaN or infinite, replaced with 0", repaired)
    return frames
