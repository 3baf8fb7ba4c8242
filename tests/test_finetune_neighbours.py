"""Neighbouring methods' mechanisms, each against a transcription of its formula, and one run that alternates."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_pretraining import write_text_model
from test_finetune_networks import new_inputs
from test_finetune_run import SMALL, run, write_pickle

from finetune.modalities import AUDIO, FUSED, MODALITIES, TEXT, VISION
from finetune.model.alignment import AlignmentLoss, alignment_networks, contrastive_loss
from finetune.model.networks import MugConfig, MugModel, MugOutput
from finetune.neighbours.mechanisms import GradientProjector, fuse_by_entropy, laplace_loss
from finetune.options import AlignmentOptions
from finetune.studies.ablation import AblationOptions, chosen_neighbours, with_neighbour
from pretrain.encoder import SkeslModel
from skesl_mug.console import to_plain
from skesl_mug.errors import UserError
from skesl_mug.run_folder import differences


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_model(tmp_path_factory.mktemp("lm"))


def new_model(text_model: Path, *mechanisms: str, fusion: str = "joint") -> MugModel:
    torch.manual_seed(0)
    encoder = SkeslModel.from_text_model(text_model, audio_dim=5, vision_dim=4, attention_dim=8, num_blocks=1)
    return MugModel.around(
        encoder, MugConfig(audio_dim=5, vision_dim=4, dim=6, frames="statistics", fusion=fusion, mechanisms=mechanisms)
    ).eval()


def test_label_distance_multiplies_the_negatives() -> None:
    predicted, actual = torch.randn(2, 5, 3)
    y, temperature, by_hand = torch.tensor([0.5, -0.5, 0.5, 0.0, -1.0]), 0.2, 0.0

    def term(i: int, j: int) -> float:
        return math.exp(float(torch.cosine_similarity(predicted[i], actual[j], dim=0)) / temperature)

    for i in range(5):
        for pairs in ([(i, j) for j in range(5) if j != i], [(j, i) for j in range(5) if j != i]):
            against = sum(abs(float(y[a] - y[b])) * term(a, b) for a, b in pairs)
            by_hand -= math.log(term(i, i) / (term(i, i) + against)) / 10
    predicted.requires_grad_()
    loss = contrastive_loss(predicted, actual, temperature, y)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(by_hand, rel=1e-4)
    assert torch.isfinite(predicted.grad).all()  # two labels are the same: their pair has a weight of 0
    assert float(contrastive_loss(predicted.detach(), actual, temperature, torch.ones(5))) == pytest.approx(0.0, abs=1e-6)


def test_every_modality_is_predicted_from_every_other_and_targets_have_no_gradient(text_model: Path) -> None:
    model, inputs = new_model(text_model).train(), new_inputs(6)
    model.alignment = alignment_networks(AlignmentOptions(["cross-modal", "label-distance"]), model.modalities, 6)
    model.dropout.p = 0.0
    inputs = replace(inputs, present={**inputs.present, AUDIO: torch.tensor([True] * 5 + [False])})
    output, y = model(inputs), torch.linspace(-1, 1, 6)
    assert set(output.extras) == {f"{a}-{b}" for a in MODALITIES for b in MODALITIES if a != b}
    for name, labels in (("cross-modal", None), ("label-distance", y)):
        options = AlignmentOptions(losses=[name], weight=0.5, temperature=0.3)
        by_hand = 0.0
        for pair, vectors in output.extras.items():
            given, wanted = pair.split("-")
            rows = 5 if AUDIO in (given, wanted) else 6
            guess = model.alignment["CrossModalPredictors"].predictors[pair](output.representations[given])
            assert torch.allclose(vectors, guess, atol=1e-6)
            here = None if labels is None else labels[:rows]
            by_hand += 0.5 * float(contrastive_loss(guess[:rows], output.representations[wanted][:rows], 0.3, here).detach())
        assert float(AlignmentLoss(options)(output, inputs.present, y).detach()) == pytest.approx(by_hand, rel=1e-4)
    leaves = {name: torch.randn(4, 6, requires_grad=True) for name in (FUSED, TEXT, VISION)}
    one = MugOutput(
        leaves,
        leaves,
        projected={TEXT: leaves[TEXT], VISION: leaves[VISION]},
        extras={"text-vision": leaves[TEXT] * 2, "vision-text": leaves[FUSED]},
    )
    AlignmentLoss(AlignmentOptions(["cross-modal"]))(one, {name: torch.ones(4, dtype=torch.bool) for name in leaves}, y[:4]).backward()
    assert leaves[TEXT].grad is not None
    assert leaves[VISION].grad is None
    assert model.eval()(inputs).extras == {}  # a finished model predicts labels alone


def test_the_common_space_sums_what_is_present_before_two_shared_layers(text_model: Path) -> None:
    model, inputs = new_model(text_model, "common-space", fusion="unimodal"), new_inputs()
    inputs = replace(inputs, present={**inputs.present, AUDIO: torch.tensor([True, False, True])})
    with torch.no_grad():
        output = model(inputs)
        h, (first, _, second, _) = output.representations, model.common

        def shared(z: torch.Tensor) -> torch.Tensor:
            hidden = (z @ first.weight.T + first.bias).clamp(min=0)
            return (hidden @ second.weight.T + second.bias).clamp(min=0)

        part = {name: h[name] @ model.gather[name].weight.T for name in MODALITIES}
        z = model.fused_bias + sum(part[name] * inputs.present[name].float().unsqueeze(1) for name in MODALITIES)
        assert torch.allclose(h[FUSED], shared(z), atol=1e-6)
        for name in MODALITIES:
            expected = model.heads[name](shared(model.fused_bias + part[name])).squeeze(-1)
            assert torch.allclose(output.predictions[name], expected, atol=1e-6), name
    joint = new_model(text_model, "common-space")
    assert joint(inputs).representations[FUSED].shape == (3, 6)


def test_residual_branches_add_each_present_modality(text_model: Path) -> None:
    plain, model = new_model(text_model), new_model(text_model, "residual")
    inputs = new_inputs()
    inputs = replace(inputs, present={**inputs.present, VISION: torch.tensor([True, False, True])})
    with torch.no_grad():
        shared, h = plain(inputs).representations[FUSED], model(inputs).representations  # weights of one seed: the branches are made last
        expected = shared.clone()
        for name in MODALITIES:
            first, _, second = model.branches[name]
            branch = (h[name] @ first.weight.T + first.bias).clamp(min=0) @ second.weight.T + second.bias
            expected += (h[name] + branch) * inputs.present[name].float().unsqueeze(1)
    assert torch.allclose(h[FUSED], expected, atol=1e-6)


def test_recovery_fills_in_what_is_absent_and_changes_nothing_else(text_model: Path) -> None:
    plain, model = new_model(text_model), new_model(text_model, "recover")
    complete = new_inputs()
    inputs = replace(complete, present={**complete.present, AUDIO: torch.tensor([True, False, True])})
    with torch.no_grad():
        before, output = plain(inputs), model(inputs)
        h = before.representations
        guesses = []
        for source in (TEXT, VISION):
            first, _, second = model.recovery[f"{source}-{AUDIO}"]
            guesses.append((h[source] @ first.weight.T + first.bias).clamp(min=0) @ second.weight.T + second.bias)
        filled = sum(guesses)[1] / 2 @ model.gather[AUDIO].weight.T
        hook: list[torch.Tensor] = []
        plain.mechanisms = [type("Spy", (type(model.mechanisms[0]).__mro__[1],), {"fuse": lambda self, m, z, f, *_: hook.append(z) or f})()]
        plain(inputs)
    assert torch.equal(output.representations[FUSED][[0, 2]], h[FUSED][[0, 2]])
    assert torch.allclose(output.representations[FUSED][1], torch.relu(hook[0][1] + filled), atol=1e-5)
    model.train().dropout.p = 0.0
    output, here = model(inputs), inputs.present
    by_hand = torch.zeros(3)
    for target in MODALITIES:
        for row in range(3):
            sources = [name for name in MODALITIES if name != target and here[name][row]]
            guess = sum(model.recovery[f"{name}-{target}"](output.representations[name][row]) for name in sources) / len(sources)
            by_hand[row] += here[target][row] * (guess - output.representations[target][row]).pow(2).mean().detach() / 3
    y = torch.zeros(3)
    assert torch.allclose(model.error(output, FUSED, y), output.predictions[FUSED].abs() + by_hand, atol=1e-5)
    output.extras["recovery loss"].sum().backward()
    assert {name.split(".")[0] for name, weight in model.named_parameters() if weight.grad is not None} == {"recovery"}


def test_the_teacher_is_the_language_model(text_model: Path) -> None:
    model, inputs = new_model(text_model).train(), new_inputs(5)
    model.dropout.p = 0.0
    options = AlignmentOptions(["teacher"], weight=1.0, temperature=0.5)
    model.alignment = alignment_networks(options, model.modalities, 6)
    inputs = replace(inputs, present={**inputs.present, AUDIO: torch.tensor([True] * 4 + [False])})
    output = model(inputs)
    by_hand = 0.0
    for name in MODALITIES:
        rows = 4 if name == AUDIO else 5
        states = output.extras["language model"][:rows]
        states = states - states.mean(0)
        pair = output.projected[name][:rows], output.representations[name][:rows]
        for first, second in (pair, pair[::-1]):
            for i in range(rows):
                wanted = torch.softmax(torch.cosine_similarity(states[i : i + 1], states) / 0.5, 0)
                found = torch.softmax(torch.cosine_similarity(first[i : i + 1], second) / 0.5, 0)
                by_hand += float((wanted * (wanted / found).log()).sum().detach()) / rows / 2
    assert not output.extras["language model"].requires_grad
    assert float(AlignmentLoss(options)(output, inputs.present, torch.zeros(5)).detach()) == pytest.approx(by_hand, rel=1e-3)
    with pytest.raises(UserError, match="needs the states of a language model"):
        model.alignment["SentenceStates"]({TEXT: torch.zeros(2, 6)})


@pytest.mark.parametrize("name", ["alternate", "common-space", "residual"])
def test_a_model_that_an_older_version_saved_loads(text_model: Path, tmp_path: Path, name: str) -> None:
    model, inputs = new_model(text_model, name), new_inputs()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("mechanisms")
    config |= {"common_space": False, "residual": False, "alternate": False, "cross_modal": False, name.replace("-", "_"): True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = MugModel.from_pretrained(tmp_path).eval()
    assert loaded.config.mechanisms == [name]
    with torch.no_grad():
        assert torch.equal(loaded(inputs).predictions[FUSED], model(inputs).predictions[FUSED])


def test_the_gradient_is_projected_away_from_earlier_mean_inputs() -> None:
    weight = torch.nn.Parameter(torch.zeros(2, 4))
    projector, by_hand, alpha = GradientProjector(weight, alpha=0.5), np.eye(4), 0.5
    for inputs in torch.randn(3, 7, 4):
        r = inputs.double().numpy().mean(0)
        k = by_hand @ r
        by_hand = by_hand - np.outer(k, k) / (alpha + k @ r)
        projector.after_step(inputs)
    gradient = torch.randn(2, 4)
    weight.grad = gradient.clone()
    projector.project()
    assert weight.grad.numpy() == pytest.approx(gradient.numpy() @ by_hand, abs=1e-5)
    strict, before = GradientProjector(weight, alpha=1e-6), torch.randn(7, 4) + 1
    strict.after_step(before)
    weight.grad = gradient.clone()
    strict.project()
    assert (weight.grad @ before.mean(0)).abs().max() < 1e-4  # the head's answer to that mean stays
    assert weight.grad.abs().max() > 1e-2
    strict.after_step(before[:0])
    assert torch.isfinite(strict.matrix).all()


def test_fusion_weights_by_entropy_and_ignores_absent_modalities() -> None:
    locations, log_scales = torch.randn(2, 3, 4)
    present = torch.ones(3, 4, dtype=torch.bool)
    present[1, 2] = False
    fused = fuse_by_entropy(locations, log_scales, present)
    for row in range(4):
        here = [m for m in range(3) if present[m, row]]
        entropy = {m: 1 + math.log(2 * math.exp(float(log_scales[m, row]))) for m in here}
        weight = {m: math.exp(max(entropy.values()) - entropy[m]) for m in here}
        expected = sum(weight[m] * float(locations[m, row]) for m in here) / sum(weight.values())
        assert float(fused[row]) == pytest.approx(expected, rel=1e-4)
    density = torch.distributions.Laplace(locations[0], log_scales[0].exp()).log_prob(locations[1])
    assert torch.allclose(laplace_loss(locations[0], log_scales[0], locations[1]), -density - math.log(2), atol=1e-5)


def test_a_step_of_one_task_changes_only_its_modality_and_the_shared_head(text_model: Path) -> None:
    model, inputs = new_model(text_model, "alternate"), new_inputs()
    output = model(inputs, turn=AUDIO)
    assert list(output.predictions) == list(output.representations) == [AUDIO]
    output.predictions[AUDIO].sum().backward()
    moved = {name.rsplit(".", 1)[0] for name, p in model.named_parameters() if p.grad is not None}
    assert moved == {"shared_head", "unimodal.audio.layers.1"}
    with torch.no_grad():
        whole, fused = model(inputs), model(inputs, turn=FUSED)
    assert torch.allclose(whole.predictions[AUDIO], output.predictions[AUDIO])
    assert list(fused.predictions) == [FUSED]
    assert not torch.allclose(whole.predictions[FUSED], fused.predictions[FUSED], atol=1e-4)  # one weighs all tasks, one is its own


def test_a_run_with_alternating_steps(text_model: Path, tmp_path: Path) -> None:
    data = write_pickle(tmp_path / "sims.pkl", {"train": 40, "valid": 16, "test": 16})
    given = ["--dataset", "sims", "--data", data, "--lm", text_model, "--freeze-lm", "--seeds", 1, "--model.frames", "statistics", *SMALL]
    given += ["--labels", "ulgm", "--compare-labels", "copy", "--controls", "text-only", "permuted"]
    results = run(*given, "--mechanisms", "alternate", "--output", tmp_path / "run")
    assert {"text_only", "labels_copy", "permuted_audio_vision"} <= set(results["controls"])
    assert results["unimodal_labels"]["audio"]["mean_change"] > 0  # ulgm saw every space of a round of turns
    model = MugModel.from_pretrained(tmp_path / "run" / "model").eval()
    inputs = new_inputs()
    inputs = replace(inputs, vision=inputs.vision[..., :3])
    with torch.no_grad():
        predictions = model(inputs).predictions
    parts = torch.stack([predictions[name] for name in MODALITIES])
    assert all(torch.isfinite(values).all() for values in predictions.values())
    assert parts.std(0).min() > 0
    for refused, what in (
        (["common-space"], "choose one of them"),
        (["--training.task-weights.audio", 0], "above 0"),
        (["--labels", "none"], "--labels none"),
    ):
        with pytest.raises(UserError, match=what):
            run(*given, "--output", tmp_path / "none", "--mechanisms", "alternate", *refused)
    with pytest.raises(UserError, match="joint or unimodal"):
        run(*given, "--mechanisms", "common-space", "--model.fusion", "encoder", "--output", tmp_path / "none")


def test_a_row_of_the_ablation_changes_one_option(tmp_path: Path) -> None:
    options = AblationOptions(dataset="mosi", data="mosi.pkl", lm="embedded", output=tmp_path, neighbours=["residual", "all"])
    plain = to_plain(options)
    flags = {
        name: differences(plain, to_plain(with_neighbour(options, name)))
        for name in chosen_neighbours(options.neighbours)  # `all` stands for every one
    }
    assert flags == {
        "cross-modal": ["--training.alignment.losses was contrastive, now contrastive cross-modal"],
        "label-distance": ["--training.alignment.losses was contrastive, now contrastive label-distance"],
        "teacher": ["--training.alignment.losses was contrastive, now contrastive teacher"],
        "common-space": ["--mechanisms was empty, now common-space"],
        "residual": ["--mechanisms was empty, now residual"],
        "alternate": ["--mechanisms was empty, now alternate"],
        "recover": ["--mechanisms was empty, now recover"],
    }
    assert to_plain(options) == plain
