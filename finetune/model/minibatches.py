"""From a labelled split to batches for `MugModel`: tokens, cached LM states, padded frames, fixed descriptors."""

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
from finetune.corpora.splits import pick_frames
from finetune.modalities import AUDIO, MODALITIES, TEXT, VISION
from finetune.model.networks import MugInputs
from pretrain.batches import pad_frames, pad_text_states, pad_tokens, token_limit, tokenise
from pretrain.encoder import SkeslModel
from pretrain.text_states import TextStateCache
from skesl_mug.errors import UserError

TOKEN_COST = 100
"""Cost of a token in frames, for putting utterances of like cost into one batch (measured with a frozen MiniLM; trained, it is more)."""
POOL_BATCHES = 16
"""So many batches' worth of shuffled utterances are sorted by cost at a time: padding then costs a tenth, and batches stay random."""


class LazyStates:
    """The initial LM's states of one split, `states[i]` [L_i, D], made when first asked for.

    A frozen LM's states are the inputs of every batch. Where the LM is trained, cross-fitting alone asks for them, and for train's:
    its descriptors must be a function of the input that no label has touched.
    """

    def __init__(self, build: Callable[[], TextStateCache]):
        self._build = build

    @cached_property
    def cache(self) -> TextStateCache:
        """The states on disk."""
        return self._build()

    def __getitem__(self, row: int) -> Tensor:
        return self.cache[row]


