"""Every kind of language model that `AutoModel` supports: in and out of files, caches, padding, long texts, whole runs."""

import json
from dataclasses import replace

import pytest
import torch
from synthetic_corpus import SMALL, write_pickle
from synthetic_pretraining import SENTIMENT, WORDS, options_of, write_made_dataset
from synthetic_text_models import BEHIND_PADDING, DECODERS, FAMILIES, MASKED, POSITIONS, TEXTS, write_family
from transformers import MPNetModel

from finetune.model.networks import MugModel
from finetune.options import MugOptions
from finetune.run_mug import main
from pretrain.batches import pad_tokens
from pretrain.encoder import SkeslForMaskedIntensity, SkeslModel, load_encoder, load_tokenizer
from pretrain.optimisation import layer_of
from pretrain.options import ObjectiveOptions
from pretrain.pretraining import run_pretraining
from pretrain.text_states import TextStateCache, recompute_layers
from pretrain.tokens import token_limit, tokenise, tokenise_masked
from skesl_mug.console import parse_options
from skesl_mug.errors import UserError


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    return {family: write_family(folder / family, family) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def make(folder, kind=SkeslForMaskedIntensity, **options):
    torch.manual_seed(1)
    return kind.from_text_model(folder, 5, 7, attention_dim=8, num_blocks=1, **options)


def batch(folder):
    ids, mask = pad_tokens(tokenise(TEXTS[1:], load_tokenizer(folder)), load_tokenizer(folder).pad_token_id)
    torch.manual_seed(2)
    return {"input_ids": ids, "attention_mask": mask, "audio": torch.randn(2, 6, 5), "vision": torch.randn(2, 4, 7)}


def asked(folder):
    return {**batch(folder), "mask_positions": torch.tensor([[[1, 2]], [[3, -1]]]), "labels": torch.tensor([[1.0], [-2.0]])}


def test_every_weight_learns_and_files_hold_the_whole_model(family, folders, tmp_path):
    model = make(folders[family])
    inputs = asked(folders[family])
    expected = model(**inputs)
    assert torch.isfinite(expected.logits).all()
    model.train()
    model(**inputs).loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    model.eval()
    model.save_pretrained(tmp_path / "model")
    again = SkeslForMaskedIntensity.from_pretrained(tmp_path / "model").eval()
    torch.testing.assert_close(again(**inputs).logits, expected.logits, atol=1e-6, rtol=1e-6)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    inner, notes = load_encoder(tmp_path / "model", 5, 7)
    assert notes == []
    states = {name: value for name, value in inputs.items() if name not in ("mask_positions", "labels")}
    assert torch.equal(inner.eval()(**states).last_hidden_state, again.skesl(**states).last_hidden_state)


def test_padding_changes_no_state(family, folders):
    model, pad = make(folders[family], SkeslModel), load_tokenizer(folders[family]).pad_token_id
    rows = tokenise(TEXTS, load_tokenizer(folders[family]))
    assert len({len(row) for row in rows}) > 1
    ids, mask = pad_tokens(rows, pad)
    together = model.text_states(ids, mask)
    for place, row in enumerate(rows):
        alone = model.text_states(torch.tensor([row]), torch.ones(1, len(row), dtype=torch.long))
        torch.testing.assert_close(together[place, : len(row)], alone[0], atol=1e-5, rtol=1e-5)


def test_the_cache_holds_the_states(family, folders, tmp_path):
    model = make(folders[family], SkeslModel)
    rows = tokenise(TEXTS, load_tokenizer(folders[family]))
    cache = TextStateCache.build(model, rows, tmp_path, batch_size=2, progress=False)
    for place, row in enumerate(rows):
        torch.testing.assert_close(cache[place], model.text_states(torch.tensor([row]))[0], atol=2e-3, rtol=2e-3)


def test_recomputed_layers_give_the_same_gradients(family, folders):
    inputs, gradients = asked(folders[family]), []
    for recompute in (False, True):
        model = make(folders[family], dropout=0.0)
        if recompute:
            if not model.skesl.text_model.supports_gradient_checkpointing:  # MPNet
                with pytest.raises(UserError, match="--gradient-checkpointing: not supported for"):
                    recompute_layers(model.skesl.text_model)
                return
            recompute_layers(model.skesl.text_model)
        model.train()
        torch.manual_seed(3)
        model(**inputs).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_a_text_beyond_all_positions_is_cut(family, folders):
    tokenizer = load_tokenizer(folders[family])
    stored = json.loads((folders[family] / "tokenizer_config.json").read_text())
    assert stored["model_max_length"] > 1_000_000
    assert token_limit(tokenizer, None) == POSITIONS
    assert token_limit(tokenizer, 8) == 8
    (row,) = tokenise([" ".join(TEXTS * 5_000)], tokenizer)
    assert len(row) == POSITIONS
    model = make(folders[family], SkeslModel)
    model.text_states(torch.tensor([row]))
    if family in (*BEHIND_PADDING, "bert", "gpt2"):  # a table of positions: the limit is the last that works
        with pytest.raises((IndexError, RuntimeError)):
            model.text_states(torch.tensor([[*row, row[-1]]]))


def test_a_run_keeps_the_limit(folders, tmp_path):
    make(folders["mpnet"]).save_pretrained(tmp_path)
    load_tokenizer(folders["mpnet"]).save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**stored, "model_max_length": 10**30}))
    assert token_limit(load_tokenizer(tmp_path), None) == POSITIONS


