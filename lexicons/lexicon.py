"""The lexicon type: look-up of words and phrases, and the most intense word of a sentence."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from skesl_mug.errors import UserError

UNSPACED = frozenset({"zh", "yue"})
"""Languages written without spaces, whose texts need a segmenter."""
MAX_SEGMENTS = 6  # in a Chinese entry
APOSTROPHES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'", "\uff07": "'", "\u00b4": "'", "`": "'"})


def normalise(word: str) -> str:
    """The form in which words are looked up: compatibility characters and case folded, straight apostrophes, no outer punctuation."""
    folded = unicodedata.normalize("NFKC", word).casefold().translate(APOSTROPHES)
    return strip_punctuation(folded)


def strip_punctuation(word: str) -> str:
    """The word from its first to its last letter or digit; empty if it has neither."""
    first, last = bare_span(word)
    return word[first:last]


def bare_span(word: str) -> tuple[int, int]:
    """Start and end (exclusive) of a word without outer punctuation: from its first to its last letter, mark or digit."""
    kept = [place for place, character in enumerate(word) if unicodedata.category(character)[0] in "LMN"]
    return (kept[0], kept[-1] + 1) if kept else (0, 0)


@dataclass(frozen=True)
class Match:
    """An entry found in a sentence: words `first` to `last` (exclusive) and the entry's intensity."""

    first: int
    last: int
    intensity: float


@dataclass(frozen=True)
class Lexicon:
    """Sentiment intensities of words and phrases.

    `range` is the range of the scores after scaling, `scale` the factor applied to the source's numbers. Keys of `scores` are normalised
    words, keys of `phrases` tuples of them: "fed up" is the phrase ("fed", "up") and gives neither "fed" nor "up" a score. A Chinese
    entry is a single key; it matches where consecutive segments of a text add up to it.

    >>> lexicon = Lexicon("mine", "en", (-3, 3), 1.0, "example", "CC0", {"good": 1.9}, {("fed", "up"): -1.8})
    >>> lexicon.score("Good!"), lexicon.matches("I am fed up".split())
    (1.9, [Match(first=2, last=4, intensity=-1.8)])
    """

    name: str
    language: str
    range: tuple[float, float]
    scale: float
    source: str
    licence: str
    scores: Mapping[str, float]
    phrases: Mapping[tuple[str, ...], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        by_first: dict[str, list[tuple[str, ...]]] = {}
        for phrase in self.phrases:
            by_first.setdefault(phrase[0], []).append(phrase)
        for candidates in by_first.values():
            candidates.sort(key=len, reverse=True)
        object.__setattr__(self, "_by_first", by_first)

    def __len__(self) -> int:
        return len(self.scores) + len(self.phrases)

    def score(self, word: str) -> float | None:
        """The intensity of a word; None if it is not in the lexicon.

        Case, outer punctuation and the kind of apostrophe do not matter; if needed, the word is also tried without a possessive 's and
        without hyphens. Parts of words are not looked up.
        """
        key = normalise(word)
        for form in (key, key.removesuffix("'s"), key.replace("-", "")):
            if form in self.scores:
                return self.scores[form]
        return None

    def matches(self, words: Sequence[str]) -> list[Match]:
        """All entries in a sentence, from left to right. A phrase takes precedence over its words, a longer phrase over a shorter one."""
        keys = [normalise(word) for word in words]
        found: list[Match] = []
        place = 0
        while place < len(keys):
            match = self._match_at(words, keys, place)
            if match is not None:
                found.append(match)
            place = match.last if match is not None else place + 1
        return found

    def most_intense(self, words: Sequence[str]) -> Match | None:
        """The entry with the largest |intensity|, the first one on a tie (SKESL, step 2); None if there is no entry."""
        return max(self.matches(words), key=lambda match: abs(match.intensity), default=None)

    def _match_at(self, words: Sequence[str], keys: Sequence[str], place: int) -> Match | None:
        if self.language in UNSPACED:
            return self._match_segments(keys, place)
        by_first: Mapping[str, list[tuple[str, ...]]] = self.__dict__["_by_first"]
        for phrase in by_first.get(keys[place], ()):
            if tuple(keys[place : place + len(phrase)]) == phrase:
                return Match(place, place + len(phrase), self.phrases[phrase])
        intensity = self.score(words[place])
        return None if intensity is None else Match(place, place + 1, intensity)

    def _match_segments(self, keys: Sequence[str], place: int) -> Match | None:
        for last in range(min(len(keys), place + MAX_SEGMENTS), place, -1):
            intensity = self.scores.get("".join(keys[place:last]))
            if intensity is not None:
                return Match(place, last, intensity)
        return None

    def describe(self) -> dict[str, object]:
        """The entry `lexicon` of `dataset.json`."""
        return {
            "name": self.name,
            "language": self.language,
            "range": list(self.range),
            "scale": self.scale,
            "source": self.source,
            "licence": self.licence,
            "entries": len(self),
        }


def build_lexicon(
    raw: Mapping[str, float],
    *,
    name: str,
    language: str,
    raw_range: tuple[float, float],
    scale_to: float | None,
    source: str,
    licence: str,
) -> Lexicon:
    """Build a lexicon from raw entries, scaled.

    `raw_range` is the range of the source's scale; its middle is neutral. With `scale_to=3.0` the scores are in [-3, 3]
    (VADER's [-4, 4] times 0.75, as in SKESL); with None they are the source's numbers.
    Entries that are not words, such as the emoticon ":D", are left out: they do not occur in speech, and ":D" must not give "d" a score.
    If two entries differ only by case ("sob", "SOB"), the lower-case one counts, as in VADER.

    Raises:
        UserError: no entry is left.
    """
    low, high = raw_range
    middle = (low + high) / 2 if scale_to is not None else 0.0
    scale = scale_to / ((high - low) / 2) if scale_to is not None else 1.0
    scores: dict[str, float] = {}
    phrases: dict[tuple[str, ...], float] = {}
    for entry in sorted(raw, key=lambda text: text != text.lower()):  # lower-case entries first
        folded = unicodedata.normalize("NFKC", entry).casefold().translate(APOSTROPHES).strip()
        parts = tuple(folded.split()) if language not in UNSPACED else ("".join(folded.split()),)
        if not parts or any(strip_punctuation(part) != part for part in parts):
            continue
        value = (raw[entry] - middle) * scale
        if len(parts) == 1:
            scores.setdefault(parts[0], value)
        else:
            phrases.setdefault(parts, value)
    if not scores and not phrases:
        raise UserError(f"{source}: none of its entries is a word")
    span = (-scale_to, scale_to) if scale_to is not None else raw_range
    return Lexicon(name, language, span, scale, source, licence, scores, phrases)
