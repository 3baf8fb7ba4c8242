"""Generators of unimodal labels: what they may see, what they recover, and the bi-level gradient against finite differences."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.func import functional_call

from finetune.generator_options import CrossfitOptions, GeneratorOptions, MetaOptions
from finetune.labels import LabelInputs, make_generator
from finetune.labels.crossfit import make_folds, noise_levels, out_of_fold
from finetune.labels.mucn_meta import MetaBatch, Mucn, corrupt, outer_loss
from skesl_mug.errors import UserError

COUNT = 400


def made_inputs(seed: int = 0, text_alone_makes_y: bool = False) -> tuple[LabelInputs, dict[str, np.ndarray]]:
    """Three modalities with scores of their own; y is their mean (or the text's alone); descriptors tell each score with noise."""
    random = np.random.default_rng(seed)
    common = random.normal(size=COUNT) * 0.35
    truth = {name: np.clip(common + random.normal(size=COUNT) * 0.3, -1, 1) for name in ("text", "audio", "vision")}
    y = truth["text"].copy() if text_alone_makes_y else np.mean(list(truth.values()), axis=0)
    mixing = random.normal(size=(3, 12))
    mixing *= 3.5 / np.linalg.norm(mixing, axis=1, keepdims=True)
    descriptors = {
        name: np.outer(score, mixing[k]) + random.normal(size=(COUNT, 12)) * 0.7 for k, (name, score) in enumerate(truth.items())
    }
    states = {name: values.astype(np.float32) for name, values in descriptors.items()}
    inputs = LabelInputs(
        y=y,
        groups=[f"v{row % 40}" for row in range(COUNT)],
        representations=states,
        projected={name: values + 0.1 for name, values in states.items()},
        descriptors=descriptors,
        present={name: np.ones(COUNT, bool) for name in truth},
        seed=seed,
    )
    return inputs, truth


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first, second)[0, 1])


def test_crossfit_labels_are_closer_to_the_hidden_truth_than_y() -> None:
    gains = []
    for seed in range(3):
        inputs, truth = made_inputs(seed)
        labels = make_generator("mucn-crossfit", GeneratorOptions())(inputs).labels
        for name, hidden in truth.items():
            gains.append(np.abs(inputs.y - hidden).mean() - np.abs(labels[name] - hidden).mean())
            assert np.abs(labels[name]).max() <= 1.0
    assert np.mean(gains) > 0.01
    assert min(gains) > -0.005


def test_r2_rule_keeps_the_label_of_the_modality_that_determines_y() -> None:
    inputs, truth = made_inputs(1, text_alone_makes_y=True)
    predictions = out_of_fold(inputs, CrossfitOptions())
    levels = noise_levels(inputs.y, predictions, "r2")
    assert levels["text"]["sigma"] < 0.4 * levels["audio"]["sigma"]
    learned = make_generator("mucn-crossfit", GeneratorOptions())(inputs).labels["text"]
    assert correlation(learned, truth["text"]) > 0.97
    assert noise_levels(inputs.y, predictions, "residual")["text"]["sigma"] == pytest.approx(levels["text"]["tau"])


def test_out_of_fold_predictions_have_not_seen_their_own_video() -> None:
    inputs, _ = made_inputs(2)
    changed = inputs.y.copy()
    video = np.array([group == "v3" for group in inputs.groups])
    changed[video] = 1.0 - changed[video]
    before, after = (out_of_fold(replace(inputs, y=y), CrossfitOptions()) for y in (inputs.y, changed))
    for name in before:
        assert np.array_equal(before[name][video], after[name][video])
        assert not np.array_equal(before[name][~video], after[name][~video])


def test_the_network_backend_predicts_out_of_fold() -> None:
    inputs, _ = made_inputs(2)
    options = CrossfitOptions(backend="network", folds=2)
    changed = inputs.y.copy()
    video = np.array([group == "v3" for group in inputs.groups])
    changed[video] = 1.0 - changed[video]
    before, after = (out_of_fold(replace(inputs, y=y), options) for y in (inputs.y, changed))
    for name in before:
        assert np.array_equal(before[name][video], after[name][video])
        assert correlation(before[name], inputs.y) > 0.4
    assert correlation(before["fused"], inputs.y) > max(correlation(before[name], inputs.y) for name in inputs.modalities)


def test_a_corpus_of_one_video_is_cross_fitted_by_utterance() -> None:
    inputs, _ = made_inputs()
    single = replace(inputs, groups=["one"] * COUNT)
    given, asked = (out_of_fold(single, CrossfitOptions(folds_by=unit)) for unit in ("video", "utterance"))
    for name, predictions in given.items():
        assert np.array_equal(predictions, asked[name])
        assert correlation(predictions, inputs.y) > 0.3
    assert make_generator("regressor", GeneratorOptions())(single).facts == {"folds_by": "utterance"}
    with pytest.raises(UserError, match="two utterances"):
        make_folds(["one"], 5, "video", 1)


@pytest.mark.parametrize("name", ["mucn-crossfit", "mucn-meta", "regressor", "copy"])
def test_generators_are_seeded_and_never_read_human_labels(name: str) -> None:
    inputs, truth = made_inputs()
    options = GeneratorOptions(crossfit=CrossfitOptions(steps=40), meta=MetaOptions(steps=20))
    generator = make_generator(name, options)
    assert not generator.reads_human_labels
    torch.manual_seed(1)
    first = generator(inputs)
    torch.manual_seed(2)  # a generator's stream is its own: whatever ran before it changes nothing
    second = generator(replace(inputs, human=truth))
    for modality, values in first.labels.items():
        assert np.array_equal(values, second.labels[modality])
        assert values.shape == (COUNT,)


