"""Bootstrap intervals clustered by video, and the paired test over seeds."""

import numpy as np
import pytest
from scipy import stats

from finetune.report.verdict import Comparison
from finetune.significance import bootstrap_by_video, detectable_shift, paired_over_seeds, paired_over_videos
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
    error = np.std(np.subtract(first, second), ddof=1) / 2
    assert found["detectable"] == pytest.approx(detectable_shift(4) * error, abs=1e-4)
    assert paired_over_seeds([1, 2], [2, 3]) is None
    assert paired_over_seeds([1, 2, 3], [2, 3, 4]) is None


def test_the_permuted_control_in_words():
    assert [use_in_words(difference, 0.03) for difference in (0.03, 0.029, -0.029, -0.03)] == [
        "were used",
        *["were not used"] * 2,
        "were harmful",
    ]


@pytest.mark.parametrize("count", [3, 5, 10])
def test_the_detectable_difference_is_found_in_four_of_five_simulated_runs(count: int) -> None:
    random = np.random.default_rng(count)
    deviation = 0.7
    shift = detectable_shift(count) * deviation / np.sqrt(count)
    p = stats.ttest_1samp(random.normal(shift, deviation, (20_000, count)), 0.0, axis=1).pvalue
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.012)


def test_the_detectable_difference_of_many_values_is_that_of_the_normal_distribution() -> None:
    assert detectable_shift(10_000) == pytest.approx(stats.norm.isf(0.025) + stats.norm.isf(0.2), abs=0.001)


def test_the_test_over_videos_keeps_its_level_where_utterances_of_a_video_are_alike() -> None:
    random = np.random.default_rng(2)
    videos = np.repeat(np.arange(30), 6).astype(str).tolist()
    zeros, found, naive = np.zeros(180), 0, 0
    for _ in range(1000):
        errors = np.repeat(random.normal(size=30), 6) + 0.5 * random.normal(size=180)
        found += paired_over_videos(errors, zeros, videos)["p"] < 0.05
        naive += stats.ttest_1samp(errors, 0.0).pvalue < 0.05
    assert 30 <= found <= 75
    assert naive > 200  # the utterances are not independent
    assert paired_over_videos(zeros, zeros, videos) is None


def test_a_verdict_needs_three_seeds_and_both_tests() -> None:
    clear, unclear = {"p": 0.01, "detectable": 0.02}, {"p": 0.2, "detectable": 0.07}
    assert Comparison(0.1, 3, 100, (clear, clear)).verdict == "better"
    assert Comparison(-0.1, 3, 100, (clear, clear)).verdict == "worse"
    over_videos = Comparison(0.1, 3, 100, (clear, unclear))
    assert (over_videos.verdict, over_videos.p, over_videos.detectable) == ("unclear", 0.2, 0.07)
    assert Comparison(0.1, 2, 100, (clear,)).verdict == "unknown"
    assert Comparison(0.0, 3, 100, ()).verdict == "unclear"  # the same predictions
