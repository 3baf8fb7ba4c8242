"""What a GPU computes against the CPU: run by `pytest -m gpu tests/test_gpu.py` where there is one, skipped elsewhere."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_corpus import SMALL, write_pickle
from synthetic_pretraining import write_made_dataset, write_text_model
from test_pretrain_run import options_of

from finetune.finetuning import finetune
from finetune.model.networks import MugConfig, MugInputs, MugModel
from pretrain.encoder import SkeslForMaskedIntensity, SkeslModel
from pretrain.pretraining import run_pretraining

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")]
GPU = torch.device("cuda")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("gpu")
    return write_made_dataset(folder / "data", count=120), write_text_model(folder / "lm")


def masked_batch(device: torch.device) -> dict[str, torch.Tensor]:
    """Eight utterances with one masked word each."""
    generator = torch.Generator().manual_seed(1)
    batch = {
        "input_ids": torch.randint(5, 20, (8, 12), generator=generator),
        "attention_mask": torch.ones(8, 12, dtype=torch.long),
        "mask_positions": torch.randint(1, 10, (8, 1, 1), generator=generator),
        "labels": torch.randn(8, 1, generator=generator),
        "audio": torch.randn(8, 40, 33, generator=generator),
        "audio_mask": torch.ones(8, 40, dtype=torch.long),
        "vision": torch.randn(8, 14, 8, generator=generator),
        "vision_mask": torch.ones(8, 14, dtype=torch.long),
    }
    batch["attention_mask"][::2, 9:] = 0
    batch["audio_mask"][1::2, 20:] = 0
    batch["vision_mask"][0] = 0  # an utterance without a face
    return {name: value.to(device) for name, value in batch.items()}


def test_a_pretraining_step_equals_that_of_the_cpu(made: tuple[Path, Path]) -> None:
    torch.manual_seed(0)
    model = SkeslForMaskedIntensity.from_text_model(str(made[1]), 33, 8, attention_dim=16, num_blocks=2).eval()
    found = {}
    for device in (torch.device("cpu"), GPU):
        model.zero_grad()
        model.to(device)
        loss = model(**masked_batch(device)).loss
        loss.backward()
        found[device.type] = [float(loss.detach()), *(p.grad.cpu().clone() for p in model.parameters() if p.grad is not None)]
    assert found["cuda"][0] == pytest.approx(found["cpu"][0], abs=1e-5)
    for one, other in zip(found["cpu"][1:], found["cuda"][1:], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("frozen", [False, True])
def test_pretraining_learns_as_on_the_cpu(made: tuple[Path, Path], tmp_path: Path, frozen: bool) -> None:
    options = replace(options_of(made, tmp_path / "run", epochs=4, freeze_lm=frozen, precision="fp32"), trackers=[])
    results = run_pretraining(options)
    assert results["validation"]["MAE"] < results["controls"]["constant"]["MAE"]
    again = run_pretraining(replace(options, output=tmp_path / "again"))
    assert again["validation"]["MAE"] == pytest.approx(results["validation"]["MAE"], abs=1e-3)


def test_bf16_is_the_default_on_a_gpu_and_near_float32(made: tuple[Path, Path], tmp_path: Path) -> None:
    options = replace(options_of(made, tmp_path / "bf16", epochs=4), trackers=[])
    results = run_pretraining(options)
    assert results["precision"] == ("bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32")
    full = run_pretraining(replace(options, precision="fp32", output=tmp_path / "fp32"))
    assert results["validation"]["MAE"] == pytest.approx(full["validation"]["MAE"], abs=0.1)


def test_a_run_cut_off_resumes_on_the_gpu(made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pretrain.loop import Trainer

    options = replace(options_of(made, tmp_path / "cut", epochs=3, precision="fp32"), trackers=[])
    whole = run_pretraining(replace(options, output=tmp_path / "whole"))
    ends, end_epoch = [], Trainer.end_epoch

    def cut(self: Trainer, *arguments: object) -> None:
        end_epoch(self, *arguments)  # type: ignore[arg-type]
        ends.append(1)
        if len(ends) == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "end_epoch", cut)
        with pytest.raises(KeyboardInterrupt):
            run_pretraining(options)
    resumed = run_pretraining(options)
    assert len(resumed["history"]) == 3
    assert resumed["validation"]["MAE"] == pytest.approx(whole["validation"]["MAE"], abs=1e-3)


def test_out_of_memory_splits_the_batch(made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Holds nearly all memory of the process's share, so that a real allocation fails once."""
    from pretrain.objective import PretrainingTask

    forward = PretrainingTask.forward

    def hungry(self: PretrainingTask, batch: dict[str, torch.Tensor]) -> object:
        if len(batch["mask_positions"]) > 4:
            torch.empty(1 << 50, dtype=torch.uint8, device=GPU)  # more than any card has
        return forward(self, batch)

    monkeypatch.setattr(PretrainingTask, "forward", hungry)
    results = run_pretraining(replace(options_of(made, tmp_path / "run", epochs=1), trackers=[]))
    assert np.isfinite(results["validation"]["MAE"])


