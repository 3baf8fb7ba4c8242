"""Fine-tuning interrupted, on a full disk, extended, with bad data: one-line errors, nothing lost, identical results in the end."""

import hashlib
import json
import multiprocessing
import os
import pickle
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_corpus import SMALL, write_pickle
from synthetic_pretraining import write_text_model
from test_finetune_run import run

from finetune import run_mug
from finetune.labels import crossfit
from finetune.options import MugOptions
from finetune.training import experiment, results, stages
from finetune.training.folder import RECIPE
from skesl_mug.console import parse_options, run_command
from skesl_mug.errors import UserError
from skesl_mug.locks import run_lock

LESS = ["--compare-labels", "--controls", "permuted"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("drills")
    lm = write_text_model(folder / "lm")
    return {"lm": lm, "data": write_pickle(folder / "sims.pkl", {"train": 40, "valid": 12, "test": 12})}


def command(made: dict[str, Path], output: Path, *more: object) -> list[str]:
    given = ["--dataset", "sims", "--data", made["data"], "--lm", made["lm"], "--freeze-lm", "--output", output, *SMALL, *LESS, *more]
    return [str(argument) for argument in given]


@pytest.fixture(scope="module")
def whole(made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict:
    """An uninterrupted run of two seeds."""
    return run(*command(made, tmp_path_factory.mktemp("whole") / "run", "--seeds", 1, 2))


def in_child(prepare: Callable[[], None], arguments: list[str], logs: Path) -> tuple[int, str]:
    """The command in a forked process of its own; gives its status and what it wrote to stderr."""

    def work() -> None:
        os.dup2(os.open(logs, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 2)
        sys.stderr = os.fdopen(2, "w", buffering=1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        prepare()
        run_command(MugOptions, run_mug.main, arguments)

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(60)
    assert child.exitcode is not None, "the command hangs"
    return child.exitcode, logs.read_text()


def interrupt_at(owner: object, name: str, call: int) -> Callable[[], None]:
    """A real SIGINT as the function is called for the n-th time."""

    def prepare() -> None:
        original, calls = getattr(owner, name), []

        def interrupted(*args, **kwargs):
            calls.append(1)
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGINT)
            return original(*args, **kwargs)

        setattr(owner, name, interrupted)

    return prepare


def test_ctrl_c_at_any_stage_is_one_line_and_the_same_command_resumes(made: dict[str, Path], whole: dict, tmp_path: Path) -> None:
    arguments = command(made, tmp_path / "run", "--seeds", 1, 2)
    moments = {
        "reading": interrupt_at(experiment, "load_corpus", 1),
        "stage 1": interrupt_at(stages, "_train_epoch", 2),
        "stage 2": interrupt_at(crossfit, "train_scalar_mucn", 2),
        "stage 3": interrupt_at(stages, "_train_epoch", 2),
        "writing": interrupt_at(experiment, "write_model", 1),
        "the table": interrupt_at(results, "gather", 1),
    }
    for moment, prepare in moments.items():
        status, told = in_child(prepare, arguments, tmp_path / "stderr")
        assert status == 130, (moment, told)
        assert told.split("\n")[1:] == ["Interrupted. Finished work is kept: run the same command again to resume.", ""], moment
        assert not list((tmp_path / "run").rglob("*.tmp")), moment
    sessions = json.loads((tmp_path / "run" / "checkpoints" / "sessions.json").read_text())
    assert len(sessions) == 5  # of the six, one was still reading
    resumed = run(*arguments)
    for name in ("metrics", "controls", "unimodal_labels_by_generator", "interval"):
        assert resumed[name] == whole[name], name
    assert resumed["seconds"]["whole run"] == pytest.approx(sum(sessions), abs=0.1)


def digests(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_full_disk_is_one_line_and_written_pieces_stay_intact(made: dict[str, Path], whole: dict, tmp_path: Path) -> None:
    output = tmp_path / "run"
    run(*command(made, output, "--seeds", 1))
    seed_one = output / "checkpoints" / "seed-1"
    before, size = digests(seed_one), (seed_one / "stage1_full.safetensors").stat().st_size

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    arguments = command(made, output, "--seeds", 1, 2)
    status, told = in_child(no_room, arguments, tmp_path / "stderr")
    assert status == 2
    assert told.count("\n") == 1
    assert "stage1_full.safetensors: cannot be written" in told
    assert "free some space" in told
    assert digests(seed_one) == before
    assert not list(output.rglob("*.tmp"))
    assert run(*arguments)["metrics"] == whole["metrics"]


def test_seeds_generators_and_controls_are_added_and_other_options_refused(made: dict[str, Path], whole: dict, tmp_path: Path) -> None:
    output = tmp_path / "run"
    run(*command(made, output, "--seeds", 1, "--controls", "constant"))
    first = digests(output / "checkpoints" / "seed-1")
    more = run(*command(made, output, "--seeds", 1, 2, "--compare-labels", "copy", "--controls", "permuted", "--av-margin", 0.02))
    assert more["metrics"] == whole["metrics"]
    assert set(more["controls"]) == {"labels_copy", "permuted_audio_vision"}
    assert more["controls"]["permuted_audio_vision"] == whole["controls"]["permuted_audio_vision"]
    after = digests(output / "checkpoints" / "seed-1")
    assert {name: after[name] for name in first} == first
    assert "changed from 0.010 after the run started" in more["audio_vision_use"]["sentence"]
    assert "Changed after the run began" in (output / "report.md").read_text()
    with pytest.raises(UserError) as refusal:
        run(*command(made, output, "--training.lr", 0.5, "--no-freeze-lm", "--training.alignment.losses", "covariance"))
    for change in (
        "--training.lr was 0.001, now 0.5",
        "--freeze-lm was on, now off",
        "--training.alignment.losses was contrastive, now covariance",
    ):
        assert change in str(refusal.value)
    assert "--seeds" not in str(refusal.value)


def test_a_run_of_a_version_that_trained_differently_does_not_resume(made: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "run"
    arguments = command(made, output, "--seeds", 1, "--controls", "constant")
    run(*arguments)
    identity = output / "checkpoints" / "identity.json"
    entries = json.loads(identity.read_text())
    del entries["recipe"]  # as version 0.1 wrote it
    identity.write_text(json.dumps(entries))
    with pytest.raises(UserError, match="version of skesl-mug that trains differently"):
        run(*arguments)
    run(*arguments, "--overwrite")
    assert json.loads(identity.read_text())["recipe"] == RECIPE


def test_the_number_of_threads_does_not_depend_on_the_number_of_workers(made: dict[str, Path], whole: dict, tmp_path: Path) -> None:
    torch.set_num_threads(2)
    try:
        results = run(*command(made, tmp_path / "run", "--seeds", 1, 2, "--workers", 2))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(1)
    pieces = [json.loads((tmp_path / "run" / "checkpoints" / f"seed-{seed}" / "mucn-crossfit.json").read_text()) for seed in (1, 2)]
    assert [piece["threads"] for piece in pieces] == [1, 1]
    assert results["metrics"] == whole["metrics"]
    assert results["controls"] == whole["controls"]


def change_pickle(source: Path, target: Path, change: Callable[[dict], None]) -> Path:
    content = pickle.loads(source.read_bytes())
    change(content)
    target.write_bytes(pickle.dumps(content))
    return target


def beyond(content: dict) -> None:
    content["train"]["regression_labels"][3] = 2.5


def constant(content: dict) -> None:
    content["train"]["regression_labels"][:] = 0.5


def constant_test(content: dict) -> None:
    content["test"]["regression_labels"][:] = 0.5


def one_sample(content: dict) -> None:
    content["train"] = {name: values[:1] for name, values in content["train"].items()}


def empty_valid(content: dict) -> None:
    content["valid"] = {name: values[:0] for name, values in content["valid"].items()}


@pytest.mark.parametrize(
    ("change", "says"), [(beyond, "train.*label|label.*train"), (one_sample, "at least two"), (constant, "nothing to learn")]
)
def test_labels_without_information_are_refused(made: dict[str, Path], tmp_path: Path, change: Callable, says: str) -> None:
    data = change_pickle(made["data"], tmp_path / "bad.pkl", change)
    with pytest.raises(UserError, match=says) as refusal:
        run(*command({**made, "data": data}, tmp_path / "run", "--seeds", 1))
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "run").exists()


def test_a_missing_valid_split_and_constant_test_labels_are_reported(
    made: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = change_pickle(change_pickle(made["data"], tmp_path / "bad.pkl", constant_test), tmp_path / "bad.pkl", empty_valid)
    results = run(*command({**made, "data": data}, tmp_path / "run", "--seeds", 1))
    told = capsys.readouterr().out
    assert "no valid split" in told
    assert "warning: test/label" in told
    assert results["data"]["counts"]["dev"] > 0
    assert results["metrics"]["mean"]["Corr"] is None
    assert results["metrics"]["mean"]["MAE"] > 0


def test_batches_of_one_train(made: dict[str, Path], tmp_path: Path) -> None:
    one_each = ["--training.batch-size", 1, "--training.align-epochs", 1, "--training.joint-epochs", 1]
    losses = ["--training.alignment.losses", "contrastive", "covariance", "similarity"]
    results = run(*command(made, tmp_path / "run", "--seeds", 1, "--labels", "ulgm", *one_each, *losses))
    assert np.isfinite(results["metrics"]["mean"]["MAE"])


def test_tanh_and_copied_labels_do_not_go_together(made: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tanh = ["--training.unimodal-weighting", "tanh"]
    with pytest.raises(UserError, match="tanh 0 = 0"):
        parse_options(MugOptions, command(made, tmp_path, "--labels", "copy", *tanh))
    with pytest.raises(UserError, match=r"task-weights\.audio -1"):
        parse_options(MugOptions, command(made, tmp_path, "--training.task-weights.audio", -1))
    results = run(*command(made, tmp_path / "run", "--seeds", 1, "--compare-labels", "copy", *tanh, "--training.task-weights.vision", 0))
    assert "labels copy left out" in capsys.readouterr().out
    assert "labels_copy" not in results["controls"]
    assert set(results["unimodal_head_metrics"]) == {"text", "audio"}


def test_two_runs_on_one_folder_and_overwriting_under_the_lock(made: dict[str, Path], tmp_path: Path) -> None:
    arguments = command(made, tmp_path / "run", "--seeds", 1)
    with run_lock(tmp_path / "run"), pytest.raises(UserError, match="another run is writing there"):
        run(*arguments)
    first = run(*arguments)
    assert run(*arguments, "--overwrite", "--bootstrap", 20)["metrics"] == first["metrics"]
