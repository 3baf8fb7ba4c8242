"""Several processes per seed give the curves of one; weights and labels are kept from the same epoch; no cached states for a trained LM."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from several_processes import launch
from synthetic_corpus import SMALL, write_pickle
from synthetic_pretraining import write_text_model
from test_finetune_run import run

from finetune.corpora import load_corpus
from finetune.labels.ulgm import UlgmUpdater
from finetune.model.encoders import EncoderSource
from finetune.model.minibatches import PreparedSplit, prepare
from finetune.model.networks import MugConfig, MugModel
from finetune.options import TrainingOptions
from finetune.training import stages
from pretrain.encoder import SkeslModel, load_tokenizer

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A corpus some of whose rows lack their sound, a language model and a SKESL model, both without dropout."""
    folder = tmp_path_factory.mktemp("processes")
    lm = write_text_model(folder / "lm")
    config = json.loads((lm / "config.json").read_text())
    (lm / "config.json").write_text(json.dumps({**config, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}))
    torch.manual_seed(0)
    SkeslModel.from_text_model(str(lm), audio_dim=5, vision_dim=3, attention_dim=8, num_blocks=1, dropout=0.0).save_pretrained(
        folder / "skesl" / "model"
    )
    load_tokenizer(str(lm)).save_pretrained(folder / "skesl" / "model")
    return {"data": write_pickle(folder / "sims.pkl", {"train": 41, "valid": 13, "test": 11}), "skesl": folder / "skesl", "lm": lm}


