"""Anchors on synthetic opinions whose error covariance is known: against the best linear unbiased combination, and hostile ones."""

from dataclasses import replace

import numpy as np
import pytest
from test_finetune_labels import correlation

from finetune.generator_options import CrossfitOptions, GeneratorOptions
from finetune.labels import LabelInputs, Opinions, make_generator
from finetune.labels.anchors import regression
from finetune.labels.crossfit import noise_levels, note_left_out, out_of_fold, with_anchors

COUNT = 2_000


def corpus(seed: int, errors: np.ndarray | float | None, count: int = COUNT) -> tuple[LabelInputs, np.ndarray, np.ndarray]:
    """Inputs with opinions on text, the text's score s [N] in the unit of y (y = s + n) and n; voice and face make up most of n.

    The opinions are a + b (s + e) with errors e of the given covariance.
    """
    random = np.random.default_rng(seed)
    score = {name: random.normal(size=count) * 0.24 for name in ("text", "audio", "vision")}
    noise = 0.4 * (score["audio"] + score["vision"]) + random.normal(size=count) * 0.05
    descriptors = {name: values[:, None] + random.normal(size=(count, 4)) * 0.4 for name, values in score.items()}
    opinions = {}
    if errors is not None:
        covariance = np.atleast_2d(errors)
        values = score["text"][:, None] + random.multivariate_normal(np.zeros(len(covariance)), covariance, count)
        opinions["text"] = Opinions(tuple(f"opinion {place}" for place in range(len(covariance))), 5.0 - 3.0 * values)
    groups = [f"v{row // 5}" for row in range(count)]
    present = {name: np.ones(count, bool) for name in score}
    return LabelInputs(score["text"] + noise, groups, {}, {}, descriptors, present, seed, 1.0, opinions), score["text"], noise


class Estimate:
    """The label of text that the network of `mucn-crossfit` learns to read out, in its linear form: y - lambda (y - h)."""

    def __init__(self, inputs: LabelInputs, predictions: dict[str, np.ndarray] | None = None, *opinions: np.ndarray):
        options = CrossfitOptions()
        offered = {"text": Opinions(tuple(f"opinion {k}" for k in range(len(opinions))), np.column_stack(opinions))} if opinions else {}
        predictions = predictions if predictions is not None else out_of_fold(inputs, options)
        self.joined, self.levels, facts = with_anchors(inputs, options, predictions, offered or inputs.opinions)
        self.level, self.facts = self.levels["text"], facts.get("text", {})
        self.values = inputs.y - self.level["lambda"] * (inputs.y - self.joined["text"])


@pytest.mark.parametrize("shared", [0.0, 0.5, 0.95, 1.0])
def test_the_combination_is_the_best_linear_unbiased_one_for_any_covariance_of_errors(shared: float) -> None:
    errors = 0.05 * np.array([[1.0, shared, 0.0], [shared, 1.0, 0.0], [0.0, 0.0, 2.0]])
    inputs, score, noise = corpus(0, errors, 40_000)
    y, opinions = inputs.y, inputs.opinions["text"].values
    intercept, weights = regression(y, opinions)
    combined = intercept + opinions @ weights
    estimate = y - noise.var() / (y - combined).var() * (y - combined)
    # Independent closed form: generalised least squares on unbiased readings (y, opinions) with their true error covariance.
    unbiased = np.column_stack([y, (5.0 - opinions) / 3.0])
    covariance = np.zeros((4, 4))
    covariance[0, 0], covariance[1:, 1:] = noise.var(), errors
    solved = np.linalg.pinv(covariance) @ np.ones(4)
    best = unbiased @ solved / solved.sum()
    assert correlation(estimate, best) > 0.9995
    assert ((estimate - score) ** 2).mean() < ((best - score) ** 2).mean()  # shrunk by the prior variance of the score


