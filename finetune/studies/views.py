"""What a setting sees of a split: corrupted labels, fewer rows, dropped frames and words, missing modalities.

Each view is a function of the split's name, the split and the seed; the corpus itself is never touched.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from finetune.corpora.splits import FrameSequence
from finetune.modalities import AUDIO, MODALITIES, TEXT, VISION
from finetune.model.minibatches import LazyStates, PreparedSplit

NoiseKind = Literal["gaussian", "swap", "bias"]


def random_for(seed: int, *parts: str) -> np.random.Generator:
    """A random stream of its own for each use."""
    return np.random.default_rng([seed, zlib.crc32("/".join(parts).encode())])


@dataclass(frozen=True)
class NoisyLabels:
    """y of the training split corrupted, labels divided by their range and clipped to it; development and evaluated splits stay clean.

    `gaussian`: noise of deviation `strength`. `swap`: with probability `strength` another utterance's y. `bias`: every y is moved up by
    `strength`, as by a rater who sees all things brighter.
    """

    kind: NoiseKind
    strength: float

    def __call__(self, name: str, split: PreparedSplit, seed: int) -> PreparedSplit:
        """The split with corrupted y."""
        if name != "train" or not self.strength:
            return split
        return replace(split, y=torch.as_tensor(self.corrupted(split.y.double().numpy(), seed), dtype=torch.float32))

    def corrupted(self, y: np.ndarray, seed: int) -> np.ndarray:
        """The corrupted labels [N]; of one seed, all strengths of a kind use the same draws."""
        random = random_for(seed, self.kind)
        if self.kind == "gaussian":
            moved = y + self.strength * random.normal(size=len(y))
        elif self.kind == "bias":
            moved = y + self.strength
        else:
            moved = np.where(random.random(len(y)) < self.strength, y[random.permutation(len(y))], y)
        return np.clip(moved, -1.0, 1.0)


class PickedStates(LazyStates):
    """The LM's states of some rows of a split."""

    def __init__(self, whole: LazyStates, rows: Sequence[int]):
        super().__init__(lambda: whole.cache)
        self._rows = rows

    def __getitem__(self, row: int) -> torch.Tensor:
        return self.cache[self._rows[row]]


def pick_rows(split: PreparedSplit, rows: Sequence[int]) -> PreparedSplit:
    """Some utterances of a split, in that order."""
    states = PickedStates(split.states, rows)
    tokens = [split.tokens[row] for row in rows]
    return replace(split, split=split.split.select(rows), tokens=tokens, states=states, y=split.y[torch.as_tensor(rows)])


@dataclass(frozen=True)
class FewerRows:
    """A random `count` of the training utterances; of one seed, a smaller choice is part of a larger one."""

    count: int

    def __call__(self, name: str, split: PreparedSplit, seed: int) -> PreparedSplit:
        """The training split with fewer rows; the others as they are."""
        if name != "train" or self.count >= len(split):
            return split
        return pick_rows(split, sorted(random_for(seed, "rows").permutation(len(split))[: self.count].tolist()))


class DroppedFrames(Sequence[np.ndarray | None]):
    """Features whose frames are left out at random: of item i the frames that `kept` says; None where none is left."""

    def __init__(self, frames: FrameSequence, rates: np.ndarray, seed: int, salt: str):
        self.frames, self.rates, self.seed, self.salt = frames, rates, seed, salt

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> np.ndarray | None:  # type: ignore[override]  # slices are not offered
        values = self.frames[index]
        if values is None:
            return None
        left = values[random_for(self.seed, self.salt, str(index)).random(len(values)) >= self.rates[index]]
        return left if len(left) else None

    def __iter__(self) -> Iterator[np.ndarray | None]:
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True)
class DroppedAtRandom:
    """Frames and words (word pieces) left out at random, all modalities alike; what is left out is absent, not zero.

    Each utterance has one of the `rates`, drawn by the seed. An utterance that loses all of a modality does not have it.
    """

    rates: tuple[float, ...]

    def __call__(self, name: str, split: PreparedSplit, seed: int) -> PreparedSplit:
        """The split with what is left."""
        if not any(self.rates):
            return split
        random = random_for(seed, "rates", name)
        rates = random.choice(self.rates, len(split))
        tokens = [
            [row[0], *(t for t, chance in zip(row[1:-1], random.random(len(row[1:-1])), strict=True) if chance >= rate), row[-1]]
            for row, rate in zip(split.tokens, rates, strict=True)
        ]
        labelled = split.split
        audio, vision = (
            None if frames is None else DroppedFrames(frames, rates, seed, f"{name} {modality}")
            for modality, frames in ((AUDIO, labelled.audio), (VISION, labelled.vision))
        )
        text = None if labelled.text is None else [t if len(left) > 2 else "" for t, left in zip(labelled.text, tokens, strict=True)]
        own = None if labelled.tokens is None else tokens
        return replace(split, split=replace(labelled, text=text, tokens=own, audio=audio, vision=vision), tokens=tokens)


@dataclass(frozen=True)
class Without:
    """Whole modalities absent."""

    modalities: tuple[str, ...]

    def __call__(self, name: str, split: PreparedSplit, seed: int) -> PreparedSplit:
        """The split without them; without text the language model reads an empty transcript."""
        left = split.only([modality for modality in MODALITIES if modality not in self.modalities])
        return replace(left, tokens=[[row[0], row[-1]] for row in split.tokens]) if TEXT in self.modalities else left
