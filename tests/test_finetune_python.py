"""Fine-tuning from Python: the results as data, a corpus that was read before, and options reported as the command does."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_corpus import write_pickle
from synthetic_pretraining import write_text_model

import skesl_mug as sm

QUICK = {
    "training": {"align_epochs": 1, "joint_epochs": 1},
    "generators": {"crossfit": {"steps": 10}, "meta": {"steps": 3}},
    "model": {"frames": "statistics", "dim": 8},
    "freeze_lm": True,
    "bootstrap": 20,
    "compare_labels": ["copy"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("python")
    return {"lm": write_text_model(folder / "lm"), "data": write_pickle(folder / "sims.pkl", {"train": 40, "valid": 12, "test": 12})}


@pytest.fixture(scope="module")
def result(made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> sm.FinetuneResult:
    output = tmp_path_factory.mktemp("result") / "run"
    corpus = sm.load_corpus("sims", made["data"])
    content = made["data"].read_bytes()
    torch.set_num_threads(2)
    made["data"].unlink()  # it is not read a second time
    try:
        return sm.finetune(corpus, lm=made["lm"], seeds=(1, 2), output=output, workers=2, **QUICK)
    finally:
        assert torch.get_num_threads() == 2  # those of the caller
        torch.set_num_threads(1)
        made["data"].write_bytes(content)


def test_the_result_holds_what_the_report_shows(result: sm.FinetuneResult) -> None:
    stored = json.loads((result.folder / "results.json").read_text())
    assert result.results == stored
    assert set(result.metrics) == {"1", "2", "mean", "std"}
    assert {"constant", "text_only", "labels_copy", "permuted_audio_vision"} <= set(result.controls)
    assert set(result.unimodal_labels) == {"text", "audio", "vision"}
    assert result.report.is_file()
    table = result.table()
    assert table.index[0] == "MUG (mucn-crossfit)"
    assert table.loc["Labels: y copied", "MAE"] == stored["controls"]["labels_copy"]["mean"]["MAE"]
    assert list(table.columns[:2]) == ["MAE", "MAE std"]
    assert np.isnan(table.loc["Constant", "Corr"])
    assert "sims test" in repr(result)
    assert "Text only" in repr(result)
    assert stored["command"].startswith("skesl_mug.finetune(")
    assert result.model.network.modalities == ["text", "audio", "vision"]
    assert sm.FinetuneResult(result.folder).metrics == result.metrics


def test_a_path_gives_the_digits_of_a_corpus_and_resumes_its_run(made, result, capsys: pytest.CaptureFixture[str]) -> None:
    again = sm.finetune(str(made["data"]), dataset="sims", lm=str(made["lm"]), seeds=[1, 2], output=str(result.folder), **QUICK)
    assert "already trained" in capsys.readouterr().out
    assert again.metrics == result.metrics


def test_the_progress_bars_of_the_caller_stay_on(made, result) -> None:
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled()
    try:
        for on in (True, False):
            (logging.enable_progress_bar if on else logging.disable_progress_bar)()
            sm.finetune(str(made["data"]), dataset="sims", lm=str(made["lm"]), seeds=[1, 2], output=str(result.folder), **QUICK)
            assert logging.is_progress_bar_enabled() == on
    finally:
        (logging.enable_progress_bar if before else logging.disable_progress_bar)()


def test_a_corpus_that_was_changed_in_python_is_not_that_of_the_run(made, result, tmp_path: Path) -> None:
    corpus = sm.load_corpus("sims", made["data"])
    corpus.splits["train"] = corpus.splits["train"].select(range(30))
    with pytest.raises(sm.UserError, match="corpus was changed since"):
        sm.finetune(corpus, lm=made["lm"], seeds=(1, 2), output=result.folder, **QUICK)
    few = sm.finetune(corpus, lm=made["lm"], seeds=[1], output=tmp_path / "few", few=10, controls=[], **QUICK)
    assert few.results["data"]["counts"]["train"] == 10
    assert len(corpus.splits["train"]) == 30


def test_wrong_arguments_are_reported_before_anything_is_trained(made, tmp_path: Path) -> None:
    corpus = sm.load_corpus("sims", made["data"])
    given = {"lm": made["lm"], "output": tmp_path / "run"}
    for values, part in (
        ({"dataset": "mosi"}, "read as sims"),
        ({"dev_share": 0.3}, "pass it to load_corpus"),
        ({"labels": "none-such"}, "^labels none-such"),
        ({"trainning": {}}, "did you mean training"),
        ({"training": {"batch_size": 0}}, "^training.batch_size 0"),
        ({"seeds": ()}, "^seeds"),
        ({"training": {"batch-size": 0}}, "^training.batch_size 0"),
        ({"plugin_options": {"mine": {"strength": 3}}}, "^plugin_options mine.strength=3: no plugin"),
    ):
        with pytest.raises(sm.UserError, match=part):
            sm.finetune(corpus, **{**given, **values})
    with pytest.raises(sm.UserError, match="dataset: required"):
        sm.finetune(made["data"], **given)
    with pytest.raises(sm.UserError, match="does not exist"):
        sm.finetune(tmp_path / "nothing.pkl", dataset="sims", **given)
    with pytest.raises(sm.UserError, match="does not hold a finished run"):
        _ = sm.FinetuneResult(tmp_path).metrics
    assert not (tmp_path / "run").exists()


def test_the_report_names_the_command_that_was_typed(made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finetune import run_mug

    seen: list[str] = []
    monkeypatch.setattr(run_mug, "run", lambda options, command: seen.append(command))
    monkeypatch.setattr(run_mug, "print_result", lambda result: None)
    typed = {"skesl-mug finetune": "skesl-mug finetune", "/any/run_mug.py": "python finetune/run_mug.py"}
    for program, start in typed.items():
        monkeypatch.setattr("sys.argv", [program, "--x", "a b"])
        run_mug.main(object())  # type: ignore[arg-type]
        assert seen[-1] == f"{start} --x 'a b'"