def test_correlated_opinions_count_once_and_independent_ones_add() -> None:
    found = {}
    for name, errors in {
        "none": None,
        "one": np.array([[0.04]]),
        "copies": np.full((2, 2), 0.04),
        "nearly copies": 0.04 * np.array([[1.0, 0.97], [0.97, 1.0]]),
        "half shared": 0.04 * np.array([[1.0, 0.5], [0.5, 1.0]]),
        "independent": 0.04 * np.eye(2),
    }.items():
        inputs, score, noise = corpus(1, errors)
        made = Estimate(inputs)
        found[name] = correlation(made.values, score)
        if errors is not None:
            assert made.level["lambda"] * made.level["tau"] ** 2 / noise.var() == pytest.approx(1.0, abs=0.3)
            assert made.level["lambda_r2"] <= made.level["lambda"] <= made.facts["lambda_upper"]
            for place in range(len(errors)):  # the noise of each opinion, in the unit of y
                assert made.facts["noise"][f"opinion {place}"] == pytest.approx(0.2, rel=0.3)
    assert found["one"] > found["none"] + 0.02
    assert found["copies"] == pytest.approx(found["one"], abs=0.004)
    assert found["nearly copies"] == pytest.approx(found["one"], abs=0.006)
    assert found["one"] + 0.002 < found["half shared"] < found["independent"] - 0.002


def test_an_opinion_that_shares_the_noise_of_y_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    note_left_out.cache_clear()  # another test may have seen the note
    inputs, score, noise = corpus(2, None)
    random, predictions = np.random.default_rng(7), out_of_fold(inputs, CrossfitOptions())
    plain = noise_levels(inputs.y, predictions, "r2", inputs.present)
    for scatter in (0.0, 0.05, 0.2):
        for opinion in (inputs.y, -inputs.y, noise, -noise):
            made = Estimate(inputs, predictions, opinion + random.normal(size=COUNT) * scatter)
            assert made.facts == {"left_out": ["opinion 0"]}
            assert made.levels == plain
            assert made.joined == predictions
    assert capsys.readouterr().out.count("note: opinion 0: not used as an anchor for text") == 1  # not for every seed
    made = Estimate(inputs, predictions, inputs.y, score + random.normal(size=COUNT) * 0.2)
    assert made.facts["left_out"] == ["opinion 0"]
    assert set(made.facts["weights"]) == {"out-of-fold", "opinion 1"}
    assert correlation(made.values, score) > correlation(Estimate(inputs, predictions).values, score) + 0.02
    leak = replace(inputs, opinions={"text": Opinions(("leak",), inputs.y[:, None])})
    generator = make_generator("mucn-crossfit", GeneratorOptions(crossfit=CrossfitOptions(steps=20)))
    assert np.array_equal(generator(leak).labels["text"], generator(inputs).labels["text"])


@pytest.mark.parametrize("count", [40, COUNT])
def test_opinions_that_say_nothing_do_not_harm(count: int) -> None:
    random, gained = np.random.default_rng(8), {"noise": [], "constant": [], "one wild value": []}  # type: dict[str, list[float]]
    for seed in range(5):
        inputs, score, _ = corpus(seed, None, count)
        predictions = out_of_fold(inputs, CrossfitOptions())
        plain = correlation(Estimate(inputs, predictions).values, score)
        wild = np.where(np.arange(count) == 3, 1e6, score + random.normal(size=count) * 0.2)
        for name, opinion in {"noise": random.normal(size=count), "constant": np.full(count, 3.0), "one wild value": wild}.items():
            gained[name].append(correlation(Estimate(inputs, predictions, opinion).values, score) - plain)
    allowed = 0.004 if count == COUNT else 0.04
    assert np.mean(gained["noise"]) > -allowed
    assert np.mean(gained["constant"]) > -allowed
    assert np.mean(gained["one wild value"]) > (0.02 if count == COUNT else -0.01)  # still an honest opinion on the others


def test_a_reversed_scale_is_no_different() -> None:
    inputs, score, _ = corpus(3, None)
    predictions = out_of_fold(inputs, CrossfitOptions())
    opinion = score + np.random.default_rng(9).normal(size=COUNT) * 0.2
    assert Estimate(inputs, predictions, 4.0 - 9.0 * opinion).values == pytest.approx(Estimate(inputs, predictions, opinion).values)


def test_the_upper_bound_of_a_weak_opinion_on_few_utterances_is_seldom_too_high() -> None:
    too_high = []
    for seed in range(12):
        inputs, score, noise = corpus(seed, None, 200)
        made = Estimate(inputs, None, score + np.random.default_rng(seed).normal(size=200) * 0.7)
        too_high.append(made.facts.get("lambda_upper", 0.0) * made.level["tau"] ** 2 > noise.var())
    assert np.sum(too_high) <= 1
