"""Columns of an MMSA feature file from utterances: token ids and states of a language model, and padded or word-aligned features."""

import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from finetune.corpora.checks import finite_only
from finetune.corpora.splits import Findings
from preprocessing.features import VisionTrack, align_track, mean_over_words
from preprocessing.schema import FeatureInfo, Utterance, Word
from preprocessing.store import UtteranceDataset

BATCH = 32
BLOCK = 128
LARGE = 65_536
"""Bytes of an array from which it is pickled without a copy."""
POLARITIES = ("Negative", "Neutral", "Positive")
TokenRow = list[tuple[int, int, int]]
"""The tokens of a text: id, first character, the one after the last."""


@dataclass
class Features:
    """One modality of some utterances: `rows` are arrays [T, D], None if absent; `width` is D, 1 if no utterance of the dataset has it."""

    width: int
    rows: list[np.ndarray | None] = field(default_factory=list)

    def add(self, row: np.ndarray | None) -> None:
        """Append an utterance. Every BLOCK of them become one array: memory of many small ones is not given back once they are freed."""
        self.rows.append(row)
        if len(self.rows) % BLOCK == 0:
            block = [(place, kept) for place, kept in enumerate(self.rows[-BLOCK:], len(self.rows) - BLOCK) if kept is not None]
            if block:
                parts = np.split(np.concatenate([kept for _, kept in block]), np.cumsum([len(kept) for _, kept in block[:-1]]))
                for (place, _), part in zip(block, parts, strict=True):
                    self.rows[place] = part

    def lengths(self) -> np.ndarray:
        """The number of frames of each utterance [N], 0 if absent."""
        return np.array([0 if row is None else len(row) for row in self.rows], np.int64)

    def padded(self, length: int) -> tuple[np.ndarray, list[int]]:
        """The frames [N, length, D] float32, cut or padded with zeros at the end, and the lengths. An absent modality is zeros of length 1,
        because MMSA's recurrent networks need at least one frame. The rows are let go, so that they are not held twice."""
        array = np.zeros((len(self.rows), length, self.width), np.float32)
        lengths = [int(min(max(count, 1), length)) for count in self.lengths()]
        for place, row in enumerate(self.rows):
            if row is not None:
                array[place, : len(row)] = row[:length]
                self.rows[place] = None
        return array, lengths


def read_features(
    data: UtteranceDataset, places: Sequence[int], tokens: Sequence[TokenRow] | None, name: str, findings: Findings
) -> dict[str, Features]:
    """Audio and vision of the utterances at `places`, without frames that have no face.

    Args:
        data: the dataset.
        places: its rows that belong to the split.
        tokens: the tokens of each row, to get one frame for each of them; None: the frames as they are.
        name: the split, for findings.
        findings: where missing modalities, words without times and replaced values are counted.
    """
    found = {
        "audio": Features(data.info.audio.width if data.info.audio else 1),
        "vision": Features(data.info.vision.width if data.info.vision else 1),
    }
    untimed = faceless = repaired = 0
    for place, row_tokens in zip(places, repeat(None, len(places)) if tokens is None else tokens, strict=True):
        row = data[place]
        timed = [index for index, word in enumerate(row.words) if word.start is not None and word.end is not None]
        audio, vision = row.audio, row.vision
        valid = np.ones(0 if vision is None else len(vision), bool) if row.vision_valid is None else np.asarray(row.vision_valid, bool)
        if row_tokens is None:
            vision = None if vision is None else vision[valid]
        else:
            owners = words_of_tokens(row_tokens, row.words)
            audio = None if audio is None else _per_token(_audio_words(row, timed, data.info.audio), owners)
            if vision is not None:
                words, unseen = _vision_words(row, timed, valid, data.info.vision)
                vision = _per_token(words, owners)
                faceless += unseen
            untimed += len(row.words) - len(timed)
        for modality, values in (("audio", audio), ("vision", vision)):
            if values is not None:
                values, count = finite_only(values.astype(np.float32, copy=False))
                repaired += count
            found[modality].add(values if values is not None and values.any() else None)
    for modality, features in found.items():
        absent = sum(row is None for row in features.rows)
        if absent:
            findings.warn(f"{name}/{modality}", "utterances without it: zeros of length 1", absent)
    if untimed:
        findings.warn(f"{name}/words", "words without times: zeros for audio and vision", untimed)
    if faceless:
        findings.note(f"{name}/vision", "words without a face: zeros", faceless)
    if repaired:
        findings.warn(name, "feature values that are NaN or infinite, replaced with 0", repaired)
    return found


