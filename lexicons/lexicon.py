"""The lexicon type: look-up of words and phrases, and the most intense word of a sentence."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from skesl_mug.errors import UserError

UNSPACED = frozenset({"zh", "yue"})
"""Languages written without blanks between words, whose texts a segmenter cuts into words."""
MOST_SEGMENTS = 6  # of a Chinese entry
APOSTROPHES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'", "\uff07": "'", "\u00b4": "'", "`": "'"})


def normalise(word: str) -> str:
    """The form a word is looked up in: compatibility characters and case folded, apostrophes straight, no surrounding punctuation."""
    folded = unicodedata.normalize("NFKC", word).casefold().translate(APOSTROPHES)
    return strip_punctuation(folded)


def strip_punctuation(word: str) -> str:
    """The word without what surrounds its first and last letter or digit; empty where it has neither."""
    first, last = bare_span(word)
    return word[first:last]


def bare_span(word: str) -> tuple[int, int]:
    """Start and end (exclusive) of a word without surrounding punctuation: from its first to its last letter, mark or digit."""
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
    """Intensities of words, by word and by phrase (entries of several words).

    `range` is the span of `scores` after scaling, `scale` the factor that brought the source's own numbers there. Keys of `scores`
    are normalised words, keys of `phrases` tuples of them: "fed up" is the phrase ("fed", "up") and gives neither "fed" nor "up" a score.
    A Chinese entry is one key however a segmenter cuts it: it matches where whole segments of a text make it up.
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
        """The intensity of one word, None where the lexicon does not have it.

        Case, surrounding punctuation and the form of the apostrophe do not matter; a possessive 's and inner hyphens are tried
        without. The word is looked up whole: never a piece of it.
        """
        key = normalise(word)
        for form in (key, key.removesuffix("'s"), key.replace("-", "")):
            if form in self.scores:
                return self.scores[form]
        return None

    def matches(self, words: Sequence[str]) -> list[Match]:
        """All entries in a sentence, from left to right. The longest phrase wins over its words."""
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
        """The entry of the largest |intensity|, the earliest on a tie (SKESL, step 2); None where no word is in the lexicon."""
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
        for last in range(min(len(keys), place + MOST_SEGMENTS), place, -1):
            intensity = self.scores.get("".join(keys[place:last]))
            if intensity is not None:
                return Match(place, last, intensity)
        return None

    def describe(self) -> dict[str, object]:
        """What `dataset.json` records about the lexicon."""
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
    """Sort raw entries into words and phrases and scale them.

    `raw_range` is the span of the source's scale; its middle is neutral. With `scale_to=3.0` the scores come out in [-3, 3]
    (VADER's [-4, 4] times 0.75, as in SKESL); with None they keep the source's numbers.
    Entries that are not words (emoticons such as ":D") are left out, for they never occur in speech and ":D" must not score "d".
    Where two entries differ by case alone ("sob", "SOB") the lower-case one counts, as in VADER's own look-up.

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
        raise UserError(f"{source}: no entry of this lexicon is a word")
    span = (-scale_to, scale_to) if scale_to is not None else raw_range
    return Lexicon(name, language, span, scale, source, licence, scores, phrases)