@pytest.mark.parametrize("family", MASKED)
def test_words_are_found_by_their_characters(family, folders):
    tokenizer, text = load_tokenizer(folders[family]), TEXTS[1]
    start = text.index("great")
    (found,) = tokenise_masked([text], [[(start, start + 5)]], tokenizer)
    plain = tokenise([text], tokenizer)[0]
    places = list(found.positions[0])
    assert [found.token_ids[place] for place in places] == [tokenizer.mask_token_id] * len(places)
    assert "".join(tokenizer.convert_ids_to_tokens([plain[place] for place in places])).strip("Ġ▁#").replace("##", "") == "great"
    assert [a for place, a in enumerate(found.token_ids) if place not in places] == [
        a for place, a in enumerate(plain) if place not in places
    ]


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_pads_with_its_end_and_gives_empty_texts_a_state(family, folders, tmp_path):
    before = (folders[family] / "tokenizer_config.json").read_text()
    tokenizer = load_tokenizer(folders[family])
    assert tokenizer.pad_token == tokenizer.eos_token
    assert (folders[family] / "tokenizer_config.json").read_text() == before
    rows = tokenise(["", TEXTS[1]], tokenizer)
    assert len(rows[0]) == 1
    model = make(folders[family], SkeslModel)
    assert not model.config.text_config.use_cache
    assert torch.isfinite(TextStateCache.build(model, rows, tmp_path, progress=False)[0]).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_are_distinguished_from_embeddings(family, folders):
    names = [name for name, _ in make(folders[family], SkeslModel).text_model.named_parameters()]
    heights = {name: layer_of(f"model.skesl.text_model.{name}", 3) for name in names}
    assert set(heights.values()) >= {0, 1, 2, 3}
    table = next(name for name in heights if any(part in name for part in ("word_embeddings", "tok_embeddings", "embed_tokens", "wte")))
    assert heights[table] == 0


# --- whole runs


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return write_made_dataset(folder / "unlabelled", count=30), write_pickle(folder / "sims.pkl", {"train": 24, "valid": 8, "test": 12})


def finetune(*flags):
    options = parse_options(MugOptions, [str(flag) for flag in flags])
    main(options)
    return json.loads((options.output / "results.json").read_text())


def short(data, output, *flags):
    given = ["--dataset", "sims", "--data", data[1], "--output", output, "--seeds", 1, "--compare-labels", "copy", "--controls", "constant"]
    return [*given, *SMALL, "--training.align-epochs", 1, "--training.joint-epochs", 1, *flags]


@pytest.mark.parametrize("family", ["mpnet", "modernbert"])
@pytest.mark.parametrize("freeze", [True, False])
def test_pretraining_and_fine_tuning(family, freeze, folders, data, tmp_path):
    made = (data[0], folders[family])
    results = run_pretraining(options_of(made, tmp_path / "run", epochs=1, freeze_lm=freeze))
    assert results["validation"]["MAE"] > 0
    tuned = finetune(*short(data, tmp_path / "tuned", "--encoder", tmp_path / "run", *(["--freeze-lm"] if freeze else [])))
    assert tuned["metrics"]["mean"]["MAE"] > 0


@pytest.mark.parametrize("family", ["mpnet", "llama", "gpt2"])
@pytest.mark.parametrize("freeze", [True, False])
def test_fine_tuning(family, freeze, folders, data, tmp_path):
    tuned = finetune(*short(data, tmp_path / "tuned", "--lm", folders[family], *(["--freeze-lm"] if freeze else [])))
    assert tuned["metrics"]["mean"]["MAE"] > 0
    model = MugModel.from_pretrained(tmp_path / "tuned" / "model").eval()
    rows = tokenise(TEXTS[1:2], load_tokenizer(tmp_path / "tuned" / "model"))
    if freeze:  # the language model came back whole, also what no file holds (rotary frequencies)
        states = make(folders[family], SkeslModel).text_states(torch.tensor(rows))
        torch.testing.assert_close(model.encoder.text_states(torch.tensor(rows)), states, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("freeze", [True, False])
def test_a_decoder_learns_from_rated_sentences(freeze, folders, data, tmp_path):
    rated = tmp_path / "rated.csv"
    lines = [f"the {noun} was really {word},{score}" for noun in WORDS[2:6] for word, score in zip(SENTIMENT, (3, -3) * 4, strict=True)]
    rated.write_text("\n".join(["text,score", *lines]))
    objective = ObjectiveOptions(word=0.0, rated=1.0)
    plain = options_of((data[0], folders["llama"]), tmp_path / "run", freeze_lm=freeze, epochs=1)
    assert run_pretraining(replace(plain, data=[], rated=str(rated), objective=objective))["validation"]["MAE"] > 0
    tuned = finetune(*short(data, tmp_path / "tuned", "--encoder", tmp_path / "run", *(["--freeze-lm"] if freeze else [])))
    assert tuned["metrics"]["mean"]["MAE"] > 0


def test_pretraining_refuses_a_decoder(folders, data, tmp_path):
    with pytest.raises(UserError, match="has no mask token"):
        run_pretraining(options_of((data[0], folders["llama"]), tmp_path / "run"))


def test_pretraining_refuses_to_recompute_what_cannot_be(folders, data, tmp_path, monkeypatch):
    monkeypatch.setattr(MPNetModel, "supports_gradient_checkpointing", False)
    with pytest.raises(UserError, match="--gradient-checkpointing"):
        run_pretraining(options_of((data[0], folders["mpnet"]), tmp_path / "run", freeze_lm=False, gradient_checkpointing=True))
