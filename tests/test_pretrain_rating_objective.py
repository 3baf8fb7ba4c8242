"""Rating whole utterances: the loss over several kinds of labels, batches that mix them, and what reaches which weight."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pretrain_encoder import make

from pretrain.batches import MaskedCollator, MaskedSample
from pretrain.encoder import SkeslForMaskedIntensity
from pretrain.evaluation import HeldOut, combined_mae, model_inputs
from pretrain.loop import label_weight
from pretrain.objective import PretrainingTask, RatingHead, weighted_error
from pretrain.options import ObjectiveOptions
from pretrain.tokens import MaskedText
from pretrain.training_data import agreement

CELL = st.tuples(st.floats(-5, 5, width=32), st.one_of(st.just(math.nan), st.floats(-3, 3, width=32)), st.floats(0, 4, width=32))
KIND = st.tuples(st.lists(CELL, max_size=6), st.booleans())


def rater(**options):
    return make(kind=SkeslForMaskedIntensity, dropout=0.0, rating_dim=6, **options)


def sentence(index, tokens, rating, weight=1.0):
    return MaskedSample(index, MaskedText(tokens, ()), (), rating=rating, rating_weight=weight)


def utterance(index, rating=math.nan, weights=()):
    generator = np.random.default_rng(index)
    text = MaskedText([2, 11 + index, 4, 8, 3], ((2,), (3,)) if index % 2 else ((2,),))
    targets = (1.5, -0.5) if index % 2 else (0.7,)
    sound = generator.normal(size=(4 + index, 5)).astype(np.float32)
    face = generator.normal(size=(3, 7)).astype(np.float32) if index != 1 else None
    return MaskedSample(index, text, targets, sound, face, weights=weights[: len(targets)], rating=rating, rating_weight=0.5)


SENTENCES = [sentence(0, [2, 9, 3], 1.0), sentence(1, [2, 9, 10, 12, 13, 14, 3], -2.0, 0.25)]
UTTERANCES = [utterance(index) for index in range(3)]


def collate(samples):
    return model_inputs(MaskedCollator(0)(samples), torch.device("cpu"))


@given(st.lists(KIND, min_size=1, max_size=3))
@settings(deadline=None)
def test_the_error_over_several_kinds_of_labels_against_a_transcription(kinds):
    scored, above, below = [], 0.0, 0.0
    for cells, weighted in kinds:
        predictions, labels, weights = (np.array([cell[place] for cell in cells], np.float32) for place in range(3))
        scored.append((torch.tensor(predictions), torch.tensor(labels), torch.tensor(weights) if weighted else None))
        for prediction, label, weight in zip(predictions.tolist(), labels.tolist(), weights.tolist(), strict=True):
            if not math.isnan(label):
                above += (weight if weighted else 1.0) * abs(prediction - label)
                below += weight if weighted else 1.0
    expected = above / below if below > 0 else 0.0
    assert weighted_error([*scored, (None, None, None)]).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_mixed_batch_gives_the_loss_of_its_parts_by_their_weights():
    for weights in ((), (0.3, 2.0)):
        model, words = rater(), [utterance(index, weights=weights) for index in range(3)]
        parts = [collate(SENTENCES), collate(words)]
        mixed = collate([words[0], SENTENCES[0], words[1], words[2], SENTENCES[1]])
        totals = [label_weight(part) for part in parts]
        assert label_weight(mixed) == pytest.approx(sum(totals))
        expected = sum(model(**part).loss.item() * total for part, total in zip(parts, totals, strict=True)) / sum(totals)
        assert model(**mixed).loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_rating_depends_on_its_own_row_alone_and_adds_no_masked_word():
    model = rater()
    alone = [model(**collate([one])).ratings.item() for one in SENTENCES]
    mixed = model(**collate([UTTERANCES[0], SENTENCES[0], UTTERANCES[1], SENTENCES[1]]))
    assert mixed.ratings[[1, 3]].tolist() == pytest.approx(alone, abs=1e-5)  # padded, and beside rows with audio and vision
    assert mixed.ratings[[0, 2]].tolist() == [0.0, 0.0]
    assert mixed.logits[[1, 3]].abs().sum() == 0
    words = model(**collate(UTTERANCES[:2]))
    torch.testing.assert_close(mixed.logits[[0, 2]], words.logits, atol=1e-5, rtol=0)
    assert words.ratings is None
    direct = model.rate(input_ids=torch.tensor([SENTENCES[0].text.token_ids]), attention_mask=torch.ones(1, 3, dtype=torch.long))
    assert direct.item() == pytest.approx(alone[0], abs=1e-6)
    assert abs(alone[0] - alone[1]) > 1e-3


def test_batches_of_one_kind_and_parts_without_a_rating():
    model = rater()
    only = model(**collate(SENTENCES))
    assert only.logits.shape == (2, 0)
    labels = torch.tensor([1.0, -2.0])
    assert only.loss.item() == pytest.approx(((only.ratings - labels).abs() * torch.tensor([1.0, 0.25])).sum().item() / 1.25, rel=1e-5)
    both = collate([*UTTERANCES[:2], *SENTENCES])
    part = {name: None if value is None else value[:2] for name, value in both.items()}  # as the loop cuts a batch that is too large
    assert model(**part).loss.item() == pytest.approx(model(**collate(UTTERANCES[:2])).loss.item(), rel=1e-5)
    assert model(**part).ratings.tolist() == [0.0, 0.0]


def test_the_gradient_of_a_teachers_score_reaches_audio_and_vision():
    model = rater().train()
    model.skesl.crossmodal.zero_init()
    taught = [utterance(index, rating=2.0, weights=(0.0, 0.0)) for index in range(3)]

    def gradients():
        model.zero_grad()
        model(**collate(taught)).loss.backward()
        return {name: 0.0 if value.grad is None else value.grad.abs().sum().item() for name, value in model.named_parameters()}

    found = gradients()
    outputs = [name for name in found if ("audio" in name or "vision" in name) and name.endswith("output.weight")]
    values = [name for name in found if ("audio" in name or "vision" in name) and name.endswith("value.weight")]
    assert outputs
    assert values
    assert all(found[name] > 0 for name in outputs)
    assert not any(found[name] for name in values)  # behind the silent output layer
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in outputs:
                parameter += 0.1 * torch.randn_like(parameter)
    assert all(gradients()[name] > 0 for name in values)
    assert gradients()["head.layers.0.weight"] == 0  # masked words of weight 0


@pytest.mark.parametrize("samples", [SENTENCES, [*UTTERANCES, *SENTENCES]])
def test_the_auxiliary_losses_beside_rated_sentences(samples):
    torch.manual_seed(0)
    task = PretrainingTask(rater(), ObjectiveOptions(rated=1.0, negatives=0.5, cross_modal=0.5)).train()
    loss, _ = task(collate(samples))
    loss.backward()
    assert loss.isfinite()
    assert all(value.grad is None or value.grad.isfinite().all() for value in task.parameters())


def test_the_head_against_a_transcription():
    torch.manual_seed(0)
    head = RatingHead(7, 4, 0.5).eval()
    states = torch.randn(3, 7)
    weights = {name: value.numpy().astype(float) for name, value in head.state_dict().items()}
    hidden = np.maximum(states.numpy() @ weights["pool.weight"].T + weights["pool.bias"], 0)
    expected = hidden @ weights["out.weight"][0] + weights["out.bias"][0]
    np.testing.assert_allclose(head(states).detach().numpy(), expected, atol=1e-5)


def test_what_is_scored_first_and_how_the_best_epoch_is_chosen():
    held = HeldOut(object(), object())  # type: ignore[arg-type]
    assert held.kinds(ObjectiveOptions()) == ["word"]
    assert held.kinds(ObjectiveOptions(rated=1.0)) == ["word", "rated"]
    assert held.kinds(ObjectiveOptions(word=0.0, rated=1.0, distil=0.5)) == ["distil", "rated"]
    scores = {"word": {"MAE": 1.0, "Corr": None}, "rated": {"MAE": 0.4, "Corr": 0.5}}
    assert combined_mae(scores, ObjectiveOptions(word=1.0, rated=3.0)) == pytest.approx((1.0 + 3 * 0.4) / 4)


def test_sentences_weigh_by_the_agreement_of_their_raters():
    found = agreement(np.array([0.0, 1.0, np.nan, 2.0]))
    plain = np.array([1.0, 0.5, (1.0 + 0.5 + 0.2) / 3, 0.2])
    np.testing.assert_allclose(found, plain / plain.mean())
    np.testing.assert_allclose(agreement(np.full(3, np.nan)), 1.0)


def test_the_squared_error_of_ratings_leaves_that_of_words():
    model, words = rater(), [utterance(index) for index in range(3)]
    for rows in (SENTENCES, [SENTENCES[0], *words, SENTENCES[1]]):
        batch = collate(rows)
        loss, absolute = PretrainingTask(model, ObjectiveOptions(rated=1.0, rated_error="squared"))(batch)
        output, ratings = model(**batch), batch["ratings"]
        given = ~ratings.isnan()
        weights = batch["rating_weights"][given]
        given_weights = batch.get("label_weights")
        word_weights = (
            (~batch["labels"].isnan()).float() if given_weights is None else given_weights.masked_fill(batch["labels"].isnan(), 0.0)
        )
        above = ((output.ratings - ratings)[given] ** 2 * weights).sum()
        above += ((output.logits - batch["labels"].nan_to_num()).abs() * word_weights).sum()
        assert loss.item() == pytest.approx((above / (weights.sum() + word_weights.sum())).item(), rel=1e-5)
        assert absolute.item() == pytest.approx(output.loss.item())
        loss.backward()
        assert all(parameter.grad is None or torch.isfinite(parameter.grad).all() for parameter in model.parameters())
