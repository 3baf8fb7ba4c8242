"""Confidence intervals and tests: bootstrap over the videos of the evaluated split, paired t-tests over seeds."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from finetune.metrics import score

LEVEL = 95.0
"""Coverage of the intervals in per cent."""


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


def paired_over_seeds(first: Sequence[float], second: Sequence[float]) -> dict[str, float] | None:
    """Paired t-test of two variants' values over the same seeds: mean difference (first - second), t and p. None with fewer than three
    seeds, or if all differences are equal."""
    difference = np.asarray(first, float) - np.asarray(second, float)
    if len(difference) < 3 or np.ptp(difference) < 1e-12:
        return None
    test = stats.ttest_1samp(difference, 0.0)
    return {"difference": round(float(difference.mean()), 4), "t": round(float(test.statistic), 2), "p": round(float(test.pvalue), 4)}
