"""The fine-tuned model: padding and absent modalities change nothing, the encoder's weights survive, saving is exact."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from synthetic_pretraining import write_text_model

from finetune.modalities import AUDIO, FUSED, TEXT, VISION
from finetune.model.encoders import EncoderSource
from finetune.model.networks import MugConfig, MugInputs, MugModel
from finetune.model.unimodal import masked_mean
from finetune.options import TrainingOptions
from finetune.training.stages import trained_parameters
from pretrain.encoder import SkeslModel


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_model(tmp_path_factory.mktemp("lm"))


def new_model(text_model: Path, frames: str = "lstm", fusion: str = "joint", pooling: str = "mean") -> MugModel:
    torch.manual_seed(0)
    encoder = SkeslModel.from_text_model(text_model, audio_dim=5, vision_dim=4, attention_dim=8, num_blocks=2)
    model = MugModel.around(encoder, MugConfig(audio_dim=5, vision_dim=4, dim=6, frames=frames, fusion=fusion, pooling=pooling))
    model.set_feature_statistics({AUDIO: (torch.ones(5), torch.full((5,), 2.0)), VISION: (torch.zeros(4), torch.ones(4))})
    return model.eval()


def new_inputs(rows: int = 3, seed: int = 0) -> MugInputs:
    random = torch.Generator().manual_seed(seed)
    here = torch.ones(rows, dtype=torch.bool)
    return MugInputs(
        input_ids=torch.randint(5, 20, (rows, 7), generator=random),
        attention_mask=torch.ones(rows, 7, dtype=torch.long),
        text_states=None,
        audio=torch.randn(rows, 9, 5, generator=random),
        audio_mask=torch.ones(rows, 9, dtype=torch.long),
        vision=torch.randn(rows, 6, 4, generator=random),
        vision_mask=torch.ones(rows, 6, dtype=torch.long),
        present={TEXT: here, AUDIO: here, VISION: here},
    )


def pad(values: torch.Tensor, mask: torch.Tensor, extra: int) -> tuple[torch.Tensor, torch.Tensor]:
    rubbish = torch.full((len(values), extra, *values.shape[2:]), 7, dtype=values.dtype)
    return torch.cat([values, rubbish], 1), torch.cat([mask, torch.zeros(len(mask), extra, dtype=mask.dtype)], 1)


@pytest.mark.parametrize("pooling", ["mean", "attention", "first"])
@pytest.mark.parametrize("frames", ["lstm", "transformer", "statistics"])
@pytest.mark.parametrize("fusion", ["joint", "encoder", "unimodal"])
def test_padding_changes_nothing(text_model: Path, frames: str, fusion: str, pooling: str) -> None:
    model, inputs = new_model(text_model, frames, fusion, pooling), new_inputs()
    ids, attention = pad(inputs.input_ids, inputs.attention_mask, 3)
    audio, audio_mask = pad(inputs.audio, inputs.audio_mask, 4)
    vision, vision_mask = pad(inputs.vision, inputs.vision_mask, 2)
    longer = MugInputs(ids, attention, None, audio, audio_mask, vision, vision_mask, inputs.present)
    with torch.no_grad():
        first, second = model(inputs), model(longer)
    for name, values in first.predictions.items():
        assert torch.allclose(values, second.predictions[name], atol=1e-5), name
    for name, values in first.projected.items():
        assert torch.allclose(values, second.projected[name], atol=1e-5), name


@pytest.mark.parametrize("frames", ["lstm", "transformer", "statistics"])
def test_an_absent_modality_differs_from_zeros(text_model: Path, frames: str) -> None:
    model, inputs = new_model(text_model, frames), new_inputs()
    nobody = torch.zeros(3, dtype=torch.bool)
    absent = replace(inputs, audio=None, audio_mask=None, present={**inputs.present, AUDIO: nobody})
    masked = replace(inputs, audio_mask=torch.zeros_like(inputs.audio_mask), present={**inputs.present, AUDIO: nobody})
    zeros = replace(inputs, audio=torch.zeros_like(inputs.audio))
    with torch.no_grad():
        without, hidden, zeroed = (model(case).predictions[FUSED] for case in (absent, masked, zeros))
    assert torch.allclose(without, hidden, atol=1e-6)
    assert not torch.allclose(without, zeroed, atol=1e-4)


def test_the_encoder_given_is_the_encoder_used(text_model: Path) -> None:
    torch.manual_seed(5)
    encoder = SkeslModel.from_text_model(text_model, audio_dim=5, vision_dim=4, attention_dim=8, num_blocks=2)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    model = MugModel.around(encoder, MugConfig(audio_dim=5, vision_dim=4, dim=6))
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_zero_init_blocks_pass_the_text_states_on(text_model: Path) -> None:
    source = EncoderSource(None, str(text_model), {"attention_dim": 8, "num_blocks": 2})
    encoder, _ = source.load(5, 4, seed=1)
    inputs = new_inputs()
    with torch.no_grad():
        states = encoder.text_states(inputs.input_ids, inputs.attention_mask)
        silent = encoder(inputs.input_ids, inputs.attention_mask).last_hidden_state
        loud = encoder(inputs.input_ids, inputs.attention_mask, inputs.audio * 5, inputs.audio_mask).last_hidden_state
    assert torch.allclose(silent, loud)
    assert torch.allclose(silent, torch.nn.functional.layer_norm(states, states.shape[-1:]), atol=1e-4)
    random, _ = replace(source, zero_init_blocks=False).load(5, 4, seed=1)
    with torch.no_grad():
        assert not torch.allclose(random(inputs.input_ids, inputs.attention_mask).last_hidden_state, silent, atol=1e-2)


def test_saving_and_loading_is_exact(text_model: Path, tmp_path: Path) -> None:
    model, inputs = new_model(text_model), new_inputs()
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    again = MugModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        for name, values in model(inputs).predictions.items():
            assert torch.equal(values, again(inputs).predictions[name]), name


def test_cached_states_equal_the_language_model(text_model: Path) -> None:
    model, inputs = new_model(text_model), new_inputs()
    with torch.no_grad():
        cached = replace(inputs, text_states=model.encoder.text_states(inputs.input_ids, inputs.attention_mask))
        assert torch.allclose(model(inputs).predictions[FUSED], model(cached).predictions[FUSED], atol=1e-6)


def test_poolings_and_frame_networks_differ(text_model: Path) -> None:
    inputs = new_inputs()
    with torch.no_grad():
        text = {pooling: new_model(text_model, pooling=pooling)(inputs).predictions[TEXT] for pooling in ("mean", "attention", "first")}
        turned = replace(inputs, audio=inputs.audio.flip(1))
        for frames, sees_order in (("lstm", True), ("transformer", True), ("statistics", False)):
            model = new_model(text_model, frames)
            first, second = (model(case).predictions[AUDIO] for case in (inputs, turned))
            assert torch.allclose(first, second, atol=1e-6) != sees_order, frames
    assert not torch.allclose(text["mean"], text["first"], atol=1e-4)
    assert not torch.allclose(text["mean"], text["attention"], atol=1e-6)


def test_a_row_without_frames_has_finite_gradients(text_model: Path) -> None:
    model, inputs = new_model(text_model, "transformer").train(), new_inputs()
    inputs.audio_mask[1] = 0
    inputs = replace(inputs, present={**inputs.present, AUDIO: torch.tensor([True, False, True])})
    sum(values.sum() for values in model(inputs).predictions.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_every_weight_has_its_rate_and_biases_and_norms_do_not_decay(text_model: Path) -> None:
    model = new_model(text_model)
    options = TrainingOptions(lr=1.0, encoder_lr=2.0, lm_lr=3.0, weight_decay=0.5)
    found = {id(p): group for group in trained_parameters(model, options, frozen=False) for p in group["params"]}
    for name, parameter in model.named_parameters():
        group = found[id(parameter)]
        assert group["lr"] == (3.0 if "text_model" in name else 2.0 if name.startswith("encoder.") else 1.0), name
        assert group["weight_decay"] == (0.0 if "bias" in name or "norm" in name.lower() else 0.5), name
    frozen = {id(p) for group in trained_parameters(model, options, frozen=True) for p in group["params"]}
    assert frozen == {id(p) for name, p in model.named_parameters() if ".text_model." not in name}


def test_masked_mean_of_nothing_is_zero() -> None:
    states = torch.randn(2, 3, 4)
    mask = torch.tensor([[1, 1, 0], [0, 0, 0]])
    assert torch.allclose(masked_mean(states, mask)[0], states[0, :2].mean(0))
    assert torch.equal(masked_mean(states, mask)[1], torch.zeros(4))
