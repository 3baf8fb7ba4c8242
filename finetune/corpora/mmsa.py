"""MMSA's feature pickles (MOSI, MOSEI, CH-SIMS; https://github.com/thuiar/MMSA): `{"train": {...}, "valid": {...}, "test": {...}}`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from finetune.corpora import checks
from finetune.corpora.splits import SPLIT_ALIASES, Findings, LabelledSplit
from lexicons.errors import UserError


@dataclass(frozen=True)
class KeyNames:
    """Under which keys a family of pickles keeps its columns."""

    label: str = "regression_labels"
    text: str = "raw_text"
    audio: str = "audio"
    vision: str = "vision"
    unimodal: dict[str, str] = field(
        default_factory=lambda: {f"label_{letter}": f"regression_labels_{letter}" for letter in ("T", "A", "V")}
    )


def read_mmsa(content: Mapping[str, Any], file: str, findings: Findings, keys: KeyNames | None = None) -> dict[str, LabelledSplit]:
    """The splits of a pickle's content by the names "train", "valid" and "test"; empty ones are left out.

    Raises:
        UserError: a key is missing or an array has the wrong shape; the message names both key and split.
    """
    keys = keys or KeyNames()
    splits: dict[str, LabelledSplit] = {}
    for raw_name, entries in content.items():
        name = SPLIT_ALIASES.get(str(raw_name).lower())
        if name is None:
            findings.note(str(raw_name)[:40], "an entry that is no split, not read", 1)
            continue
        if name in splits:
            raise UserError(f"{file}: has two splits for `{name}`; rename or remove one")
        if not isinstance(entries, dict):
            raise UserError(f"{file}: split `{raw_name}` is a {type(entries).__name__}, not a dictionary of columns")
        split = read_split(entries, name, file, keys, findings)
        if len(split):
            splits[name] = split
        else:
            findings.warn(name, "an empty split, left out", 0)
    _check_same_keys(splits, keys, file)
    return splits


def read_split(entries: Mapping[str, Any], name: str, file: str, keys: KeyNames, findings: Findings) -> LabelledSplit:
    """One split of such a pickle; `text` and `text_bert` are not read: the toolkit tokenises the transcripts for its own LM.

    Raises:
        UserError: the labels are missing, or a column has another length or shape.
    """
    if keys.label not in entries:
        there = ", ".join(sorted(f"`{key}`" for key in entries)) or "nothing"
        raise UserError(f"{file}: split `{name}` has no `{keys.label}` (there is {there}); use a file with labels")
    label = checks.check_labels(entries[keys.label], keys.label, name, file, None)
    count = len(label)
    ids, video_ids = _read_ids(entries.get("id"), name, file, count, findings)
    features: dict[str, list[np.ndarray | None] | None] = {}
    for modality, key in (("audio", keys.audio), ("vision", keys.vision)):
        if entries.get(key) is None or not count:
            features[modality] = None
            continue
        arrays = checks.check_features(entries[key], key, name, file, count, findings)
        features[modality] = checks.real_frames(arrays, entries.get(f"{key}_lengths"), key, name, file, findings)
    split = LabelledSplit(
        ids=ids,
        video_ids=video_ids,
        label=label,
        text=_read_text(entries, name, file, keys, count, findings),
        audio=features["audio"],
        vision=features["vision"],
        **{
            mine: checks.check_labels(entries[theirs], theirs, name, file, count)
            for mine, theirs in keys.unimodal.items()
            if entries.get(theirs) is not None
        },
    )
    checks.check_annotations(_sequence(entries.get("annotations")), label, name, file, findings)
    return checks.drop_unlabelled(split, name, findings)


def _read_ids(values: Any, name: str, file: str, count: int, findings: Findings) -> tuple[list[str], list[str]]:
    """Sample ids "video$_$clip" and the videos in them; other known forms are "video/clip" and [video, start, end]."""
    rows = _sequence(values)
    if rows is None:
        findings.note(f"{name}/id", "samples without ids: each counts as a video of its own", count)
        made = [f"{name}$_${place}" for place in range(count)]
        return made, list(made)
    if len(rows) != count:
        raise UserError(f"{file}: `id` of split `{name}` holds {len(rows)} entries, but there are {count} labels")
    ids = []
    for row in rows:
        parts = [_text(part) for part in row] if isinstance(row, (list, tuple, np.ndarray)) and np.ndim(row) else [_text(row)]
        ids.append("$_$".join(parts))
    videos = []
    for sample_id in ids:
        separator = next((mark for mark in ("$_$", "/") if mark in sample_id), None)
        videos.append(sample_id.split(separator)[0] if separator else f"{name}$_${sample_id}")
    if not any(mark in sample_id for sample_id in ids for mark in ("$_$", "/")):
        findings.note(f"{name}/id", "ids that name no video: each sample counts as a video of its own", count)
    return ids, videos


def _read_text(entries: Mapping[str, Any], name: str, file: str, keys: KeyNames, count: int, findings: Findings) -> list[str] | None:
    rows = _sequence(entries.get(keys.text))
    if rows is None:
        if entries.get("text_bert") is not None or entries.get("text") is not None:
            findings.warn(f"{name}/{keys.text}", "no transcripts: text counts as absent (`text` and `text_bert` are not read)", count)
        return None
    if len(rows) != count:
        raise UserError(f"{file}: `{keys.text}` of split `{name}` holds {len(rows)} transcripts, but there are {count} labels")
    texts = [_text(row[0] if isinstance(row, (list, tuple, np.ndarray)) and np.size(row) == 1 and np.ndim(row) else row) for row in rows]
    empty = sum(not text.strip() for text in texts)
    if empty:
        findings.note(f"{name}/{keys.text}", "empty transcripts", empty)
    return texts if empty < count else None


def _sequence(values: Any) -> Sequence[Any] | None:
    """The values if they are a sequence with an entry a sample."""
    listed = isinstance(values, (list, tuple)) or (isinstance(values, np.ndarray) and values.ndim > 0)
    return values if listed else None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return "" if value is None else str(value)


def _check_same_keys(splits: Mapping[str, LabelledSplit], keys: KeyNames, file: str) -> None:
    """A modality is in every split or in none; its width is one."""
    for modality, key in (("text", keys.text), ("audio", keys.audio), ("vision", keys.vision)):
        having = [name for name, split in splits.items() if getattr(split, modality) is not None]
        lacking = [name for name in splits if name not in having]
        if having and lacking:
            raise UserError(f"{file}: split `{lacking[0]}` has no `{key}`, but `{having[0]}` has; add it, or remove it from every split")
    for modality, key in (("audio", keys.audio), ("vision", keys.vision)):
        widths = {name: width_of(getattr(split, modality)) for name, split in splits.items()}
        known = {name: width for name, width in widths.items() if width}
        if len(set(known.values())) > 1:
            shown = ", ".join(f"{width} in `{name}`" for name, width in known.items())
            raise UserError(f"{file}: `{key}` has different widths: {shown}; every split must come from the same extractor")


def width_of(arrays: Sequence[np.ndarray | None] | None) -> int:
    """The number of columns of some samples' features, 0 where all are absent."""
    return next((int(array.shape[1]) for array in arrays or () if array is not None), 0)
