"""From utterances to tensors: padding, collating, and batches of similar length."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from pretrain.tokens import MaskedText

POOL_BATCHES = 50


@dataclass
class MaskedSample:
    """One utterance or rated sentence, input of the collator.

    `intensities` and `weights` have one entry per masked word (no weights: all 1), `rating` is the label of the whole text (NaN: none)
    with weight `rating_weight`. Features are [T, D_m], or None if absent.
    """

    index: int
    text: MaskedText
    intensities: tuple[float, ...]
    audio: np.ndarray | None = None
    vision: np.ndarray | None = None
    text_states: Tensor | None = None
    weights: tuple[float, ...] = ()
    rating: float = math.nan
    rating_weight: float = 0.0


def real_frames(features: np.ndarray | None, valid: np.ndarray | None = None, max_frames: int | None = None) -> np.ndarray | None:
    """The usable frames [T, D]: finite, valid where `valid` is known, at most the first `max_frames`; None if none are left."""
    if features is None:
        return None
    keep = np.isfinite(features).all(axis=1)
    if valid is not None and len(valid) == len(features):
        keep &= np.asarray(valid, bool)
    kept = features if keep.all() else features[keep]
    kept = kept[:max_frames]
    return kept if len(kept) else None


def pad_positions(rows: Sequence[Sequence[Sequence[int]]]) -> Tensor:
    """Stack the positions of masked pieces into [B, M, P], padded with -1."""
    words = max((len(row) for row in rows), default=0)
    pieces = max((len(word) for row in rows for word in row), default=0)
    padded = torch.full((len(rows), words, pieces), -1, dtype=torch.long)
    for place, row in enumerate(rows):
        for number, word in enumerate(row):
            padded[place, number, : len(word)] = torch.tensor(word, dtype=torch.long)
    return padded


def _pad_rows(rows: Sequence[Sequence[float]], filler: float) -> Tensor:
    padded = torch.full((len(rows), max((len(row) for row in rows), default=0)), filler)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = torch.tensor(row)
    return padded


def _ratings(samples: Sequence[MaskedSample]) -> dict[str, Tensor | None]:
    """Ratings [B] (NaN: none) and their weights; None if the batch has no ratings."""
    if all(math.isnan(sample.rating) for sample in samples):
        return {"ratings": None, "rating_weights": None}
    return {
        "ratings": torch.tensor([sample.rating for sample in samples]),
        "rating_weights": torch.tensor([sample.rating_weight for sample in samples]),
    }


@dataclass(frozen=True)
class MaskedCollator:
    """Collates `MaskedSample`s into a batch for `SkeslForMaskedIntensity`, plus `index` [B], the indices of the samples.

    If every sample has cached text states, the batch has `text_states` instead of `input_ids` and `attention_mask`.
    """

    pad_token_id: int

    def __call__(self, samples: Sequence[MaskedSample]) -> dict[str, Tensor | None]:
        """Pad and stack the samples."""
        ids, mask = pad_tokens([sample.text.token_ids for sample in samples], self.pad_token_id)
        audio, audio_mask = pad_frames([sample.audio for sample in samples])
        vision, vision_mask = pad_frames([sample.vision for sample in samples])
        labels = _pad_rows([sample.intensities for sample in samples], float("nan"))
        weights = _pad_rows([sample.weights for sample in samples], 0.0) if any(sample.weights for sample in samples) else None
        states = [sample.text_states for sample in samples if sample.text_states is not None]
        cached = len(states) == len(samples)
        return {
            "index": torch.tensor([sample.index for sample in samples]),
            "input_ids": None if cached else ids,
            "attention_mask": None if cached else mask,
            "audio": audio,
            "audio_mask": audio_mask,
            "vision": vision,
            "vision_mask": vision_mask,
            "mask_positions": pad_positions([sample.text.positions for sample in samples]),
            "labels": labels,
            "label_weights": weights,
            **_ratings(samples),
            "text_states": pad_text_states(states) if cached else None,
        }


class LengthBucketSampler(Sampler[list[int]]):
    """Batches of samples of similar length, in an order that depends only on seed and epoch.

    Every sample occurs exactly once per epoch. With P processes, P consecutive batches make one step of `batch_size` * P samples, the
    same samples as a step of one process with that batch size. The number of batches is a multiple of P, so that all processes make the
    same number of steps. Batch sizes may differ by one: weight losses by counts.

    Args:
        lengths: cost of each sample, such as its number of tokens and frames.
        batch_size: samples per process and step.
        seed: random seed.
        shuffle: if False, order by length, longest first (for evaluation).
        num_processes: number of processes that share a step.
    """

    batch_size = None  # tells Accelerate that batch sizes differ

    def __init__(self, lengths: Sequence[float] | np.ndarray, batch_size: int, seed: int = 0, shuffle: bool = True, num_processes: int = 1):
        if batch_size < 1:
            raise ValueError("batch_size must be at least 1")
        self.lengths = np.asarray(lengths, np.float64)
        self.samples_per_step = batch_size * num_processes
        self.seed = seed
        self.shuffle = shuffle
        self.num_processes = num_processes
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that determines the order."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps * self.num_processes

    @property
    def steps(self) -> int:
        """Steps per epoch, the same for every process."""
        wanted = -(-len(self.lengths) // self.samples_per_step)
        return max(1, min(wanted, len(self.lengths) // self.num_processes)) if len(self.lengths) else 0

    def __iter__(self) -> Iterator[list[int]]:
        for step in self._step_groups():
            for rank in range(self.num_processes):
                yield [int(index) for index in step[rank :: self.num_processes]]

    def _step_groups(self) -> list[np.ndarray]:
        if not len(self.lengths):
            return []
        if not self.shuffle:
            order = np.argsort(-self.lengths, kind="stable")
            return list(np.array_split(order, self.steps))
        generator = np.random.default_rng((self.seed, self.epoch))
        order = generator.permutation(len(self.lengths))
        pool = self.samples_per_step * POOL_BATCHES
        ordered = [
            chunk[np.argsort(self.lengths[chunk], kind="stable")] for chunk in (order[a : a + pool] for a in range(0, len(order), pool))
        ]
        groups = np.array_split(np.concatenate(ordered), self.steps)
        return [groups[place] for place in generator.permutation(len(groups))]


def pad_frames(sequences: Sequence[np.ndarray | None]) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Stack feature sequences [T_i, D] into [B, T, D] (float32, zero-padded) with a mask [B, T] (1: real frame).

    The mask of an absent sequence (None or empty) is zero; if all are absent, the result is (None, None). Frames with non-finite values
    are masked out.
    """
    lengths = [0 if row is None else len(row) for row in sequences]
    if not any(lengths):
        return None, None
    width = next(row.shape[1] for row in sequences if row is not None and len(row))
    padded = np.zeros((len(lengths), max(lengths), width), np.float32)
    mask = np.zeros((len(lengths), max(lengths)), np.int64)
    for place, row in enumerate(sequences):
        if row is not None and len(row):
            finite = np.isfinite(row).all(axis=1)
            padded[place, : len(row)] = np.where(finite[:, None], row, 0.0)
            mask[place, : len(row)] = finite
    return torch.from_numpy(padded), torch.from_numpy(mask)


def pad_tokens(token_lists: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Stack token lists into ids [B, L] and an attention mask [B, L]."""
    longest = max((len(row) for row in token_lists), default=0)
    ids = torch.full((len(token_lists), longest), pad_id, dtype=torch.long)
    mask = torch.zeros(len(token_lists), longest, dtype=torch.long)
    for place, row in enumerate(token_lists):
        ids[place, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[place, : len(row)] = 1
    return ids, mask


def pad_text_states(states: Sequence[Tensor]) -> Tensor:
    """Stack states [L_i, D] into [B, L, D], zero-padded."""
    return torch.nn.utils.rnn.pad_sequence(list(states), batch_first=True)
