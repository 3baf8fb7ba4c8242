"""The search: resumed where it stopped, blind to the reported split, and its best options reproduce the trial to the digit."""

import json
import pickle
from pathlib import Path

import pytest
from pretrain_made import write_text_model
from study_made import SMALL, write_pickle

pytest.importorskip("optuna", reason="the extra `search` is not installed")

from finetune.options import MugOptions
from finetune.run_mug import main as run_mug
from finetune.studies.search import SearchOptions, kept_error, main
from skesl_mug.console import parse_options


def search(data: Path, lm: Path, output: Path, trials: int) -> dict:
    flags = ["--dataset", "sims", "--data", data, "--lm", lm, "--freeze-lm", "--output", output, "--seeds", 3, "--trials", trials, *SMALL]
    main(parse_options(SearchOptions, [str(flag) for flag in [*flags, "--labels", "copy", "--tune", "training.lr", "model.dim"]]))
    return json.loads((output / "search.json").read_text())


def test_a_search_goes_on_sees_no_test_row_and_its_best_reproduces(tmp_path: Path) -> None:
    lm, data = write_text_model(tmp_path / "lm"), write_pickle(tmp_path / "sims.pkl", {"train": 40, "valid": 16, "test": 16})
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


def test_a_trial_is_judged_by_the_epoch_that_its_run_keeps() -> None:
    assert kept_error([0.3, 0.1, 0.2], "best") == 0.1
    assert kept_error([0.3, 0.1, 0.2], "last") == 0.2
