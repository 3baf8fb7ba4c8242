"""Intervals around scores: the conformal quantile, its coverage on exchangeable data, and what runs, predictions and reports say of it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from finetune.prediction.intervals import (
    ScoreInterval,
    clipped_residuals,
    conformal_half_width,
    coverage_of,
    coverage_spread,
    utterances_needed,
)


def test_the_half_width_is_the_corrected_quantile() -> None:
    residuals = np.array([0.3, -0.1, 0.2, -0.4])
    assert conformal_half_width(residuals, 0.8) == pytest.approx(0.4)  # ceil(5 x 0.8) = 4th of 4
    assert conformal_half_width(residuals[:3], 0.8) is None  # ceil(4 x 0.8) = 4th of 3
    assert conformal_half_width(np.arange(1, 11) / 10, 0.5) == pytest.approx(0.6)  # ceil(11 x 0.5) = 6th
    assert conformal_half_width(np.zeros(0), 0.8) is None
    assert [utterances_needed(level) for level in (0.5, 0.8, 0.9, 0.95)] == [1, 4, 9, 19]


@given(st.floats(0.05, 0.99), st.integers(1, 300))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_there_is_an_interval_exactly_from_the_number_that_is_needed(level: float, n: int) -> None:
    found = conformal_half_width(np.linspace(-1, 1, n), level)
    assert (found is not None) == (n >= utterances_needed(level))


@given(st.sampled_from([0.5, 0.8, 0.9]), st.integers(9, 60), st.integers(0, 3), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_coverage_on_exchangeable_data_is_the_level(level: float, n: int, kind: int, seed: int) -> None:
    """Labels and scores drawn alike for both parts, with errors that are skewed, heavy-tailed or tied: over many calibration parts the
    coverage is at least the level, within binomial bounds, and at most 1 / (n + 1) above it without ties (Lei et al. 2018, theorem 2)."""
    random, trials = np.random.default_rng(seed), 600
    draw = (
        lambda size: random.normal(0, 1, size),
        lambda size: random.exponential(1, size),
        lambda size: random.standard_t(2, size),
        lambda size: random.integers(-2, 3, size).astype(float),
    )[kind]
    covered = 0
    for _ in range(trials):
        labels = random.uniform(-3, 3, n + 1)
        predictions = labels + draw(n + 1)
        residuals = clipped_residuals(predictions, labels, (-3.0, 3.0))
        half_width = conformal_half_width(residuals[:n], level)
        assert half_width is not None
        interval = ScoreInterval(level, half_width)
        low, high = interval.around(float(predictions[n]), (-3.0, 3.0))
        assert low is not None
        assert high is not None
        inside = low - 1e-6 <= labels[n] <= high + 1e-6
        assert inside == (coverage_of(residuals[n:], half_width) == 1.0)
        covered += inside
    assert covered >= stats.binom.ppf(1e-4, trials, level)
    if kind < 3:
        assert covered <= stats.binom.ppf(1 - 1e-4, trials, min(1.0, level + 1 / (n + 1)))


def test_the_spread_of_the_coverage_is_that_of_simulated_calibration_parts() -> None:
    random = np.random.default_rng(0)
    shares = []
    for _ in range(3000):
        half_width = conformal_half_width(random.uniform(-1, 1, 20), 0.8)
        assert half_width is not None
        shares.append(half_width)  # |U(-1, 1)| <= w has the probability w
    assert np.std(shares) == pytest.approx(coverage_spread(0.8, 20), rel=0.05)


def test_intervals_stay_within_the_label_range_and_around_the_clipped_score() -> None:
    interval = ScoreInterval(0.8, 0.5)
    assert interval.around(0.2, (-1.0, 1.0)) == pytest.approx((-0.3, 0.7))
    assert interval.around(1.4, (-1.0, 1.0)) == (0.5, 1.0)
    assert interval.around(-9.0, (-1.0, 1.0)) == (-1.0, -0.5)
    assert interval.around(math.nan, (-1.0, 1.0)) == (None, None)
    assert ScoreInterval(0.8, reason="no interval").around(0.2, (-1.0, 1.0)) == (None, None)