def words_of_tokens(tokens: TokenRow, words: Sequence[Word]) -> list[int | None]:
    """The word (its place in `words`) of each token; None for special tokens. Punctuation belongs to the word before it."""
    owners: list[int | None] = []
    current, latest = 0, 0
    for _, start, end in tokens:
        if start == end or not words:
            owners.append(None)
            continue
        while current < len(words) and words[current].end_char <= start:
            current += 1
        if current < len(words) and words[current].start_char < end:
            latest = current
        owners.append(latest)
    return owners


def _per_token(words: np.ndarray, owners: Sequence[int | None]) -> np.ndarray:
    """One frame per token: that of its word, zeros for special tokens."""
    frames = np.zeros((len(owners), words.shape[1]), np.float32)
    for place, owner in enumerate(owners):
        if owner is not None:
            frames[place] = words[owner]
    return frames


def _audio_words(row: Utterance, timed: Sequence[int], info: FeatureInfo | None) -> np.ndarray:
    """The mean over the audio frames of each word [words, D]; zeros for a word without times."""
    assert row.audio is not None
    assert info is not None
    words = np.zeros((len(row.words), row.audio.shape[1]), np.float32)
    if is_aligned(info):
        words[: len(row.audio)] = row.audio[: len(words)]
    elif timed and len(row.audio):
        words[timed] = mean_over_words(row.audio, np.arange(len(row.audio)) / info.rate_hz, _spans(row.words, timed))
    return words


def _vision_words(row: Utterance, timed: Sequence[int], valid: np.ndarray, info: FeatureInfo | None) -> tuple[np.ndarray, int]:
    """The mean over the frames with a face of each word [words, D], zeros without one, and the number of timed words without one."""
    assert row.vision is not None
    assert info is not None
    words = np.zeros((len(row.words), row.vision.shape[1]), np.float32)
    seen = np.zeros(len(row.words), bool)
    if is_aligned(info):
        count = min(len(words), len(row.vision))
        words[:count], seen[:count] = row.vision[:count], valid[:count]
    elif timed and len(row.vision):
        times = row.vision_times if row.vision_times is not None else np.arange(len(row.vision), dtype=np.float32) / info.rate_hz
        track = align_track(VisionTrack(row.vision, times, valid), _spans(row.words, timed))
        words[timed], seen[timed] = track.values, track.valid
    words[~seen] = 0
    return words, int((~seen[timed]).sum()) if len(row.vision) else 0


def is_aligned(info: FeatureInfo) -> bool:
    """Whether preprocessing already averaged the features over words (`--align words`)."""
    return "aligned" in info.settings


def _spans(words: Sequence[Word], timed: Sequence[int]) -> np.ndarray:
    return np.array([(words[index].start, words[index].end) for index in timed], np.float64).reshape(-1, 2)


def token_arrays(tokens: Sequence[TokenRow], length: int, pad_id: int) -> np.ndarray:
    """MMSA's `text_bert` [N, 3, length] int32: token ids, mask and segment ids."""
    array = np.zeros((len(tokens), 3, length), np.int32)
    array[:, 0] = pad_id
    for place, row in enumerate(tokens):
        array[place, 0, : len(row)] = [token for token, _, _ in row]
        array[place, 1, : len(row)] = 1
    return array


def text_states(model: Any, text_bert: np.ndarray) -> np.ndarray:
    """The language model's last hidden states [N, L, D] float32 of `text_bert` [N, 3, L]; zeros for padding."""
    import torch
    from tqdm import tqdm

    lengths = text_bert[:, 1].sum(axis=1)
    states = np.zeros((len(text_bert), text_bert.shape[2], int(model.config.hidden_size)), np.float32)
    order = np.argsort(lengths, kind="stable")
    device = next(model.parameters()).device
    starts = range(0, len(order), BATCH)
    for start in tqdm(starts, desc="text states", unit=" batches", leave=False, disable=not sys.stderr.isatty()):
        chosen = order[start : start + BATCH]
        longest = int(lengths[chosen].max())
        batch = torch.from_numpy(text_bert[chosen][:, :2, :longest]).long().to(device)
        with torch.inference_mode():
            hidden = model(input_ids=batch[:, 0], attention_mask=batch[:, 1]).last_hidden_state * batch[:, 1, :, None]
        states[chosen, :longest] = hidden.float().cpu().numpy()
    return states


