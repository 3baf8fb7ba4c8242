"""Where a long recording is cut into utterances: in the pauses between words. Plain arithmetic on times."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from preprocessing.schema import Word
from skesl_mug.errors import UserError

SENTENCE_ENDS = frozenset(".?!…。？！")
MIN_SENTENCE = 1.0  # seconds: a shorter sentence is joined to the next one
FIRST_CUT_SHARE = 0.6  # a piece of sound is cut after this share of its length, so that pieces are long


@dataclass(frozen=True, kw_only=True)
class SegmentLimits:
    """An utterance ends at a pause of `pause` seconds and lasts at most `longest` seconds; it includes up to `margin` seconds of silence
    around it, at most half of the gap between two."""

    pause: float = 0.6
    longest: float = 15.0
    margin: float = 0.25

    def __post_init__(self) -> None:
        if self.pause <= 0:
            raise UserError(f"--pause {self.pause:g}: must be above 0 seconds")
        if self.longest < 1:
            raise UserError(f"--longest {self.longest:g}: must be at least 1 second")


def split_words(words: Sequence[Word], text: str, limits: SegmentLimits) -> list[tuple[int, int]]:
    """Divide timed words into utterances: ranges [first, last) of word positions that together cover all words.

    An utterance ends at the end of a sentence of at least a second, and at every pause of `limits.pause` seconds. One longer than
    `limits.longest` is divided at its widest gap (if equal, the one nearest to its middle) until each is short enough or one word.

    Args:
        words: with times, in order.
        text: the transcript; its punctuation shows where sentences end.
        limits: of the segmentation.
    """
    ranges = []
    first = 0
    for place in range(1, len(words) + 1):
        if place == len(words) or _ends_here(words, place, first, text, limits):
            ranges += _halved(words, first, place, limits.longest)
            first = place
    return ranges


def _ends_here(words: Sequence[Word], place: int, first: int, text: str, limits: SegmentLimits) -> bool:
    """Whether an utterance that starts with word `first` ends before word `place`."""
    before, after = words[place - 1], words[place]
    if _start(after) - _end(before) >= limits.pause:
        return True
    between = text[before.end_char : after.start_char]
    return bool(SENTENCE_ENDS & set(between)) and _end(before) - _start(words[first]) >= MIN_SENTENCE


def _halved(words: Sequence[Word], first: int, last: int, longest: float) -> list[tuple[int, int]]:
    if last - first < 2 or _end(words[last - 1]) - _start(words[first]) <= longest:
        return [(first, last)]
    middle = (_start(words[first]) + _end(words[last - 1])) / 2
    cut = max(
        range(first + 1, last),
        key=lambda place: (
            round(_start(words[place]) - _end(words[place - 1]), 3),
            -abs((_start(words[place]) + _end(words[place - 1])) / 2 - middle),
        ),
    )
    return _halved(words, first, cut, longest) + _halved(words, cut, last, longest)


def stretches(
    words: Sequence[Word], ranges: Sequence[tuple[int, int]], within: tuple[float, float], margin: float
) -> list[tuple[float, float]]:
    """Start and end (seconds) of each utterance: its words and up to `margin` of the silence around them.

    They do not overlap and, as far as their words do, lie within `within`.
    """
    edges = []
    for number, (first, last) in enumerate(ranges):
        before = _end(words[ranges[number - 1][1] - 1]) if number else None
        after = _start(words[ranges[number + 1][0]]) if number + 1 < len(ranges) else None
        start, end = _start(words[first]), _end(words[last - 1])
        low = min(within[0], start) if before is None else min(start, (before + start) / 2)
        high = max(within[1], end) if after is None else max(end, (end + after) / 2)
        edges.append((max(low, start - margin), min(high, end + margin)))
    return edges


def cut_in_pause(spans: Sequence[tuple[float, float]], length: float) -> float | None:
    """Where to cut a piece of sound whose end may be within a word: the middle of its widest pause (if equal, the latest).

    Args:
        spans: start and end of each stretch of speech, seconds.
        length: of the piece, seconds. Its end counts as a pause if the last stretch ends before it.

    Returns:
        the time of the cut, or None if speech continues without a pause.
    """
    edges = [*spans, (length, length)]
    pauses = [
        (after[0] - before[1], (before[1] + after[0]) / 2)
        for before, after in pairwise(edges)
        if after[0] > before[1] and (before[1] >= FIRST_CUT_SHARE * length or after[0] == length)
    ]
    return max(pauses)[1] if pauses else None


def group_spans(spans: Sequence[tuple[float, float]], longest: float) -> list[list[tuple[float, float]]]:
    """Stretches of speech (start, end) in groups of at most `longest` seconds, divided at the widest pauses.

    A single stretch that is longer is not divided.
    """
    if len(spans) < 2 or spans[-1][1] - spans[0][0] <= longest:
        return [list(spans)] if spans else []
    cut = max(range(1, len(spans)), key=lambda place: spans[place][0] - spans[place - 1][1])
    return group_spans(spans[:cut], longest) + group_spans(spans[cut:], longest)


def leaves_out_speech(words: Sequence[Word], spans: Sequence[tuple[float, float]]) -> bool:
    """Whether a word appears to last through a pause: so Whisper's times look where its text omits a sentence."""
    pauses = [(before[1], after[0]) for before, after in pairwise(spans)]
    return any(_start(word) < start and end < _end(word) for word in words for start, end in pauses)


def _start(word: Word) -> float:
    assert word.start is not None
    return word.start


def _end(word: Word) -> float:
    assert word.end is not None
    return word.end
