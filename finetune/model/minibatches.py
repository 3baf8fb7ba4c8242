"""Batches for `MugModel` from a labelled split: tokens, cached states of the language model, padded frames, fixed descriptors."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from finetune.corpora import LabelledCorpus, LabelledSplit
from finetune.corpora.mapped_file import MappedFrames
from finetune.corpora.readers import width_of
from finetune.corpora.splits import FrameSequence, pick_frames
from finetune.modalities import AUDIO, MODALITIES, TEXT, VISION
from finetune.model.context import TokenContext, pad_places, token_context
from finetune.model.networks import MugInputs
from pretrain.batches import pad_frames, pad_text_states, pad_tokens
from pretrain.encoder import SkeslModel
from pretrain.evaluation import derangement
from pretrain.text_states import TextStateCache
from pretrain.tokens import token_limit, tokenise
from skesl_mug.errors import UserError

TOKEN_COST = 100
"""Cost of a token in frames, for batches of similar cost (measured with a frozen MiniLM; higher for one that is trained)."""
POOL_BATCHES = 16
"""Batches of shuffled utterances that are sorted by cost together: a tenth of the padding cost, and still random batches."""


class LazyStates:
    """States of the initial language model of one split, `states[i]` [L_i, D], computed when first read.

    With a frozen language model they are the inputs of every batch. With a trained one only cross-fitting reads those of train, because
    its descriptors must not depend on any label.
    """

    def __init__(self, build: Callable[[], TextStateCache]):
        self._build = build

    @cached_property
    def cache(self) -> TextStateCache:
        """The states on disk."""
        return self._build()

    def __getitem__(self, row: int) -> Tensor:
        return self.cache[row]


class SelectedStates(LazyStates):
    """The language model's states of some rows of a split."""

    def __init__(self, states: LazyStates, rows: Sequence[int]):
        super().__init__(lambda: states.cache)
        self._whole, self._rows = states, rows

    def __getitem__(self, row: int) -> Tensor:
        return self._whole[self._rows[row]]


