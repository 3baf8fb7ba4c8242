"""The decomposition of distributions with known answers, and the interaction study on synthetic data."""

from pathlib import Path

import numpy as np
import pytest
from synthetic_pretraining import write_text_model
from synthetic_studies import run_study, write_pickle

from finetune.studies.interaction import decompose, label_classes, thirds

BITS = np.array([[a, b] for a in (0, 1) for b in (0, 1)] * 50)


@pytest.mark.parametrize(
    ("first", "second", "target", "expected"),
    [
        (BITS[:, 0], BITS[:, 0], BITS[:, 0], (1, 0, 0, 0)),  # all the same: redundant
        (BITS[:, 0], BITS[:, 1], BITS[:, 0], (0, 1, 0, 0)),  # only the first is informative
        (BITS[:, 0], BITS[:, 1], BITS[:, 0] ^ BITS[:, 1], (0, 0, 0, 1)),  # XOR: synergy
        (BITS[:, 0], BITS[:, 1], BITS[:, 0] & BITS[:, 1], (0.311, 0, 0, 0.5)),  # AND, of the literature
    ],
    ids=["copy", "unique", "xor", "and"],
)
def test_known_distributions(first, second, target, expected) -> None:
    found = decompose(first, second, target, 2)
    assert [found[key] for key in ("redundancy", "unique_first", "unique_second", "synergy")] == pytest.approx(expected, abs=3e-3)


def test_classes() -> None:
    assert label_classes(np.array([-0.5, -0.05, 0.05, 0.5]), 0.1).tolist() == [0, 1, 1, 2]
    assert np.bincount(thirds(np.random.default_rng(0).normal(size=300))).tolist() == [100, 100, 100]


def test_the_study_on_synthetic_data(tmp_path: Path) -> None:
    made = write_pickle(tmp_path / "sims.pkl", {"train": 40, "valid": 16, "test": 40}), write_text_model(tmp_path / "lm")
    found = run_study("interaction", made, tmp_path / "out", "--seeds", 1)
    assert set(found["facts"]["bits"]) == {"text+audio", "text+vision", "audio+vision"}
    assert sum(part["share"] for part in found["facts"]["slices"].values()) == pytest.approx(1.0, abs=0.01)
    maes = {row["name"]: row["mean"]["MAE"] for row in found["rows"]}
    assert maes["best head of each utterance"] <= min(maes[f"{name} head"] for name in ("text", "audio", "vision"))
