"""Cross-validated epochs: the candidates, what is held out, and runs end to end, resumed and in several processes."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_corpus import SMALL, write_pickle
from synthetic_pretraining import write_text_model
from test_finetune_run import run

from finetune.corpora import load_corpus
from finetune.corpora.mapped_file import JoinedFrames
from finetune.corpora.splits import joined
from finetune.options import MugOptions, TrainingOptions
from finetune.training.epochs import candidates, without_dev
from finetune.training.trainer import Trainer
from skesl_mug.console import parse_options
from skesl_mug.errors import UserError


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_model(tmp_path_factory.mktemp("lm"))


def test_the_candidates_are_the_maximum_and_its_halvings() -> None:
    assert candidates(15) == [2, 4, 8, 15]
    assert candidates(4) == [1, 2, 4]
    assert candidates(1) == [1]
    assert candidates(0) == [0]
    for most in range(1, 60):
        assert max(candidates(most)) == most
        assert sum(candidates(most)) <= 2 * most + 2


@pytest.mark.parametrize("test", [0, 12])
def test_train_gets_the_development_part_back(tmp_path: Path, test: int) -> None:
    sizes = {"train": 40, "valid": 12} | ({"test": test} if test else {})
    corpus = load_corpus("sims", write_pickle(tmp_path / "sims.pkl", sizes))
    whole = without_dev(corpus)
    assert "dev" not in whole.splits
    train, dev, both = corpus.splits["train"], corpus.splits["dev"], whole.splits["train"]
    assert both.ids == [*train.ids, *dev.ids]
    assert len(both) == (52 if test else 40)
    assert corpus.evaluated_on in whole.splits
    assert "cross-validation" in whole.evaluated_on_note
    assert ("valid split was added to train" in whole.evaluated_on_note) == bool(test)
    order = np.random.default_rng(0).permutation(len(both))
    chosen = both.select(order)
    assert isinstance(chosen.audio, JoinedFrames)
    for place, row in enumerate(order):
        origin, at = (train, row) if row < len(train) else (dev, row - len(train))
        np.testing.assert_array_equal(chosen.audio[place], origin.audio[at])
        assert (chosen.text[place], chosen.label_T[place]) == (origin.text[at], origin.label_T[at])
    assert len(corpus.splits["dev"]) == len(dev)  # the given corpus stays as it is


def test_a_modality_that_one_split_lacks_is_missing_there(tmp_path: Path) -> None:
    splits = load_corpus("sims", write_pickle(tmp_path / "sims.pkl", {"train": 8, "valid": 4, "test": 4})).splits
    other = splits["dev"].select(range(4))
    other.vision = other.label_A = other.text = None
    both = joined(splits["train"], other)
    assert [frames is None for frames in both.vision] == [False] * 8 + [True] * 4
    assert both.text[8:] == [""] * 4
    assert np.isnan(both.label_A[8:]).all()
    assert not np.isnan(both.label_A[:8]).any()


def flags(data: Path, text_model: Path, folder: Path, *more: object) -> list[object]:
    return [
        "--dataset", "mosi", "--data", data, "--lm", text_model, "--freeze-lm", "--output", folder, "--seeds", 1, 2,
        "--epochs-from", "cross-validation", "--epoch-folds", 2, "--compare-labels", "copy", "--controls", "text-only",
        *SMALL, "--training.align-epochs", 3, "--interval-level", 0.5, *more,
    ]  # fmt: skip


def test_a_run_with_cross_validated_epochs_resumes(text_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    data, folder = write_pickle(tmp_path / "mosi.pkl", {"train": 40, "valid": 12}, human=False), tmp_path / "run"
    stage_one, trained = Trainer.stage_one, []

    def interrupted(trainer, start, model):
        if len(trained) == 3:
            raise KeyboardInterrupt
        split = trainer.data(start)
        trained.append((type(trainer).__name__, trainer.training(start).align_epochs, set(split["train"].split.video_ids)))
        if "dev" in split:
            assert trained[-1][2].isdisjoint(split["dev"].split.video_ids)
        return stage_one(trainer, start, model)

    monkeypatch.setattr(Trainer, "stage_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(*flags(data, text_model, folder))
    first = list(trained)
    trained[:3] = [None] * 4
    results = run(*flags(data, text_model, folder))
    again = trained[4:]
    assert [kind for kind, _, _ in first] == ["FoldTrainer"] * 3
    # full: 3 candidates (1, 2, 3) x 2 folds, of which 3 were finished; text only: 6; then a stage 1 per seed and start
    assert [kind for kind, _, _ in again].count("FoldTrainer") == 9
    assert [kind for kind, _, _ in again].count("Trainer") == 4
    choices = results["epochs"]
    assert set(choices) == {"full", "text_only"}
    for choice in choices.values():
        assert set(choice["align_errors"]) == {"1", "2", "3"}
        assert choice["align_errors"][str(choice["align"])] == min(choice["align_errors"].values())
        assert choice["joint_errors"][str(choice["joint"])] == min(choice["joint_errors"].values())
        assert (choice["folds"], choice["unit"]) == (2, "video")
    assert results["data"]["counts"] == {"train": 40, "valid": 12}
    history = pd.read_csv(folder / "history.csv")
    assert history["dev_MAE"].isna().all()
    for (variant, stage), rows in history.groupby(["variant", "stage"]):
        choice = choices["text_only" if variant == "text_only" else "full"]
        assert rows["epoch"].max() == choice["align" if stage == 1 else "joint"]  # the same for both seeds
    assert not list((folder / "checkpoints").glob("folds_*"))
    assert "stage 1: " in capsys.readouterr().out
    report = (folder / "report.md").read_text()
    assert "2 folds by video" in report
    # the interval is calibrated on the held-out folds
    assert results["score_interval"]["n"] == 40
    held_out = np.load(folder / "checkpoints" / "epochs_full.npz")["pred_M"]
    train = without_dev(load_corpus("mosi", data)).splits["train"]
    error = float(np.abs(held_out - train.label).mean())
    assert error == pytest.approx(choices["full"]["joint_errors"][str(choices["full"]["joint"])], abs=1e-4)

    trained.clear()
    assert run(*flags(data, text_model, folder))["metrics"] == results["metrics"]
    assert trained == []
    with pytest.raises(UserError, match="--epochs-from was cross-validation, now dev"):
        run(*[part for part in flags(data, text_model, folder) if part not in ("--epochs-from", "cross-validation")])


def test_seeds_in_several_processes_use_the_same_epochs(text_model: Path, tmp_path: Path) -> None:
    data = write_pickle(tmp_path / "mosi.pkl", {"train": 40, "valid": 12}, human=False)
    one = run(*flags(data, text_model, tmp_path / "one"))
    two = run(*flags(data, text_model, tmp_path / "two", "--workers", 2))
    assert one["metrics"] == two["metrics"]
    for choices in (one["epochs"], two["epochs"]):
        for choice in choices.values():
            choice.pop("seconds")
    assert one["epochs"] == two["epochs"]


def test_one_video_has_folds_by_utterance_and_few_labels_work(text_model: Path, tmp_path: Path) -> None:
    data = write_pickle(tmp_path / "mosi.pkl", {"train": 24, "valid": 8}, human=False)
    content = pickle.loads(data.read_bytes())
    content["train"]["id"] = [f"v$_${row}" for row in range(24)]
    data.write_bytes(pickle.dumps(content))
    results = run(
        *flags(
            data, text_model, tmp_path / "run", "--few", 12, "--compare-labels", "--controls", "--seeds", 1, "--training.joint-epochs", 0
        )
    )
    assert results["data"]["counts"]["train"] == 12
    (choice,) = results["epochs"].values()
    assert (choice["unit"], choice["joint"], choice["joint_errors"]) == ("utterance", 0, {})


def test_what_cannot_go_together_is_refused() -> None:
    def parse(*arguments: str) -> MugOptions:
        given = ["--dataset", "mosi", "--data", "x", "--lm", "x", "--output", "x", "--epochs-from", "cross-validation"]
        return parse_options(MugOptions, [*given, *arguments])

    assert parse().training == TrainingOptions(keep="last")
    with pytest.raises(UserError, match="keep best: needs a development part"):
        parse("--training.keep", "best")
    with pytest.raises(UserError, match="--epoch-folds 1: must be 2 or more"):
        parse("--epoch-folds", "1")
