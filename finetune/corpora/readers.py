"""Readers of labelled pickles: columns per split (MMSA, M-SENA, SKESL, MulT, MultiBench) and lists of examples (MAG-BERT).

A pickle of columns is `{"train": {...}, "valid": {...}, "test": {...}}`. The toolkits differ in the names of the columns only, which
`NAMES` lists; all other forms are converted to columns.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from finetune.corpora import checks
from finetune.corpora.cached import FEATURES, FrameSink
from finetune.corpora.checks import FeatureColumn
from finetune.corpora.column_kinds import are_numbers, are_texts, are_tokens, are_word_indices, as_sequence, plain_text
from finetune.corpora.context import turn_of, video_of
from finetune.corpora.mapped_file import MappedFrames
from finetune.corpora.splits import Findings, FrameSequence, LabelledSplit, Place, Turn
from preprocessing.layouts import SPLITS
from skesl_mug.errors import UserError
from skesl_mug.transcripts import is_listed, join_words, read_transcripts
from skesl_mug.wording import a_kind

NAMES: dict[str, tuple[str, ...]] = {
    "label": ("regression_labels", "labels", "label"),
    "transcripts": ("raw_text", "transcripts", "transcript"),
    "text_vectors": ("text", "feature_T"),
    "text_bert": ("text_bert",),
    "audio": ("audio", "acoustic", "feature_A"),
    "vision": ("vision", "video", "visual", "feature_V"),
    **{f"label_{letter}": tuple(f"{name}_{letter}" for name in ("regression_labels", "labels", "label")) for letter in ("T", "A", "V")},
}
"""The names of each column in the toolkits' pickles; the first one that a file has is read."""
NOT_NEEDED = {"id", "annotations", *(f"classification_labels{which}" for which in ("", "_T", "_A", "_V"))}
Columns = Mapping[str, Any]


@dataclass
class Reading:
    """What reading a file needs besides its content.

    Attributes:
        file: its name, for messages.
        sink: where features are written.
        findings: of the data checks.
        text_bert: whether to use the file's own token ids.
        keys: the name of each column of `NAMES` in this file.
        vectors: whether text is read from the vectors, because there are no transcripts.
        ids: the sample ids of each split that has some.
        places: where each sample is in its video by split, if it is known from elsewhere than the ids.
        texts: the transcripts of each split that has some, and what is said about them.
        numbered: whether `video_3` is the third clip of a video.
    """

    file: str
    sink: FrameSink
    findings: Findings
    text_bert: bool = False
    keys: dict[str, str] = field(default_factory=dict)
    vectors: bool = False
    ids: dict[str, list[str]] = field(default_factory=dict)
    places: dict[str, list[Place]] = field(default_factory=dict)
    texts: dict[str, tuple[list[str], Counter[str]]] = field(default_factory=dict)
    numbered: bool = False


def read_pickle(content: Mapping[Any, Any], reading: Reading) -> dict[str, LabelledSplit]:
    """The splits of a pickle of columns or examples by the names "train", "valid" and "test", without empty ones.

    Raises:
        UserError: a key is missing or an array has the wrong shape; the message names the key and the split.
    """
    file, findings = reading.file, reading.findings
    parts: dict[str, Columns] = {}
    for raw_name, entries in content.items():
        name = SPLITS.get(plain_text(raw_name).lower())
        if name is None:
            findings.note(plain_text(raw_name)[:40], "an entry that is not a split, ignored", 1)
            continue
        if name in parts:
            raise UserError(f"{file}: has two splits named `{name}`; rename or remove one")
        entries = entries.tolist() if isinstance(entries, np.ndarray) and entries.dtype == object else entries
        if isinstance(entries, dict):
            parts[name] = {plain_text(key): values for key, values in entries.items()}
        elif _are_examples(entries):
            parts[name] = _columns_of_examples(entries, name, reading)
        else:
            raise UserError(f"{file}: split `{plain_text(raw_name)}` is {a_kind(entries)}, not a dictionary of columns")
    if not parts:
        there = ", ".join(f"`{plain_text(key)[:40]}`" for key in list(content)[:8]) or "nothing"
        raise UserError(
            f"{file}: has no splits `train`, `valid` and `test` (there is {there}); put its columns into a dictionary for each split"
        )
    return read_columns(parts, reading)


