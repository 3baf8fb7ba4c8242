"""The plan of the sample corpus: what its parts share, and how labels are computed."""

import re
from collections import Counter, defaultdict
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.sample.plan import CONTRADICTIONS, MIN_CLIPS, SPLITS, ClipPlan, part_sizes, plan_corpus
from preprocessing.sample.sentences import ASPECTS, TEST, TOPICS_OF_WORD, TRAIN, VALID, VOCABULARIES, SentimentWord, make_sentence

SEEDS = st.integers(0, 2**31 - 1)
LABELLED = ("train", "valid", "test")


def by_part(plans: list[ClipPlan], what: str) -> dict[str, set]:
    found: dict[str, set] = defaultdict(set)
    for plan in plans:
        values = {"speaker": (plan.speaker,), "number": (plan.speaker_number,), "text": (plan.sentence.text,), "words": plan.sentence.words}
        found[plan.part].update(values[what])
    return found


def vader() -> dict[str, float]:
    spec = find_spec("vaderSentiment")
    assert spec is not None
    assert spec.origin is not None
    lines = (Path(spec.origin).parent / "vader_lexicon.txt").read_text(encoding="utf-8").splitlines()
    return {line.split("\t")[0]: float(line.split("\t")[1]) for line in lines if line.strip()}


@given(clips=st.integers(MIN_CLIPS, 120), seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_parts_share_no_person_no_sentence_and_labelled_ones_no_sentiment_word(clips: int, seed: int) -> None:
    plans = plan_corpus(clips, seed)
    assert len(plans) == clips
    assert Counter(plan.part for plan in plans) == part_sizes(clips)
    assert len({(plan.corpus, plan.clip) for plan in plans}) == clips
    for what in ("speaker", "number", "text"):
        sets = by_part(plans, what)
        assert sum(len(values) for values in sets.values()) == len(set().union(*sets.values())), what
    words = by_part(plans, "words")
    for one, other in combinations(LABELLED, 2):
        assert not words[one] & words[other]


@given(clips=st.integers(MIN_CLIPS, 120), seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_labels_are_on_the_grid_of_the_range(clips: int, seed: int) -> None:
    for plan in plan_corpus(clips, seed):
        for value in (plan.label, plan.label_T, plan.label_A, plan.label_V):
            assert -3 <= value <= 3
            assert round(value * 5) / 5 == pytest.approx(value, abs=1e-9)
        assert np.signbit(plan.label) == (plan.label < 0)  # no "-0.0" in the csv
        assert 6 <= len(plan.sentence.text.split()) <= 12


@given(clips=st.integers(MIN_CLIPS, 3000))
def test_every_part_has_clips(clips: int) -> None:
    sizes = part_sizes(clips)
    assert list(sizes) == list(SPLITS)
    assert min(sizes.values()) >= 1
    assert sizes["unlabelled"] >= 2  # pretraining holds out one person
    assert sum(sizes.values()) == clips


def test_the_demo_has_400_test_clips_of_speakers_of_their_own() -> None:
    plans = plan_corpus(850, 1)
    assert Counter(plan.part for plan in plans) == {"unlabelled": 200, "train": 200, "valid": 50, "test": 400}
    assert len({plan.sentence.text for plan in plans if plan.part == "test"}) == 400
    speakers = by_part(plans, "speaker")
    assert len(speakers["test"]) >= 60
    assert not speakers["test"] & (speakers["train"] | speakers["valid"] | speakers["unlabelled"])


def test_the_corpus_of_600_has_the_documented_sizes() -> None:
    plans = plan_corpus(600, 1)
    sizes = Counter(plan.part for plan in plans)
    assert sizes == {"unlabelled": 200, "train": 200, "valid": 50, "test": 150}
    kinds = Counter(plan.kind for plan in plans)
    assert 0.24 <= 1 - kinds["agreeing"] / 600 <= 0.26
    assert min(kinds[kind] for kind in CONTRADICTIONS) >= 30
    assert len({plan.speaker for plan in plans}) >= 90
    labels = np.array([plan.label for plan in plans])
    assert np.histogram(labels, bins=6, range=(-3, 3))[0].min() >= 20  # the full range is used
    neutral = sum(not plan.sentence.words for plan in plans) / 600
    assert 0.05 <= neutral <= 0.15


def test_a_seed_determines_the_corpus() -> None:
    assert plan_corpus(60, 5) == plan_corpus(60, 5)
    one, other = plan_corpus(60, 5), plan_corpus(60, 6)
    assert sum(a.sentence == b.sentence for a, b in zip(one, other, strict=True)) < 3
    assert [plan.label for plan in one] != [plan.label for plan in other]


def test_the_label_weighs_the_modalities_and_irony_pulls_it_down() -> None:
    plans = plan_corpus(2000, 3)
    truth = np.array([(p.label_T, p.label_A, p.label_V) for p in plans])
    label = np.array([p.label for p in plans])
    mean = truth @ (0.45, 0.25, 0.30)
    kind = np.array([p.kind for p in plans])
    agreeing = kind == "agreeing"
    assert np.abs(label - mean)[agreeing].mean() < 0.15
    positive, body = truth[:, 0], -truth[:, 1:].mean(1)
    irony = kind == "irony"
    assert (positive[irony] > 0).all()
    assert (truth[irony, 1:] < 0).all()
    pulled = (mean - label)[irony]
    assert pulled == pytest.approx(0.4 * np.minimum(positive, body)[irony], abs=0.6)
    assert pulled.mean() > 0.3
    assert np.abs(truth[kind == "poker_face", 2]).mean() < 0.35
    assert np.abs(truth[kind == "flat_voice", 1]).mean() < 0.35
    assert (truth[kind == "brave_face", 2] > 0).all()
    assert (truth[kind == "brave_face", 0] < 0).all()


def test_too_few_clips_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 6"):
        plan_corpus(5, 1)


def test_the_vocabularies_are_vaders_and_cover_the_range() -> None:
    lexicon = vader()
    for word in VOCABULARIES["unlabelled"]:
        assert lexicon.get(word.text) == word.score, word
    assert min(len(TRAIN), len(TEST)) >= 40
    assert len(VALID) >= 16
    for vocabulary in (TRAIN, VALID, TEST):
        scores = sorted(word.score for word in vocabulary)
        assert scores[0] <= -2.9
        assert scores[-1] >= 2.8
        assert max(np.diff(scores)) <= 2.2


def test_no_stem_is_in_two_vocabularies() -> None:
    def stem(text: str) -> str:
        return re.sub(r"(ing|able|ed|ful|ive|less|y)$", "", text)[:6]

    stems = [{stem(word.text) for word in vocabulary} for vocabulary in (TRAIN, VALID, TEST)]
    for one, other in combinations(stems, 2):
        assert not one & other


def test_the_words_with_topics_exist_and_every_topic_has_words_of_both_signs() -> None:
    assert set(TOPICS_OF_WORD) <= {word.text for word in VOCABULARIES["unlabelled"]}
    for vocabulary in (TRAIN, VALID, TEST):
        for topic in ASPECTS:
            adjectives = [w for w in vocabulary if w.kind == "adjective" and topic in TOPICS_OF_WORD.get(w.text, ASPECTS)]
            assert min(sum(w.score > 0 for w in adjectives), sum(w.score < 0 for w in adjectives)) >= 3, topic


@given(seed=SEEDS, polarity=st.sampled_from(["positive", "negative", "mixed", "neutral"]), part=st.sampled_from(SPLITS))
@settings(max_examples=300)
def test_only_the_listed_words_of_a_sentence_have_sentiment(seed: int, polarity: str, part: str) -> None:
    sentence = make_sentence(VOCABULARIES[part], polarity, np.random.default_rng(seed))
    lexicon = VADER
    borne = [word for word in re.findall(r"[a-z]+", sentence.text.lower()) if word in lexicon]
    assert sorted(borne) == sorted(sentence.words)
    scores = [lexicon[word] for word in sentence.words]
    assert len(scores) == {"neutral": 0, "mixed": 2}.get(polarity, len(scores))
    if polarity in ("positive", "negative"):
        sign = 1 if polarity == "positive" else -1
        assert all(sign * score > 0 for score in scores)
        assert sign * sentence.intensity > 0
    assert abs(sentence.intensity) <= 3
    assert re.search(r"\b(a [aeio]|an [^aeiou])", sentence.text.replace("an hour", "")) is None


VADER = vader()


def test_the_intensity_is_composed_as_documented() -> None:
    feelings = (SentimentWord("happy", 2.0, "feeling"),)
    seen = set()
    for seed in range(60):
        drawn = make_sentence(feelings, "positive", np.random.default_rng(seed))
        factor = 1.2 if "really" in drawn.text else 0.7 if "rather" in drawn.text else 1.0
        assert drawn.intensity == pytest.approx(1.5 * factor)
        seen.add(factor)
    assert seen == {0.7, 1.0, 1.2}
