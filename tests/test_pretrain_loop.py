"""The training loop when killed, stopped by SIGTERM or out of memory; and its options."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from several_processes import launch
from synthetic_pretraining import write_made_dataset, write_text_model
from test_pretrain_run import options_of, same_weights, weights

from pretrain.encoder import SkeslForMaskedIntensity
from pretrain.loop import Trainer
from pretrain.optimisation import layerwise_rates, parameter_groups
from pretrain.options import EncoderShape
from pretrain.pretraining import run_pretraining
from pretrain.run_folder import find_checkpoints
from skesl_mug.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
# runs the command; the process of the given rank sends itself a signal before a step, or within its forward and backward pass
DRIVER = """
import os, sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
from pathlib import Path
from pretrain.loop import Trainer
from pretrain.pretraining import run_pretraining
from test_pretrain_run import options_of
name, rank = sys.argv[6], sys.argv[7]
usual = getattr(Trainer, name)
def stop(self, *arguments):
    if self.progress.step == int(sys.argv[4]) and os.environ.get("RANK", "0") == rank:
        os.kill(os.getpid(), int(sys.argv[5]))
    return usual(self, *arguments)
setattr(Trainer, name, stop)
folder = Path(sys.argv[2])
run_pretraining(options_of((folder / "data", folder / "lm"), Path(sys.argv[3]), checkpoint_steps=2, epochs=2))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return write_made_dataset(folder / "data"), write_text_model(folder / "lm")


def run_and_signal(made, output, step, number, where="train_step"):
    command = [sys.executable, "-c", DRIVER, str(ROOT), str(made[0].parent), str(output), str(step), str(int(number)), where, "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_killed_at_three_random_steps_and_stopped_by_sigterm_it_ends_with_the_same_weights(made, tmp_path):
    steps = sorted(int(step) for step in np.random.default_rng().choice(np.arange(3, 12), 3, replace=False))
    run_pretraining(options_of(made, tmp_path / "whole", checkpoint_steps=2, epochs=2))
    for step in steps:
        assert run_and_signal(made, tmp_path / "run", step, signal.SIGKILL).returncode == -signal.SIGKILL
    told = run_and_signal(made, tmp_path / "run", 12, signal.SIGTERM)
    assert told.returncode == 128 + signal.SIGTERM, told.stderr
    assert "Stopped at step 13 with a checkpoint" in told.stdout
    assert "Traceback" not in told.stderr
    newest = find_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    assert newest.name == "step-00000013"
    assert not [name for name in load_file(newest / "model.safetensors") if "text_model" in name]  # frozen: never changes
    run_pretraining(options_of(made, tmp_path / "run", checkpoint_steps=2, epochs=2))
    assert same_weights(tmp_path / "whole", tmp_path / "run"), f"killed at {steps}"


def test_a_signal_within_a_step_stops_after_that_step(made, tmp_path):
    done = run_and_signal(made, tmp_path / "run", 2, signal.SIGTERM, "accumulate")
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "Stopped at step 3 with a checkpoint" in done.stdout


@pytest.mark.parametrize("where", ["train_step", "accumulate"])
def test_several_processes_stop_after_the_same_step_when_one_gets_the_signal(made, tmp_path, where):
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    done = launch(driver, ROOT, made[0].parent, tmp_path / "run", 2, int(signal.SIGTERM), where, 1)
    assert done.returncode != 0
    assert done.stdout.count("Stopped at step 3 with a checkpoint") == 1, done.stderr
    checkpoints = find_checkpoints(tmp_path / "run" / "checkpoints")
    assert [path.name for path in checkpoints] == ["step-00000002", "step-00000003"]


def test_a_signal_during_validation_stops_after_the_epoch(made, tmp_path, monkeypatch):
    end_epoch = Trainer.end_epoch

    def signalled(self, *arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        end_epoch(self, *arguments)

    monkeypatch.setattr(Trainer, "end_epoch", signalled)
    with pytest.raises(SystemExit) as stopped:
        run_pretraining(options_of(made, tmp_path / "run", epochs=2))
    assert stopped.value.code == 128 + signal.SIGTERM
    assert len(find_checkpoints(tmp_path / "run" / "checkpoints")) == 1


def test_out_of_memory_and_accumulation_change_no_gradient(made, tmp_path, monkeypatch, capsys):
    changes = {"epochs": 1, "precision": "fp32", "encoder": EncoderShape(attention_dim=16, num_blocks=1, dropout=0.0)}
    run_pretraining(options_of(made, tmp_path / "whole", **changes))
    run_pretraining(options_of(made, tmp_path / "parts", batch_size=4, accumulate=2, **changes))
    accumulate = Trainer.accumulate

    def tight(self, batch, total):
        if self.progress.micro_batch > 2:
            raise torch.OutOfMemoryError("made")
        return accumulate(self, batch, total)

    monkeypatch.setattr(Trainer, "accumulate", tight)
    capsys.readouterr()
    run_pretraining(options_of(made, tmp_path / "tight", **changes))
    assert capsys.readouterr().out.count("Out of memory") == 1
    whole = weights(tmp_path / "whole")
    for other in ("parts", "tight"):
        for name, value in weights(tmp_path / other).items():
            if not name.endswith("key.bias"):  # softmax does not see it: its gradient is rounding alone, which Adam blows up
                torch.testing.assert_close(value, whole[name], atol=2e-4, rtol=1e-3, msg=name)
    monkeypatch.setattr(Trainer, "accumulate", lambda self, batch, total: (_ for _ in ()).throw(torch.OutOfMemoryError("made")))
    with pytest.raises(UserError, match="out of memory with a batch of 1;"):
        run_pretraining(options_of(made, tmp_path / "hopeless", **changes))


def test_rates_by_layer_schedules_and_trackers(made, tmp_path):
    model = SkeslForMaskedIntensity.from_text_model(made[1], 33, 8, attention_dim=16, num_blocks=1)
    options = options_of(made, tmp_path / "run", lm_layer_decay=0.5, freeze_lm=False)
    rate = layerwise_rates(model, options.lr, options.lm_lr, options.lm_layer_decay)
    groups = parameter_groups(model.named_parameters(), rate, options.weight_decay)
    rates = {id(p): group["base_lr"] for group in groups for p in group["params"]}
    assert all((p.ndim > 1) == (group["weight_decay"] > 0) for group in groups for p in group["params"])
    found = {name: rates[id(parameter)] for name, parameter in model.named_parameters()}
    assert found["skesl.text_model.encoder.layer.0.output.dense.weight"] == options.lm_lr
    assert found["skesl.text_model.embeddings.word_embeddings.weight"] == options.lm_lr / 2
    assert found["head.layers.0.weight"] == options.lr
    with pytest.raises(UserError, match="--trackers nothing"):
        run_pretraining(options_of(made, tmp_path / "run", trackers=["nothing"]))


def test_every_option_at_once_and_gradient_checkpointing(made, tmp_path):
    from pretrain.options import ObjectiveOptions

    objective = ObjectiveOptions(masks=2, confidence=True, zero_share=0.5, negatives=0.1, cross_modal=0.1, modality_dropout=0.2)
    run_pretraining(options_of(made, tmp_path / "run", epochs=1, freeze_lm=False, gradient_checkpointing=True, objective=objective))
    assert not [name for name in weights(tmp_path / "run") if "relation" in name or "predictors" in name]
