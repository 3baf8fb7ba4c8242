"""The layer of the language model: the last one by default, one by number, or a learned sum of all."""

import json

import numpy as np
import pytest
import torch
from synthetic_corpus import SMALL, write_pickle
from synthetic_pretraining import options_of, write_made_dataset
from synthetic_text_models import FAMILIES, write_family
from transformers import AutoModel

from finetune.model.networks import MugModel
from finetune.options import MugOptions
from finetune.run_mug import main
from pretrain.encoder import SkeslConfig, SkeslForMaskedIntensity, SkeslModel, load_encoder
from pretrain.options import PretrainOptions, parse_layer
from pretrain.pretraining import run_pretraining
from pretrain.text_states import LayerMix, cache_key
from skesl_mug.console import parse_options
from skesl_mug.errors import UserError

IDS = torch.tensor([[0, 30, 40, 50, 2], [0, 31, 2, 1, 1]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    return {family: write_family(folder / family, family) for family in FAMILIES}


def make(folder, kind=SkeslModel, **options):
    torch.manual_seed(1)
    return kind.from_text_model(folder, 5, 7, attention_dim=8, num_blocks=1, **options)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_by_number_and_the_default(family, folders):
    plain = AutoModel.from_pretrained(folders[family]).eval()
    expected = plain(input_ids=IDS, attention_mask=MASK, output_hidden_states=True)
    assert torch.equal(make(folders[family]).text_states(IDS, MASK), expected.last_hidden_state)
    for layer in range(-4, 4):
        model = make(folders[family], text_layer=layer)
        assert torch.equal(model.text_states(IDS, MASK), expected.hidden_states[layer])
    assert torch.equal(make(folders[family], text_layer="3").text_states(IDS, MASK), expected.last_hidden_state)
    mixed = make(folders[family], text_layer="weighted")
    torch.testing.assert_close(mixed.text_states(IDS, MASK), torch.stack(expected.hidden_states).mean(0))
    shares = torch.tensor([0.1, 0.2, 0.3, 0.4])
    mixed.text_mix.scores.data = shares.log()
    by_hand = torch.einsum("n,nbld->bld", shares, torch.stack(expected.hidden_states))
    torch.testing.assert_close(mixed.text_states(IDS, MASK), by_hand)


def test_the_default_keeps_no_hidden_states(folders, monkeypatch):
    model, asked = make(folders["bert"]), []
    forward = model.text_model.forward
    monkeypatch.setattr(model.text_model, "forward", lambda **given: asked.append(given) or forward(**given))
    model.text_states(IDS, MASK)
    assert set(asked[0]) == {"input_ids", "attention_mask"}
    assert model.text_mix is None
    assert not [name for name in model.state_dict() if "mix" in name]


@pytest.mark.parametrize("layer", ["last", 1, -2, "weighted"])
def test_files_hold_the_choice_and_the_weights(layer, folders, tmp_path):
    model = make(folders["mpnet"], SkeslForMaskedIntensity, text_layer=layer)
    if layer == "weighted":
        model.skesl.text_mix.scores.data = torch.tensor([1.0, -1.0, 0.5, 2.0])
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["text_layer"] == layer
    expected = model.skesl.text_states(IDS, MASK)
    again = SkeslForMaskedIntensity.from_pretrained(tmp_path).eval()
    assert torch.equal(again.skesl.text_states(IDS, MASK), expected)
    inner, _ = load_encoder(tmp_path, 5, 7)
    assert torch.equal(inner.eval().text_states(IDS, MASK), expected)


def test_configs_from_before_read_the_last_layer(folders, tmp_path):
    model = make(folders["bert"])
    model.save_pretrained(tmp_path)
    entries = json.loads((tmp_path / "config.json").read_text())
    del entries["text_layer"]
    (tmp_path / "config.json").write_text(json.dumps(entries))
    again, _ = load_encoder(tmp_path, 5, 7)
    assert again.config.text_layer == "last"
    assert torch.equal(again.eval().text_states(IDS, MASK), model.text_states(IDS, MASK))


def test_the_cache_is_made_again_for_another_layer(folders):
    models = [make(folders["bert"], text_layer=layer) for layer in ("last", 1, 2, "weighted")]
    keys = {cache_key(model, [[1, 2]]) for model in models}
    models[-1].text_mix.scores.data[0] = 1.0
    assert len(keys | {cache_key(models[-1], [[1, 2]])}) == 5


def test_the_weights_learn():
    mix = LayerMix(2)
    states = tuple(torch.randn(2, 3, 4) for _ in range(3))
    optimizer = torch.optim.Adam(mix.parameters(), 0.1)
    for _ in range(200):
        optimizer.zero_grad()
        ((mix(states) - states[1]) ** 2).mean().backward()
        optimizer.step()
    assert mix.shares()[1] > 0.95
    assert mix.shares().sum().item() == pytest.approx(1.0)


def test_values_that_are_not_a_layer(folders):
    assert [parse_layer(text) for text in ("last", "weighted", "-2", "0", 7)] == ["last", "weighted", -2, 0, 7]
    with pytest.raises(UserError, match="--lm-layer top: choose last, weighted or an integer"):
        parse_layer("top")
    for layer in (4, -5):
        with pytest.raises(UserError, match=rf"--lm-layer {layer}: the language model has 3 layers; choose 0 .* to 3, or -1 to -4"):
            make(folders["bert"], text_layer=layer)
    with pytest.raises(UserError, match="2 layers"):
        SkeslConfig(text_config={"model_type": "bert", "num_hidden_layers": 2}, text_layer=3)


# --- the commands


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return write_made_dataset(folder / "unlabelled", count=30), write_pickle(folder / "sims.pkl", {"train": 24, "valid": 8, "test": 12})


def given(data, output, *flags):
    plain = ["--dataset", "sims", "--data", data[1], "--output", output, "--seeds", 1, "--compare-labels", "copy", *SMALL]
    return [str(flag) for flag in (*plain, "--training.align-epochs", 1, "--training.joint-epochs", 1, *flags)]


def test_flags_that_do_not_go_together(data, folders, tmp_path):
    plain = {"data": ["d"], "output": tmp_path}
    with pytest.raises(UserError, match="--lm-layer top"):
        PretrainOptions(**plain, lm_layer="top")
    for flags, words in (
        (("--encoder", "run", "--lm-layer", "1"), "--lm-layer 1: only applies to --lm"),
        (("--lm", "bert", "--lm-layer", "weighted", "--freeze-lm"), "omit --freeze-lm"),
        (("--lm", "bert", "--lm-layer", "top"), "choose last, weighted or an integer"),
    ):
        with pytest.raises(UserError, match=words):
            parse_options(MugOptions, given(data, tmp_path, *flags))
    assert parse_options(MugOptions, given(data, tmp_path, "--lm", "bert", "--lm-layer", "-2")).lm_layer == "-2"
    config = tmp_path / "options.yaml"
    config.write_text("lm_layer: -2\nlm: bert\n")
    assert parse_options(MugOptions, given(data, tmp_path, "--config", config)).lm_layer == "-2"


def test_a_layer_past_the_end_is_reported_before_the_work(data, folders, tmp_path):
    options = options_of((data[0], folders["bert"]), tmp_path / "run", lm_layer="9", epochs=1)
    with pytest.raises(UserError, match="has 3 layers"):
        run_pretraining(options)
    assert not (tmp_path / "run" / "masked_texts").exists()
    flags = ("--lm", folders["bert"], "--freeze-lm", "--controls", "constant", "--lm-layer")
    with pytest.raises(UserError, match="has 3 layers"):
        main(parse_options(MugOptions, given(data, tmp_path / "tuned", *flags, "9")))
    main(parse_options(MugOptions, given(data, tmp_path / "tuned", *flags, "1", "--overwrite")))
    assert MugModel.from_pretrained(tmp_path / "tuned" / "model").encoder.config.text_layer == 1


def test_a_run_with_learned_weights_and_what_follows_it(data, folders, tmp_path):
    options = options_of((data[0], folders["bert"]), tmp_path / "run", lm_layer="weighted", freeze_lm=False, epochs=2, lr=3e-2)
    results = run_pretraining(options)
    shares = results["lm_layer_weights"]
    assert len(shares) == 4
    assert sum(shares) == pytest.approx(1.0, abs=1e-5)
    assert np.ptp(shares) > 1e-4
    assert json.loads((tmp_path / "run" / "results.json").read_text())["lm_layer_weights"] == shares
    for freeze in ([], ["--freeze-lm"]):  # frozen: the learned weights stay as they are
        output = tmp_path / f"tuned{len(freeze)}"
        main(parse_options(MugOptions, given(data, output, "--encoder", tmp_path / "run", "--controls", "no-pretraining", *freeze)))
        mix = MugModel.from_pretrained(output / "model").encoder.text_mix
        assert np.allclose(mix.shares().tolist(), shares, atol=1e-6) == bool(freeze)


def test_weights_over_a_frozen_language_model_are_learned_without_the_cache(data, folders, tmp_path):
    results = run_pretraining(options_of((data[0], folders["bert"]), tmp_path / "run", lm_layer="weighted", epochs=2, lr=3e-2))
    assert np.ptp(results["lm_layer_weights"]) > 1e-4
    assert "text_states" not in results["seconds"]
    model, plain = SkeslModel.from_pretrained(tmp_path / "run" / "model"), AutoModel.from_pretrained(folders["bert"])
    kept = model.text_model.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in plain.state_dict().items() if name in kept)


def test_fine_tuning_learns_weights_of_its_own(data, folders, tmp_path):
    flags = ("--lm", folders["mpnet"], "--lm-layer", "weighted", "--controls", "constant")
    main(parse_options(MugOptions, given(data, tmp_path / "tuned", *flags)))
    shares = MugModel.from_pretrained(tmp_path / "tuned" / "model").encoder.text_mix.shares()
    assert (shares - 0.25).abs().max() > 1e-5


def test_a_plain_run_says_nothing_of_layers(data, folders, tmp_path):
    results = run_pretraining(options_of((data[0], folders["bert"]), tmp_path / "run", lm_layer="2", epochs=1))
    assert "lm_layer_weights" not in results
    assert SkeslForMaskedIntensity.from_pretrained(tmp_path / "run" / "model").config.text_layer == 2