def read_columns(parts: Mapping[str, Columns], reading: Reading) -> dict[str, LabelledSplit]:
    """The splits of columns by name, without empty ones; see `read_pickle`."""
    for name, entries in parts.items():
        if (rows := as_sequence(entries.get("id"))) is not None:
            reading.ids[name] = [_sample_id(row, f"{reading.file}: `id` of split `{name}`") for row in rows]
    reading.numbered = _are_numbered(reading.ids.values())
    reading.keys, reading.vectors = _choose_names(parts, reading)
    splits: dict[str, LabelledSplit] = {}
    for name, entries in parts.items():
        split = read_split(entries, name, reading)
        if len(split):
            splits[name] = split
        else:
            reading.findings.warn(name, "an empty split, dropped", 0)
    _check_same_keys(splits, reading)
    if reading.vectors and any(width_of(split.text_vectors) for split in splits.values()):
        what = "samples with text vectors instead of transcripts: its unimodal network reads them, and the language model is not used"
        tokens = reading.keys["text_bert"]
        if any(part.get(tokens) is not None for part in parts.values()):
            what += f"; --text-bert uses the token ids of `{tokens}` instead"
        reading.findings.note("text", what, sum(len(split) for split in splits.values()))
    return splits


def _choose_names(parts: Mapping[str, Columns], reading: Reading) -> tuple[dict[str, str], bool]:
    """The name of each column in this file, and whether text is read from vectors; every key that is not used is a finding."""
    present: dict[str, Any] = {}
    for part in parts.values():
        present |= {key: values for key, values in part.items() if values is not None and (as_sequence(values) is None or len(values))}
    keys = {role: next((name for name in names if name in present), names[0]) for role, names in NAMES.items()}
    text = present.get(keys["text_vectors"])
    if keys["transcripts"] not in present and are_texts(text):
        keys["transcripts"], keys["text_vectors"] = keys["text_vectors"], ""
    elif keys["text_bert"] not in present and are_tokens(text):
        keys["text_bert"], keys["text_vectors"] = keys["text_vectors"], ""
    known = {*keys.values(), *NOT_NEEDED, *(f"{keys[role]}_lengths" for role in FEATURES)}
    for key in sorted(set(present) - known):
        rival = next((keys[role] for role, names in NAMES.items() if key in names), None)
        sizes = " x ".join(map(str, np.shape(present[key])[1:])) if isinstance(present[key], np.ndarray) else ""
        if rival:
            what = f"samples not used, because `{rival}` is"
        else:
            what = "samples of a key that is not understood: not used" + (f" ({sizes} each)" if sizes else "")
        count = sum(len(rows) for part in parts.values() if (rows := as_sequence(part.get(key))) is not None)
        reading.findings.warn(f"all splits/{key}", what, count)
    for name, part in parts.items():
        if (rows := as_sequence(part.get(keys["transcripts"]))) is not None:
            reading.texts[name] = read_transcripts(rows, f"{reading.file}: `{keys['transcripts']}` of split `{name}`")
    spoken = any(text.strip() for texts, _ in reading.texts.values() for text in texts)
    vectors = bool(keys["text_vectors"] in present and not spoken and not reading.text_bert)
    if vectors and are_word_indices(text):
        what = f"word indices without a vocabulary: text is treated as missing; add `{NAMES['transcripts'][0]}`"
        reading.findings.warn(f"all splits/{keys['text_vectors']}", what, 1)
        vectors = False
    return keys, vectors


def read_split(entries: Columns, name: str, reading: Reading) -> LabelledSplit:
    """One split. Transcripts are read, to be tokenised for the run's own language model; with `reading.text_bert`, also the token ids of
    `text_bert`. Text vectors are read only if the file has no transcripts.

    Raises:
        UserError: the labels are missing, or a column has the wrong length or shape.
    """
    file, keys, findings = reading.file, reading.keys, reading.findings
    if keys["label"] not in entries:
        there = ", ".join(sorted(f"`{key}`" for key in entries)) or "nothing"
        raise UserError(f"{file}: split `{name}` has no `{keys['label']}` (there is {there}); use a file with labels")
    label = checks.check_labels(entries[keys["label"]], keys["label"], name, file, None)
    count = len(label)
    ids, video_ids, turns = _read_ids(name, reading, count)
    features: dict[str, MappedFrames | None] = {}
    for role in FEATURES:
        key = keys[role]
        features[role] = None
        if entries.get(key) is not None and count and (reading.vectors or role != "text_vectors"):
            column = FeatureColumn(entries[key], key, name, file, count)
            spans = checks.real_frames(column, entries.get(f"{key}_lengths"), findings)
            features[role] = reading.sink.write(name, role, column.cut(spans))
    tokens = read_text_bert(entries.get(keys["text_bert"]), name, file, count) if reading.text_bert else None
    text = None if reading.vectors else _read_text(entries, name, reading, count)
    split = LabelledSplit(
        ids=ids,
        video_ids=video_ids,
        label=label,
        text=text or ([""] * count if tokens else None),
        tokens=tokens,
        text_vectors=features["text_vectors"],
        turns=turns,
        audio=features["audio"],
        vision=features["vision"],
        **_read_unimodal(entries, name, file, keys, count),
    )
    checks.check_annotations(as_sequence(entries.get("annotations")), label, name, file, findings)
    return checks.drop_unlabelled(split, name, findings)


