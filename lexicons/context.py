"""The intensity of a word under negation and degree words, by VADER's published rules (Hutto and Gilbert 2014, section 3.3).

A negation among the three words before it multiplies the intensity by -0.74 ("not good"); a degree word there raises or lowers it by
0.293 on VADER's scale of 4, by 95 and 90 percent of that at a distance of two and three words ("very good", "kind of good").
Word lists and constants are those of the package vaderSentiment. Its rules for capitals, punctuation and "but" concern writing or
whole sentences and are not applied. The rules are for English; `lexicons.context_zh` has those for Chinese.
"""

import importlib
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lexicons.lexicon import Lexicon, Match, normalise
from skesl_mug.errors import UserError

VADER_LIMIT = 4.0
NEAR = 3  # number of words before the entry that count
LANGUAGES = frozenset({"en"})


@lru_cache(maxsize=1)
def _rules() -> Any:
    return importlib.import_module("vaderSentiment.vaderSentiment")


def context_intensity(words: Sequence[str], match: Match, lexicon: Lexicon) -> float:
    """The intensity of an entry in its sentence, in the units of the lexicon and clipped to its range.

    Args:
        words: the sentence.
        match: the entry, from `lexicon.matches(words)`.
        lexicon: the rules are scaled from VADER's range of 4 to the range of this lexicon.
    """
    low, high = lexicon.range
    unit = (high - low) / 2 / VADER_LIMIT
    keys = [normalise(word) for word in words]
    place = match.first
    value = match.intensity / unit
    if keys[place] == "no" and match.last == place + 1 and place + 1 < len(keys) and lexicon.score(keys[place + 1]) is not None:
        value = 0.0  # "no" before an entry only negates that entry
    if _no_before(keys, place):
        value = match.intensity / unit * _rules().N_SCALAR
    for distance in range(1, NEAR + 1):
        if place >= distance and lexicon.score(keys[place - distance]) is None:
            value += _degree(keys[place - distance], value) * (1.0, 0.95, 0.9)[distance - 1]
            value *= _negation(keys, place, distance)
            if distance == NEAR:
                value += _degree_phrases(keys, place)
    if place and keys[place - 1] == "least" and (place < 2 or keys[place - 2] not in ("at", "very")):
        value *= _rules().N_SCALAR
    return float(min(max(value * unit, low), high))


def _no_before(keys: Sequence[str], place: int) -> bool:
    before = [keys[place - distance] if place >= distance else "" for distance in (1, 2, 3)]
    return before[0] == "no" or before[1] == "no" or (before[2] == "no" and before[0] in ("or", "nor"))


def _degree(key: str, value: float) -> float:
    """The amount by which a degree word changes an intensity."""
    step = float(_rules().BOOSTER_DICT.get(key, 0.0))
    return -step if value < 0 else step


def _negation(keys: Sequence[str], place: int, distance: int) -> float:
    """The factor of a negation at a distance before the entry. "never so" and "never this" intensify, "without doubt" does not negate."""
    key = keys[place - distance]
    between = keys[place - distance + 1 : place]
    if distance == 2 and key == "never" and between[0] in ("so", "this"):
        return 1.25
    if distance == 3 and ((key == "never" and between[0] in ("so", "this")) or between[1] in ("so", "this")):
        return 1.25
    if distance > 1 and key == "without" and "doubt" in between:
        return 1.0
    return float(_rules().N_SCALAR) if _rules().negated([key]) else 1.0


def _degree_phrases(keys: Sequence[str], place: int) -> float:
    """The effect of degree phrases such as "kind of" among the three words before the entry."""
    three = keys[place - 3 : place]
    return sum(float(_rules().BOOSTER_DICT.get(" ".join(part), 0.0)) for part in (three, three[:2], three[1:]))


def vader_deviations() -> dict[str, float]:
    """Standard deviation of the ten ratings of each entry of VADER, on its scale of -4 to 4, by normalised word or phrase.

    Raises:
        UserError: VADER's package is not installed.
    """
    spec = find_spec("vaderSentiment")
    if spec is None or spec.origin is None:
        raise UserError("VADER's package is not installed; `pip install vaderSentiment`")
    deviations: dict[str, float] = {}
    for line in Path(spec.origin).with_name("vader_lexicon.txt").read_text(encoding="utf-8").splitlines():
        cells = line.split("\t")
        if len(cells) >= 3:
            deviations.setdefault(normalise(cells[0]), float(cells[2]))
    return deviations
