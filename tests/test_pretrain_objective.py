"""The options of the objective, each against a transcription of a few lines, and that all of them are off by default."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_pretrain_encoder import batch, make

from lexicons.context import vader_deviations
from pretrain.batches import MaskedCollator, MaskedSample
from pretrain.encoder import SkeslForMaskedIntensity
from pretrain.holdout import thin_zeros
from pretrain.objective import PretrainingTask, drop_modalities, instance_contrast, mismatched, relation_loss, weighted_error
from pretrain.options import ObjectiveOptions
from pretrain.selection import _confidences
from pretrain.tokens import MaskedText


def inputs():
    return batch() | {"mask_positions": torch.tensor([[[1, 2]], [[3, -1]], [[2, -1]]]), "labels": torch.tensor([[2.0], [-1.0], [0.5]])}


def test_by_default_the_task_is_the_papers_objective():
    model = make(kind=SkeslForMaskedIntensity, dropout=0.0)
    task = PretrainingTask(model, ObjectiveOptions())
    assert {name.removeprefix("model.") for name, _ in task.named_parameters()} == {name for name, _ in model.named_parameters()}
    loss, error = task(inputs())
    logits = model(**inputs()).logits
    assert loss.item() == error.item() == pytest.approx((logits - inputs()["labels"]).abs().mean().item())


def test_weights_of_labels():
    predictions, labels = torch.tensor([[1.0, 5.0], [0.0, 9.0]]), torch.tensor([[2.0, 3.0], [0.5, float("nan")]])
    weights = torch.tensor([[1.0, 0.5], [2.0, 7.0]])
    expected = (1.0 * 1 + 2.0 * 0.5 + 0.5 * 2) / 3.5
    assert weighted_error([(predictions, labels, weights)]).item() == pytest.approx(expected)
    samples = [
        MaskedSample(0, MaskedText([2, 4, 4, 3], ((1,), (2,))), (1.0, 2.0), weights=(1.0, 0.25)),
        MaskedSample(1, MaskedText([2, 4, 3], ((1,),)), (1.0,), weights=(0.5,)),
    ]
    assert MaskedCollator(0)(samples)["label_weights"].tolist() == [[1.0, 0.25], [0.5, 0.0]]


def test_confidence_is_that_of_vaders_raters():
    deviations = vader_deviations()
    text = "a good and unheardof film"
    found = [tuple(_confidences(text, [(2, 6), (11, 20)]))]
    assert found[0][0] == pytest.approx(1 / (1 + deviations["good"] ** 2))
    assert found[0][1] == 1.0
    assert all(0 <= value < 4 for value in deviations.values())


@given(st.lists(st.sampled_from([0.0, 0.0, 1.5, -2.0]), min_size=1, max_size=60), st.floats(0, 0.9))
def test_the_share_of_zeros(intensities, share):
    values, members = np.asarray(intensities), np.arange(len(intensities))
    kept = thin_zeros(values, members, share, seed=0)
    zeros = int((values[kept] == 0).sum())
    assert zeros <= share * len(kept) + 1e-6 or zeros == (values == 0).sum() <= share * len(values) + 1e-6
    assert list(values[kept][values[kept] != 0]) == list(values[values != 0])


def test_relating_by_contrasting_against_a_transcription():
    own, others, real = torch.tensor([2.0, 0.3, -1.0]), torch.tensor([0.5, 0.1, 4.0]), torch.tensor([1.0, 1.0, 0.0])
    expected = (max(0, 1 - 2.0 + 0.5) + max(0, 1 - 0.3 + 0.1)) / 2
    assert relation_loss(own, others, real).item() == pytest.approx(expected)
    moved = mismatched(inputs())
    assert torch.equal(moved["audio"][1], inputs()["audio"][0])
    assert torch.equal(moved["vision"][0], inputs()["vision"][2])
    assert torch.equal(moved["input_ids"], inputs()["input_ids"])


def test_instance_contrast_against_a_transcription():
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(4, 6, generator=generator), torch.randn(4, 6, generator=generator)
    real = torch.tensor([True, True, False, True])
    a, b = one[real].numpy().astype(float), other[real].numpy().astype(float)
    a, b = a / np.linalg.norm(a, axis=1, keepdims=True), b / np.linalg.norm(b, axis=1, keepdims=True)
    terms = []
    for scores in (a @ b.T / 0.1, b @ a.T / 0.1):
        terms += [np.log(np.exp(scores[row]).sum()) - scores[row, row] for row in range(3)]
    assert instance_contrast(one, other, real).item() == pytest.approx(np.mean(terms), rel=1e-5)
    assert instance_contrast(one, other, torch.tensor([True, False, False, False])).item() == 0


def test_modality_dropout_takes_whole_modalities_and_no_more():
    torch.manual_seed(0)
    many = {"audio": torch.ones(400, 3, 2), "audio_mask": torch.ones(400, 3, dtype=torch.long), "vision": None, "vision_mask": None}
    dropped = drop_modalities(many, 0.3)
    rows = dropped["audio_mask"].sum(1)
    assert set(rows.tolist()) == {0, 3}
    assert 0.2 < (rows == 0).float().mean() < 0.4
    assert drop_modalities(many, 0.0)["audio_mask"].equal(many["audio_mask"])


def test_all_options_together_train_every_parameter():
    model = make(kind=SkeslForMaskedIntensity, dropout=0.0)
    task = PretrainingTask(model, ObjectiveOptions(negatives=0.5, cross_modal=0.5, modality_dropout=0.01)).train()
    loss, error = task(inputs())
    loss.backward()
    assert loss.item() > error.item()
    assert [name for name, parameter in task.named_parameters() if parameter.grad is None or not parameter.grad.isfinite().all()] == []
    without = {**inputs(), "audio": None, "audio_mask": None, "vision": None, "vision_mask": None}
    assert task(without)[0].isfinite()
