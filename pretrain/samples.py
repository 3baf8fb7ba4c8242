"""Utterance datasets as samples of the masked-intensity task, read row by row from the memory-mapped shards."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from lexicons.confidence import vader_deviations
from lexicons.errors import UserError
from lexicons.lexicon import normalise
from preprocessing.schema import DatasetInfo, Utterance
from preprocessing.store import UtteranceDataset
from pretrain.batches import MaskedSample, MaskedText, real_frames, tokenise_masked
from pretrain.text_cache import TextStateCache

TOKENS_PER_SECOND = 4.0
STATISTICS_SAMPLE = 2000


class Corpora:
    """Several utterance datasets read as one; their feature columns must agree.

    Raises:
        UserError: a folder holds no dataset, none has a row, or their features differ.
    """

    def __init__(self, folders: Sequence[Path]):
        self.sources = [UtteranceDataset(folder) for folder in folders]
        self._starts = np.concatenate([[0], np.cumsum([len(source) for source in self.sources])])
        if not len(self):
            raise UserError(f"{', '.join(map(str, folders))}: holds no utterances; look at the skip reasons in its dataset.json")
        first = self.sources[0]
        for name in ("audio", "vision"):
            for other in self.sources[1:]:
                if _column_names(other.info, name) != _column_names(first.info, name):
                    raise UserError(
                        f"{other.folder}: its {name} columns are not those of {first.folder}; make both with the same --{name} features"
                    )

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, row: int) -> Utterance:
        source = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self.sources[source][row - int(self._starts[source])]

    def column(self, name: str) -> list[Any]:
        """A column of all datasets, one after the other."""
        return [value for source in self.sources for value in source.column(name)]

    def width(self, name: str) -> int:
        """Width of `audio` or `vision`; 0: no dataset has it."""
        return len(_column_names(self.sources[0].info, name))


def _column_names(info: DatasetInfo, name: str) -> list[str]:
    feature = getattr(info, name)
    return [] if feature is None else [column["name"] for column in feature.columns]


@dataclass
class Selection:
    """The usable rows: their masked texts, labels, and what the split and the batches need; `skipped` counts the others by reason.

    `intensities` [N] are those of the first masked words, on which scores are made; `targets` those of all of a row's masked words (NaN
    where the cut took the word), `weights` their weights (empty: all 1).
    """

    rows: np.ndarray
    texts: list[MaskedText]
    intensities: np.ndarray
    targets: list[tuple[float, ...]]
    weights: list[tuple[float, ...]]
    speakers: list[str]
    videos: list[str]
    costs: np.ndarray
    skipped: dict[str, int]

    def __len__(self) -> int:
        return len(self.rows)


def select(
    corpora: Corpora,
    tokenizer: Any,
    *,
    max_tokens: int,
    one_token: bool = False,
    context: bool = False,
    all_splits: bool = False,
    masks_per_row: int = 1,
    confidence: bool = False,
) -> Selection:
    """Choose the rows that can be trained on and mask the first masks of each.

    Raises:
        UserError: no row is left.
    """
    if tokenizer.mask_token_id is None:
        raise UserError("--lm: its tokenizer has no mask token; use a masked language model such as BERT, RoBERTa or DeBERTa")
    texts, masks, splits = corpora.column("text"), corpora.column("masks"), corpora.column("split")
    skipped: Counter[str] = Counter()
    rows, intensities, spans = [], [], []
    for row, (text, row_masks, split) in enumerate(zip(texts, masks, splits, strict=True)):
        reason = _unusable(text, row_masks, split, all_splits)
        if reason:
            skipped[reason] += 1
            continue
        chosen_masks = row_masks[:masks_per_row]
        rows.append(row)
        intensities.append(tuple(_intensity(mask, context) for mask in chosen_masks))
        spans.append([(mask["start_char"], mask["end_char"]) for mask in chosen_masks])
    masked = tokenise_masked([texts[row] for row in rows], spans, tokenizer, max_tokens, one_token)
    keep = [place for place, text in enumerate(masked) if text is not None]
    if len(keep) < len(rows):
        skipped["masked_word_has_no_token"] = len(rows) - len(keep)
    if not keep:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in skipped.most_common())
        raise UserError(
            f"{corpora.sources[0].folder}: none of its {len(corpora)} utterances can be used ({reasons}); run preprocessing again"
        )
    chosen = [rows[place] for place in keep]
    kept_texts = [text for text in masked if text is not None]
    targets = [
        tuple(value if pieces else float("nan") for value, pieces in zip(intensities[place], text.positions, strict=True))
        for place, text in zip(keep, kept_texts, strict=True)
    ]
    return Selection(
        rows=np.asarray(chosen),
        texts=kept_texts,
        intensities=np.asarray([row[0] for row in targets], np.float32),
        targets=targets,
        weights=_confidences([(texts[rows[place]], spans[place]) for place in keep]) if confidence else [()] * len(keep),
        speakers=_pick(corpora.column("speaker"), chosen),
        videos=_pick(corpora.column("video_id"), chosen),
        costs=_costs(corpora, chosen, kept_texts),
        skipped=dict(skipped.most_common()),
    )


def _intensity(mask: dict[str, Any], context: bool) -> float:
    value = mask["context_intensity"] if context and mask["context_intensity"] is not None else mask["intensity"]
    return float("nan") if value is None else float(value)


def _confidences(words: list[tuple[str, list[tuple[int, int]]]]) -> list[tuple[float, ...]]:
    """1 / (1 + variance of VADER's raters) of each masked word; 1 where VADER does not have it."""
    deviations = vader_deviations()
    return [tuple(1.0 / (1.0 + deviations.get(normalise(text[a:b]), 0.0) ** 2) for a, b in spans) for text, spans in words]


def _unusable(text: str | None, masks: list[dict[str, Any]] | None, split: str | None, all_splits: bool) -> str | None:
    if split in ("valid", "test") and not all_splits:
        return f"split_{split}_kept_for_evaluation"
    if not text:
        return "no_text"
    if not masks:
        return "no_masked_word"
    if masks[0]["intensity"] is None or not np.isfinite(masks[0]["intensity"]):
        return "intensity_is_no_number"
    return None


def _pick(column: list[Any], rows: list[int]) -> list[str]:
    return [column[row] or "" for row in rows]


def _costs(corpora: Corpora, rows: list[int], texts: list[MaskedText]) -> np.ndarray:
    """What a sample costs, about: tokens, and as many again for its seconds of audio and vision. Batches are made of similar ones."""
    starts, ends = corpora.column("start"), corpora.column("end")
    seconds = np.asarray([(ends[row] or 0.0) - (starts[row] or 0.0) for row in rows], np.float64)
    return np.asarray([len(text.token_ids) for text in texts]) + TOKENS_PER_SECOND * np.nan_to_num(seconds)


class MaskedUtterances(Dataset[MaskedSample]):
    """Some samples of a selection, for a DataLoader with `MaskedCollator`.

    Args:
        corpora: where the features are read.
        selection: the usable rows.
        members: which of the selection's samples these are; sample i of this data set is `members[i]`.
        max_audio_frames, max_vision_frames: longest sequences.
        cache: a frozen text encoder's states of the masked pieces, one entry per sample of the selection.
        donors: sample i takes the audio and vision of sample `donors[i]` (of this data set), for the control with permuted modalities.
    """

    def __init__(
        self,
        corpora: Corpora,
        selection: Selection,
        members: np.ndarray,
        max_audio_frames: int,
        max_vision_frames: int,
        cache: TextStateCache | None = None,
        donors: np.ndarray | None = None,
    ):
        self.corpora = corpora
        self.selection = selection
        self.members = members
        self.max_audio_frames = max_audio_frames
        self.max_vision_frames = max_vision_frames
        self.cache = cache
        self.donors = donors

    def __len__(self) -> int:
        return len(self.members)

    def features(self, index: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        """The audio [Ta, Da] and vision [Tv, Dv] of a sample; None where absent. Frames without a face are left out."""
        utterance = self.corpora[int(self.selection.rows[self.members[index]])]
        audio = real_frames(utterance.audio, None, self.max_audio_frames)
        return audio, real_frames(utterance.vision, utterance.vision_valid, self.max_vision_frames)

    def __getitem__(self, index: int) -> MaskedSample:
        member = int(self.members[index])
        text = self.selection.texts[member]
        audio, vision = self.features(index if self.donors is None else int(self.donors[index]))
        return MaskedSample(
            index=index,
            text=text if self.cache is None else text.masked_words_only(),
            intensities=self.selection.targets[member],
            weights=self.selection.weights[member],
            audio=audio,
            vision=vision,
            text_states=None if self.cache is None else self.cache[member],
        )


Statistics = tuple[np.ndarray, np.ndarray]


def feature_statistics(data: MaskedUtterances, seed: int, limit: int = STATISTICS_SAMPLE) -> dict[str, Statistics]:
    """Mean and standard deviation of every column over the frames of a seeded sample of utterances, by modality that occurs."""
    chosen = np.random.default_rng(seed).permutation(len(data))[:limit]
    sums: dict[str, list[np.ndarray | float]] = {}
    for index in np.sort(chosen):
        for name, frames in zip(("audio", "vision"), data.features(int(index)), strict=True):
            if frames is not None:
                wide = frames.astype(np.float64)
                count, total, squares = sums.get(name, [0.0, np.zeros(wide.shape[1]), np.zeros(wide.shape[1])])
                sums[name] = [count + len(wide), total + wide.sum(0), squares + (wide**2).sum(0)]
    statistics = {}
    for name, (count, total, squares) in sums.items():
        mean = np.asarray(total) / count
        variance = np.maximum(np.asarray(squares) / count - mean**2, 0.0)
        statistics[name] = (mean.astype(np.float32), np.sqrt(variance).astype(np.float32))
    return statistics
