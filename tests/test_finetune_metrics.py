"""The field's metrics against independent transcriptions: loops, hand-computed F1, `pandas.cut` for CH-SIMS's intervals."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.metrics import METRIC_KEYS, mean_and_std, score

# values at which an off-by-one in the rules shows: zeros, half integers, the intervals' edges and their float32 neighbours
EDGES = [0.0, -0.0, 0.1, -0.1, 0.7, -0.7, 1.0, -1.0, 1.01, -1.01, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5, 3.0, -3.0, 3.4, -7.0]
NEIGHBOURS = [float(np.nextafter(np.float32(value), np.float32(toward))) for value in EDGES for toward in (-9, 9)]
values = st.one_of(st.sampled_from(EDGES + NEIGHBOURS), st.floats(-4, 4, width=32))
pairs = st.lists(st.tuples(values, values), min_size=1, max_size=40)


def weighted_f1(truth: list[bool], predicted: list[bool]) -> float:
    """F1 of each class, weighted by how often it is TRUE."""
    total = 0.0
    for kind in (False, True):
        hits = sum(t == kind and p == kind for t, p in zip(truth, predicted, strict=True))
        support, named = truth.count(kind), predicted.count(kind)
        if hits:
            precision, recall = hits / named, hits / support
            total += support * 2 * precision * recall / (precision + recall)
    return total / len(truth)


def half_even(value: float) -> int:
    return round(value)  # Python rounds halves to even


def transcribed_mosi(predicted: list[float], truth: list[float]) -> dict[str, float | None]:
    pairs = list(zip(predicted, truth, strict=True))
    kept = [(p, t) for p, t in pairs if t != 0]

    def accuracy(limit: float) -> float:
        return np.mean([half_even(min(max(p, -limit), limit)) == half_even(min(max(t, -limit), limit)) for p, t in pairs])

    return {
        "MAE": np.mean([abs(p - t) for p, t in pairs]),
        "Has0_acc_2": np.mean([(p >= 0) == (t >= 0) for p, t in pairs]),
        "Has0_F1_score": weighted_f1([t >= 0 for _, t in pairs], [p >= 0 for p, _ in pairs]),
        "Non0_acc_2": np.mean([(p > 0) == (t > 0) for p, t in kept]) if kept else None,
        "Non0_F1_score": weighted_f1([t > 0 for _, t in kept], [p > 0 for p, _ in kept]) if kept else None,
        "Mult_acc_5": accuracy(2),
        "Mult_acc_7": accuracy(3),
    }


def transcribed_sims(predicted: list[float], truth: list[float]) -> dict[str, float]:
    p, t = (pd.Series(np.clip(np.asarray(side, np.float32), -1, 1)) for side in (predicted, truth))

    def classes(side: pd.Series, edges: list[float]) -> pd.Series:
        # pandas.cut is left-open and right-closed; the edges are float32 as the values are
        return pd.cut(side.astype(np.float64), [float(np.float32(edge)) for edge in edges], labels=False)

    edges = {2: [-1.01, 0, 1.01], 3: [-1.01, -0.1, 0.1, 1.01], 5: [-1.01, -0.7, -0.1, 0.1, 0.7, 1.01]}
    scores = {f"Mult_acc_{n}": float((classes(p, e) == classes(t, e)).mean()) for n, e in edges.items()}
    two = [[bool(c) for c in classes(side, edges[2])] for side in (t, p)]
    return {**scores, "MAE": float((p - t).abs().mean()), "F1_score": weighted_f1(*two)}


def agree(scores: dict, reference: dict) -> None:
    for key, expected in reference.items():
        if expected is None:
            assert scores[key] is None
        else:
            assert scores[key] == pytest.approx(expected, abs=6e-5), key  # rounded to 4 digits


@settings(deadline=None)
@given(pairs)
def test_mosi_equals_a_transcription_at_class_boundaries(rows):
    predicted, truth = [list(side) for side in zip(*rows, strict=True)]
    scores = score(predicted, truth, "mosi")
    agree(scores, transcribed_mosi(predicted, truth))
    assert scores == score(predicted, truth, "mosei")
    assert {key: scores[key] for key in METRIC_KEYS["custom"]} == score(predicted, truth, "custom")


@settings(deadline=None)
@given(pairs)
def test_sims_equals_a_transcription_at_class_boundaries(rows):
    predicted, truth = [list(side) for side in zip(*rows, strict=True)]
    agree(score(predicted, truth, "sims"), transcribed_sims(predicted, truth))


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=3, max_size=40))
def test_corr_is_pearsons_r_or_none(rows):
    predicted, truth = [np.asarray(side, np.float32).astype(np.float64) for side in zip(*rows, strict=True)]
    corr = score(predicted, truth, "mosi")["Corr"]
    if np.ptp(predicted) == 0 or np.ptp(truth) == 0:
        assert corr is None
    elif min(predicted.std(), truth.std()) > 1e-3:
        covariance = ((predicted - predicted.mean()) * (truth - truth.mean())).mean()
        assert corr == pytest.approx(covariance / (predicted.std() * truth.std()), abs=6e-5)


@pytest.mark.parametrize(
    ("dataset", "predicted", "truth", "expected"),
    [
        # an exact zero counts as non-negative in Has0 and as not positive in Non0
        ("mosi", [0.0, 0.0], [1.0, -1.0], {"Has0_acc_2": 0.5, "Non0_acc_2": 0.5, "Corr": None}),
        ("mosi", [0.0], [1.0], {"Has0_acc_2": 1.0, "Non0_acc_2": 0.0, "Non0_F1_score": 0.0}),
        # halves go to the even neighbour: 0.5 -> 0, 1.5 -> 2, 2.5 -> 2
        ("mosi", [0.5, 1.5, 2.5], [0.0, 2.0, 2.0], {"Mult_acc_7": 1.0}),
        # MAE and Corr see unclipped predictions, Acc7 clipped ones
        ("mosi", [9.0, -9.0], [3.0, -3.0], {"MAE": 6.0, "Mult_acc_7": 1.0, "Corr": 1.0}),
        # CH-SIMS clips first, and zero is negative
        ("sims", [5.0, -5.0], [1.0, -1.0], {"MAE": 0.0, "Corr": 1.0}),
        ("sims", [0.0], [-0.5], {"Mult_acc_2": 1.0}),
        ("sims", [0.0], [0.5], {"Mult_acc_2": 0.0}),
        # 0.1 belongs to the neutral interval (right-closed), which float64 edges would deny to a float32 0.1
        ("sims", [np.float32(0.1)], [0.0], {"Mult_acc_3": 1.0}),
        ("sims", [np.float32(-0.1)], [-0.5], {"Mult_acc_3": 1.0}),
    ],
)
def test_rules_by_example(dataset, predicted, truth, expected):
    scores = score(predicted, truth, dataset)
    assert {key: scores[key] for key in expected} == expected


def test_f1_is_weighted_by_the_support_of_the_true_classes():
    truth, predicted = [1.0, 1.0, 1.0, -1.0], [1.0, 1.0, -1.0, -1.0]
    assert score(predicted, truth, "mosi")["Non0_F1_score"] == pytest.approx(0.75 * 0.8 + 0.25 * 2 / 3, abs=1e-4)
    assert score(truth, predicted, "mosi")["Non0_F1_score"] == pytest.approx(0.5 * 0.8 + 0.5 * 2 / 3, abs=1e-4)


def test_non0_metrics_are_none_if_every_label_is_zero():
    scores = score([0.2, -0.2], [0.0, 0.0], "mosi")
    assert scores["Non0_acc_2"] is None
    assert scores["Non0_F1_score"] is None
    assert scores["Corr"] is None


@pytest.mark.parametrize(("predicted", "truth"), [([], []), ([1.0], [1.0, 2.0]), ([np.nan], [1.0]), ([1.0], [np.inf])])
def test_invalid_inputs_raise(predicted, truth):
    with pytest.raises(ValueError, match=r"predictions|finite"):
        score(predicted, truth, "mosi")


def test_mean_and_std_ignore_missing_values():
    summary = mean_and_std([{"MAE": 1.0, "Corr": None}, {"MAE": 3.0, "Corr": 0.5}, {"MAE": 2.0, "Corr": None, "F1_score": None}])
    assert summary["mean"] == {"MAE": 2.0, "Corr": 0.5, "F1_score": None}
    assert summary["std"] == {"MAE": pytest.approx(np.sqrt(2 / 3), abs=1e-6), "Corr": 0.0, "F1_score": None}
