"""The pretraining command from dataset to run folder: results, resume, refusals, several processes, bad input."""

import json
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
import torch
import yaml
from accelerate.utils import DistributedType
from safetensors import SafetensorError
from safetensors.torch import load_file
from several_processes import launch
from synthetic_pretraining import options_of, write_made_dataset, write_text_model

from pretrain.encoder import SkeslForMaskedIntensity, load_encoder, load_tokenizer
from pretrain.evaluation import score_predictions, verdict
from pretrain.loop import Trainer
from pretrain.optimisation import SCHEDULES, learning_rate_schedule
from pretrain.options import EncoderShape, PretrainOptions
from pretrain.pretraining import run_pretraining
from pretrain.run_folder import find_checkpoints
from skesl_mug.console import COMMAND_FIELDS, parse_options, to_plain
from skesl_mug.errors import UserError
from skesl_mug.locks import run_lock

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset of 60 utterances of 6 speakers and a tiny text model."""
    folder = tmp_path_factory.mktemp("made")
    return write_made_dataset(folder / "data"), write_text_model(folder / "lm")


def weights(run):
    return load_file(run / "model" / "model.safetensors")


def same_weights(one, other):
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def finished(made, tmp_path_factory):
    """A finished run of three epochs."""
    output = tmp_path_factory.mktemp("finished") / "run"
    results = run_pretraining(options_of(made, output))
    return output, results


def test_a_run_and_its_files(made, finished, capsys):
    output, results = finished
    assert json.loads((output / "results.json").read_text()) == results
    assert results["validation"]["n"] + results["data"]["train"] == results["data"]["used"] == 60
    assert results["validation"]["split_by"] == "speaker"
    assert results["data"]["made"]
    assert len(results["history"]) == 3
    assert set(results["controls"]) == {"constant", "text_only", "shuffled_audio_vision"}
    assert results["validation"]["MAE"] < results["controls"]["constant"]["MAE"]
    assert "were used" in results["sentence"]
    assert results["validation"]["MAE"] == pytest.approx(min(entry["valid_MAE"] for entry in results["history"]), abs=1e-5)
    assert yaml.safe_load((output / "config.yaml").read_text())["epochs"] == 3
    assert list((output / "logs").rglob("events.out.tfevents*"))
    assert len(find_checkpoints(output / "checkpoints")) == 2
    assert sorted(path.name for path in output.iterdir()) == ["checkpoints", "config.yaml", "logs", "model", "results.json"]
    card = (output / "model" / "README.md").read_text()
    assert "Synthetic data" in card
    assert f"| SKESL | {results['validation']['MAE']:.3f} |" in card
    assert "audio and vision permuted" in card
    assert str(output) not in card
    load_tokenizer(output)
    encoder, notes = load_encoder(output, 33, 8)
    assert notes == []
    assert encoder.crossmodal.norms["audio"].limit.item() == 10
    written = (output / "model" / "model.safetensors").stat().st_mtime_ns
    assert run_pretraining(options_of(made, output)) == results
    assert "already finished" in capsys.readouterr().out
    assert (output / "model" / "model.safetensors").stat().st_mtime_ns == written


def test_pretraining_from_python(made, tmp_path, capsys):
    import skesl_mug as sm

    data, lm = made
    result = sm.pretrain(data, lm=lm, output=tmp_path / "run", epochs=1, max_steps=2, encoder={"attention_dim": 16, "num_blocks": 1})
    assert result.results == json.loads((tmp_path / "run" / "results.json").read_text())
    assert result.validation == result.results["validation"]
    assert set(result.controls) == {"constant", "text_only", "shuffled_audio_vision"}
    assert isinstance(result.model, sm.SkeslForMaskedIntensity)
    assert result.model.config.num_blocks == 1
    assert result.model is result.model
    assert repr(result).startswith(f"PretrainResult('{tmp_path / 'run'}', validation MAE {result.validation['MAE']:.3f}, constant MAE")
    assert "Validation on" in str(result)
    assert "Validation on" not in capsys.readouterr().out  # the command prints it
    again = sm.pretrain([data], lm=lm, output=tmp_path / "run", epochs=1, max_steps=2, encoder={"attention_dim": 16, "num_blocks": 1})
    assert again == result
    with pytest.raises(UserError, match=r"epoch: unknown option; did you mean epochs\?"):
        sm.pretrain(data, lm=lm, output=tmp_path / "other", epoch=1)
    encoder = sm.SkeslModel.from_text_model(lm, audio_dim=33, vision_dim=8, attention_dim=16, num_blocks=1)
    assert encoder.config.feature_dims == {"audio": 33, "vision": 8}


def test_another_config_is_refused_and_overwrite_starts_again(made, finished, tmp_path):
    output, _ = finished
    with pytest.raises(UserError, match=r"--encoder.num-blocks was 1, now 2; --lr was 0.003, now 0.001"):
        run_pretraining(options_of(made, output, lr=1e-3, encoder=EncoderShape(attention_dim=16, num_blocks=2)))
    (tmp_path / "thesis.doc").write_text("mine")
    with pytest.raises(UserError, match=r"is not empty \(thesis.doc\)"):
        run_pretraining(options_of(made, tmp_path))
    with pytest.raises(UserError, match=r"is not empty \(thesis.doc\)"):
        run_pretraining(options_of(made, tmp_path, overwrite=True))
    assert (tmp_path / "thesis.doc").exists()


@pytest.mark.parametrize(("stop_at", "frozen"), [(3, True), (7, True), (11, False)])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(made, tmp_path, monkeypatch, stop_at, frozen):
    changes = {"checkpoint_steps": 2, "freeze_lm": frozen, "epochs": 2}
    whole = run_pretraining(options_of(made, tmp_path / "whole", **changes))
    step = Trainer.train_step

    def stop(self, batch):
        if self.progress.step == stop_at:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(Trainer, "train_step", stop)
    with pytest.raises(KeyboardInterrupt):
        run_pretraining(options_of(made, tmp_path / "stopped", **changes))
    assert not (tmp_path / "stopped" / "results.json").exists()
    monkeypatch.setattr(Trainer, "train_step", step)
    torch.manual_seed(99)  # whatever happened in between
    np.random.seed(99)  # noqa: NPY002
    resumed = run_pretraining(options_of(made, tmp_path / "stopped", **changes))
    assert same_weights(tmp_path / "whole", tmp_path / "stopped")
    keep = ("epoch", "step", "train_loss", "valid_MAE", "valid_Corr")
    assert [[e[k] for k in keep] for e in resumed["history"]] == [[e[k] for k in keep] for e in whole["history"]]
    assert resumed["controls"] == whole["controls"]


def test_a_frozen_text_encoder_stays_and_a_trained_one_moves(made, finished, tmp_path):
    names = [name for name in weights(finished[0]) if "text_model" in name]
    before = SkeslForMaskedIntensity.from_text_model(made[1], 33, 8).state_dict()
    assert all(torch.equal(weights(finished[0])[name], before[name]) for name in names)
    run_pretraining(options_of(made, tmp_path / "run", freeze_lm=False, epochs=1))
    assert any(not torch.equal(weights(tmp_path / "run")[name], before[name]) for name in names)
    assert not (tmp_path / "run" / "text_states").exists()


def test_text_alone_and_one_modality(made, tmp_path):
    data = write_made_dataset(tmp_path / "text", audio=0, vision=0)
    results = run_pretraining(options_of((data, made[1]), tmp_path / "run", epochs=1))
    assert set(results["controls"]) == {"constant"}
    assert "text alone" in results["sentence"]
    assert not [name for name in weights(tmp_path / "run") if "audio" in name or "vision" in name]
    sound = write_made_dataset(tmp_path / "sound", vision=0)
    run_pretraining(options_of((sound, made[1]), tmp_path / "run2", epochs=1))
    assert load_encoder(tmp_path / "run2", 33, 0)[1] == []


def test_two_processes_give_the_same_as_one_with_the_same_global_batch(made, tmp_path):
    data, lm = made
    same = ["--data", data, "--lm", lm, "--epochs", "2", "--encoder.dropout", "0", "--encoder.attention-dim", "16"]
    same += ["--lr", "3e-3", "--precision", "fp32", "--batch-size", "5", "--output", tmp_path / "two"]
    done = launch(ROOT / "pretrain" / "run.py", *same)
    assert done.returncode == 0, done.stderr
    one = run_pretraining(
        options_of(
            made,
            tmp_path / "one",
            epochs=2,
            batch_size=10,
            precision="fp32",
            valid_share=0.1,
            encoder=EncoderShape(attention_dim=16, dropout=0.0),
        )
    )
    two = json.loads((tmp_path / "two" / "results.json").read_text())
    for a, b in zip(one["history"], two["history"], strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], abs=2e-3)
        assert a["valid_MAE"] == pytest.approx(b["valid_MAE"], abs=2e-3)


def test_the_command_line_its_configs_and_its_faults(made, tmp_path, capsys):
    done = subprocess.run(
        [sys.executable, str(ROOT / "pretrain" / "run.py"), "--data", str(tmp_path), "--output", str(tmp_path / "run"), "--train-lm"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {tmp_path}: is not an utterance dataset")
    for name in ("demo", "base", "large"):
        config = str(ROOT / "pretrain" / "configs" / f"{name}.yaml")
        options = parse_options(PretrainOptions, ["--config", config, "--data", "d", "--output", "o"])
        assert options.data == ["d"]
    for bad, words in (({"epochs": 0}, "--epochs 0"), ({"valid_share": 0.0}, "--valid-share 0"), ({"warmup": 1.5}, "between 0 and 1")):
        with pytest.raises(UserError, match=words):
            options_of(made, tmp_path / "run", **bad)


def test_scores_schedule_and_verdict():
    score = score_predictions(np.array([1.0, 2.0, 4.0]), np.array([1.0, 1.0, 5.0]))
    assert score["MAE"] == pytest.approx(2 / 3)
    assert score["Corr"] == pytest.approx(np.corrcoef([1, 2, 4], [1, 1, 5])[0, 1])
    assert score_predictions(np.ones(3), np.arange(3.0))["Corr"] is None
    rates = [learning_rate_schedule(100, 10)(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[100] == pytest.approx(0)
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert learning_rate_schedule(100, 10, "linear")(55) == pytest.approx(0.5)
    assert learning_rate_schedule(100, 10, "constant")(99) == 1.0
    base = {"MAE": 0.5, "Corr": None}

    def said(shuffled, constant=1.0, count=100):
        return verdict(base, {"constant": {"MAE": constant}, "shuffled_audio_vision": {"MAE": shuffled}}, 0.02, count)

    assert "were used" in said(0.53)
    assert "were not used" in said(0.519)
    assert "cannot be judged" in said(0.9, constant=0.5)
    assert "does not beat a constant" in said(0.9, constant=0.5)
    assert "no conclusion is safe" in said(0.53, count=3)
    assert "text alone" in verdict(base, {"constant": {"MAE": 1.0}}, 0.02, 100)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.06), (5, 1.0), (7, 0.0), (100, 0.06), (1234, 0.5)])
def test_the_schedules_keep_their_values(name, steps, warmup):
    rise = max(1, round(warmup * steps))
    schedule = learning_rate_schedule(steps, round(warmup * steps), name)
    for step in range(steps):
        done = (step - rise) / max(1, steps - rise)
        after = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + np.cos(np.pi * done))}[name]
        assert schedule(step) == pytest.approx((step + 1) / rise if step < rise else after, abs=1e-6)


def test_early_stopping_and_a_diverged_loss(made, tmp_path, monkeypatch):
    results = run_pretraining(options_of(made, tmp_path / "run", epochs=9, patience=1, lr=0.0))
    assert len(results["history"]) == 2
    assert results["best_epoch"] == 1
    with pytest.raises(UserError, match="the loss is not finite"):
        run_pretraining(options_of(made, tmp_path / "wild", lr=1e30, clip=1e30))


def test_pushing_to_the_hub_sends_what_loads_again(finished, tmp_path, monkeypatch):
    hub = pytest.importorskip("transformers.utils.hub")
    if not hasattr(hub, "hf_api"):
        pytest.skip("the hub client that this test stands in for came with a later transformers")
    model = SkeslForMaskedIntensity.from_pretrained(finished[0] / "model")
    repo = SimpleNamespace(create_repo=lambda *_, **__: SimpleNamespace(repo_id="someone/skesl"))
    monkeypatch.setattr("transformers.utils.hub.hf_api", lambda: repo)
    card = SimpleNamespace(save=lambda path: Path(path).write_text("card"))
    monkeypatch.setattr("transformers.utils.hub.create_and_tag_model_card", lambda *_, **__: card)
    upload = "transformers.utils.hub.PushToHubMixin._upload_modified_files"
    monkeypatch.setattr(upload, lambda model, folder, *_, **__: shutil.copytree(folder, tmp_path / "hub"))
    model.push_to_hub("someone/skesl")
    again, notes = load_encoder(tmp_path / "hub", 33, 8)
    assert notes == []
    assert (tmp_path / "hub" / "README.md").read_text() == (finished[0] / "model" / "README.md").read_text()
    assert len(load_tokenizer(tmp_path / "hub")) == len(load_tokenizer(finished[0] / "model"))
    assert torch.equal(again.crossmodal.norms["audio"].mean, model.skesl.crossmodal.norms["audio"].mean)


def test_a_compiled_step_trains_alike(made, tmp_path):
    changes = {"epochs": 1, "max_steps": 3, "precision": "fp32"}
    plain, compiled = (run_pretraining(options_of(made, tmp_path / name, compile=name, **changes)) for name in ("no", "eager"))
    assert compiled["history"][0]["train_loss"] == pytest.approx(plain["history"][0]["train_loss"], rel=1e-5)
    assert compiled["validation"]["MAE"] == pytest.approx(plain["validation"]["MAE"], rel=1e-5)
    with pytest.raises(UserError, match="--compile nonsense: is not a backend"):
        run_pretraining(options_of(made, tmp_path / "bad", compile="nonsense"))


def test_training_ends_after_the_steps_that_were_asked_for(made, tmp_path):
    results = run_pretraining(options_of(made, tmp_path / "run", max_steps=8))
    assert [epoch["step"] for epoch in results["history"]] == [7, 8]
    without, held = (
        run_pretraining(options_of(made, tmp_path / f"held{most}", max_steps=1, valid_share=0.4, valid_most=most)) for most in (0, 10)
    )
    assert (without["data"]["valid"], held["data"]["valid"]) == (20, 10)  # whole speakers of ten utterances each


def test_sharded_training_is_refused(made, tmp_path, monkeypatch):
    sharded = SimpleNamespace(distributed_type=DistributedType.FSDP)
    monkeypatch.setattr("pretrain.pretraining.Accelerator", lambda **_: sharded)
    with pytest.raises(UserError, match="asks for FSDP, which shards the model"):
        run_pretraining(options_of(made, tmp_path / "run"))


def test_a_dataset_behind_a_url_is_read_from_its_copy(made, tmp_path, monkeypatch):
    monkeypatch.setenv("SKESL_MUG_CACHE", str(tmp_path / "cache"))
    fsspec.filesystem("memory").put(str(made[0]), "/pretraining/data", recursive=True)
    results = run_pretraining(options_of(made, tmp_path / "run", data=["memory://pretraining/data"], max_steps=1))
    assert results["data"]["used"] == 60
    with pytest.raises(UserError, match="is not an utterance dataset"):
        run_pretraining(options_of(made, tmp_path / "none", data=["memory://pretraining/absent"]))


def test_a_full_disk_is_one_line_and_the_run_resumes(made, finished, tmp_path, monkeypatch):
    def no_room(*_, **__):
        raise SafetensorError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(SkeslForMaskedIntensity, "save_pretrained", no_room)
        with pytest.raises(UserError, match=r"model: cannot be written \(No space left.*free some space"):
            run_pretraining(options_of(made, tmp_path / "run"))
    run_pretraining(options_of(made, tmp_path / "run"))
    assert same_weights(tmp_path / "run", finished[0])


def test_resuming_with_another_validation_split_is_refused(made, tmp_path):
    run_pretraining(options_of(made, tmp_path / "run", max_steps=8))
    (tmp_path / "run" / "results.json").unlink()
    run_pretraining(options_of(made, tmp_path / "run", max_steps=8))
    (tmp_path / "run" / "results.json").unlink()
    for path in (tmp_path / "run" / "checkpoints").glob("*/progress.json"):
        path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != "split"}))
    with pytest.raises(UserError, match="held out other samples"):
        run_pretraining(options_of(made, tmp_path / "run", max_steps=8))


def test_two_runs_on_one_folder_and_a_damaged_config(made, tmp_path):
    with run_lock(tmp_path / "run"), pytest.raises(UserError, match="another run is writing there"):
        run_pretraining(options_of(made, tmp_path / "run"))
    (tmp_path / "run" / "config.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"config\.yaml: is damaged"):
        run_pretraining(options_of(made, tmp_path / "run"))


def test_a_run_of_an_older_version_is_recognised(tmp_path):
    """Its config lacks newer options, which count as their defaults."""
    from pretrain.run_folder import run_folder

    options = PretrainOptions(data=["d"], output=tmp_path)
    stored = to_plain(options, leave_out=COMMAND_FIELDS)
    wanted = to_plain(options, leave_out=COMMAND_FIELDS)
    del stored["lm_layer"], stored["objective"]["rated"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(stored))
    assert run_folder(tmp_path).check(wanted)
    with pytest.raises(UserError, match="--lm-layer was last, now 3"):
        run_folder(tmp_path).check(wanted | {"lm_layer": "3"})
