"""Gates: a useless modality is left out, a useful one is used in full, and the run says how much of each is used."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_corpus import SMALL, write_pickle
from synthetic_pretraining import write_text_model
from test_finetune_networks import new_inputs
from test_finetune_run import run

from finetune.finetuning import FinetuneResult
from finetune.modalities import AUDIO, FUSED, TEXT, VISION
from finetune.model.networks import MugConfig, MugModel
from finetune.training.gates import gate_of, held_out_gates
from pretrain.encoder import SkeslModel

COUNT = 300


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_model(tmp_path_factory.mktemp("lm"))


def summaries(seed: int = 0) -> tuple[np.ndarray, list[str], dict[str, np.ndarray]]:
    """y is half text, half vision; audio is noise."""
    random = np.random.default_rng(seed)
    text, audio, vision = (random.normal(size=(COUNT, width)) for width in (10, 20, 6))
    return 0.3 * text[:, 0] + 0.3 * vision[:, 1] + 0.1 * random.normal(size=COUNT), [f"v{row // 6}" for row in range(COUNT)], {
        TEXT: text, AUDIO: audio, VISION: vision,
    }  # fmt: skip


def test_noise_is_closed_and_a_useful_modality_open() -> None:
    everywhere = dict.fromkeys((TEXT, AUDIO, VISION), np.ones(COUNT, bool))
    for seed in range(4):
        y, videos, features = summaries(seed)
        gates = held_out_gates(y, videos, features, everywhere, seed)
        assert list(gates) == [TEXT, AUDIO, VISION]
        assert gates[TEXT].gate == 1.0
        assert gates[AUDIO].gate < 0.5
        assert gates[VISION].gate > 0.97
        assert gates[VISION].gain > 5 * gates[VISION].error > 0
    y, videos, features = summaries()
    assert held_out_gates(y, videos, {TEXT: features[TEXT]}, everywhere, 1)[TEXT].gate == 1.0
    without_text = held_out_gates(y, ["one"] * COUNT, {name: features[name] for name in (AUDIO, VISION)}, everywhere, 1)
    assert (without_text[VISION].gate, without_text[AUDIO].gate < 0.5) == (1.0, True)  # the better one comes first


def test_outliers_and_absent_rows_do_not_close_a_useful_modality() -> None:
    y, videos, features = summaries()
    present = dict.fromkeys(features, np.ones(COUNT, bool)) | {VISION: np.arange(COUNT) % 3 > 0}
    features[VISION] = np.where(present[VISION][:, None], features[VISION], 1e6)
    features[VISION][:2, 2:] = 1e9
    assert held_out_gates(y, videos, features, present, 1)[VISION].gate > 0.9


def test_a_gate_is_zero_within_the_standard_error_and_grows_with_the_gain() -> None:
    noise = np.random.default_rng(0).normal(size=400)
    noise -= noise.mean()
    rows = [str(row) for row in range(400)]
    gates = [gate_of(noise + gain, rows) for gain in (-1.0, 0.04, 0.1, 1.0)]
    assert [gate.gate for gate in gates[:2]] == [0.0, 0.0]
    assert 0.7 < gates[2].gate < 0.8
    assert gates[3].gate > 0.99
    assert gate_of(np.repeat(noise[:40], 10), [str(row // 10) for row in range(400)]).error > 2 * gates[0].error  # videos, not utterances


def gated(text_model: Path, gates: dict[str, float], mechanisms: tuple[str, ...] = ()) -> MugModel:
    torch.manual_seed(0)
    encoder = SkeslModel.from_text_model(text_model, audio_dim=5, vision_dim=4, attention_dim=8, num_blocks=2)
    return MugModel.around(encoder, MugConfig(audio_dim=5, vision_dim=4, dim=6, gates=gates, mechanisms=mechanisms)).eval()


@pytest.mark.parametrize("mechanisms", [(), ("residual",), ("common-space",), ("alternate",)])
def test_a_closed_modality_reaches_the_fused_prediction_nowhere(text_model: Path, mechanisms: tuple[str, ...]) -> None:
    inputs = new_inputs()
    other = replace(inputs, audio=inputs.audio * -3 + 1)
    with torch.no_grad():
        for gate, same in ((0.0, True), (0.5, False), (1.0, False)):
            model = gated(text_model, {AUDIO: gate}, mechanisms)
            first, second = model(inputs).predictions, model(other).predictions
            assert torch.equal(first[FUSED], second[FUSED]) == same, gate
            assert not torch.equal(first[AUDIO], second[AUDIO])  # its own task goes on
        ungated, opened = (gated(text_model, gates, mechanisms)(inputs).predictions[FUSED] for gates in ({}, {AUDIO: 1.0, VISION: 1.0}))
    assert torch.equal(ungated, opened)


def test_a_gate_scales_both_paths(text_model: Path) -> None:
    inputs = new_inputs()
    with torch.no_grad():
        distances = []
        for gate in (0.0, 0.1, 1.0):
            model = gated(text_model, {AUDIO: gate})
            model.gather = None  # the cross-modal path alone
            moved = model(replace(inputs, audio=inputs.audio + 2)).representations[FUSED] - model(inputs).representations[FUSED]
            distances.append(float(moved.abs().sum()))
    assert distances[0] == 0.0 < distances[1] < 0.5 * distances[2]


def test_a_model_from_before_gates_loads(text_model: Path, tmp_path: Path) -> None:
    model, inputs = gated(text_model, {}), new_inputs()
    model.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    del stored["gates"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with torch.no_grad():
        assert torch.equal(MugModel.from_pretrained(tmp_path).eval()(inputs).predictions[FUSED], model(inputs).predictions[FUSED])
        gated(text_model, {AUDIO: 0.25}).save_pretrained(tmp_path / "gated")
        again = MugModel.from_pretrained(tmp_path / "gated").eval()
        assert again.gate_of(AUDIO) == 0.25


def test_a_run_reports_how_much_of_each_modality_it_uses(text_model: Path, tmp_path: Path) -> None:
    data = write_pickle(tmp_path / "sims.pkl", {"train": 96, "valid": 16, "test": 24})
    results = run(
        "--dataset", "sims", "--data", data, "--lm", text_model, "--output", tmp_path / "run", "--seeds", 1, 2,
        "--compare-labels", "--controls", "text-only", "permuted", *SMALL,
    )  # fmt: skip
    assert list(results["gates"]) == ["text", "audio", "vision"]
    assert results["gates"]["text"]["gate"] == 1.0
    for entry in results["gates"].values():
        assert 0 <= entry["gate"] <= 1
    assert "gates" not in json.loads((tmp_path / "run" / "checkpoints" / "seed-1" / "text_only.json").read_text())["facts"]
    assert "How much of each modality" in (tmp_path / "run" / "report.md").read_text()
    model = FinetuneResult(tmp_path / "run").model.network
    assert model.gate_of("audio") == json.loads((tmp_path / "run" / "checkpoints" / "seed-1" / "mucn-crossfit.json").read_text())["facts"][
        "gates"]["audio"]["gate"]  # fmt: skip
