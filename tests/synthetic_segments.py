"""Synthetic timed words, and invariants of the utterances they are divided into: for tests and fuzzing of the segmenter."""

from itertools import pairwise

from hypothesis import strategies as st

from preprocessing.schema import Word
from preprocessing.segments import SegmentLimits, split_words, stretches

gaps = st.floats(0.0, 3.0)
lengths = st.floats(0.02, 2.5)


@st.composite
def spoken(draw: st.DrawFn) -> tuple[list[Word], str]:
    """Words in order, without overlap, and their text."""
    words: list[Word] = []
    text, clock = "", draw(gaps)
    for _ in range(draw(st.integers(0, 40))):
        token = draw(st.sampled_from(["so", "a", "wonderful", "film", "好"]))
        start, end = clock, clock + draw(lengths)
        text += " " if text else ""
        words.append(Word(token, len(text), len(text) + len(token), start, end))
        text += token + draw(st.sampled_from(["", "", ",", ".", "?", "。"]))
        clock = end + draw(st.one_of(st.just(0.0), gaps))
    return words, text


def check_segments(words: list[Word], text: str, limits: SegmentLimits) -> None:
    """Every word is in one utterance, in order; lengths and pauses respect the limits; utterances are within the recording."""
    ranges = split_words(words, text, limits)
    assert [place for first, last in ranges for place in range(first, last)] == list(range(len(words)))
    for first, last in ranges:
        inside = words[first:last]
        assert len(inside) == 1 or inside[-1].end - inside[0].start <= limits.longest
        for before, after in pairwise(inside):
            assert after.start - before.end < limits.pause
    length = (words[-1].end if words else 0.0) + 1.0
    spans = stretches(words, ranges, (0.0, length), limits.margin)
    for (low, high), (first, last) in zip(spans, ranges, strict=True):
        assert low <= words[first].start
        assert words[last - 1].end <= high
        assert words[first].start - low <= limits.margin + 1e-9
        assert high - words[last - 1].end <= limits.margin + 1e-9
    assert all(high <= low + 1e-9 for (_, high), (low, _) in pairwise(spans))
    assert all(low >= 0 and high <= length for low, high in spans)
