"""The studies' frame: pieces that are kept and gone on with, what is refused, ablation and label quality on made data."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pretrain_made import write_text_model
from study_made import run_study, write_pickle

from finetune.labels import LabelInputs
from finetune.studies.controlled_labels import FusedTeacher, Interpolated, NoisyHuman
from finetune.studies.differences import Difference, difference
from finetune.studies.label_quality import fisher_interval
from skesl_mug.errors import UserError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A made corpus and a tiny language model."""
    folder = tmp_path_factory.mktemp("studies")
    return write_pickle(folder / "sims.pkl", {"train": 40, "valid": 16, "test": 16}), write_text_model(folder / "lm")


def test_ablation_trains_each_component_off_and_alone_and_is_gone_on_with(made, tmp_path, capsys) -> None:
    found = run_study("ablation", made, tmp_path / "out", "--seeds", 1, "--neighbours", "residual", "alternate")
    printed = capsys.readouterr().out
    assert "seed 1  whole: copy" in printed
    assert "seed 1  with-residual: all_mucn-crossfit" in printed  # one variant in several settings: the line says which
    names = [row["name"] for row in found["rows"]]
    assert names[0] == "Whole method (mucn-crossfit)"
    assert {"− alignment (CPM)", "− learned labels", "− unimodal tasks", "− audio", "− text", "Nothing", "Vision only"} <= set(names)
    assert {"+ residual branches", "+ alternating steps"} <= set(names)
    assert set(found["facts"]["neighbours_MAE"]) == {"residual branches", "alternating steps"}
    assert "With a neighbouring mechanism added to it" in found["shows"]
    assert not any("pretraining" in name for name in names)  # a plain language model has none to leave out
    maes = [row["mean"]["MAE"] for row in found["rows"]]
    assert len(set(maes)) > len(maes) / 2  # the settings are not the same model again and again
    for file in ("study.md", "study.html", "pictures/ablation.png", "config.yaml"):
        assert (tmp_path / "out" / file).stat().st_size > 100, file
    assert "Made data" in (tmp_path / "out" / "study.md").read_text()
    pieces = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "checkpoints").rglob("*.json")}
    lost = next(path for path in pieces if path.name == "nothing.json")
    lost.unlink()
    again = run_study("ablation", made, tmp_path / "out", "--seeds", 1)  # the neighbours' rows can be left out as they can be added
    assert again["rows"] == [row for row in found["rows"] if not row["name"].startswith("+")]
    unchanged = {path for path, when in pieces.items() if path.stat().st_mtime_ns == when}
    assert set(pieces) - unchanged == {lost}
    with pytest.raises(UserError, match=r"--training\.lr was 0\.001, now 0\.5"):
        run_study("ablation", made, tmp_path / "out", "--seeds", 1, "--training.lr", 0.5)
    with pytest.raises(UserError, match="in the whole method already"):
        run_study("ablation", made, tmp_path / "out", "--seeds", 1, "--model.residual", "--neighbours", "residual")
    with pytest.raises(UserError, match="--neighbours alternate"):
        run_study("ablation", made, tmp_path / "out", "--seeds", 1, "--training.alternate")
    with pytest.raises(UserError, match="holds the study ablation"):
        run_study("label_quality", made, tmp_path / "out", "--seeds", 1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep me")
    with pytest.raises(UserError, match="holds no study"):
        run_study("ablation", made, tmp_path / "mine", "--seeds", 1, "--overwrite")


def test_label_quality_orders_the_controlled_labels(made, tmp_path) -> None:
    found = run_study("label_quality", made, tmp_path / "out", "--seeds", 1, "--shares", 0, 0.5, 1, "--sigmas", 0.3)
    error = {row["name"]: row["label MAE ↓"] for row in found["rows"]}
    assert error["human"] == "0.000"
    assert float(error["y"]) == pytest.approx(2 * float(error["0.5 human"]), abs=0.002)
    assert float(error["σ 0.3"]) > 0.1
    assert {"mucn-crossfit", "regressor", "distillation", "no unimodal labels"} <= set(error)
    assert found["facts"]["correlation_controlled"]["points"] == 4
    blind = write_pickle(tmp_path / "blind.pkl", {"train": 40, "valid": 16}, human=False)
    with pytest.raises(UserError, match="wants unimodal labels"):
        run_study("label_quality", (blind, made[1]), tmp_path / "none", "--seeds", 1)
    assert not (tmp_path / "none").exists()


def inputs(count: int = 60, known: Callable[[np.ndarray], np.ndarray] = lambda y: y / 2) -> LabelInputs:
    random = np.random.default_rng(0)
    y = random.uniform(-1, 1, count)
    features = {name: np.stack([y + random.normal(size=count) for _ in range(3)], 1) for name in ("text", "audio")}
    present = {name: np.ones(count, bool) for name in features}
    groups = [f"v{row // 4}" for row in range(count)]
    return LabelInputs(y, groups, {}, {}, features, present, seed=1, human={name: known(y) for name in features})


def test_labels_of_known_quality_are_what_they_say() -> None:
    given = inputs()
    assert np.allclose(Interpolated(0.25)(given).labels["text"], 0.75 * given.y + 0.25 * given.y / 2)
    noisy = NoisyHuman(0.1)(given).labels
    assert np.std(noisy["text"] - given.y / 2) == pytest.approx(0.1, abs=0.03)
    assert not np.allclose(noisy["text"], noisy["audio"])
    from finetune.options import CrossfitOptions

    fused = FusedTeacher(CrossfitOptions())(given).labels
    assert np.array_equal(fused["text"], fused["audio"])
    assert np.corrcoef(fused["text"], given.y)[0, 1] > 0.7
    blind = inputs(known=lambda y: np.full_like(y, np.nan))
    assert np.array_equal(FusedTeacher(CrossfitOptions())(blind).labels["text"], fused["text"])  # no human label moves it


def test_a_difference_is_clear_by_margin_and_seeds() -> None:
    def scores(*values: float) -> list[dict[str, float | None]]:
        return [{"MAE": value} for value in values]

    base = scores(0.40, 0.41, 0.39)
    assert difference(scores(0.50, 0.52, 0.49), base, 0.01).worse
    assert difference(scores(0.30, 0.32, 0.29), base, 0.01).better
    assert not difference(scores(0.401, 0.413, 0.391), base, 0.01).clear  # sure, and too small
    assert not difference(scores(0.60, 0.38, 0.40), base, 0.01).clear  # large, and a chance of the seeds
    assert not difference(scores(0.60, 0.38), base[:2], 0.01).clear  # two seeds that do not agree
    assert str(Difference(-0.0123, 0.04, 0.01, True)) == "−0.012, p 0.040"


def test_the_interval_of_a_correlation_is_fishers() -> None:
    x = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    y = [0.1, 0.9, 2.4, 2.7, 4.4, 4.6]
    from scipy.stats import pearsonr

    expected = pearsonr(x, y)
    interval = expected.confidence_interval(0.95)
    found = fisher_interval(x, y)
    assert found is not None
    assert (found["r"], found["low"], found["high"]) == pytest.approx((expected.statistic, interval.low, interval.high), abs=1e-3)
    assert fisher_interval(x[:3], y[:3]) is None
    assert json.dumps(found)