@pytest.mark.parametrize("arguments", [["--freeze-lm"], [], ["--training.precision", "bf16"]], ids=["frozen", "trained", "bf16"])
def test_fine_tuning_runs_all_stages_and_generators(made: tuple[Path, Path], tmp_path: Path, arguments: list[str]) -> None:
    from finetune.options import MugOptions
    from finetune.run_mug import main
    from skesl_mug.console import parse_options

    data = write_pickle(tmp_path / "sims.pkl", {"train": 48, "valid": 16, "test": 24})
    given = ["--dataset", "sims", "--data", str(data), "--lm", str(made[1]), "--output", str(tmp_path / "run"), "--seeds", "1", *arguments]
    compared = ["--compare-labels", "mucn-meta", "ulgm", "copy", "regressor", "none"]
    main(parse_options(MugOptions, [*given, *compared, *SMALL]))
    model = MugModel.from_pretrained(tmp_path / "run" / "model").eval()
    assert model.modalities == ["text", "audio", "vision"]


def test_a_prediction_equals_that_of_the_cpu(made: tuple[Path, Path]) -> None:
    torch.manual_seed(0)
    encoder = SkeslModel.from_text_model(str(made[1]), audio_dim=33, vision_dim=8, attention_dim=16, num_blocks=1)
    model = MugModel.around(encoder, MugConfig(audio_dim=33, vision_dim=8, dim=16)).eval()
    batch = masked_batch(torch.device("cpu"))
    inputs = MugInputs(
        batch["input_ids"], batch["attention_mask"], None, batch["audio"], batch["audio_mask"], batch["vision"], batch["vision_mask"],
        present={"text": torch.ones(8, dtype=torch.bool), "audio": torch.ones(8, dtype=torch.bool), "vision": batch["vision_mask"].any(1)},
    )  # fmt: skip
    with torch.no_grad():
        cpu = model(inputs).predictions
        gpu = model.to(GPU)(inputs.to(GPU)).predictions
    for name, values in cpu.items():
        torch.testing.assert_close(gpu[name].cpu(), values, atol=1e-4, rtol=1e-4)


def test_fine_tuning_from_python_uses_the_gpu(made: tuple[Path, Path], tmp_path: Path) -> None:
    data = write_pickle(tmp_path / "sims.pkl", {"train": 48, "valid": 16, "test": 24})
    torch.cuda.reset_peak_memory_stats()
    small = {"align_epochs": 1, "joint_epochs": 1}
    finetune(data, dataset="sims", lm=str(made[1]), output=tmp_path / "run", seeds=[1], controls=[], training=small, bootstrap=50)
    assert torch.cuda.max_memory_allocated() > 0
