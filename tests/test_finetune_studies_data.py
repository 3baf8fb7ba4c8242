"""Studies of missing data: absent frames and modalities, fewer utterances, encoders pretrained on more or fewer utterances."""

from pathlib import Path

import numpy as np
import pytest
from synthetic_pretraining import write_text_model
from synthetic_studies import run_study, write_encoder, write_pickle

from finetune.options import MugOptions
from finetune.studies.study import find_study
from skesl_mug.console import parse_options
from skesl_mug.errors import UserError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A synthetic corpus and a pretraining run with random weights."""
    folder = tmp_path_factory.mktemp("studies")
    lm = write_text_model(folder / "lm")
    return write_pickle(folder / "sims.pkl", {"train": 40, "valid": 16, "test": 16}), write_encoder(folder / "skesl", lm, 123)


def test_missing_modality_scores_one_model_at_every_rate(made, tmp_path: Path) -> None:
    found = run_study("missing_modality", made, tmp_path / "out", "--seeds", 1, "--rates", 0, 0.5)
    rows = {(row["name"], place): row["mean"]["MAE"] for place, row in enumerate(found["rows"])}
    names = [name for name, _ in rows]
    assert names[:4] == [
        f"trained {way}, {what}" for what in ("nothing missing", "mean over the rates") for way in ("complete", "incomplete")
    ]
    by_rate = found["facts"]["MAE"]["trained complete"]
    assert np.mean(list(by_rate.values())) == pytest.approx(rows["trained complete, mean over the rates", 2], abs=1e-3)
    assert by_rate["0"] == pytest.approx(rows["trained complete, nothing missing", 0], abs=1e-3)
    assert by_rate["0"] != by_rate["0.5"]
    assert names.count("text absent at test only") == 2
    assert names.count("vision absent in training too") == 1
    more = run_study("missing_modality", made, tmp_path / "out", "--seeds", 1, "--rates", 0, 0.5, 0.9)  # a rate may be added
    assert more["facts"]["MAE"]["trained complete"]["0.5"] == by_rate["0.5"]
    assert "0.9" in more["facts"]["MAE"]["trained incomplete"]


def test_data_size_with_and_without_pretraining_and_from_another_encoder(made, tmp_path: Path) -> None:
    lm = made[1].parent / "lm"
    other = write_encoder(tmp_path / "other", lm, 45, seed=1)
    found = run_study("data_size", made, tmp_path / "out", "--seeds", 1, "--sizes", 16, 4000, "--more-encoders", other)
    curves = found["facts"]["MAE"]
    assert set(curves) == {"pretrained on 123 utterances", "pretrained on 45 utterances", "not pretrained"}
    assert all(set(curve) == {"16", "40"} for curve in curves.values())  # 4000 is more than there are
    assert len({tuple(curve.values()) for curve in curves.values()}) == 3
    pieces = [path.relative_to(tmp_path / "out" / "checkpoints") for path in (tmp_path / "out").rglob("mucn-crossfit.json")]
    assert len(pieces) == 4


def test_an_ablation_of_a_pretraining_run_removes_pretraining_too(made, tmp_path: Path) -> None:
    found = run_study("ablation", made, tmp_path / "out", "--seeds", 1, "--labels", "regressor")
    names = [row["name"] for row in found["rows"]]
    assert {"− pretraining", "Pretraining alone", "Alignment alone"} <= set(names)
    assert "pretraining" in found["facts"]["lost_MAE"]


def test_invalid_options_are_refused(tmp_path: Path) -> None:
    given = ["--dataset", "mosi", "--data", "x.pkl", "--lm", "a", "--output", str(tmp_path / "out")]
    for name, extra, part in (
        ("ablation", ["--labels", "none"], "--labels none"),
        ("ablation", ["--margin", "-1"], "--margin -1"),
        ("label_quality", ["--shares", "0.5"], "--shares"),
        ("label_noise", ["--strengths", "2"], "--strengths"),
        ("label_ambiguity", ["--parts", "1"], "--parts 1"),
        ("missing_modality", ["--rates", "0.5"], "--rates"),
        ("missing_modality", ["--other-encoder", "b"], "--other-encoder"),
        ("data_size", ["--sizes", "3"], "--sizes 3"),
    ):
        with pytest.raises(UserError, match=part):
            parse_options(find_study(name).options, [*given, *extra])


def test_the_configs_of_the_demo_are_valid(tmp_path: Path) -> None:
    given = ["--data", str(tmp_path), "--encoder", str(tmp_path), "--output", str(tmp_path / "run")]
    configs = Path(__file__).resolve().parents[1] / "finetune" / "configs"
    few = parse_options(find_study("data_size").options, ["--config", str(configs / "demo_few.yaml"), *given])
    demo = parse_options(MugOptions, ["--config", str(configs / "demo.yaml"), *given])
    assert few.seeds == demo.seeds
    assert few.training == demo.training
    assert few.model == demo.model
