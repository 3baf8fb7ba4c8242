"""Bootstrap intervals clustered by video, and the paired test over seeds."""

import numpy as np
import pytest
from scipy import stats

from finetune.significance import bootstrap_by_video, paired_over_seeds
from finetune.training.results import use_in_words


def test_interval_covers_the_figure_and_widens_with_clustering() -> None:
    random = np.random.default_rng(0)
    labels = np.round(random.uniform(-3, 3, 200), 1).astype(np.float32)
    error_of_video = np.repeat(random.normal(size=20), 10)
    predictions = (labels + error_of_video).astype(np.float32)
    clustered = bootstrap_by_video([predictions], labels, np.repeat([f"v{n}" for n in range(20)], 10).tolist(), "mosi", 300)
    apart = bootstrap_by_video([predictions], labels, [f"u{n}" for n in range(200)], "mosi", 300)
    mae = float(np.abs(predictions - labels).mean())
    assert clustered["MAE"][0] < mae < clustered["MAE"][1]
    assert clustered["MAE"][1] - clustered["MAE"][0] > 1.7 * (apart["MAE"][1] - apart["MAE"][0])


def test_interval_has_the_width_of_theory_for_independent_samples() -> None:
    random = np.random.default_rng(1)
    errors = np.abs(random.normal(size=400))
    labels = np.zeros(400, np.float32)
    low, high = bootstrap_by_video([errors.astype(np.float32)], labels, [str(n) for n in range(400)], "custom", 600)["MAE"]
    assert high - low == pytest.approx(2 * 1.96 * errors.std() / 20, rel=0.15)


def test_no_draws_no_intervals_and_undefined_metrics_are_left_out() -> None:
    constant, labels = np.zeros(20, np.float32), np.linspace(-1, 1, 20, dtype=np.float32)
    videos = [str(n % 5) for n in range(20)]
    assert bootstrap_by_video([constant], labels, videos, "custom", 0) == {}
    assert "Corr" not in bootstrap_by_video([constant], labels, videos, "custom", 30)


def test_paired_test_is_scipys() -> None:
    first, second = [0.5, 0.6, 0.55, 0.7], [0.55, 0.61, 0.6, 0.72]
    found = paired_over_seeds(first, second)
    reference = stats.ttest_rel(first, second)
    assert found is not None
    assert found["difference"] == pytest.approx(-0.0325)
    assert found["t"] == pytest.approx(reference.statistic, abs=0.01)
    assert found["p"] == pytest.approx(reference.pvalue, abs=1e-4)
    assert paired_over_seeds([1, 2], [2, 3]) is None
    assert paired_over_seeds([1, 2, 3], [2, 3, 4]) is None


def test_the_permuted_control_in_words():
    assert [use_in_words(difference, 0.03) for difference in (0.03, 0.029, -0.029, -0.03)] == [
        "were used",
        *["were not used"] * 2,
        "were harmful",
    ]
