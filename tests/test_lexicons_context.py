"""Negation and degree words against VADER's own implementation."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from lexicons import load_lexicon
from lexicons.context import context_intensity
from lexicons.lexicon import Lexicon

VADER = load_lexicon("vader")
ANALYSER = SentimentIntensityAnalyzer()
WORDS = ["good", "awful", "love", "not", "never", "no", "so", "this", "very", "extremely", "slightly", "kind", "of", "least", "at"]
WORDS += ["without", "doubt", "isn't", "the", "film", "nor", "barely", "sort", "hardly", "really"]


def vaders_own(words: list[str], place: int) -> float:
    """The intensity of one word by VADER's analyser, on its scale of 4."""
    sentence = SimpleNamespace(words_and_emoticons=words, is_cap_diff=False)
    return ANALYSER.sentiment_valence(0, sentence, words[place], place, [])[-1]


def ours(text: str, lexicon: Lexicon = VADER) -> list[float]:
    words = text.split()
    return [round(context_intensity(words, match, lexicon), 4) for match in lexicon.matches(words)]


def test_not_good_and_very_good():
    good = 0.75 * 1.9
    assert ours("a good film") == [pytest.approx(good, abs=1e-4)]
    assert ours("not good") == [pytest.approx(-0.74 * good, abs=1e-4)]
    assert ours("very good") == [pytest.approx(good + 0.75 * 0.293, abs=1e-4)]
    assert ours("it was very very awful") == [pytest.approx(0.75 * (-2.0 - 0.293 - 0.293 * 0.95), abs=1e-4)]
    assert ours("it isn't really good") == [pytest.approx(-0.74 * 0.75 * (1.9 + 0.293), abs=1e-4)]


def test_phrases_and_other_scales():
    assert ours("we are not fed up") == [pytest.approx(0.74 * 1.35, abs=1e-4)]
    afinn_like = Lexicon("x", "en", (-1.0, 1.0), 1.0, "", "", {"good": 0.5})
    assert ours("very good", afinn_like) == [pytest.approx(0.5 + 0.293 / 4, abs=1e-4)]
    strong = Lexicon("x", "en", (-1.0, 1.0), 1.0, "", "", {"good": 0.99})
    assert ours("extremely very good", strong) == [1.0]  # stays in the lexicon's range


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=7))
@settings(max_examples=300, deadline=None)
def test_equals_vaders_own_rules(words):
    for match in VADER.matches(words):
        if match.last == match.first + 1:
            expected = 0.75 * vaders_own(words, match.first)
            assert context_intensity(words, match, VADER) == pytest.approx(max(-3.0, min(3.0, expected)), abs=1e-9)