@dataclass
class PreparedSplit:
    """A split ready for training. `y` [N] are the labels divided by the largest label, `states` the states of `tokens`.

    `use_states`: batches contain the cached states (frozen language model); otherwise the model runs its language model on the tokens.
    `context`: tokens of earlier utterances that the language model reads before them (--context).
    """

    split: LabelledSplit
    tokens: list[list[int]]
    states: LazyStates
    use_states: bool
    y: Tensor
    pad_token: int
    context: TokenContext | None = None
    _known_lengths: dict[str, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, rows: Sequence[int]) -> MugInputs:
        """The inputs of some utterances."""
        before = None if self.use_states else self.context  # cached states are those of the own tokens already
        tokens = [self.tokens[row] if before is None else before.sequence(row, self.tokens[row]) for row in rows]
        own = None if before is None else pad_places([before.own_places(row, self.tokens[row]) for row in rows])
        input_ids, attention_mask = pad_tokens(tokens, self.pad_token)
        states = pad_text_states([self.states[row] for row in rows]) if self.use_states else None
        audio, audio_mask = pad_frames([self._frames(AUDIO, row) for row in rows])
        vision, vision_mask = pad_frames([self._frames(VISION, row) for row in rows])
        present = {
            TEXT: torch.tensor([self.has(TEXT, row) for row in rows]),
            AUDIO: torch.tensor([self.has(AUDIO, row) for row in rows]),
            VISION: torch.tensor([self.has(VISION, row) for row in rows]),
        }
        vectors, vectors_mask = pad_frames([self._frames(TEXT, row) for row in rows])
        return MugInputs(
            input_ids, attention_mask, states, audio, audio_mask, vision, vision_mask, present, vectors, vectors_mask, own
        )  # fmt: skip

    def has(self, modality: str, row: int) -> bool:
        """Whether an utterance has a modality: a transcript with at least one character (or the file's own tokens), or a frame."""
        if modality != TEXT or self.split.text_vectors is not None:
            return bool(self._lengths(modality)[row])
        if self.split.text is None:
            return False
        return len(self.split.tokens[row]) > 2 if self.split.tokens is not None else bool(self.split.text[row].strip())

    def present(self, modality: str) -> np.ndarray:
        """`has` for every utterance, bool [N]."""
        return np.array([self.has(modality, row) for row in range(len(self))], bool)

    def _frames(self, modality: str, row: int) -> np.ndarray | None:
        values = self.features(modality)
        return None if values is None else values[row]

    def features(self, modality: str) -> FrameSequence | None:
        """The frames of every utterance; for text, the vectors of a corpus without transcripts."""
        split = self.split
        return {TEXT: split.text_vectors, AUDIO: split.audio, VISION: split.vision}[modality]

    def _lengths(self, modality: str) -> np.ndarray:
        """Frames of every utterance [N]; 0 where it lacks the modality."""
        if modality not in self._known_lengths:
            values = self.features(modality)
            if isinstance(values, MappedFrames):
                self._known_lengths[modality] = values.lengths
            else:
                self._known_lengths[modality] = np.array([0 if row is None else len(row) for row in values or [None] * len(self)])
        return self._known_lengths[modality]

    def only(self, modalities: Sequence[str]) -> "PreparedSplit":
        """The same utterances with some of their modalities."""
        text, audio, vision = (getattr(self.split, name) if name in modalities else None for name in MODALITIES)
        vectors = self.split.text_vectors if TEXT in modalities else None
        return replace(self, split=replace(self.split, text=text, text_vectors=vectors, audio=audio, vision=vision))

    def select(self, rows: Sequence[int]) -> "PreparedSplit":
        """Some of the utterances, in the order of `rows`."""
        tokens, states = [self.tokens[row] for row in rows], SelectedStates(self.states, rows)
        y, context = self.y[torch.as_tensor(rows)], self.context and self.context.select(rows)
        return replace(self, split=self.split.select(rows), tokens=tokens, states=states, y=y, context=context)

    def with_permuted_frames(self, seed: int) -> "PreparedSplit":
        """Every utterance with the audio and vision of another one; the two come from the same utterance, so they still match."""
        order = derangement(len(self), np.random.default_rng(seed)).tolist() if len(self) > 1 else [0]
        audio, vision = (pick_frames(values, order) for values in (self.split.audio, self.split.vision))
        return replace(self, split=replace(self.split, audio=audio, vision=vision))

    def batches(self, batch_size: int, random: torch.Generator | None = None) -> Iterator[list[int]]:
        """Rows of one epoch: shuffled by `random`, with utterances of similar length together; in stored order without `random`."""
        if random is None:
            yield from (list(range(start, min(start + batch_size, len(self)))) for start in range(0, len(self), batch_size))
            return
        order = torch.randperm(len(self), generator=random).tolist()
        pool = batch_size * max(
            1, min(POOL_BATCHES, len(self) // (2 * batch_size))
        )  # at most half, or every epoch would have the same batches
        chunks = []
        for start in range(0, len(order), pool):
            near = sorted(order[start : start + pool], key=self._length)
            chunks += [near[at : at + batch_size] for at in range(0, len(near), batch_size)]
        yield from (chunks[place] for place in torch.randperm(len(chunks), generator=random).tolist())

    def _length(self, row: int) -> int:
        """Approximate cost of an utterance: a token passes every layer of every block, a frame two narrow projections."""
        tokens = len(self.tokens[row]) + (len(self.context.rows[row]) if self.context is not None and not self.use_states else 0)
        return TOKEN_COST * tokens + sum(int(self._lengths(modality)[row]) for modality in MODALITIES)

    def build_states(self, encoder: SkeslModel, folder: Path, progress: bool = False) -> TextStateCache:
        """The language model's states of the tokens, after those of the context, on disk (see `TextStateCache.build`)."""
        if self.context is None:
            return TextStateCache.build(encoder, self.tokens, folder, progress=progress)
        whole = [self.context.sequence(row, tokens) for row, tokens in enumerate(self.tokens)]
        own = [self.context.own_places(row, tokens) for row, tokens in enumerate(self.tokens)]
        return TextStateCache.build(encoder, whole, folder, progress=progress, positions=own)

    def descriptors(self, modality: str) -> np.ndarray:
        """Fixed summaries [N, D], independent of labels: mean state of the language model, or mean and deviation of the frames; zeros where
        absent."""
        if modality == TEXT and self.split.text_vectors is None:
            return np.stack([self.states[row].float().mean(0).numpy() for row in range(len(self))]).astype(np.float64)
        summaries = np.zeros((len(self), 2 * width_of(self.features(modality))))
        for row in np.flatnonzero(self._lengths(modality)):
            frames = self._frames(modality, int(row))
            assert frames is not None
            summaries[row] = np.concatenate([frames.mean(0), frames.std(0)])
        return summaries


def frames_of(split: LabelledSplit) -> Iterator[dict[str, np.ndarray | None]]:
    """The frames of each utterance by modality, for `feature_statistics`; they may be larger than memory."""
    absent = [None] * len(split)
    for text, audio, vision in zip(split.text_vectors or absent, split.audio or absent, split.vision or absent, strict=True):
        yield {TEXT: text, AUDIO: audio, VISION: vision}


def prepare(
    corpus: LabelledCorpus,
    load_encoder: Callable[[], SkeslModel],
    tokenizer: PreTrainedTokenizerBase,
    cache: Path,
    *,
    max_tokens: int,
    freeze_lm: bool,
    progress: bool,
) -> dict[str, PreparedSplit]:
    """Tokenise every split; with a frozen language model, also write its states under `cache` (once; read memory-mapped)."""
    frozen: SkeslModel | None = load_encoder() if freeze_lm else None
    prepared: dict[str, PreparedSplit] = {}
    for name, split in corpus.splits.items():
        if split.tokens is not None:
            tokens = own_tokens(split.tokens, tokenizer, max_tokens)
        else:
            tokens = tokenise(split.text if split.text is not None else [""] * len(split), tokenizer, max_tokens)

        earlier = None if split.context is None else token_context(split.context, tokens, tokenizer, max_tokens, corpus.context)
        y = torch.as_tensor(corpus.scale.encode(split.label), dtype=torch.float32)

        def build(name: str = name) -> TextStateCache:
            return prepared[name].build_states(frozen or load_encoder(), cache / name, progress)

        states = LazyStates(build)
        prepared[name] = PreparedSplit(split, tokens, states, freeze_lm, y, tokenizer.pad_token_id or 0, earlier)
        if freeze_lm:
            _ = states.cache
    frozen = None  # the states are on disk: `build` must not keep the language model in memory
    return prepared


def own_tokens(rows: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[list[int]]:
    """The token ids of a file, truncated as `tokenise` does.

    Raises:
        UserError: they do not belong to the vocabulary of the language model.
    """
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    if any(row and (max(row) >= len(tokenizer) or (row[0], row[-1]) != (first, last)) for row in rows):
        raise UserError("--text-bert: the tokens of the file do not belong to the vocabulary of the language model; leave the flag out")
    limit = token_limit(tokenizer, max_tokens) or max_tokens
    whole = [list(row) if row else [first, last] for row in rows]
    return [row if len(row) <= limit else [*row[: limit - 1], last] for row in whole]
