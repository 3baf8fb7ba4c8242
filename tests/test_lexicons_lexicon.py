"""The lexicon type: look-up on words, phrases, the most intense word, scaling."""

import doctest
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lexicons
from lexicons import Match, UserError, load_lexicon
from lexicons.lexicon import Lexicon, bare_span, build_lexicon, normalise
from lexicons.words import is_content_word

VADER = load_lexicon("vader")


@pytest.fixture
def vader() -> Lexicon:
    return VADER


def made(raw: dict[str, float], scale_to: float | None = 3.0, raw_range: tuple[float, float] = (-4.0, 4.0)) -> Lexicon:
    return build_lexicon(raw, name="made", language="en", raw_range=raw_range, scale_to=scale_to, source="a test", licence="none")


def test_vader_scores_are_three_quarters_of_the_file(vader):
    # the file has great 3.1, awful -2.0, good 1.9
    assert vader.score("great") == pytest.approx(0.75 * 3.1)
    assert vader.score("awful") == pytest.approx(0.75 * -2.0)
    assert vader.score("good") == pytest.approx(0.75 * 1.9)
    assert vader.range == (-3.0, 3.0)
    assert vader.scale == pytest.approx(0.75)
    assert all(-3.0 <= score <= 3.0 for score in vader.scores.values())


def test_phrases_do_not_overwrite_their_words(vader):
    """Splitting the file at spaces would give "fed" the entry of "fed up", and "up" a score (a trap of the original reader)."""
    assert vader.score("fed") is None
    assert vader.score("up") is None
    assert vader.score("screwed") == pytest.approx(0.75 * -2.2)
    assert vader.score("(") is None
    assert vader.phrases[("fed", "up")] == pytest.approx(0.75 * -1.8)
    assert vader.phrases[("can't", "stand")] == pytest.approx(0.75 * -2.0)


def test_a_phrase_matches_as_a_phrase(vader):
    assert vader.matches(["I", "am", "fed", "up", "today"]) == [Match(2, 4, pytest.approx(-1.35))]
    assert vader.matches(["I", "can\u2019t", "stand,", "this"]) == [Match(1, 3, pytest.approx(-1.5))]
    assert vader.matches(["they", "fed", "the", "dog", "and", "stood", "up"]) == []


def test_words_are_never_matched_by_pieces(vader):
    assert vader.score("ass") is not None
    assert vader.score("assembly") is None
    assert vader.score("class") is None
    assert vader.score("unbelievable") == pytest.approx(0.75 * 0.8)


@pytest.mark.parametrize("word", ["great", "Great", "GREAT!", '"great"', "great...", "(great)", "\u201cgreat\u201d", "great's", "ｇreat"])
def test_case_and_punctuation_do_not_matter(vader, word):
    assert vader.score(word) == vader.score("great")


def test_emoticons_do_not_give_letters_a_score(vader):
    for letter in ("d", "p", "x", "o", "c"):  # ":d", ":p", "x:", ":o", ":c" are entries
        assert vader.score(letter) is None


def test_lower_case_entry_wins():
    assert made({"SOB": -2.8, "sob": -1.0}, scale_to=4.0).score("Sob") == -1.0
    assert made({"sob": -1.0, "SOB": -2.8}, scale_to=4.0).score("Sob") == -1.0


def test_the_most_intense_word_and_the_earliest_on_a_tie():
    lexicon = made({"good": 1.9, "awful": -2.0, "nice": 2.0}, scale_to=4.0)
    assert lexicon.most_intense(["good", "awful", "nice"]) == Match(1, 2, -2.0)
    assert lexicon.most_intense(["nice", "good", "awful"]) == Match(0, 1, 2.0)
    assert lexicon.most_intense(["nothing", "here"]) is None
    assert lexicon.most_intense([]) is None


def test_the_middle_of_the_scale_is_neutral():
    lexicon = made({"calm": 5.0, "joy": 9.0, "grief": 1.0}, raw_range=(1.0, 9.0))
    assert [lexicon.score(word) for word in ("calm", "joy", "grief")] == [0.0, 3.0, -3.0]
    assert made({"joy": 9.0}, scale_to=None, raw_range=(1.0, 9.0)).score("joy") == 9.0


def test_a_lexicon_without_words_is_refused():
    with pytest.raises(UserError, match="none of its entries"):
        made({":)": 2.0})


def test_longest_phrase_wins():
    lexicon = made({"not bad": 1.0, "not bad at all": 2.0, "bad": -2.0}, scale_to=4.0)
    assert lexicon.matches(["not", "bad", "at", "all"]) == [Match(0, 4, 2.0)]
    assert lexicon.matches(["not", "bad", "at"]) == [Match(0, 2, 1.0)]


@given(st.text(max_size=20))
def test_normalising_twice_changes_nothing(word):
    once = normalise(word)
    assert normalise(once) == once or any(len(c.casefold()) > 1 for c in once)


@given(st.text(max_size=20))
def test_the_bare_span_holds_every_letter(word):
    first, last = bare_span(word)
    assert not any(character.isalnum() for character in word[:first] + word[last:])


@given(st.lists(st.sampled_from(["good", "awful", "fed", "up", "table", "can't", "stand", "great!"]), max_size=12))
def test_matches_are_disjoint_ordered_and_hold_the_most_intense(words):
    vader = VADER
    found = vader.matches(words)
    assert all(before.last <= after.first for before, after in itertools.pairwise(found))
    best = vader.most_intense(words)
    assert (best is None) == (not found)
    if best is not None:
        assert abs(best.intensity) == max(abs(match.intensity) for match in found)
        assert best == next(match for match in found if abs(match.intensity) == abs(best.intensity))


def test_content_words():
    assert is_content_word("film", "en")
    assert not is_content_word("The", "en")
    assert not is_content_word("don\u2019t", "en")
    assert not is_content_word("42", "en")
    assert is_content_word("the", "xx")


@pytest.mark.parametrize("module", [lexicons, lexicons.lexicon, lexicons.sources])
def test_the_examples_in_docstrings(module):
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed
