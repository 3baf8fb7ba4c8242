"""`--average-seeds`: the row and the model of the mean of the seeds' predictions."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from synthetic_corpus import SMALL, write_pickle
from synthetic_pretraining import write_text_model
from test_finetune_few import inputs
from test_finetune_run import run

from finetune.finetuning import FinetuneResult
from finetune.metrics import score
from finetune.model.networks import MugConfig, MugModel
from finetune.options import MugOptions
from finetune.prediction.recipe import Recipe
from finetune.prediction.seed_average import AveragedModel
from finetune.prediction.sentiment_model import SentimentModel
from finetune.training.pieces import mean_prediction
from pretrain.encoder import SkeslModel
from skesl_mug.console import parse_options
from skesl_mug.errors import UserError

TEXTS = ["what a good film", "a bad and sad story", ""]


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_model(tmp_path_factory.mktemp("lm"))


def test_the_average_is_the_mean_of_its_members_in_any_order(text_model: Path) -> None:
    members = []
    for seed in range(3):
        torch.manual_seed(seed)
        encoder = SkeslModel.from_text_model(text_model, 5, 3, attention_dim=8, num_blocks=1)
        members.append(MugModel.around(encoder, MugConfig(audio_dim=5, vision_dim=3, dim=6)).eval())
    for batch in (inputs(0), inputs(1, audio=False), inputs(2, audio=False, vision=False)):
        with torch.no_grad():
            single = [member(batch).predictions for member in members]
            for order in ([0, 1, 2], [2, 0, 1]):
                averaged = AveragedModel([members[place] for place in order])(batch).predictions
                for task, values in averaged.items():
                    torch.testing.assert_close(values, sum(each[task] for each in single) / 3, atol=1e-6, rtol=0)
            torch.testing.assert_close(AveragedModel([members[1]] * 4)(batch).predictions["fused"], single[1]["fused"])


def test_the_error_of_a_mean_is_at_most_the_mean_error() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        count = int(random.integers(1, 6))
        labels = random.normal(size=20).astype(np.float32)
        predictions = [(labels + random.normal(0, random.uniform(0, 2), 20)).astype(np.float32) for _ in range(count)]
        error = np.abs(mean_prediction(predictions) - labels).mean()
        assert error <= np.mean([np.abs(each - labels).mean() for each in predictions]) + 1e-6
        np.testing.assert_allclose(mean_prediction(predictions[::-1]), mean_prediction(predictions), atol=1e-6)
    np.testing.assert_array_equal(mean_prediction([labels]), labels)


def test_a_run_reports_and_keeps_the_mean_of_its_seeds(text_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data, folder = write_pickle(tmp_path / "mosi.pkl", {"train": 40, "valid": 12, "test": 20}, human=False), tmp_path / "run"
    same = ["--dataset", "mosi", "--data", data, "--lm", text_model, "--freeze-lm", "--output", folder, "--seeds", 1, 2, 3]
    same += ["--labels", "copy", "--compare-labels", "--controls", "constant", "--interval-level", 0.5, *SMALL]
    assert run(*same)["seeds_averaged"] is None
    assert not (folder / "model" / "members").exists()
    single = SentimentModel.from_pretrained(folder).score_texts(TEXTS)
    results = run(*same, "--average-seeds", "--workers", 2)
    assert "all models of this run are already trained" in capsys.readouterr().out

    name = "MUG (copy), 3 seeds averaged"
    rows = pd.read_csv(folder / "predictions.csv").pivot(index="id", columns="seed", values="pred_M")
    labels = pd.read_csv(folder / "predictions.csv").drop_duplicates("id").set_index("id")["label"].loc[rows.index]
    expected = score(rows.mean(axis=1).to_numpy(np.float32), labels.to_numpy(np.float32), "mosi")
    assert results["seeds_averaged"]["name"] == name
    assert "std" not in results["seeds_averaged"]
    assert results["seeds_averaged"]["mean"]["MAE"] == pytest.approx(expected["MAE"], abs=1e-3)
    assert set(results["metrics"]) == {"1", "2", "3", "mean", "std"}  # the headline stays that of single models
    table = FinetuneResult(folder).table()
    assert table.loc[name, "MAE"] == results["seeds_averaged"]["mean"]["MAE"]
    assert np.isnan(table.loc[name, "MAE std"])
    line = next(line for line in str(FinetuneResult(folder)).splitlines() if line.startswith(name))
    assert "±" not in line
    report = (folder / "report.md").read_text()
    row = next(line for line in report.splitlines() if name in line)
    assert "±" not in row
    assert "not a single model" in row
    assert "seeds averaged" in (folder / "model" / "README.md").read_text()

    model = SentimentModel.from_pretrained(folder)
    assert [note for note in model.notes if "3 times as long" in note] == model.notes[-1:]
    members = [SentimentModel.from_pretrained(folder / "model" / "members" / f"seed-{seed}") for seed in (1, 2, 3)]
    assert all(not any("mean of 3" in note for note in member.notes) for member in members)
    for seed, member in zip("123", members, strict=True):
        assert member.recipe.interval.half_width == pytest.approx(results["score_interval"][seed]["half_width"])
    assert model.recipe.interval.half_width not in {None, *(member.recipe.interval.half_width for member in members)}
    each = np.stack([member.score_texts(TEXTS) for member in members])
    np.testing.assert_allclose(model.score_texts(TEXTS), each.mean(0), atol=1e-5)
    np.testing.assert_array_equal(each[0], single)
    assert np.ptp(each, axis=0)[0] > 1e-4

    moved = SentimentModel.from_pretrained(model.save_pretrained(tmp_path / "saved"))
    np.testing.assert_array_equal(moved.score_texts(TEXTS), model.score_texts(TEXTS))
    (tmp_path / "saved" / "members" / "seed-2" / "config.json").unlink()
    with pytest.raises(UserError, match="seed-2: is missing, and this model averages 3"):
        SentimentModel.from_pretrained(tmp_path / "saved")

    assert run(*same)["seeds_averaged"] is None  # the option can be taken back
    assert not (folder / "model" / "members").exists()
    np.testing.assert_array_equal(SentimentModel.from_pretrained(folder).score_texts(TEXTS), single)


def test_an_older_toolkit_reads_single_models_only(tmp_path: Path) -> None:
    recipe = Recipe("mosi", (-3.0, 3.0), ["text"], [], "x")
    recipe.write(tmp_path)
    stored = json.loads((tmp_path / "recipe.json").read_text())
    assert stored["format_version"] == 1
    assert "members" not in stored
    recipe.averaging(["seed-1", "seed-2"]).write(tmp_path)
    assert json.loads((tmp_path / "recipe.json").read_text())["format_version"] == 2
    assert Recipe.read(tmp_path).members == ["seed-1", "seed-2"]


def test_one_seed_has_nothing_to_average() -> None:
    with pytest.raises(UserError, match="--average-seeds: needs two seeds or more"):
        parse_options(MugOptions, ["--dataset", "mosi", "--data", "x", "--lm", "x", "--output", "x", "--seeds", "1", "--average-seeds"])
