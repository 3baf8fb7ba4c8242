"""The metrics of the field, by the protocol of its reference framework (MMSA, 2025-01), so that they compare with published ones.

MOSI, MOSEI: labels in [-3, 3], unclipped predictions for MAE and Corr. CH-SIMS (v2): prediction and truth clipped to [-1, 1] first,
left-open right-closed intervals, so zero is negative. Values are compared in float32 and rounded to 4 digits, as the reference does.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

Scores = dict[str, float | None]

MOSI_KEYS = ("MAE", "Corr", "Has0_acc_2", "Has0_F1_score", "Non0_acc_2", "Non0_F1_score", "Mult_acc_5", "Mult_acc_7")
SIMS_KEYS = ("MAE", "Corr", "Mult_acc_2", "Mult_acc_3", "Mult_acc_5", "F1_score")
CUSTOM_KEYS = MOSI_KEYS[:6]
METRIC_KEYS: dict[str, tuple[str, ...]] = {
    "mosi": MOSI_KEYS,
    "mosei": MOSI_KEYS,
    "sims": SIMS_KEYS,
    "simsv2": SIMS_KEYS,
    "custom": CUSTOM_KEYS,
}
LOWER_IS_BETTER = frozenset({"MAE"})
SIMS_EDGES = {2: (-1.01, 0.0, 1.01), 3: (-1.01, -0.1, 0.1, 1.01), 5: (-1.01, -0.7, -0.1, 0.1, 0.7, 1.01)}


def score(predictions: ArrayLike, labels: ArrayLike, dataset: str) -> Scores:
    """All metrics of a dataset ("mosi", "mosei", "sims", "simsv2", "custom") under the key names of the field.

    Args:
        predictions: [N] in label units, unclipped.
        labels: [N] in label units.
        dataset: determines the metrics and their rules; `custom` has MAE, Corr and the Has0/Non0 pairs.

    Returns:
        key -> value, rounded to 4 digits; None (JSON null) where undefined: Corr of constant predictions or labels, the Non0
        metrics if every label is zero.

    Raises:
        ValueError: no samples, differing lengths, or values that are not finite.
    """
    if dataset not in METRIC_KEYS:
        raise ValueError(f"no metrics are defined for a dataset called {dataset!r}")
    predicted = np.asarray(predictions, dtype=np.float32).reshape(-1)
    truth = np.asarray(labels, dtype=np.float32).reshape(-1)
    if len(predicted) != len(truth) or not len(truth):
        raise ValueError(f"{len(predicted)} predictions for {len(truth)} labels")
    if not (np.isfinite(predicted).all() and np.isfinite(truth).all()):
        raise ValueError("predictions and labels must be finite")
    scores = _sims(predicted, truth) if dataset in ("sims", "simsv2") else _mosi(predicted, truth, multiclass=dataset != "custom")
    return {key: None if scores[key] is None else round(float(scores[key] or 0.0), 4) for key in METRIC_KEYS[dataset]}


def mean_absolute_error(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Mean |p - t| over [N], in float32 as the reference computes it."""
    return float(np.mean(np.abs(predicted - truth)))


def pearson(first: np.ndarray, second: np.ndarray) -> float | None:
    """Pearson's r of two [N] arrays; None if one of them is constant."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    with np.errstate(all="ignore"):
        value = float(np.corrcoef(first.astype(np.float64), second.astype(np.float64))[0, 1])
    return value if np.isfinite(value) else None


def _mosi(predicted: np.ndarray, truth: np.ndarray, multiclass: bool) -> Scores:
    scores: Scores = {"MAE": mean_absolute_error(predicted, truth), "Corr": pearson(predicted, truth)}
    scores["Has0_acc_2"], scores["Has0_F1_score"] = _two_classes(predicted >= 0, truth >= 0)
    some = truth != 0
    scores["Non0_acc_2"], scores["Non0_F1_score"] = _two_classes(predicted[some] > 0, truth[some] > 0)
    if multiclass:
        for classes, limit in ((5, 2.0), (7, 3.0)):
            same = np.round(np.clip(predicted, -limit, limit)) == np.round(np.clip(truth, -limit, limit))
            scores[f"Mult_acc_{classes}"] = float(np.mean(same))
    return scores


def _sims(predicted: np.ndarray, truth: np.ndarray) -> Scores:
    predicted, truth = np.clip(predicted, -1.0, 1.0), np.clip(truth, -1.0, 1.0)
    scores: Scores = {"MAE": mean_absolute_error(predicted, truth), "Corr": pearson(predicted, truth)}
    for classes, edges in SIMS_EDGES.items():
        same = _interval(predicted, edges) == _interval(truth, edges)
        scores[f"Mult_acc_{classes}"] = float(np.mean(same))
    _, scores["F1_score"] = _two_classes(_interval(predicted, SIMS_EDGES[2]), _interval(truth, SIMS_EDGES[2]))
    return scores


def _interval(values: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """Index of the interval (edge, next edge] of each value; float32 edges, so that a float32 0.1 is on the edge 0.1, not above it."""
    return np.searchsorted(np.asarray(edges, np.float32), values, side="left") - 1


def _two_classes(predicted: np.ndarray, truth: np.ndarray) -> tuple[float | None, float | None]:
    """Accuracy, and F1 weighted by the support of the TRUE classes; swapping the two arguments is a known bug that inflates F1."""
    if not len(truth):
        return None, None
    from sklearn.metrics import f1_score

    return float(np.mean(predicted == truth)), float(f1_score(truth, predicted, average="weighted", zero_division=0.0))


def mean_and_std(runs: Sequence[Mapping[str, float | None]]) -> dict[str, Scores]:
    """`{"mean": {...}, "std": {...}}` over runs (population std); None values are left out, and a metric that is always None stays None."""
    keys = list(dict.fromkeys(key for run in runs for key in run))
    summary: dict[str, Scores] = {"mean": {}, "std": {}}
    for key in keys:
        values = [value for run in runs if (value := run.get(key)) is not None]
        summary["mean"][key] = round(float(np.mean(values)), 6) if values else None
        summary["std"][key] = round(float(np.std(values)), 6) if values else None
    return summary