def test_two_processes_share_a_seed_and_give_the_curves_of_one(made: dict[str, Path], tmp_path: Path) -> None:
    given = ["--dataset", "sims", "--data", made["data"], "--encoder", made["skesl"], "--model.dropout", "0", "--seeds", "1"]
    given += ["--labels", "ulgm", "--compare-labels", "mucn-crossfit", "--controls", "permuted", *SMALL, "--training.batch-size", "8"]
    given += ["--training.alignment.losses", "contrastive", "covariance", "similarity", "label-distance"]
    done = launch(ROOT / "finetune" / "run_mug.py", *given, "--output", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report: ") == 1
    run(*given, "--output", tmp_path / "one")
    one, two = (pd.read_csv(tmp_path / name / "history.csv") for name in ("one", "two"))
    assert len(one) == 8
    assert two["train_loss"].to_numpy() == pytest.approx(one["train_loss"].to_numpy(), abs=1e-5)
    assert two["dev_MAE"].to_numpy() == pytest.approx(one["dev_MAE"].to_numpy(), abs=1e-5)
    first, second = (pd.read_csv(tmp_path / name / "predictions.csv") for name in ("one", "two"))
    assert second["pred_M"].to_numpy() == pytest.approx(first["pred_M"].to_numpy(), abs=1e-3)


def prepared(made: dict[str, Path], cache: Path, freeze_lm: bool) -> dict[str, PreparedSplit]:
    corpus, source = load_corpus("sims", str(made["data"])), EncoderSource(None, str(made["lm"]))
    return prepare(
        corpus, lambda: source.load(5, 3, 1)[0].eval(), source.tokenizer(), cache, max_tokens=32, freeze_lm=freeze_lm, progress=False
    )


def test_the_mean_of_the_last_epochs_is_kept(made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = prepared(made, tmp_path, freeze_lm=False)
    after: list[dict[str, torch.Tensor]] = []
    real = stages.predict

    def seen(model: MugModel, *rest: object) -> dict[str, torch.Tensor]:
        after.append({name: weight.detach().clone() for name, weight in model.named_parameters()})
        return real(model, *rest)

    monkeypatch.setattr(stages, "predict", seen)
    for last, epochs in ((1, 4), (3, 4), (9, 2)):  # more than there are: all
        torch.manual_seed(1)
        model = MugModel.around(
            SkeslModel.from_text_model(str(made["lm"]), audio_dim=5, vision_dim=3, attention_dim=8, num_blocks=1),
            MugConfig(audio_dim=5, vision_dim=3, dim=6),
        )
        after.clear()
        options = TrainingOptions(align_epochs=epochs, batch_size=8, keep="last", average_epochs=last, lr=1e-2)
        stages.fit(
            model, data["train"], data["dev"], stages.stage_one_loss(data["train"].y, options, True), stage=1, options=options, seed=1
        )
        for name, weight in model.named_parameters():
            expected = torch.stack([weights[name] for weights in after[-last:]]).mean(0)
            torch.testing.assert_close(weight.detach(), expected, msg=name)
        assert not torch.equal(after[0]["heads.fused.weight"], after[-1]["heads.fused.weight"])


def test_lower_layers_of_the_language_model_learn_more_slowly(made: dict[str, Path]) -> None:
    encoder = SkeslModel.from_text_model(str(made["lm"]), audio_dim=5, vision_dim=3, attention_dim=8, num_blocks=1)
    model = MugModel.around(encoder, MugConfig(audio_dim=5, vision_dim=3, dim=6))
    options = TrainingOptions(lr=1.0, encoder_lr=0.5, lm_lr=0.1, lm_layer_decay=0.5)
    rates = {id(p): group["lr"] for group in stages.trained_parameters(model, options, frozen=False) for p in group["params"]}
    named = {name: rates[id(p)] for name, p in model.named_parameters() if id(p) in rates}
    assert named["heads.fused.weight"] == 1.0
    assert named["encoder.crossmodal.blocks.0.feed_forward.0.weight"] == 0.5
    assert named["encoder.text_model.encoder.layer.0.output.dense.weight"] == 0.1
    assert named["encoder.text_model.embeddings.word_embeddings.weight"] == 0.05


@pytest.mark.parametrize(("changes", "said"), [
    ({"lm_layer_decay": 0.0}, "lm_layer_decay"), ({"average_epochs": 2}, "keep last"), ({"average_epochs": -1}, "0 or more"),
])  # fmt: skip
def test_options_of_the_recipe_are_checked(changes: dict[str, float], said: str, tmp_path: Path) -> None:
    from finetune.options import MugOptions
    from skesl_mug.console import make_options
    from skesl_mug.errors import UserError

    values = {"dataset": "mosi", "data": "x.pkl", "lm": "embedded", "output": tmp_path / "run"}
    with pytest.raises(UserError, match=said):
        make_options(MugOptions, {**values, "training": changes})


def test_a_trained_language_model_has_states_for_cross_fitting_alone(made: dict[str, Path], tmp_path: Path) -> None:
    trained = prepared(made, tmp_path / "trained", freeze_lm=False)
    assert not (tmp_path / "trained").exists()
    frozen = prepared(made, tmp_path / "frozen", freeze_lm=True)
    assert sorted(path.name for path in (tmp_path / "frozen").iterdir()) == sorted(frozen)
    assert np.array_equal(trained["train"].descriptors("text"), frozen["train"].descriptors("text"))
    assert [path.name for path in (tmp_path / "trained").iterdir()] == ["train"]


@pytest.mark.parametrize(("keep", "epoch"), [("best", 1), ("last", 3)])
def test_labels_and_weights_are_kept_from_the_same_epoch(
    keep: str, epoch: int, made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prepared(made, tmp_path, freeze_lm=True)
    train = data["train"]
    torch.manual_seed(1)
    model = MugModel.around(SkeslModel.from_text_model(str(made["lm"]), audio_dim=5, vision_dim=3, attention_dim=8, num_blocks=1),
                            MugConfig(audio_dim=5, vision_dim=3, dim=6))  # fmt: skip
    online = UlgmUpdater(train.y.numpy(), {name: train.present(name) for name in ("text", "audio", "vision")}, 1.0)
    seen: list[dict[str, torch.Tensor]] = []
    real = stages.predict

    def worse_every_epoch(model: MugModel, dev: PreparedSplit, *rest: int) -> dict[str, torch.Tensor]:
        seen.append({name: target.clone() for name, target in online.targets.items()})
        return {**real(model, dev, *rest), "fused": dev.y + (0.0 if len(seen) == 2 else 1.0)}

    monkeypatch.setattr(stages, "predict", worse_every_epoch)
    options = TrainingOptions(joint_epochs=4, batch_size=8, align_epochs=1, patience=2, keep=keep)
    loss = stages.stage_three_loss(train.y, online.targets, options, tanh=True)
    history = stages.fit(model, train, data["dev"], loss, stage=3, options=options, seed=1, online=online)
    assert len(history) == 4  # two epochs after the best
    for name, target in online.targets.items():
        assert torch.equal(target, seen[epoch][name]), name
        assert not torch.equal(target, seen[4 - epoch][name]), name