def _read_unimodal(entries: Columns, name: str, file: str, keys: Mapping[str, str], count: int) -> dict[str, Any]:
    """The unimodal labels, except columns without a single known label."""
    columns = {
        role: checks.check_labels(entries[keys[role]], keys[role], name, file, count)
        for role in ("label_T", "label_A", "label_V")
        if entries.get(keys[role]) is not None
    }
    return {role: labels for role, labels in columns.items() if np.isfinite(labels).any()}


def read_text_bert(values: Any, name: str, file: str, count: int) -> list[list[int]]:
    """MMSA's `text_bert` [N, 3, L] (token ids, mask, segment ids) as token ids of each sample, without padding.

    Raises:
        UserError: it is missing or has another shape.
    """
    if values is None:
        raise UserError(f"{file}: split `{name}` has no `text_bert`; without --text-bert, its transcripts are used")
    rows: np.ndarray = values if isinstance(values, np.ndarray) and values.dtype.kind in "iuf" else np.zeros(0)
    if rows.ndim != 3 or rows.shape[:2] != (count, 3):
        found = f"has shape {list(values.shape)}" if isinstance(values, np.ndarray) else f"is {a_kind(values)}"
        raise UserError(f"{file}: `text_bert` of split `{name}` {found}, not [{count}, 3, L]")
    return [[int(token) for token, real in zip(row[0], row[1], strict=True) if real > 0] for row in rows]


def _sample_id(row: Any, place: str) -> str:
    """A sample's id; parts such as [video, start, end] are joined."""
    parts = list(row.ravel()) if isinstance(row, np.ndarray) else row if isinstance(row, (list, tuple)) else [row]
    wrong = next((part for part in parts if is_listed(part)), None)
    if wrong is not None:
        raise UserError(f"{place} contains {a_kind(wrong)} within an id; an id is text, or [video, start, end]")
    return "$_$".join(map(plain_text, parts))


def _are_numbered(splits: Iterable[list[str]]) -> bool:
    """Whether `video_3` names a video, decided for all splits together; "sample_3" of samples that are all named so does not."""
    prefixes = []
    for ids in splits:
        numbered = [re.fullmatch(r"(.+)_\d+", sample_id) for sample_id in ids]
        if any(map(video_of, ids)) or not all(numbered):
            return False
        prefixes.append([match[1] for match in numbered if match])
    several = any(len(set(names)) > 1 for names in prefixes)
    return several and len(set().union(*prefixes)) < sum(map(len, prefixes))


def _read_ids(name: str, reading: Reading, count: int) -> tuple[list[str], list[str], list[Turn | None]]:
    """Sample ids "video$_$clip", their videos and turns; other known forms are [video, start, end] and those of `video_of`."""
    ids = reading.ids.get(name)
    if ids is None:
        reading.findings.note(f"{name}/id", "samples without ids: each is treated as a video of its own", count)
        made = [f"{name}$_${place}" for place in range(count)]
        return made, list(made), [None] * count
    if len(ids) != count:
        raise UserError(f"{reading.file}: `id` of split `{name}` has {len(ids)} entries, but there are {count} labels")
    videos = [sample_id.rpartition("_")[0] if reading.numbered else video_of(sample_id) for sample_id in ids]
    if count and not any(videos):
        reading.findings.note(f"{name}/id", "ids without a video: each sample is treated as a video of its own", count)
    turns = [turn_of(own, video) for own, video in zip(ids, videos, strict=True)]
    if name in reading.places:
        turns = [Turn(*pair) for pair in zip(videos, reading.places[name], strict=True)]
    return ids, [video or f"{name}$_${own}" for video, own in zip(videos, ids, strict=True)], turns