def mmsa_id(own: str, video: str | None) -> str:
    """The id `VIDEO$_$CLIP` of an utterance; its video is itself if it has none."""
    video = video or own
    clip = own.removeprefix(video).lstrip("/_$") if own.startswith(video) else own
    return f"{video}$_${clip or '0'}"


def mmsa_ids(splits: dict[str, list[int]], own: Sequence[str], videos: Sequence[str | None], findings: Findings) -> dict[str, list[str]]:
    """The ids of each split, all different: if two would be the same, the clip of the second is its whole id (and a number)."""
    taken: set[str] = set()
    changed = 0

    def unique(place: int) -> str:
        nonlocal changed
        name = first = mmsa_id(own[place], videos[place])
        whole = f"{videos[place] or own[place]}$_${own[place]}"
        number = 1
        while name in taken:
            name = whole if number == 1 else f"{whole}#{number}"
            number += 1
        changed += name != first
        taken.add(name)
        return name

    ids = {name: [unique(place) for place in places] for name, places in splits.items()}
    if changed:
        findings.warn("id", "ids that equal another as VIDEO$_$CLIP: the clip is the whole id", changed)
    return ids


def feature_columns(features: dict[str, Features], sizes: dict[str, int]) -> dict[str, Any]:
    """Audio, vision and their lengths, padded to `sizes`."""
    columns: dict[str, Any] = {}
    for modality, found in features.items():
        columns[modality], columns[f"{modality}_lengths"] = found.padded(sizes[modality])
    return columns


def label_columns(columns: dict[str, list[Any]], places: Sequence[int], unimodal: Sequence[str]) -> dict[str, Any]:
    """The labels of the rows at `places`: values, polarity as a word and as a class, and the known unimodal ones."""

    def numbers(name: str) -> np.ndarray:
        return np.array([np.nan if columns[name][place] is None else columns[name][place] for place in places], np.float32)

    label = numbers("label")
    polarity = np.sign(label).astype(np.int64) + 1
    return {
        "annotations": [POLARITIES[place] for place in polarity],
        "regression_labels": label,
        "classification_labels": polarity,
        **{name.replace("label_", "regression_labels_"): numbers(name) for name in unimodal},
    }


_PythonPickler: Any = vars(pickle)["_Pickler"]  # the C form has no `save_global` to override


@dataclass(frozen=True)
class _Content:
    """The bytes of an array, in a pickle."""

    array: np.ndarray


class _PortablePickler(_PythonPickler):  # type: ignore[misc]
    """Writes numpy's functions under the names that both NumPy 1 and 2 know, because MMSA is often used with older versions.

    Large arrays are written without a copy: numpy's own way makes one, and the memo would keep it until the end.
    """

    dispatch: ClassVar[dict[type, Any]] = dict(_PythonPickler.dispatch)

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is not np.ndarray or obj.nbytes < LARGE or not obj.flags.c_contiguous:
            return NotImplemented
        reduced: Any = obj[:0].__reduce__()
        build, arguments, (version, _, kind, order, _) = reduced
        return build, arguments, (version, obj.shape, kind, order, _Content(obj))

    def _save_content(self, obj: _Content) -> None:
        self._write_large_bytes(pickle.BINBYTES8 + obj.array.nbytes.to_bytes(8, "little"), obj.array.data.cast("B"))

    dispatch[_Content] = _save_content

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = getattr(obj, "__module__", None) or ""
        if not module.startswith("numpy._core"):
            super().save_global(obj, name)
            return
        self.save(module.replace("numpy._core", "numpy.core", 1))
        self.save(name or obj.__qualname__)
        self.write(pickle.STACK_GLOBAL)
        self.memoize(obj)


def write_pickle(path: Path, content: dict[str, Any]) -> None:
    """Write a pickle that NumPy 1 and 2 can read (protocol 4, of Python 3.4 and later)."""
    with open(path, "wb") as file:
        _PortablePickler(file, protocol=4).dump(content)
