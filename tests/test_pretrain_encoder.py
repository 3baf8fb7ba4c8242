"""The SKESL encoder: against an independent transcription of the paper's equations, masks, formats, other text encoders."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_pretraining import write_text_model
from transformers import AutoModel, BertConfig, DebertaV2Config, RobertaConfig, XLMRobertaConfig

from pretrain.crossmodal import CrossModalAttention
from pretrain.encoder import SkeslConfig, SkeslForMaskedIntensity, SkeslModel, load_encoder
from pretrain.objective import mean_of_pieces, piece_states, weighted_error
from skesl_mug.errors import UserError

TEXT = {
    "model_type": "bert",
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 20,
}


def config(**options):
    settings = {"text_config": TEXT, "audio_dim": 5, "vision_dim": 7, "attention_dim": 8, "num_blocks": 3, **options}
    return SkeslConfig(**settings)


def make(seed=0, kind=SkeslModel, **options):
    torch.manual_seed(seed)
    model = kind(config(**options)).eval()
    for parameter in model.parameters():  # not the neutral start: LayerNorms and biases that matter
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def batch(seed=1, rows=3, tokens=6, audio=9, vision=4):
    generator = torch.Generator().manual_seed(seed)
    return {
        "input_ids": torch.randint(5, 50, (rows, tokens), generator=generator),
        "attention_mask": torch.ones(rows, tokens, dtype=torch.long),
        "audio": torch.randn(rows, audio, 5, generator=generator) * 3,
        "audio_mask": torch.ones(rows, audio, dtype=torch.long),
        "vision": torch.randn(rows, vision, 7, generator=generator) * 3,
        "vision_mask": torch.ones(rows, vision, dtype=torch.long),
    }


# --- an independent transcription: numpy, one row at a time, written from the paper and from the description of the authors' code


def np_norm(x, weights, name):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weights[name + ".weight"] + weights[name + ".bias"]


def np_linear(x, weights, name):
    return x @ weights[name + ".weight"].T + weights[name + ".bias"]


def np_gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def transcription(weights, text, features, blocks, heads, reference):
    """One row: text [L, D], features {m: [T, D_m]} without padding; the paper's form, or the authors' (`reference`)."""
    x = text
    for place in range(blocks):
        block = f"crossmodal.blocks.{0 if reference else place}."
        y = x if reference else np_norm(x, weights, block + "norm_residual")
        for m, low in features.items():
            name = f"{block}attention.{m}."
            q = np_linear(np_norm(x, weights, name + "norm_text"), weights, name + "query")
            k = np_linear(np_norm(low, weights, name + "norm_features"), weights, name + "key")
            v = np_linear(np_norm(low, weights, name + "norm_features"), weights, name + "value")
            width = q.shape[1] // heads
            parts = []
            for h in range(heads):
                piece = slice(h * width, (h + 1) * width)
                scores = q[:, piece] @ k[:, piece].T / math.sqrt(width)
                scores = np.exp(scores - scores.max(1, keepdims=True))
                parts.append(scores / scores.sum(1, keepdims=True) @ v[:, piece])
            y = y + np_linear(np.concatenate(parts, 1), weights, name + "output")
        inner = np_norm(y, weights, block + "norm_feed_forward")
        if reference:
            x = np_linear(inner, weights, block + "feed_forward") + y
        else:
            hidden = np_gelu(np_linear(inner, weights, block + "feed_forward.0"))
            x = np_linear(hidden, weights, block + "feed_forward.3") + y
    return x


def numpy_weights(model):
    return {name: value.double().numpy() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("modalities", [("audio", "vision"), ("audio",), ()])
def test_the_papers_form_equals_the_equations(heads, modalities):
    model = make(num_heads=heads)
    given_batch = batch()
    states = torch.randn(3, 6, 16)
    kept = {name: given_batch[name] for name in modalities}
    fused = model(text_states=states, attention_mask=given_batch["attention_mask"], **kept).last_hidden_state
    for row in range(3):
        features = {name: value[row].double().numpy() for name, value in kept.items()}
        expected = transcription(numpy_weights(model), states[row].double().numpy(), features, 3, heads, reference=False)
        np.testing.assert_allclose(fused[row].detach().numpy(), expected, atol=1e-5, rtol=1e-5)


def test_the_authors_form_equals_their_description():
    model = make(share_blocks=True, residual="raw", feed_forward="linear", mask_padding=False)
    assert len(model.crossmodal.blocks) == 1
    inputs, states = batch(), torch.randn(3, 6, 16)
    inputs["audio_mask"][:, 6:] = 0  # padding of zeros, which the authors' softmax does see
    inputs["audio"][:, 6:] = 0
    fused = model(text_states=states, **{k: v for k, v in inputs.items() if k != "input_ids"}).last_hidden_state
    for row in range(3):
        features = {name: inputs[name][row].double().numpy() for name in ("audio", "vision")}
        expected = transcription(numpy_weights(model), states[row].double().numpy(), features, 3, 1, reference=True)
        np.testing.assert_allclose(fused[row].detach().numpy(), expected, atol=1e-5, rtol=1e-5)


def test_the_forms_differ():
    states, inputs = torch.randn(3, 6, 16), batch()
    inputs.pop("input_ids")
    outputs = [
        make(**options)(text_states=states, **inputs).last_hidden_state
        for options in ({}, {"residual": "raw"}, {"feed_forward": "linear"}, {"share_blocks": True})
    ]
    assert all(not torch.allclose(outputs[0], other, atol=1e-3) for other in outputs[1:])


@pytest.mark.parametrize("options", [{"num_heads": 2}, {"share_blocks": True, "mask_padding": False}])
def test_attention_without_keys_and_values_is_the_same_attention(options, monkeypatch):
    outcomes = []
    for pays in (True, False):
        monkeypatch.setattr(CrossModalAttention, "folding_pays", lambda *_, answer=pays: answer)
        model, inputs = make(**options), batch()
        inputs["audio_mask"][1] = 0
        inputs["vision_mask"][2, 2:] = 0
        states = model(**inputs).last_hidden_state
        (states**2).sum().backward()
        outcomes.append([states, *(parameter.grad for parameter in model.crossmodal.parameters())])
    for one, other in zip(*outcomes, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-4)


def test_folding_is_chosen_where_it_multiplies_less():
    model = SkeslModel(config(audio_dim=33, vision_dim=709, attention_dim=256))
    attention = model.crossmodal.blocks[0].attention
    assert attention["vision"].folding_pays(tokens=1, frames=48, uses=4)
    assert attention["audio"].folding_pays(tokens=30, frames=400, uses=4)
    assert not attention["vision"].folding_pays(tokens=30, frames=48, uses=4)


# --- masks


@settings(max_examples=15, deadline=None)
@given(extra=st.integers(1, 5), garbage=st.sampled_from([0.0, 1e4, float("nan"), float("inf")]), seed=st.integers(0, 99))
def test_what_stands_behind_the_masks_changes_nothing(extra, garbage, seed):
    model, inputs = make(), batch(seed)
    plain = model(**inputs).last_hidden_state
    padded = dict(inputs)
    padded["input_ids"] = torch.cat([inputs["input_ids"], torch.full((3, extra), 7)], 1)
    padded["attention_mask"] = torch.cat([inputs["attention_mask"], torch.zeros(3, extra, dtype=torch.long)], 1)
    for name in ("audio", "vision"):
        padded[name] = torch.cat([inputs[name], torch.full((3, extra, inputs[name].shape[2]), garbage)], 1)
        padded[name + "_mask"] = torch.cat([inputs[name + "_mask"], torch.zeros(3, extra, dtype=torch.long)], 1)
    torch.testing.assert_close(model(**padded).last_hidden_state[:, :6], plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mask_padding", [True, False])
def test_a_row_without_a_modality_equals_that_row_without_the_input(mask_padding):
    model, inputs = make(mask_padding=mask_padding), batch()
    inputs["audio_mask"][1] = 0
    inputs["audio"][1] = float("nan")
    alone = {name: value[1:2] for name, value in inputs.items() if not name.startswith("audio")}
    torch.testing.assert_close(model(**inputs).last_hidden_state[1:2], model(**alone).last_hidden_state, atol=1e-6, rtol=1e-6)


def test_gradients_of_a_batch_with_absent_rows_are_finite():
    model, inputs = make(), batch()
    inputs["audio_mask"][1] = 0
    inputs["audio"][1] = float("nan")
    inputs["vision_mask"][:] = 0
    model.train()
    model(**inputs).last_hidden_state.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_an_encoder_without_audio_and_vision_has_no_such_weights():
    model = make(audio_dim=0, vision_dim=0)
    assert not [name for name, _ in model.named_parameters() if "audio" in name or "vision" in name]
    inputs = batch()
    model(inputs["input_ids"], inputs["attention_mask"])
    with pytest.raises(ValueError, match="audio features of width 5"):
        model(inputs["input_ids"], audio=inputs["audio"])


def test_statistics_normalise_and_clip_and_are_saved(tmp_path):
    model, inputs = make(), batch()
    before = model(**inputs).last_hidden_state
    mean, std = torch.arange(5.0), torch.tensor([1.0, 2.0, 3.0, 4.0, 0.0])
    model.set_feature_statistics(audio=(mean, std))
    after = model(**inputs).last_hidden_state
    assert not torch.allclose(before, after)
    by_hand = ((inputs["audio"] - mean) / torch.tensor([1.0, 2.0, 3.0, 4.0, 1.0])).clamp(-10, 10)
    fresh = make()
    torch.testing.assert_close(fresh(**{**inputs, "audio": by_hand}).last_hidden_state, after, atol=1e-5, rtol=1e-5)
    model.save_pretrained(tmp_path)
    again = SkeslModel.from_pretrained(tmp_path)
    assert torch.equal(again.crossmodal.norms["audio"].mean, mean)
    assert torch.isinf(again.crossmodal.norms["vision"].limit).all()
    with pytest.raises(ValueError, match="width of 7"):
        model.set_feature_statistics(vision=(mean, std))


# --- in and out of files


def test_round_trip_is_bit_identical_and_finds_the_classes(tmp_path):
    model = make(kind=SkeslForMaskedIntensity)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    again = SkeslForMaskedIntensity.from_pretrained(tmp_path)
    inner = AutoModel.from_pretrained(tmp_path)
    assert isinstance(inner, SkeslModel)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    for name, value in model.skesl.state_dict().items():
        assert torch.equal(value, inner.state_dict()[name]), name
    torch.testing.assert_close(
        again.eval()(**batch(), mask_positions=torch.ones(3, 1, 1, dtype=torch.long)).logits,
        model(**batch(), mask_positions=torch.ones(3, 1, 1, dtype=torch.long)).logits,
    )


@pytest.mark.parametrize(
    "text_config",
    [
        BertConfig(**{k: v for k, v in TEXT.items() if k != "model_type"}),
        RobertaConfig(**{k: v for k, v in TEXT.items() if k != "model_type"}),
        XLMRobertaConfig(**{k: v for k, v in TEXT.items() if k != "model_type"}),
        DebertaV2Config(**{k: v for k, v in TEXT.items() if k != "model_type"}, relative_attention=True, pos_att_type=["p2c", "c2p"]),
    ],
    ids=lambda value: value.model_type,
)
def test_other_text_encoders(text_config, tmp_path):
    torch.manual_seed(3)
    AutoModel.from_config(text_config).save_pretrained(tmp_path / "lm")
    text_model = AutoModel.from_pretrained(tmp_path / "lm").eval()
    model = SkeslForMaskedIntensity.from_text_model(tmp_path / "lm", 5, 7, attention_dim=8, num_blocks=1)
    assert all(value.isfinite().all() or name.endswith("limit") for name, value in model.state_dict().items())
    assert str(tmp_path) not in model.config.to_json_string()
    inputs = batch()
    inputs["attention_mask"][0, 4:] = 0
    expected = text_model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
    assert torch.equal(model.skesl.text_states(inputs["input_ids"], inputs["attention_mask"]), expected)
    fused = model.skesl(**inputs).last_hidden_state
    skipped = model.skesl(**{**inputs, "input_ids": None}, text_states=expected).last_hidden_state
    assert torch.equal(fused, skipped)
    model.save_pretrained(tmp_path / "skesl")
    again = SkeslModel.from_pretrained(tmp_path / "skesl").eval()
    torch.testing.assert_close(again(**inputs).last_hidden_state, fused)
    # every parameter is used: distributed training stops at one that is not
    model.train()
    model(**inputs, mask_positions=torch.ones(3, 1, 1, dtype=torch.long), labels=torch.ones(3, 1)).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_other_widths_keep_every_weight_that_fits(tmp_path):
    model = make(kind=SkeslForMaskedIntensity)
    model.skesl.set_feature_statistics(audio=(torch.ones(5), torch.ones(5)), vision=(torch.ones(7), torch.ones(7)))
    model.save_pretrained(tmp_path / "model")
    torch.manual_seed(0)
    other, notes = load_encoder(tmp_path, 9, 7)
    assert len(notes) == 1
    assert "pretrained with 5 columns, the data has 9" in notes[0]
    old, new = model.skesl.state_dict(), other.state_dict()
    changed = {name for name in new if name not in old or old[name].shape != new[name].shape or not torch.equal(old[name], new[name])}
    assert all(
        "audio" in name and any(part in name for part in (".key.weight", ".value.weight", "norm_features", "norms.")) for name in changed
    )
    assert torch.isinf(other.crossmodal.norms["audio"].limit).all()
    assert all(value.isfinite().all() or name.endswith("limit") for name, value in new.items())
    inputs = batch()
    other(**{**inputs, "audio": torch.randn(3, 9, 9)})
    without, notes = load_encoder(tmp_path, 5, 0)
    assert "absent from the data" in notes[0]
    same, notes = load_encoder(tmp_path, 5, 7)
    assert notes == []
    torch.testing.assert_close(
        without(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state,
        same(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state,
    )


def test_faults_of_names_and_folders(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / "config.json").write_text("{}")
    BertConfig(**{k: v for k, v in TEXT.items() if k != "model_type"}).save_pretrained(tmp_path / "no_weights")
    for name, words in (
        ("empty", "is not a language model"),
        ("nothing", "cannot be read"),
        ("no_weights", "cannot be read"),
        ("absent/far/away", "no such folder"),
    ):
        with pytest.raises(UserError, match=words):
            SkeslModel.from_text_model(tmp_path / name, 5, 7)
    with pytest.raises(UserError, match="on the Hugging Face hub"):
        SkeslModel.from_text_model("no-such-owner/no-such-model", 5, 7)
    with pytest.raises(UserError, match="not a SKESL encoder"):
        load_encoder(tmp_path / "no_weights", 5, 7)
    with pytest.raises(UserError, match="residual"):
        config(residual="none")


# --- the objective


def test_the_head_reads_the_mean_of_the_pieces_and_the_loss_ignores_padding():
    states = torch.arange(2 * 4 * 3, dtype=torch.float32).reshape(2, 4, 3)
    positions = torch.tensor([[[1, 2], [3, -1]], [[0, -1], [-1, -1]]])
    pooled = mean_of_pieces(piece_states(states, positions), positions)
    assert torch.equal(pooled[0, 0], (states[0, 1] + states[0, 2]) / 2)
    assert torch.equal(pooled[0, 1], states[0, 3])
    assert torch.equal(pooled[1, 1], torch.zeros(3))
    labels = torch.tensor([[1.0, -2.0], [0.5, float("nan")]])
    predictions = torch.tensor([[0.0, 0.0], [0.0, 99.0]], requires_grad=True)
    loss = weighted_error([(predictions, labels, None)])
    assert loss.item() == pytest.approx((1 + 2 + 0.5) / 3)
    loss.backward()
    assert predictions.grad[1, 1] == 0
    assert weighted_error([(predictions, torch.full((2, 2), float("nan")), None)]).item() == 0


def test_the_blocks_may_skip_the_words_that_nobody_asks_about():
    model, inputs = make(kind=SkeslForMaskedIntensity), batch()
    positions = torch.tensor([[[1, 2], [4, -1]], [[3, -1], [-1, -1]], [[0, 5], [2, -1]]])
    whole = model.skesl(**inputs).last_hidden_state
    expected = model.head(mean_of_pieces(piece_states(whole, positions), positions))
    expected[1, 1] = 0
    torch.testing.assert_close(model(**inputs, mask_positions=positions).logits, expected, atol=1e-6, rtol=1e-5)


def test_the_model_learns_one_batch():
    model = make(kind=SkeslForMaskedIntensity, dropout=0.0).train()
    inputs = batch()
    inputs |= {"mask_positions": torch.tensor([[[1, 2]], [[3, -1]], [[2, -1]]]), "labels": torch.tensor([[2.0], [-1.0], [0.5]])}
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    first = model(**inputs).loss.item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 * first


def test_weights_that_are_cut_are_one_line(tmp_path):
    folder = write_text_model(tmp_path / "lm")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="its language model cannot be read"):
        SkeslModel.from_text_model(folder, 3, 2, attention_dim=8, num_blocks=1)
