"""From a labelled split to batches for `MugModel`: tokens, cached LM states, padded frames, fixed descriptors."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from finetune.corpora import LabelledCorpus, LabelledSplit
from finetune.modalities import AUDIO, MODALITIES, TEXT, VISION
from finetune.networks import MugInputs
from pretrain.batches import pad_frames, pad_tokens, tokenise
from pretrain.encoder import SkeslModel
from pretrain.text_cache import TextStateCache, pad_text_states

TOKEN_COST = 30
"""Cost of a token in frames, for putting utterances of like cost into one batch."""


@dataclass
class PreparedSplit:
    """A split ready for training. `y` [N] is the label divided by its range; `states` the LM's states of `tokens`.

    `use_states` says whether batches carry the cached states (a frozen LM) or the model runs its LM on the tokens.
    """

    split: LabelledSplit
    tokens: list[list[int]]
    states: TextStateCache
    use_states: bool
    y: Tensor
    pad_token: int

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, rows: Sequence[int]) -> MugInputs:
        """The inputs of some utterances."""
        input_ids, attention_mask = pad_tokens([self.tokens[row] for row in rows], self.pad_token)
        states = pad_text_states([self.states[row] for row in rows]) if self.use_states else None
        audio, audio_mask = pad_frames([self._frames(AUDIO, row) for row in rows])
        vision, vision_mask = pad_frames([self._frames(VISION, row) for row in rows])
        present = {
            TEXT: torch.tensor([self.has(TEXT, row) for row in rows]),
            AUDIO: torch.tensor([self.has(AUDIO, row) for row in rows]),
            VISION: torch.tensor([self.has(VISION, row) for row in rows]),
        }
        return MugInputs(input_ids, attention_mask, states, audio, audio_mask, vision, vision_mask, present)

    def has(self, modality: str, row: int) -> bool:
        """Whether an utterance has a modality: a transcript with at least one character, or at least one frame."""
        if modality == TEXT:
            return self.split.text is not None and bool(self.split.text[row].strip())
        frames = self._frames(modality, row)
        return frames is not None and len(frames) > 0

    def present(self, modality: str) -> np.ndarray:
        """`has` for every utterance, bool [N]."""
        return np.array([self.has(modality, row) for row in range(len(self))], bool)

    def _frames(self, modality: str, row: int) -> np.ndarray | None:
        values = self.split.audio if modality == AUDIO else self.split.vision
        return None if values is None else values[row]

    def only(self, modalities: Sequence[str]) -> "PreparedSplit":
        """The same utterances with some modalities alone."""
        text, audio, vision = (getattr(self.split, name) if name in modalities else None for name in MODALITIES)
        return replace(self, split=replace(self.split, text=text, audio=audio, vision=vision))

    def with_permuted_frames(self, seed: int) -> "PreparedSplit":
        """The same utterances with the voices and faces of others: both move together, so that they still fit each other."""
        order = np.random.default_rng(seed).permutation(len(self))
        audio, vision = ([values[row] for row in order] if values is not None else None for values in (self.split.audio, self.split.vision))
        return replace(self, split=replace(self.split, audio=audio, vision=vision))

    def batches(self, batch_size: int, random: torch.Generator | None = None) -> Iterator[list[int]]:
        """Rows of one epoch: shuffled by `random`, neighbours of like length together; in stored order without `random`."""
        if random is None:
            yield from (list(range(start, min(start + batch_size, len(self)))) for start in range(0, len(self), batch_size))
            return
        order = torch.randperm(len(self), generator=random).tolist()
        pool = batch_size * 8
        chunks = []
        for start in range(0, len(order), pool):
            near = sorted(order[start : start + pool], key=self._length)
            chunks += [near[at : at + batch_size] for at in range(0, len(near), batch_size)]
        yield from (chunks[place] for place in torch.randperm(len(chunks), generator=random).tolist())

    def _length(self, row: int) -> int:
        """About what an utterance costs: a token passes every layer of every block, a frame two narrow projections."""
        frames = [self._frames(modality, row) for modality in (AUDIO, VISION)]
        return TOKEN_COST * len(self.tokens[row]) + sum(len(values) for values in frames if values is not None)

    def descriptors(self, modality: str) -> np.ndarray:
        """Fixed summaries [N, D] that no label has touched: mean LM state, or mean and deviation of the frames; zeros where absent."""
        if modality == TEXT:
            return np.stack([self.states[row].float().mean(0).numpy() for row in range(len(self))]).astype(np.float64)
        rows = [self._frames(modality, row) for row in range(len(self))]
        width = next(frames.shape[1] for frames in rows if frames is not None)
        summaries = [
            np.concatenate([frames.mean(0), frames.std(0)]) if frames is not None and len(frames) else np.zeros(2 * width)
            for frames in rows
        ]
        return np.asarray(summaries, np.float64)


def feature_statistics(split: LabelledSplit) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and deviation of each column over all frames of a split, by modality; absent modalities are left out."""
    statistics = {}
    for name, values in ((AUDIO, split.audio), (VISION, split.vision)):
        frames = [row for row in values or [] if row is not None and len(row)]
        if frames:
            stacked = np.concatenate(frames).astype(np.float64)
            deviation = stacked.std(0)
            statistics[name] = (
                torch.as_tensor(stacked.mean(0), dtype=torch.float32),
                torch.as_tensor(np.where(deviation > 1e-8, deviation, 1.0), dtype=torch.float32),
            )
    return statistics


def prepare(
    corpus: LabelledCorpus,
    encoder: SkeslModel,
    tokenizer: PreTrainedTokenizerBase,
    cache: Path,
    *,
    max_tokens: int,
    freeze_lm: bool,
    progress: bool,
) -> dict[str, PreparedSplit]:
    """Tokenise every split and have the LM's states on disk under `cache` (made once, read memory-mapped)."""
    low, high = corpus.label_range
    scale = max(abs(low), abs(high))
    prepared = {}
    for name, split in corpus.splits.items():
        tokens = tokenise(split.text if split.text is not None else [""] * len(split), tokenizer, max_tokens)
        states = TextStateCache.build(encoder, tokens, cache / name, progress=progress)
        y = torch.as_tensor(split.label / scale, dtype=torch.float32)
        prepared[name] = PreparedSplit(split, tokens, states, freeze_lm, y, tokenizer.pad_token_id or 0)
    return prepared
