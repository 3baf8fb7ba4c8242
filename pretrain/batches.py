"""From utterances to tensors: whole-word masking by character spans, padding, and batches of similar length."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

TOKENISER_CHUNK = 1024
POOL_BATCHES = 50


@dataclass(frozen=True)
class MaskedText:
    """A tokenised text with masked words: token ids with special tokens, and the positions of each masked word's pieces."""

    token_ids: list[int]
    positions: tuple[tuple[int, ...], ...]

    @property
    def pieces(self) -> list[int]:
        """Positions of all masked pieces, word by word."""
        return [piece for word in self.positions for piece in word]

    def masked_words_only(self) -> "MaskedText":
        """The text reduced to its masked pieces, for a sample whose cached states are those of `pieces` only."""
        ends = np.cumsum([len(word) for word in self.positions]).tolist()
        return MaskedText([], tuple(tuple(range(end - len(word), end)) for word, end in zip(self.positions, ends, strict=True)))


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


def tokenise(texts: Sequence[str], tokenizer: Any, max_tokens: int | None = None) -> list[list[int]]:
    """Token ids of each text with special tokens, cut at `max_tokens` (special tokens included; None: the limit of the model).

    An empty text consists of special tokens, at least one, so that every text has a state.
    """
    limit = token_limit(tokenizer, max_tokens)
    filler = [token for token in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) if token is not None][:1]
    return [_cut(encoded, limit) or filler for encoded in _encode(texts, tokenizer)]


def tokenise_with_offsets(texts: Sequence[str], tokenizer: Any, max_tokens: int | None = None) -> list[list[tuple[int, int, int]]]:
    """As `tokenise`, each token with the characters that it stands for: (id, start, end), where start equals end for special tokens."""
    limit = token_limit(tokenizer, max_tokens)
    rows = []
    for encoded in _encode(texts, tokenizer):
        head, first, last, tail = _window(encoded, limit)
        kept = [*range(head), *range(first, last), *range(tail, len(encoded.ids))]
        spans = [(0, 0) if encoded.special[place] else encoded.offsets[place] for place in kept]
        rows.append([(encoded.ids[place], *span) for place, span in zip(kept, spans, strict=True)])
    return rows


def tokenise_masked(
    texts: Sequence[str],
    spans: Sequence[Sequence[tuple[int, int]]],
    tokenizer: Any,
    max_tokens: int | None = None,
    one_token: bool = False,
) -> list[MaskedText | None]:
    """Tokenise texts with whole words masked.

    Args:
        texts: transcripts.
        spans: for each text, the character spans `(start, end)` of the words to mask, without overlap.
        tokenizer: a fast tokenizer with a mask token.
        max_tokens: maximum length, special tokens included; the text is cut around the first masked word.
        one_token: replace each word by one mask token instead of one per piece.

    Returns:
        For each text a `MaskedText` (a word that was cut off has no positions), or None if a span covers no token or the first word is
        longer than the limit.
    """
    limit = token_limit(tokenizer, max_tokens)
    encodings = _encode(texts, tokenizer)
    return [_mask_words(encoded, row, tokenizer.mask_token_id, limit, one_token) for encoded, row in zip(encodings, spans, strict=True)]


def token_limit(tokenizer: Any, max_tokens: int | None) -> int | None:
    """The smaller of `max_tokens` and the tokenizer's own limit; None if neither is set."""
    own = tokenizer.model_max_length
    known = [limit for limit in (max_tokens, own if own < 1_000_000 else None) if limit is not None]
    return min(known) if known else None


@dataclass
class _Encoded:
    ids: list[int]
    offsets: list[tuple[int, int]]
    special: list[int]


def _encode(texts: Sequence[str], tokenizer: Any) -> Iterator[_Encoded]:
    for start in range(0, len(texts), TOKENISER_CHUNK):
        batch = tokenizer(
            list(texts[start : start + TOKENISER_CHUNK]),
            add_special_tokens=True,
            truncation=False,
            padding=False,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            verbose=False,
        )
        for ids, offsets, special in zip(batch["input_ids"], batch["offset_mapping"], batch["special_tokens_mask"], strict=True):
            yield _Encoded(list(ids), [(int(a), int(b)) for a, b in offsets], list(special))


def _window(encoded: _Encoded, limit: int | None, keep: tuple[int, int] | None = None) -> tuple[int, int, int, int]:
    """The tokens to keep: `ids[:head] + ids[first:last] + ids[tail:]`, where head and tail delimit the special tokens around the text.

    The kept part starts with the text, unless the tokens `keep` are beyond the limit; it is then centred on them.
    """
    inner = [place for place, flag in enumerate(encoded.special) if not flag]
    head, tail = (inner[0], inner[-1] + 1) if inner else (len(encoded.ids), len(encoded.ids))
    specials = len(encoded.ids) - (tail - head)
    room = tail - head if limit is None else max(0, min(tail - head, limit - specials))
    first = head
    if keep is not None and keep[1] > head + room:
        first = min(max(head, (keep[0] + keep[1] - room) // 2), tail - room)
    return head, first, first + room, tail


def _cut(encoded: _Encoded, limit: int | None) -> list[int]:
    head, first, last, tail = _window(encoded, limit)
    return encoded.ids[:head] + encoded.ids[first:last] + encoded.ids[tail:]


def _mask_words(encoded: _Encoded, spans: Sequence[tuple[int, int]], mask_id: int, limit: int | None, one_token: bool) -> MaskedText | None:
    words = []
    for start, end in spans:
        pieces = [place for place, (a, b) in enumerate(encoded.offsets) if a < end and b > start and b > a and not encoded.special[place]]
        if not pieces:
            return None
        words.append((pieces[0], pieces[-1] + 1))
    if not words:
        return None
    if one_token:
        encoded, words = _join_pieces(encoded, words)
    head, first, last, tail = _window(encoded, limit, words[0])
    if words[0][0] < first or words[0][1] > last:
        return None
    ids = list(encoded.ids)
    for a, b in words:
        ids[a:b] = [mask_id] * (b - a)
    ids = ids[:head] + ids[first:last] + ids[tail:]
    shift = head - first
    # other masked words may have lost some of their pieces
    kept = (range(max(a, first) + shift, min(b, last) + shift) for a, b in words)
    return MaskedText(ids, tuple(tuple(pieces) for pieces in kept))


def _join_pieces(encoded: _Encoded, words: list[tuple[int, int]]) -> tuple[_Encoded, list[tuple[int, int]]]:
    """Reduce every masked word to its first piece."""
    dropped = {place for a, b in words for place in range(a + 1, b)}
    stay = [place for place in range(len(encoded.ids)) if place not in dropped]
    new_place = {place: new for new, place in enumerate(stay)}
    joined = _Encoded(*([column[place] for place in stay] for column in (encoded.ids, encoded.offsets, encoded.special)))  # type: ignore[arg-type]
    return joined, [(new_place[a], new_place[a] + 1) for a, _ in words]


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
