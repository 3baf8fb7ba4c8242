"""`finetune/run_mug.py` end to end on synthetic pickles: results, controls, resuming; learned labels do not depend on human ones."""

import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_corpus import SMALL, write_pickle
from synthetic_pretraining import write_text_model

from finetune.corpora import load_corpus
from finetune.finetuning import FinetuneResult
from finetune.model.encoders import EncoderSource
from finetune.model.networks import MugModel
from finetune.options import MugOptions
from finetune.run_mug import main
from preprocessing.schema import DatasetInfo, FeatureInfo
from pretrain.encoder import SkeslModel, load_tokenizer
from pretrain.report import describe_source
from skesl_mug.console import parse_options
from skesl_mug.errors import UserError


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_model(tmp_path_factory.mktemp("lm"))


def run(*arguments: object) -> dict:
    options = parse_options(MugOptions, [str(argument) for argument in arguments])
    main(options)
    return json.loads((options.output / "results.json").read_text())


@pytest.fixture(scope="module")
def finished(text_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mug")
    data = write_pickle(folder / "sims.pkl", {"train": 48, "valid": 16, "test": 24})
    run(
        "--dataset", "sims", "--data", data, "--lm", text_model, "--freeze-lm", "--output", folder / "run", "--seeds", 1, 2,
        "--compare-labels", "mucn-meta", "copy", "human", "regressor", "none", *SMALL,
    )  # fmt: skip
    return folder / "run"


def test_a_run_folder_has_all_its_files_and_results(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    assert results["evaluated_on"] == "test"
    assert set(results["metrics"]) == {"1", "2", "mean", "std"}
    assert set(results["metrics"]["mean"]) == {"MAE", "Corr", "Mult_acc_2", "Mult_acc_3", "Mult_acc_5", "F1_score"}
    both = [results["metrics"][seed]["MAE"] for seed in ("1", "2")]
    assert results["metrics"]["mean"]["MAE"] == pytest.approx(np.mean(both), abs=1e-4)
    assert results["metrics"]["std"]["MAE"] == pytest.approx(np.std(both), abs=1e-4)
    assert {"constant", "text_only", "permuted_audio_vision", "labels_copy", "labels_human", "labels_mucn_meta"} <= set(results["controls"])
    assert results["controls"]["constant"]["mean"]["Corr"] is None
    low, high = results["interval"]["MAE"]
    assert low < results["metrics"]["mean"]["MAE"] < high
    for quality in results["unimodal_labels"].values():
        assert {"MAE", "Corr", "copy_MAE", "copy_Corr", "moved"} <= set(quality)
    assert results["unimodal_labels_by_generator"]["copy"]["text"]["mean_change"] == 0.0
    assert results["unimodal_labels_by_generator"]["human"]["text"]["MAE"] == pytest.approx(0.0, abs=1e-4)
    for name in ("config.yaml", "report.md", "report.html", "history.csv", "predictions.csv", "unimodal_labels.csv", "clouds.npz"):
        assert (finished / name).stat().st_size > 0, name
    assert len(list((finished / "logs").rglob("events.out.tfevents*"))) == 2 * 7  # seeds x models
    assert MugModel.from_pretrained(finished / "model").modalities == ["text", "audio", "vision"]


def test_the_metrics_match_the_stored_predictions(finished: Path) -> None:
    from finetune.metrics import score

    results = json.loads((finished / "results.json").read_text())
    predictions = pd.read_csv(finished / "predictions.csv")
    for seed, rows in predictions.groupby("seed"):
        again = score(rows["pred_M"].to_numpy(), rows["label"].to_numpy(), "sims")
        for key, value in again.items():
            assert value == pytest.approx(results["metrics"][str(seed)][key], abs=2e-3), key


def test_a_finished_run_is_not_trained_again_and_another_config_is_refused(finished: Path, text_model: Path) -> None:
    data = finished.parent / "sims.pkl"
    before = {path: path.stat().st_mtime_ns for path in (finished / "checkpoints").rglob("*.json")}
    same = ["--dataset", "sims", "--data", data, "--lm", text_model, "--freeze-lm", "--output", finished, "--seeds", 1, 2]
    labels = ["--compare-labels", "mucn-meta", "copy", "human", "regressor", "none"]
    run(*same, *labels, *SMALL)
    assert {path: path.stat().st_mtime_ns for path in (finished / "checkpoints").rglob("*.json")} == before
    with pytest.raises(UserError, match="training"):
        run(*same, *labels, *SMALL, "--training.lr", "0.5")
    with pytest.raises(UserError, match="does not exist"):  # --overwrite deletes nothing before the new run can begin
        run(*same[:2], "--data", finished.parent / "typo.pkl", *same[4:], *labels, *SMALL, "--overwrite")
    assert (finished / "results.json").is_file()
    kept = data.read_bytes()
    write_pickle(data, {"train": 44, "valid": 16, "test": 24})
    with pytest.raises(UserError, match="content of --data has changed"):
        run(*same, *labels, *SMALL)
    data.write_bytes(kept)


def test_nothing_learned_depends_on_human_labels(finished: Path, text_model: Path, tmp_path: Path) -> None:
    blind = write_pickle(tmp_path / "sims.pkl", {"train": 48, "valid": 16, "test": 24}, human=False)
    run(
        "--dataset", "sims", "--data", blind, "--lm", text_model, "--freeze-lm", "--output", tmp_path / "run", "--seeds", 1,
        "--compare-labels", "mucn-meta", "copy", "regressor", "none", *SMALL,
    )  # fmt: skip
    seeing, unseeing = finished / "checkpoints" / "seed-1", tmp_path / "run" / "checkpoints" / "seed-1"
    for name in ("mucn-crossfit", "mucn-meta", "copy", "regressor", "none"):
        first, second = (json.loads((folder / f"{name}.json").read_text()) for folder in (seeing, unseeing))
        assert first["metrics"] == second["metrics"], name
        assert first["history"] == second["history"], name
    for file in (f for f in seeing.rglob("*.npz") if "human" not in f.name):
        with np.load(file) as one, np.load(unseeing / file.name) as other:
            for key in one.files:
                assert np.array_equal(one[key], other[key]), (file.name, key)
    assert (seeing / "model" / "model.safetensors").read_bytes() == (unseeing / "model" / "model.safetensors").read_bytes()
    assert json.loads((tmp_path / "run" / "results.json").read_text())["unimodal_labels"]["text"].get("Corr") is None


def test_without_a_test_split_valid_is_reported_and_a_trained_lm_works(text_model: Path, tmp_path: Path) -> None:
    data = write_pickle(tmp_path / "mosi.pkl", {"train": 40, "valid": 16}, human=False, vision=False)
    results = run(
        "--dataset", "mosi", "--data", data, "--lm", text_model, "--output", tmp_path / "run", "--seeds", 3, "--labels", "ulgm", *SMALL,
        "--training.precision", "bf16", "--training.keep", "last", "--model.frames", "statistics", "--controls", "audio-only", "text-only",
        "--training.alignment.losses", "contrastive", "covariance", "similarity",
    )  # fmt: skip
    assert {"text_only", "audio_only"} <= set(results["controls"])
    assert results["unimodal_labels"]["audio"]["mean_change"] > 0
    assert results["evaluated_on"] == "valid"
    assert "of train, drawn by video" in results["evaluated_on_note"]
    counts = results["data"]["counts"]
    assert counts["train"] + counts["dev"] == 40
    assert "vision" not in results["alignment"]


def test_rows_without_a_modality_have_no_prediction_of_it(text_model: Path, tmp_path: Path) -> None:
    data = write_pickle(tmp_path / "sims.pkl", {"train": 40, "valid": 16, "test": 16})
    content = pickle.loads(data.read_bytes())
    for split in content.values():
        split["audio"][::3] = 0.0
    data.write_bytes(pickle.dumps(content))
    results = run(
        "--dataset", "sims", "--data", data, "--lm", text_model, "--freeze-lm", "--output", tmp_path / "run", "--seeds", 1, *SMALL
    )
    table = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert table["pred_A"].isna().tolist() == [row % 3 == 0 for row in range(16)]
    assert table[["pred_M", "pred_T", "pred_V"]].notna().all().all()
    assert results["alignment"]["audio"]["after"]["chance"] == pytest.approx(0.1)


def test_an_encoder_of_other_widths_is_fitted_and_scaled_by_train(
    text_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = SkeslModel.from_text_model(text_model, audio_dim=9, vision_dim=3, attention_dim=8, num_blocks=1)
    encoder.set_feature_statistics(audio=(np.zeros(9), np.ones(9)), vision=(np.full(3, 0.5), np.ones(3)))
    encoder.save_pretrained(tmp_path / "skesl" / "model")
    load_tokenizer(text_model).save_pretrained(tmp_path / "skesl" / "model")
    data = write_pickle(tmp_path / "sims.pkl", {"train": 40, "valid": 16, "test": 16})
    run("--dataset", "sims", "--data", data, "--encoder", tmp_path / "skesl", "--output", tmp_path / "run", "--seeds", 1, *SMALL)
    assert "encoder: audio: pretrained with 9 columns, the data has 5" in capsys.readouterr().out
    norms = MugModel.from_pretrained(tmp_path / "run" / "model").encoder.crossmodal.norms
    train = np.concatenate(load_corpus("sims", data).splits["train"].audio)
    assert norms["audio"].mean.numpy() == pytest.approx(train.mean(0), abs=1e-4)
    assert norms["vision"].mean.numpy() == pytest.approx(np.full(3, 0.5))  # same width: pretraining's statistics stay


def test_features_of_pretraining_are_compared_with_those_of_the_data(tmp_path: Path) -> None:
    def described(extractor: str, width: int, **settings: str) -> FeatureInfo:
        return FeatureInfo(extractor, 10.0, [{"name": f"c{place}", "unit": ""} for place in range(width)], {}, settings)

    def source(audio: FeatureInfo) -> EncoderSource:
        entries = describe_source(tmp_path, DatasetInfo({"name": "x"}, audio=audio))
        (tmp_path / "results.json").write_text(json.dumps({"data": {"sources": [entries]}}))
        return EncoderSource(str(tmp_path), None)

    hidden = described("hf:a", 768, layer="6", weights_sha256="0123456789")
    data = DatasetInfo({"name": "y"}, audio=hidden)
    assert source(hidden).checked_notes(["as it was"], data) == ["as it was"]
    notes = ["audio: pretrained with 33 columns, the data has 768; keys and values are initialised again"]
    named = "audio: pretrained with 33 columns (librosa33), the data has 768 (hf:a); keys and values are initialised again"
    assert source(described("librosa33", 33)).checked_notes(notes, data) == [named]
    for other, shown in (
        (described("hf:b", 768, layer="last", weights_sha256="9876543210"), "hf:b layer last 98765432"),
        (described("hf:a", 768, layer="7", weights_sha256="0123456789"), "hf:a layer 7 01234567"),
    ):
        with pytest.raises(UserError, match=rf"was pretrained on the audio features {shown}, the data has hf:a layer 6 01234567, the same"):
            source(other).checked_notes([], data)


def test_generators_without_their_labels_are_refused_before_training(text_model: Path, tmp_path: Path) -> None:
    data = write_pickle(tmp_path / "mosi.pkl", {"train": 40, "valid": 16}, human=False)
    content = pickle.loads(data.read_bytes())
    for split in content.values():
        for letter in "TAV":
            del split[f"regression_labels_{letter}"]
    data.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match="no unimodal labels"):
        run("--dataset", "mosi", "--data", data, "--lm", text_model, "--output", tmp_path / "run", "--labels", "human")
    assert not (tmp_path / "run").exists()


def test_stage_one_can_be_skipped(text_model: Path, tmp_path: Path) -> None:
    data = write_pickle(tmp_path / "sims.pkl", {"train": 24, "valid": 8, "test": 8})
    start = ["--dataset", "sims", "--data", data, "--lm", text_model, "--freeze-lm", "--seeds", 1, "--controls", "text-only"]
    run(*start, "--output", tmp_path / "run", *SMALL, "--compare-labels", "--training.align-epochs", 0)
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert set(history["stage"]) == {3}
    assert "stage 1" in (tmp_path / "run" / "report.md").read_text().lower()
    with pytest.raises(UserError, match="nothing to train"):
        run(*start, "--output", tmp_path / "none", "--labels", "none", "--training.align-epochs", 0, "--training.joint-epochs", 0)


def test_a_diverged_run_is_reported(text_model: Path, tmp_path: Path) -> None:
    data = write_pickle(tmp_path / "mosi.pkl", {"train": 40, "valid": 16}, human=False)
    with pytest.raises(UserError, match="diverged"):
        run(
            "--dataset", "mosi", "--data", data, "--lm", text_model, "--output", tmp_path / "run", "--labels", "copy",
            "--training.lr", "1e30", "--training.lm-lr", "1e30", "--training.encoder-lr", "1e30",
        )  # fmt: skip


def test_invalid_options_are_refused(tmp_path: Path) -> None:
    given = ["--dataset", "mosi", "--data", "x.pkl", "--output", str(tmp_path)]
    for extra, part in (
        ([], "either --encoder"),
        (["--lm", "a", "--encoder", "b"], "either --encoder"),
        (["--lm", "a", "--seeds", "1", "1"], "--seeds"),
        (["--lm", "a", "--workers", "0"], "--workers"),
        (["--lm", "a", "--dev-share", "1.5"], "--dev-share"),
        (["--lm", "a", "--training.batch-size", "0"], "--training.batch-size 0"),
        (["--lm", "a", "--generators.crossfit.folds", "1"], "folds 1"),
        (["--lm", "a", "--training.alignment.covariance-pairs", "text-visual"], "text-visual"),
    ):
        with pytest.raises(UserError, match=part):
            parse_options(MugOptions, [*given, *extra])
    with pytest.raises(UserError, match="does not exist"):
        run(*given[:2], "--data", tmp_path / "none.pkl", "--lm", "embedded", "--output", tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("keep me")
    with pytest.raises(UserError, match="not empty"):
        run(*given[:4], "--lm", "embedded", "--output", tmp_path / "other", "--overwrite")
    assert (tmp_path / "other" / "thesis.txt").read_text() == "keep me"


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    entries = {"headline": "copy", "metrics": {"mean": {"MAE": 0.5}, "std": {"MAE": 0.0}}, "controls": {}, "audio_vision_use": None}
    for seeds, shown in (([1], False), ([1, 2], True)):
        (tmp_path / "results.json").write_text(json.dumps({**entries, "seeds": seeds}))
        assert ("± 0.000" in str(FinetuneResult(tmp_path))) == shown


def test_a_corpus_of_one_video_without_transcripts_runs_with_defaults(
    text_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_pickle(tmp_path / "voices.pkl", {"train": 48, "valid": 16})
    content = pickle.loads(data.read_bytes())
    for split, part in content.items():
        del part["raw_text"]
        part["id"] = [f"corpus_{split}$_${row}" for row in range(len(part["id"]))]
    data.write_bytes(pickle.dumps(content))
    results = run(
        "--dataset",
        "custom",
        "--data",
        data,
        "--label-range",
        -1,
        1,
        "--lm",
        text_model,
        "--output",
        tmp_path / "run",
        "--seeds",
        1,
        *SMALL,
    )
    assert "takes its folds by utterance" in capsys.readouterr().out
    assert results["data"]["modalities"] == ["audio", "vision"]
    assert results["unimodal_labels"]["audio"]["moved"] > 0
