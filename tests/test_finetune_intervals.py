"""Intervals around scores: the conformal quantile, its coverage on exchangeable data, and what runs, predictions and reports say of it."""

import csv
import io
import json
import math
import pickle
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from synthetic_corpus import SMALL, write_pickle
from synthetic_pretraining import write_text_model
from synthetic_run import make_run

from finetune.options import MugOptions
from finetune.prediction.intervals import (
    ScoreInterval,
    clipped_residuals,
    conformal_half_width,
    coverage_of,
    coverage_spread,
    utterances_needed,
)
from finetune.prediction.outputs import about_model, as_csv, as_json, as_webvtt, draw_timeline, legend
from finetune.prediction.predictions import RecordingPrediction, UtterancePrediction
from finetune.prediction.recipe import Recipe
from finetune.report.run_results import RunResults
from finetune.report.verdict import score_interval
from finetune.run_mug import main
from finetune.training.pieces import SeedFolder
from finetune.web_page.view import chart, headline, transcript
from skesl_mug.console import parse_options
from skesl_mug.errors import UserError


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


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_model(tmp_path_factory.mktemp("lm"))


def run(folder: Path, text_model: Path, *arguments: object) -> dict:
    given_options = [
        "--dataset", "sims", "--data", folder / "sims.pkl", "--lm", text_model, "--freeze-lm", "--output", folder / "run", "--seeds", 1, 2,
        "--labels", "none", "--compare-labels", "--controls", *SMALL, *arguments,
    ]  # fmt: skip
    main(parse_options(MugOptions, [str(argument) for argument in given_options]))
    return json.loads((folder / "run" / "results.json").read_text())


