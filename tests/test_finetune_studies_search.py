"""The search: it resumes, never uses the test split, its best options reproduce the trial, and only divergence counts as a trial."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from synthetic_pretraining import write_text_model
from synthetic_studies import SMALL, write_pickle

pytest.importorskip("optuna", reason="the extra `search` is not installed")

from finetune.options import MugOptions
from finetune.run_mug import main as run_mug
from finetune.studies.search import SearchOptions, kept_error, main
from finetune.training import experiment
from finetune.training.experiment import Experiment
from skesl_mug.console import parse_options
from skesl_mug.errors import DivergedError, UserError
from skesl_mug.locks import run_lock


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A synthetic corpus and a tiny language model."""
    folder = tmp_path_factory.mktemp("search")
    return write_pickle(folder / "sims.pkl", {"train": 40, "valid": 16, "test": 16}), write_text_model(folder / "lm")


def search(data: Path, lm: Path, output: Path, trials: int, *more: object) -> dict:
    flags = ["--dataset", "sims", "--data", data, "--lm", lm, "--freeze-lm", "--output", output, "--seeds", 3, "--trials", trials, *SMALL]
    flags += ["--labels", "copy", "--tune", "training.lr", "model.dim", *more]
    main(parse_options(SearchOptions, [str(flag) for flag in flags]))
    return json.loads((output / "search.json").read_text())


def test_a_search_resumes_ignores_the_test_split_and_its_best_options_reproduce(given, tmp_path: Path) -> None:
    data, lm = given
    first = search(data, lm, tmp_path / "out", 2)
    more = search(data, lm, tmp_path / "out", 3)
    assert more["trials"][:2] == first["trials"]
    assert len(more["trials"]) == 3
    assert more["dev_MAE"] == min(trial["dev_MAE"] for trial in more["trials"])
    content = pickle.loads(data.read_bytes())
    content["test"]["regression_labels"] = -content["test"]["regression_labels"]
    (tmp_path / "turned.pkl").write_bytes(pickle.dumps(content))
    assert search(tmp_path / "turned.pkl", lm, tmp_path / "blind", 2)["trials"] == first["trials"]
    run_mug(parse_options(MugOptions, ["--config", str(tmp_path / "out" / "best.yaml")]))
    trial = tmp_path / "out" / "checkpoints" / f"trial-{more['best_trial']}"
    own, again = (
        json.loads((folder / "seed-3" / "copy.json").read_text()) for folder in (trial, tmp_path / "out" / "best" / "checkpoints")
    )
    assert again["history"] == own["history"]
    assert again["metrics"] == own["metrics"]


def test_the_best_options_do_not_overwrite_and_the_best_run_stays(given, tmp_path: Path) -> None:
    search(*given, tmp_path / "out", 1)
    (tmp_path / "out" / "best").mkdir()
    (tmp_path / "out" / "best" / "results.json").write_text("{}")
    search(*given, tmp_path / "out", 1, "--overwrite")
    assert yaml.safe_load((tmp_path / "out" / "best.yaml").read_text()).get("overwrite", False) is False
    assert (tmp_path / "out" / "best" / "results.json").is_file()


def test_a_trial_is_scored_by_the_epoch_that_is_kept() -> None:
    assert kept_error([0.3, 0.1, 0.2], "best") == 0.1
    assert kept_error([0.3, 0.1, 0.2], "last") == 0.2


def test_one_search_at_a_time_in_a_folder(given, tmp_path: Path) -> None:
    with run_lock(tmp_path / "out"), pytest.raises(UserError, match="another run is writing there"):
        search(*given, tmp_path / "out", 1)
    assert not any((tmp_path / "out").iterdir())


def test_workers_train_the_seeds_in_processes_with_the_same_result(given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    class Pool(experiment.ProcessPoolExecutor):
        def __init__(self, workers: int, *arguments: object, **more: object):
            started.append(workers)
            super().__init__(workers, *arguments, **more)

    monkeypatch.setattr(experiment, "ProcessPoolExecutor", Pool)
    serial = search(*given, tmp_path / "serial", 1, "--seeds", 3, 4)
    assert not started
    assert search(*given, tmp_path / "parallel", 1, "--seeds", 3, 4, "--workers", 2) == serial
    assert started == [2]


def failing(error: Exception, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the first `times` trainings fail."""
    train: Callable[[Experiment, int], bool] = Experiment.run_seed
    left = [error] * times

    def run_seed(self: Experiment, seed: int) -> bool:
        if left:
            raise left.pop()
        return train(self, seed)

    monkeypatch.setattr(Experiment, "run_seed", run_seed)


def test_only_divergence_counts_as_a_trial(given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(UserError("disk full"), 1, monkeypatch)
    with pytest.raises(UserError, match="disk full"):
        search(*given, tmp_path / "full", 2)
    assert not (tmp_path / "full" / "search.json").exists()
    found = search(*given, tmp_path / "full", 2)
    assert [trial["state"] for trial in found["trials"]] == ["FAIL", "COMPLETE", "COMPLETE"]
    failing(DivergedError("stage 1 diverged"), 1, monkeypatch)
    found = search(*given, tmp_path / "diverged", 2)
    assert [trial["state"] for trial in found["trials"]] == ["PRUNED", "COMPLETE"]


def test_training_that_diverges_says_so(given, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none was completed"):
        search(*given, tmp_path / "out", 1, "--tune", "model.dim", "--training.lr", 1e30)


def test_a_journal_that_was_cut_off_resumes_and_a_damaged_one_can_be_deleted(given, tmp_path: Path) -> None:
    first = search(*given, tmp_path / "out", 1)
    journal = tmp_path / "out" / "checkpoints" / "trials.log"
    journal.write_bytes(journal.read_bytes()[:-20])
    resumed = search(*given, tmp_path / "out", 1)
    assert [trial["state"] for trial in resumed["trials"]] == ["FAIL", "COMPLETE"]
    assert resumed["dev_MAE"] == first["dev_MAE"]
    journal.write_bytes(journal.read_bytes()[:50] + b"\n" + journal.read_bytes())
    with pytest.raises(UserError, match=r"trials\.log: is damaged"):
        search(*given, tmp_path / "out", 1)
    journal.unlink()
    assert search(*given, tmp_path / "out", 1) == first
