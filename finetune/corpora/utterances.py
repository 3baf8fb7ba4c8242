"""A labelled utterance dataset (what `preprocessing/run.py` writes) as splits: its columns `split`, `label` and `label_T/_A/_V`."""

from pathlib import Path

import numpy as np

from finetune.corpora import checks
from finetune.corpora.splits import SPLIT_ALIASES, Findings, LabelledSplit
from lexicons.errors import UserError
from preprocessing.schema import DatasetInfo
from preprocessing.store import UtteranceDataset

UNIMODAL = ("label_T", "label_A", "label_V")


def read_utterances(folder: Path, findings: Findings) -> tuple[dict[str, LabelledSplit], DatasetInfo]:
    """The labelled rows of an utterance dataset by split; rows without a label or a split are counted and left out.

    Raises:
        UserError: the folder holds no dataset, or one without labelled rows or without splits.
    """
    data = UtteranceDataset(folder)
    names = [SPLIT_ALIASES.get(str(name).lower()) for name in data.column("split")]
    labels = np.asarray([np.nan if label is None else label for label in data.column("label")], np.float32)
    if not np.isfinite(labels).any():
        raise UserError(f"{folder}: has no labels (column `label`); fine-tuning needs a labelled dataset, this one is for pretraining")
    if not any(names):
        raise UserError(
            f"{folder}: names no splits (column `split`: train, valid, test); add them to the corpus's table and run preprocessing again"
        )
    unlabelled = int(np.sum(~np.isfinite(labels) & np.asarray([name is not None for name in names])))
    nowhere = int(np.sum(np.isfinite(labels) & np.asarray([name is None for name in names])))
    if unlabelled:
        findings.warn("label", "utterances without a label, left out", unlabelled)
    if nowhere:
        findings.warn("split", "labelled utterances of no split, left out", nowhere)
    splits: dict[str, LabelledSplit] = {}
    for name in ("train", "valid", "test"):
        places = [place for place, split in enumerate(names) if split == name and np.isfinite(labels[place])]
        if places:
            splits[name] = _read_split(data, places, name, findings)
    return splits, data.info


def _read_split(data: UtteranceDataset, places: list[int], name: str, findings: Findings) -> LabelledSplit:
    rows = [data[place] for place in places]
    features: dict[str, list[np.ndarray | None] | None] = {}
    for modality, info in (("audio", data.info.audio), ("vision", data.info.vision)):
        arrays = [getattr(row, modality) for row in rows]
        repaired = absent = 0
        for place, array in enumerate(arrays):
            valid = rows[place].vision_valid if modality == "vision" else None
            if array is not None and valid is not None:  # frames without a face say nothing; pretraining leaves them out as well
                array = array[np.asarray(valid, bool)]
            if array is None or not array.any():
                arrays[place], absent = None, absent + 1
                continue
            arrays[place] = array
            finite = np.isfinite(array)
            if not finite.all():
                repaired += int((~finite).sum())
                arrays[place] = np.where(finite, array, np.float32(0))
        features[modality] = arrays if info is not None else None
        if info is not None and absent:
            findings.note(f"{name}/{modality}", "utterances without it: absent there", absent)
        if repaired:
            findings.warn(f"{name}/{modality}", "values that are NaN or infinite, set to 0", repaired)
    texts = [row.text or "" for row in rows]
    empty = sum(not text.strip() for text in texts)
    if empty:
        findings.note(f"{name}/text", "empty transcripts", empty)
    unimodal: dict[str, np.ndarray] = {}
    for key in UNIMODAL:
        values = [getattr(row, key) for row in rows]
        if any(value is not None for value in values):
            known = [np.nan if value is None else value for value in values]
            unimodal[key] = checks.check_labels(known, key, name, str(data.folder), len(rows))
    return LabelledSplit(
        ids=[row.id for row in rows],
        video_ids=[row.video_id or row.id for row in rows],
        label=np.asarray([row.label for row in rows], np.float32),
        text=texts,
        audio=features["audio"],
        vision=features["vision"],
        **unimodal,
    )
