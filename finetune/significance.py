"""Confidence intervals, paired t-tests over seeds and videos, and the smallest difference that such a test can detect."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pandas as pd
from scipy import optimize, stats

from finetune.metrics import score

LEVEL = 95.0
"""Coverage of the intervals in per cent."""
SIGNIFICANCE, POWER = 0.05, 0.8
"""Two-sided level of the tests, and the probability with which a detectable difference is found (Cohen's convention)."""
FEWEST_SEEDS = 3
"""With fewer seeds there is no test."""


def bootstrap_by_video(
    predictions: Sequence[np.ndarray], labels: np.ndarray, videos: Sequence[str], dataset: str, draws: int, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Bootstrap intervals of every metric. Complete videos are resampled, because the utterances of a video are not independent.

    Args:
        predictions: one [N] per seed; each draw uses a random seed's predictions, so that both sources of variance are included.
        labels: [N].
        videos: [N] ids.
        dataset: whose metrics.
        draws: number of draws; 0: no intervals.
        seed: of the draws.

    Returns:
        metric -> (low, high) at 95 %; metrics that are undefined in more than half of the draws are omitted.
    """
    random = np.random.default_rng(seed)
    names, group = np.unique(np.asarray(videos), return_inverse=True)
    if len(names) < 2:  # resampling a single video gives the same video
        return {}
    members = [np.flatnonzero(group == place) for place in range(len(names))]
    found: dict[str, list[float]] = {}
    for _ in range(draws):
        rows = np.concatenate([members[place] for place in random.integers(len(names), size=len(names))])
        chosen = predictions[int(random.integers(len(predictions)))]
        for key, value in score(chosen[rows], labels[rows], dataset).items():
            if value is not None:
                found.setdefault(key, []).append(value)
    tail = (100.0 - LEVEL) / 2
    return {
        key: (round(float(np.percentile(values, tail)), 4), round(float(np.percentile(values, 100 - tail)), 4))
        for key, values in found.items()
        if len(values) > draws / 2
    }


def difference_by_video(first: pd.DataFrame | None, second: pd.DataFrame | None, draws: int, seed: int = 0) -> tuple[float, float] | None:
    """The 95 % bootstrap interval of MAE(first) - MAE(second) over complete videos; each draw uses a random seed of each.

    Args:
        first, second: tables with `seed, id, video_id, label, pred_M`, as in a run's predictions.csv; only shared ids are used.
        draws: number of draws; 0: no interval.
        seed: of the draws.

    Returns:
        (low, high), or None if they share fewer than two videos.
    """
    if first is None or second is None or not draws:
        return None
    errors = [_errors_by_seed(table) for table in (first, second)]
    shared = errors[0].index.intersection(errors[1].index)
    videos = first.drop_duplicates("id").set_index("id")["video_id"].reindex(shared)
    names, group = np.unique(videos.to_numpy(str), return_inverse=True)
    if len(names) < 2:
        return None
    random = np.random.default_rng(seed)
    sizes = np.bincount(group)
    sums = [
        np.stack([np.bincount(group, weights=column, minlength=len(names)) for column in table.loc[shared].to_numpy().T])
        for table in errors
    ]
    found = []
    for _ in range(draws):
        chosen = random.integers(len(names), size=len(names))
        one, other = (table[int(random.integers(len(table)))][chosen].sum() for table in sums)
        found.append((one - other) / sizes[chosen].sum())
    tail = (100.0 - LEVEL) / 2
    return round(float(np.percentile(found, tail)), 4), round(float(np.percentile(found, 100 - tail)), 4)


def _errors_by_seed(table: pd.DataFrame) -> pd.DataFrame:
    """Absolute errors, one row per utterance and one column per seed."""
    errors = table.assign(error=(table["pred_M"] - table["label"]).abs())
    return errors.pivot_table(index="id", columns="seed", values="error").dropna()


@cache
def detectable_shift(count: int, power: float = POWER, level: float = SIGNIFICANCE) -> float:
    """The noncentrality at which a two-sided t-test of `count` values has the given power: Cohen (1988), Statistical Power Analysis, ch. 2.

    Solves P(T > t_critical) = power for T with a noncentral t-distribution of count - 1 degrees of freedom; the other tail is negligible.
    Times the standard error it is the minimal detectable difference. 6.7 standard errors with 3 values, 3.8 with 5, 2.8 with many.
    """
    critical = stats.t.isf(level / 2, count - 1)
    return float(optimize.brentq(lambda shift: stats.nct.sf(critical, count - 1, shift) - power, 0.0, 50.0))


def paired_over_seeds(first: Sequence[float], second: Sequence[float]) -> dict[str, float] | None:
    """Paired t-test of two variants' values over the same seeds.

    Returns:
        mean difference (first - second), t, p, and `detectable`: the smallest true difference that this test would have found with 80 %
        power, given the observed deviation. None with fewer than three seeds, or if all differences are equal.
    """
    difference = np.asarray(first, float) - np.asarray(second, float)
    if len(difference) < FEWEST_SEEDS or np.ptp(difference) < 1e-12:
        return None
    return _tested(float(difference.mean()), float(difference.std(ddof=1)) / np.sqrt(len(difference)), len(difference))


def paired_over_videos(first: np.ndarray, second: np.ndarray, videos: Sequence[str]) -> dict[str, float] | None:
    """Paired t-test of two models' errors over the videos of the evaluated split, whose utterances are not independent.

    The standard error is the cluster-robust one of a mean (Liang and Zeger 1986, with the factor V / (V - 1)).

    Args:
        first, second: absolute errors [N] of each utterance, averaged over the seeds.
        videos: [N] ids.

    Returns:
        as `paired_over_seeds`; None with fewer than three videos, or if all differences are equal.
    """
    difference = np.asarray(first, float) - np.asarray(second, float)
    names, group = np.unique(np.asarray(videos), return_inverse=True)
    count = len(names)
    if count < FEWEST_SEEDS or np.ptp(difference) < 1e-12:
        return None
    residuals = np.bincount(group, weights=difference - difference.mean())
    error = np.sqrt(count / (count - 1) * (residuals**2).sum()) / len(difference)
    return _tested(float(difference.mean()), float(error), count)


def _tested(difference: float, error: float, count: int) -> dict[str, float]:
    t = difference / error
    return {
        "difference": round(difference, 4),
        "t": round(t, 2),
        "p": round(float(2 * stats.t.sf(abs(t), count - 1)), 4),
        "detectable": round(detectable_shift(count) * error, 4),
    }


def shown_p(p: float) -> str:
    """`p 0.213`, or `p < .001`."""
    return "p < .001" if p < 0.0005 else f"p {p:.3f}"
