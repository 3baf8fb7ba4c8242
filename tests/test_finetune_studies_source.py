"""The borrowed meta-learners against few-line transcriptions of their formulas; the study of label sources and their cost."""

from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_pretraining import write_text_model
from synthetic_studies import run_study, write_pickle

from finetune.generator_options import GeneratorOptions, MetaOptions
from finetune.labels import LabelInputs, make_generator
from finetune.labels.mucn_meta import Mucn
from finetune.neighbours.generators import Regressor, WeightNetwork, corrected_loss, look_ahead, meta_loss, weighted_loss
from finetune.studies.label_source import growth

ALPHA = 0.3


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(5)
    return torch.randn(12, 4, generator=random), torch.randn(12, 4, generator=random), torch.rand(12, generator=random) * 2 - 1


@pytest.mark.parametrize("kind", ["meta-weight-net", "mlc"])
def test_the_meta_gradient_is_that_of_the_formula(kind: str) -> None:
    torch.manual_seed(0)
    network, weigh, corrector = Regressor(4, 6), WeightNetwork(5), Mucn(4, 5)
    torch.nn.init.normal_(weigh.layers[2].weight)
    learner, inner = (
        (weigh, weighted_loss(network, weigh)) if kind == "meta-weight-net" else (corrector, corrected_loss(network, corrector))
    )
    h, z, y = batch()
    weights = {name: value.detach() for name, value in network.named_parameters()}
    meta_loss(network, look_ahead(inner, weights, h, y, ALPHA), z, y).backward()
    found = [p.grad.clone() for p in learner.parameters()]

    def f(parts: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return (torch.relu(x @ parts[0].T + parts[1]) @ parts[2].T + parts[3]).squeeze(-1)

    w = [value.detach().clone().requires_grad_() for value in network.parameters()]
    error = (f(w, h) - y).abs()
    plain = (learner(error.detach()) * error).mean() if kind == "meta-weight-net" else ((f(w, h) - learner(h, y)) ** 2).mean()
    step = torch.autograd.grad(plain, w, create_graph=True)
    outer = (f([value - ALPHA * change for value, change in zip(w, step, strict=True)], z) - y).abs().mean()
    expected = torch.autograd.grad(outer, list(learner.parameters()))
    assert any(value.abs().max() > 1e-4 for value in expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def noisy_inputs(count: int = 400) -> tuple[LabelInputs, np.ndarray]:
    """Half of y is replaced by noise; the representations show the truth."""
    random = np.random.default_rng(1)
    truth = random.uniform(-1, 1, count)
    y = np.where(random.random(count) < 0.3, random.uniform(-1, 1, count), truth)
    states = np.stack([truth, -truth, random.normal(size=count)], 1).astype(np.float32)
    present = {"text": np.ones(count, bool), "audio": np.arange(count) % 2 == 0}
    both = dict.fromkeys(present, states)
    return LabelInputs(y, [str(row) for row in range(count)], both, both, {}, present, seed=3), truth


@pytest.mark.parametrize("kind", ["meta-weight-net", "mlc"])
def test_corrected_labels_lie_nearer_to_a_truth_that_the_representation_shows(kind: str) -> None:
    inputs, truth = noisy_inputs()
    labels = make_generator(kind, GeneratorOptions(meta=MetaOptions(steps=120, beta=1e-2)))(inputs).labels
    assert np.abs(labels["text"]).max() <= 1
    assert np.array_equal(labels["audio"][1::2], inputs.y[1::2])  # absent: untouched
    assert np.mean((labels["text"] - truth) ** 2) < 0.75 * np.mean((inputs.y - truth) ** 2)
    again = make_generator(kind, GeneratorOptions(meta=MetaOptions(steps=120, beta=1e-2)))(inputs).labels
    assert np.array_equal(labels["text"], again["text"])


def test_growth_is_the_exponent() -> None:
    assert growth({n: {"seconds": 1e-6 * n**2, "memory_mb": None} for n in (100, 1000, 5000)}) == pytest.approx(2.0, abs=0.01)
    assert growth({100: {"seconds": 1.0, "memory_mb": None}}) is None


def test_label_sources_on_synthetic_data(tmp_path: Path) -> None:
    made = write_pickle(tmp_path / "sims.pkl", {"train": 40, "valid": 16, "test": 16}), write_text_model(tmp_path / "lm")
    chosen = ["copy", "mucn-crossfit", "mucn-meta", "meta-weight-net", "mlc", "ulgm", "none"]
    found = run_study("label_source", made, tmp_path / "out", "--seeds", 1, "--cost-sizes", 60, 120, "--compare-labels", *chosen)
    assert [row["name"] for row in found["rows"]] == [*chosen[:-1], "no unimodal tasks"]
    assert set(found["facts"]["cost"]) == set(chosen) - {"none"}
    assert all(cost["seconds"] > 0 for name in ("mucn-meta", "mlc", "ulgm") for cost in found["facts"]["cost"][name].values())
    assert "the bi-level step takes" in found["shows"]
    again = run_study("label_source", made, tmp_path / "out", "--seeds", 1, "--cost-sizes", 60, 120, "--compare-labels", *chosen)
    assert again["facts"] == found["facts"]  # measured once
