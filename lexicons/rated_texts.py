"""Texts with the ratings that people gave them, and how texts that belong together are found."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IDEOGRAMS = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # written without blanks: each counts as a word
_WORDS = re.compile(rf"[{IDEOGRAMS}]|[^\W{IDEOGRAMS}]+")


@dataclass(frozen=True)
class RatedTexts:
    """N texts and what people felt in them, on the scale of MOSI's labels."""

    name: str
    """Where they come from, as reports say it."""
    texts: list[str]
    scores: NDArray[np.float32]
    """[N] mean rating, on [-3, 3]."""
    spreads: NDArray[np.float32]
    """[N] standard deviation of the raters' ratings, in the same units; NaN where unknown."""
    groups: list[str]
    """The document (review, article) each text is from; texts of one group must stay on one side of a split."""
    sha256: str
    """Of the source file."""
    notes: tuple[str, ...] = ()
    """What a user should be told: counted skips, how the scores were mapped."""

    def __len__(self) -> int:
        """The number of texts."""
        return len(self.texts)


def text_key(text: str) -> str:
    """What texts share that are the same but for capitals, blanks and marks: their words, or all characters where there are none."""
    return " ".join(_WORDS.findall(text.casefold())) or "".join(text.split())


def join_groups(groups: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Groups so that texts of the same `text_key` share one: groups with a common text become one, under the name of the first."""
    first = {group: place for place, group in reversed(list(enumerate(groups)))}
    parent = dict(zip(groups, groups, strict=True))

    def root(group: str) -> str:
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    owner: dict[str, str] = {}
    for group, text in zip(groups, texts, strict=True):
        here, there = root(group), root(owner.setdefault(text_key(text), group))
        early, late = sorted((here, there), key=first.__getitem__)
        parent[late] = early
    return [root(group) for group in groups]


def _ngrams(text: str, n: int) -> Iterable[tuple[str, ...]]:
    words = _WORDS.findall(text.lower())
    return zip(*(words[start:] for start in range(n)), strict=False)


def shared_ngrams(texts: Sequence[str], others: Sequence[str], n: int = 6) -> NDArray[np.bool_]:
    """[len(texts)] whether a text shares `n` consecutive words with any of `others`: lower case, word characters alone.

    An ideogram counts as a word. A text of fewer than `n` words shares none.

    Raises:
        ValueError: `n` is below 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}; an n-gram has at least one word")
    known = {gram for other in others for gram in _ngrams(other, n)}
    return np.array([any(gram in known for gram in _ngrams(text, n)) for text in texts], dtype=bool)