def test_a_run_measures_the_coverage_of_its_intervals(text_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_pickle(tmp_path / "sims.pkl", {"train": 40, "valid": 24, "test": 30})
    content = pickle.loads(data.read_bytes())
    for split in content.values():
        split["raw_text"][::5] = [""] * len(split["raw_text"][::5])
    data.write_bytes(pickle.dumps(content))
    results = run(tmp_path, text_model)
    shown = capsys.readouterr().out
    found, predictions = results["score_interval"], pd.read_csv(tmp_path / "run" / "predictions.csv")
    for seed in (1, 2):
        folder = SeedFolder(tmp_path / "run" / "checkpoints" / f"seed-{seed}")
        kept = folder.arrays("calibration")
        whole = kept["complete"]
        assert (whole.sum(), len(whole)) == (19, 24)
        own = found[str(seed)]
        residuals = np.sort(np.abs(kept["label"] - np.clip(kept["pred_M"], -1, 1))[whole])
        assert own["half_width"] == pytest.approx(residuals[math.ceil((whole.sum() + 1) * 0.8) - 1], abs=2e-6)
        rows = predictions[predictions["seed"] == seed][kept["evaluated_complete"]]
        inside = np.abs(rows["label"] - rows["pred_M"].clip(-1, 1)) <= own["half_width"]
        assert own["coverage"] == pytest.approx(inside.mean(), abs=1e-6)
        assert (found["n"], found["evaluated"]) == (whole.sum(), len(rows))
    assert found["selected"] is True
    assert "These utterances also chose the epoch" in shown
    assert f"calibrated on {found['n']} held-out utterances" in shown
    assert f"calibrated on {found['n']} held-out utterances" in (tmp_path / "run" / "report.md").read_text()
    recipe = Recipe.read(tmp_path / "run" / "model")
    assert recipe.interval is not None
    assert recipe.interval.half_width == found["1"]["half_width"]  # of the first seed, whose model is kept
    assert recipe.interval.sentence() in (tmp_path / "run" / "model" / "README.md").read_text()

    # a run of an earlier version: its residuals are computed from the kept models; another level needs no training
    for seed in (1, 2):
        (tmp_path / "run" / "checkpoints" / f"seed-{seed}" / "calibration.npz").unlink()
    assert run(tmp_path, text_model)["score_interval"] == found
    wider = run(tmp_path, text_model, "--interval-level", 0.9)["score_interval"]
    assert wider["1"]["half_width"] >= found["1"]["half_width"]
    assert "already trained" in capsys.readouterr().out


def test_a_development_part_that_is_too_small_is_reported(text_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pickle(tmp_path / "sims.pkl", {"train": 40, "valid": 12}, human=False)
    results = run(tmp_path, text_model, "--dev-share", 0.1, "--interval-level", 0.95, "--seeds", 1, "--training.keep", "last")
    found = results["score_interval"]
    assert found["reason"].startswith("no interval around the scores: the development part has")
    assert "95 % needs 19; raise --dev-share, or lower --interval-level" in found["reason"]
    assert "mean" not in found
    assert "No interval around the scores" in capsys.readouterr().out
    assert "No interval around the scores" in (tmp_path / "run" / "report.md").read_text()
    recipe = Recipe.read(tmp_path / "run" / "model")
    assert recipe.interval == ScoreInterval(0.95, n=found["n"], videos=found["videos"], reason=found["reason"])
    assert "raise --dev-share" in legend((-1.0, 1.0), recipe.modalities, recipe.interval)
    with pytest.raises(UserError, match=r"--interval-level 95: choose a share between 0 and 1"):
        run(tmp_path, text_model, "--interval-level", 95)


def test_a_model_folder_of_an_earlier_version_has_no_interval(tmp_path: Path) -> None:
    recipe = Recipe("mosi", (-3.0, 3.0), ["text"], [], "synthetic", interval=ScoreInterval(0.8, 1.0, 20, 3, 0.75, 40))
    recipe.write(tmp_path)
    assert Recipe.read(tmp_path).interval == recipe.interval
    entries = json.loads((tmp_path / "recipe.json").read_text())
    assert entries["interval"]["half_width"] == 1.0
    del entries["interval"]
    (tmp_path / "recipe.json").write_text(json.dumps(entries | {"a_later_field": 1}))  # which this version ignores
    assert Recipe.read(tmp_path).interval is None
    assert about_model("x", Recipe.read(tmp_path), [])["interval"] is None


def recording(interval: ScoreInterval) -> RecordingPrediction:
    rows = []
    for start, score in ((0.0, 2.5), (3.0, -0.4)):
        low, high = interval.around(score, (-3.0, 3.0))
        rows.append(UtterancePrediction("v.mp4", start, start + 2.0, "so", "en", score, "positive", used=["text"], low=low, high=high))
    rows.append(UtterancePrediction("v.mp4", 6.0, 8.0, "no face", "en", 0.1, "neutral", used=["text"]))
    return RecordingPrediction("v.mp4", 9.0, rows)


def test_predictions_hold_their_interval_where_it_is_known() -> None:
    interval = ScoreInterval(0.8, 1.05, 190, 8, 0.782, 229)
    shown = recording(interval)
    entries = as_json(shown)["utterances"]
    assert [(row["low"], row["high"]) for row in entries] == [(1.45, 3.0), (-1.45, 0.65), (None, None)]
    assert list(entries[0])[:2] == ["start", "end"]
    table = list(csv.DictReader(io.StringIO(as_csv(shown))))
    assert [(row["low"], row["high"]) for row in table] == [("1.45", "3.0"), ("-1.45", "0.65"), ("", "")]
    bare = recording(ScoreInterval(0.8))
    assert as_webvtt(shown) == as_webvtt(bare)  # subtitles stay short
    assert draw_timeline(shown, (-3.0, 3.0)) != draw_timeline(bare, (-3.0, 3.0))
    assert legend((-3.0, 3.0), ["text"], interval).splitlines()[1] == (
        "80 % intervals: score ± 1.05, for utterances like those of its corpus (78 % measured on 229 held-out ones)."
    )
    assert legend((-3.0, 3.0), ["text"]).count("\n") == 0
    recipe = Recipe("mosi", (-3.0, 3.0), ["text"], [], "synthetic", interval=interval)
    assert about_model("x", recipe, [])["interval"] == asdict(interval)


def test_the_page_shows_the_range_of_each_utterance() -> None:
    interval = ScoreInterval(0.8, 1.05, 190, 8, 0.782, 229)
    shown, bare = recording(interval), recording(ScoreInterval(0.8))
    html = transcript(shown)
    assert html.count('<span class="range"') == 2
    assert re.search(r">−1\.[45] to \+0\.[67]<", html)
    assert chart(shown, (-3.0, 3.0)).count('<rect class="range"') == 2
    assert 'class="range"' not in transcript(bare) + chart(bare, (-3.0, 3.0))
    assert "80 % intervals" in headline(shown, [], interval)
    assert "No intervals: they are for utterances with every modality" in headline(bare, [], interval)
    assert "interval" not in headline(bare, [])


def test_the_report_shows_coverage_beside_the_nominal_level(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    results = json.loads((folder / "results.json").read_text())
    assert score_interval(RunResults(folder)) == ""  # a run of an earlier version
    seeds = {"1111": {"half_width": 1.0, "coverage": 0.79}, "1112": {"half_width": 1.1, "coverage": 0.81}}
    both = {"mean": {"half_width": 1.05, "coverage": 0.8}, "std": {"half_width": 0.05, "coverage": 0.01}}
    entry = {"level": 0.8, "n": 190, "videos": 8, "evaluated": 150, "selected": False, "reason": "", **seeds, **both}
    (folder / "results.json").write_text(json.dumps(results | {"score_interval": entry}))
    assert score_interval(RunResults(folder)) == (
        "Interval around a score: ± 1.05 (± 0.05 over 2 seeds), calibrated on 190 held-out utterances of 8 videos to contain 80 % of "
        "the labels; it contains **80.0 % ± 1.0** of the 150 labels of test."
    )