@pytest.mark.parametrize("name", ["mucn-crossfit", "mucn-meta", "regressor"])
def test_an_absent_modality_keeps_y_and_is_not_learned_from(name: str) -> None:
    inputs, _ = made_inputs()
    here = np.arange(COUNT) % 5 != 0
    options = GeneratorOptions(crossfit=CrossfitOptions(steps=30), meta=MetaOptions(steps=10))
    inputs = replace(inputs, present={**inputs.present, "audio": here})
    rubbish = {**inputs.descriptors, "audio": np.where(here[:, None], inputs.descriptors["audio"], 1e3)}
    first, second = make_generator(name, options)(inputs).labels, make_generator(name, options)(replace(inputs, descriptors=rubbish)).labels
    if name != "regressor":
        assert np.array_equal(first["audio"][~here], inputs.y[~here])
    assert np.array_equal(first["audio"][here], second["audio"][here]) or name != "mucn-meta"
    nowhere = replace(inputs, present={**inputs.present, "audio": np.zeros(COUNT, bool)})
    assert "audio" not in make_generator(name, options)(nowhere).labels


def test_copy_and_human() -> None:
    inputs, truth = made_inputs()
    assert all(np.array_equal(values, inputs.y) for values in make_generator("copy", GeneratorOptions())(inputs).labels.values())
    human = make_generator("human", GeneratorOptions())
    assert human.reads_human_labels
    partly = truth["text"].copy()
    partly[:10] = np.nan
    labels = human(replace(inputs, human={"text": partly})).labels
    assert np.array_equal(labels["text"][10:], truth["text"][10:])
    assert np.array_equal(labels["text"][:10], inputs.y[:10])
    assert np.array_equal(labels["audio"], inputs.y)
    with pytest.raises(UserError, match="no unimodal labels"):
        human(inputs)


def small_problem(options: MetaOptions) -> tuple[Mucn, MetaBatch]:
    torch.manual_seed(3)
    network = Mucn(4, 5).double()
    random = torch.Generator().manual_seed(4)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    y = draw(6) * 0.4
    return network, MetaBatch(draw(6, 4), draw(6, 4), y + options.sigma * draw(6), y + options.sigma * draw(6), y)


def outer_loss_by_hand(network: Mucn, values: dict[str, torch.Tensor], batch: MetaBatch, alpha: float) -> float:
    """Inner step by ordinary backward, outer loss at the updated weights: no torch.func in it."""
    leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
    inner = (functional_call(network, leaves, (batch.unimodal, batch.inner_label)) - batch.y).abs().mean()
    slopes = torch.autograd.grad(inner, list(leaves.values()))
    stepped = {name: (value - alpha * slope).detach() for (name, value), slope in zip(leaves.items(), slopes, strict=True)}
    return float((functional_call(network, stepped, (batch.projected, batch.outer_label)) - batch.y).abs().mean())


def test_outer_gradient_matches_finite_differences_and_differs_from_first_order() -> None:
    options = MetaOptions(alpha=0.5)
    network, batch = small_problem(options)
    parameters = dict(network.named_parameters())
    exact = torch.autograd.grad(outer_loss(network, parameters, batch, options), list(parameters.values()))
    first_order = torch.autograd.grad(outer_loss(network, parameters, batch, replace(options, first_order=True)), list(parameters.values()))
    values = {name: value.detach() for name, value in parameters.items()}
    step, differs = 1e-6, False
    for (name, value), slope, plain in zip(values.items(), exact, first_order, strict=True):
        for place in range(value.numel()):
            shift = torch.zeros_like(value).view(-1)
            shift[place] = step
            up, down = ({**values, name: value + sign * shift.view_as(value)} for sign in (1, -1))
            numeric = (outer_loss_by_hand(network, up, batch, 0.5) - outer_loss_by_hand(network, down, batch, 0.5)) / (2 * step)
            assert float(slope.reshape(-1)[place]) == pytest.approx(numeric, abs=2e-5)
            differs = differs or abs(float(plain.reshape(-1)[place]) - numeric) > 1e-3
    assert differs


def test_corruption_has_the_chosen_noise_and_swap_rate() -> None:
    y = torch.arange(4000, dtype=torch.float32)
    random = torch.Generator().manual_seed(0)
    noise = corrupt(y, MetaOptions(sigma=0.6), random) - y
    assert float(noise.std()) == pytest.approx(0.6, abs=0.03)
    swapped = corrupt(y, MetaOptions(sigma=0.0, swap=0.25), random) != y
    assert float(swapped.float().mean()) == pytest.approx(0.25, abs=0.03)


def test_shuffled_corrections_are_a_permutation() -> None:
    inputs, _ = made_inputs()
    options = GeneratorOptions(crossfit=CrossfitOptions(steps=30))
    learned = make_generator("mucn-crossfit", options)(inputs).labels
    shuffled = make_generator("shuffled", options)(inputs).labels
    for name in learned:
        assert sorted(shuffled[name] - inputs.y) == pytest.approx(sorted(learned[name] - inputs.y), abs=1e-9)
        assert not np.allclose(shuffled[name], learned[name])