def _read_text(entries: Columns, name: str, reading: Reading, count: int) -> list[str] | None:
    file, key, findings = reading.file, reading.keys["transcripts"], reading.findings
    if name not in reading.texts:
        tokens = reading.keys["text_bert"]
        if not reading.text_bert and entries.get(tokens) is not None:
            findings.warn(f"{name}/{key}", f"no transcripts: text is treated as missing (`{tokens}` needs --text-bert)", count)
        return None
    texts, counts = reading.texts[name]
    if len(texts) != count:
        raise UserError(f"{file}: `{key}` of split `{name}` has {len(texts)} transcripts, but there are {count} labels")
    for what, number in counts.items():
        findings.note(f"{name}/{key}", what, number)
    return texts


def _check_same_keys(splits: Mapping[str, LabelledSplit], reading: Reading) -> None:
    """Check that a modality is in all splits or in none, with the same width."""
    file, keys = reading.file, reading.keys
    for role, key in (("text", keys["transcripts"]), *((role, keys[role]) for role in FEATURES)):
        present = [name for name, split in splits.items() if getattr(split, role) is not None]
        missing = [name for name in splits if name not in present]
        if present and missing:
            raise UserError(f"{file}: split `{missing[0]}` has no `{key}`, but `{present[0]}` has; add it, or remove it from all splits")
    for role in FEATURES:
        widths = {name: width_of(getattr(split, role)) for name, split in splits.items()}
        known = {name: width for name, width in widths.items() if width}
        if len(set(known.values())) > 1:
            shown = ", ".join(f"{width} in `{name}`" for name, width in known.items())
            raise UserError(f"{file}: `{keys[role]}` has different widths: {shown}; all splits need features of the same extractor")


def width_of(arrays: FrameSequence | None) -> int:
    """The number of feature columns, 0 if all samples lack them."""
    if isinstance(arrays, MappedFrames):
        return arrays.width if arrays.lengths.any() else 0
    return next((int(array.shape[1]) for array in arrays or () if array is not None), 0)


def check_not_unlabelled(content: Mapping[Any, Any], file: str) -> None:
    """Check that a pickle is not SKESL's unlabelled one, which has no splits.

    Raises:
        UserError: it is.
    """
    if "raw_text" in content and ("video" in content or "vision" in content or "audio" in content):
        raise UserError(f"{file}: is SKESL's unlabelled pickle, for pretraining; fine-tuning needs labels")


def _are_examples(entries: Any) -> bool:
    """Whether a split is a list of `((words, visual, acoustic), label, segment)`."""
    return isinstance(entries, (list, tuple)) and (not entries or _is_example(entries[0]))


def _is_example(example: Any) -> bool:
    listed = isinstance(example, (list, tuple)) and len(example) >= 2 and isinstance(example[0], (list, tuple))
    return listed and len(example[0]) in (3, 4)


def _columns_of_examples(entries: Sequence[Any], name: str, reading: Reading) -> Columns:
    """The columns of MAG-BERT's examples (https://github.com/WasifurRahman/BERT_multimodal_transformer, README) or MISA's, which are
    `((numbers, visual, acoustic, words), label, segment)`."""
    for place, example in enumerate(entries):
        if not _is_example(example):
            what = "((words, visual, acoustic), label, segment)"
            raise UserError(f"{reading.file}: sample {place} of split `{name}` is not {what} as those before it; download the file again")
    further = max((len(example) for example in entries), default=0) - 3
    if further > 0:
        reading.findings.warn(name, "entries after the segment in examples, not used", further)
    words = [example[0][3 if len(example[0]) == 4 else 0] for example in entries]  # MISA has the words after their numbers
    spoken = [not are_numbers(text) for text in words]
    if not all(spoken):
        what = "transcripts that are word indices (word2id.pickle): text is treated as missing; replace them with words"
        reading.findings.warn(f"{name}/words", what, spoken.count(False))
    columns: dict[str, Any] = {
        "labels": [np.ravel(np.asarray(example[1], object)) for example in entries],
        "visual": [example[0][1] for example in entries],
        "acoustic": [example[0][2] for example in entries],
    }
    if all(len(example) > 2 for example in entries):
        columns["id"] = [example[2] for example in entries]
    if any(spoken):
        places = [f"{reading.file}: the transcript of sample {number} of split `{name}`" for number in range(len(words))]
        columns["raw_text"] = [join_words(*text) if known else "" for *text, known in zip(words, places, spoken, strict=True)]
    return columns