@dataclass
class PreparedSplit:
    """A split ready for training. `y` [N] is the label divided by its range; `states` the LM's states of `tokens`.

    `use_states` says whether batches carry the cached states (a frozen LM) or the model runs its LM on the tokens.
    """

    split: LabelledSplit
    tokens: list[list[int]]
    states: LazyStates
    use_states: bool
    y: Tensor
    pad_token: int
    _known_lengths: dict[str, np.ndarray] = field(default_factory=dict, init=False, repr=False)

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
        """Whether an utterance has a modality: a transcript with at least one character (or the file's own tokens), or a frame."""
        if modality != TEXT:
            return bool(self._lengths(modality)[row])
        if self.split.text is None:
            return False
        return len(self.split.tokens[row]) > 2 if self.split.tokens is not None else bool(self.split.text[row].strip())

    def present(self, modality: str) -> np.ndarray:
        """`has` for every utterance, bool [N]."""
        return np.array([self.has(modality, row) for row in range(len(self))], bool)

    def _frames(self, modality: str, row: int) -> np.ndarray | None:
        values = self.split.audio if modality == AUDIO else self.split.vision
        return None if values is None else values[row]

    def _lengths(self, modality: str) -> np.ndarray:
        """Frames of every utterance [N]; 0 where it lacks the modality."""
        if modality not in self._known_lengths:
            values = self.split.audio if modality == AUDIO else self.split.vision
            if isinstance(values, MappedFrames):
                self._known_lengths[modality] = values.lengths
            else:
                self._known_lengths[modality] = np.array([0 if row is None else len(row) for row in values or [None] * len(self)])
        return self._known_lengths[modality]

    def only(self, modalities: Sequence[str]) -> "PreparedSplit":
        """The same utterances with some modalities alone."""
        text, audio, vision = (getattr(self.split, name) if name in modalities else None for name in MODALITIES)
        return replace(self, split=replace(self.split, text=text, audio=audio, vision=vision))

    def with_permuted_frames(self, seed: int) -> "PreparedSplit":
        """The same utterances with the voices and faces of others: both move together, so that they still fit each other."""
        order = np.random.default_rng(seed).permutation(len(self)).tolist()
        audio, vision = (pick_frames(values, order) for values in (self.split.audio, self.split.vision))
        return replace(self, split=replace(self.split, audio=audio, vision=vision))

    def batches(self, batch_size: int, random: torch.Generator | None = None) -> Iterator[list[int]]:
        """Rows of one epoch: shuffled by `random`, neighbours of like length together; in stored order without `random`."""
        if random is None:
            yield from (list(range(start, min(start + batch_size, len(self)))) for start in range(0, len(self), batch_size))
            return
        order = torch.randperm(len(self), generator=random).tolist()
        pool = batch_size * max(1, min(POOL_BATCHES, len(self) // (2 * batch_size)))  # half at most: or all epochs' batches were the same
        chunks = []
        for start in range(0, len(order), pool):
            near = sorted(order[start : start + pool], key=self._length)
            chunks += [near[at : at + batch_size] for at in range(0, len(near), batch_size)]
        yield from (chunks[place] for place in torch.randperm(len(chunks), generator=random).tolist())

    def _length(self, row: int) -> int:
        """About what an utterance costs: a token passes every layer of every block, a frame two narrow projections."""
        return TOKEN_COST * len(self.tokens[row]) + sum(int(self._lengths(modality)[row]) for modality in (AUDIO, VISION))

    def descriptors(self, modality: str) -> np.ndarray:
        """Fixed summaries [N, D] that no label has touched: mean LM state, or mean and deviation of the frames; zeros where absent."""
        if modality == TEXT:
            return np.stack([self.states[row].float().mean(0).numpy() for row in range(len(self))]).astype(np.float64)
        values = self.split.audio if modality == AUDIO else self.split.vision
        summaries = np.zeros((len(self), 2 * width_of(values)))
        for row in np.flatnonzero(self._lengths(modality)):
            frames = self._frames(modality, int(row))
            assert frames is not None
            summaries[row] = np.concatenate([frames.mean(0), frames.std(0)])
        return summaries


def feature_statistics(split: LabelledSplit) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and deviation of each column over all frames of a split, by modality; absent modalities are left out.

    Sample by sample in float64, the moments of parts joined (Chan, Golub and LeVeque, 1979): the frames may be larger than memory.
    """
    statistics = {}
    for name, values in ((AUDIO, split.audio), (VISION, split.vision)):
        count, mean, squares = 0, np.zeros(width_of(values)), np.zeros(width_of(values))
        for row in values or []:
            if row is None or not len(row):
                continue
            part = row.astype(np.float64)
            shift = part.mean(0) - mean
            squares += ((part - part.mean(0)) ** 2).sum(0) + shift**2 * (count * len(part) / (count + len(part)))
            count += len(part)
            mean += shift * (len(part) / count)
        if count:
            deviation = np.sqrt(squares / count)
            statistics[name] = (
                torch.as_tensor(mean, dtype=torch.float32),
                torch.as_tensor(np.where(deviation > 1e-8, deviation, 1.0), dtype=torch.float32),
            )
    return statistics


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
    """Tokenise every split and, with a frozen LM, have its states on disk under `cache` (made once, read memory-mapped)."""
    low, high = corpus.label_range
    scale = max(abs(low), abs(high))
    frozen: SkeslModel | None = load_encoder() if freeze_lm else None
    prepared = {}
    for name, split in corpus.splits.items():
        if split.tokens is not None:
            tokens = own_tokens(split.tokens, tokenizer, max_tokens)
        else:
            tokens = tokenise(split.text if split.text is not None else [""] * len(split), tokenizer, max_tokens)

        def build(tokens: list[list[int]] = tokens, folder: Path = cache / name) -> TextStateCache:
            return TextStateCache.build(frozen or load_encoder(), tokens, folder, progress=progress)

        states = LazyStates(build)
        if freeze_lm:
            _ = states.cache
        y = torch.as_tensor(split.label / scale, dtype=torch.float32)
        prepared[name] = PreparedSplit(split, tokens, states, freeze_lm, y, tokenizer.pad_token_id or 0)
    frozen = None  # all is on disk: `build` must not hold the language model in memory
    return prepared


def own_tokens(rows: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[list[int]]:
    """A file's own token ids, cut as `tokenise` cuts.

    Raises:
        UserError: they are of another vocabulary than the language model's.
    """
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    if any(row and (max(row) >= len(tokenizer) or (row[0], row[-1]) != (first, last)) for row in rows):
        raise UserError("--text-bert: the file's tokens are of another vocabulary than the language model's; leave the flag out")
    limit = token_limit(tokenizer, max_tokens) or max_tokens
    whole = [list(row) if row else [first, last] for row in rows]
    return [row if len(row) <= limit else [*row[: limit - 1], last] for row in whole]
