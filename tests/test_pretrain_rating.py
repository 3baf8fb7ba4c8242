"""Pretraining that rates whole utterances, from rated sentences or a teacher to the run's folder."""

import json
import os

import numpy as np
import pytest
import torch
from rated_texts import CSV_VARIABLE, pretrain_on_csv, rated_rows, write_rated
from safetensors.torch import load_file
from synthetic_pretraining import options_of, write_made_dataset, write_text_model
from test_pretrain_run import same_weights

from lexicons.rated import load_rated
from pretrain import training_data
from pretrain.encoder import SkeslForMaskedIntensity, load_rating_head, load_tokenizer
from pretrain.loop import Trainer
from pretrain.options import ObjectiveOptions, PretrainOptions
from pretrain.pretraining import ensure_starter, run_pretraining
from pretrain.rating import load_rater, rate_token_lists
from pretrain.report import summary
from pretrain.run import main
from skesl_mug.console import run_command
from skesl_mug.errors import UserError


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A dataset with audio and vision, a tiny text model, rated sentences."""
    folder = tmp_path_factory.mktemp("given")
    return write_made_dataset(folder / "data"), write_text_model(folder / "lm"), write_rated(folder / "rated.csv", 300)


def rated_options(given, output, **changes):
    plain = {"data": [], "rated": str(given[2]), "objective": ObjectiveOptions(word=0.0, rated=1.0), "freeze_lm": False, "lm_lr": 3e-3}
    return options_of(given[:2], output, **{**plain, "trackers": [], **changes})


@pytest.fixture(scope="module")
def teacher(given, tmp_path_factory):
    """A finished run on rated sentences alone, with its results."""
    output = tmp_path_factory.mktemp("teacher") / "run"
    return output, run_pretraining(rated_options(given, output, epochs=8))


def test_rated_sentences_alone(given, teacher):
    output, results = teacher
    assert results["learned"] == "rated"
    assert results["also_learned"] == {}
    assert results["validation"]["split_by"] == "document"
    rated = results["data"]["rated"]
    assert rated["train"] + rated["valid"] == rated["sentences"] == 300
    assert rated["source"] == "rated.csv"
    assert results["data"]["utterances"] == results["data"]["train"] == 0
    assert set(results["controls"]) == {"constant"}
    assert results["validation"]["Corr"] > 0.8
    assert "utterance" not in results["sentence"]
    card = (output / "model" / "README.md").read_text()
    assert "Pretrained to predict people's ratings of texts" in card
    assert (
        f"{rated['train']} training and {rated['valid']} validation sentences with ratings, held out by document; source: rated.csv" in card
    )
    assert " 0 utterances" not in card
    assert f"| rated sentences | {results['validation']['MAE']:.3f} |" in card
    assert str(output.parent) not in card
    shown = summary(run_pretraining(rated_options(given, output, epochs=8)), output)  # finished
    assert f"Validation on {rated['valid']} sentences held out by document" in shown
    assert "rated sentences" in shown
    assert load_rating_head(output).pool.out_features == 64


def test_ratings_that_follow_from_no_word_are_not_learned(given, teacher, tmp_path):
    rows = rated_rows(300)
    rows["score"] = np.random.default_rng(1).permutation(rows["score"])
    rows.to_csv(tmp_path / "shuffled.csv", index=False)
    results = run_pretraining(rated_options(given, tmp_path / "run", epochs=8, rated=str(tmp_path / "shuffled.csv")))
    corr = results["validation"]["Corr"]
    assert corr is None or corr < teacher[1]["validation"]["Corr"] - 0.4


def test_no_document_is_on_both_sides_and_its_scores_are_those_of_the_file(given, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr("pretrain.pretraining.announce", lambda *_: None)
    load = training_data.load_sentences

    def spy(data, *rest):
        load(data, *rest)
        seen["data"] = data

    monkeypatch.setattr(training_data, "load_sentences", spy)
    run_pretraining(rated_options(given, tmp_path / "run", epochs=1, max_steps=1))
    data, tokenizer = seen["data"], load_tokenizer(given[1])
    sides = [{tokenizer.decode(tokens, skip_special_tokens=True) for tokens in side.token_lists} for side in both_sides(data)]
    rated = load_rated(given[2])
    plain = [tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) for text in rated.texts]
    documents = [{group for group, text in zip(rated.groups, plain, strict=True) if text in side} for side in sides]
    assert documents[0].isdisjoint(documents[1])
    assert len(documents[0]) + len(documents[1]) == 100
    scores = dict(zip(plain, rated.scores.tolist(), strict=True))
    for side in both_sides(data):
        texts = [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in side.token_lists]
        assert side.labels.tolist() == pytest.approx([scores[text] for text in texts])


def both_sides(data):
    return data.train_sentences, data.held.sentences


def test_words_and_ratings_together_and_stopped_half_way(given, tmp_path, monkeypatch, capsys):
    changes = {"data": [str(given[0])], "objective": ObjectiveOptions(word=1.0, rated=1.0), "epochs": 1, "checkpoint_steps": 5}
    whole = run_pretraining(rated_options(given, tmp_path / "whole", **changes))
    assert whole["learned"] == "word"
    assert set(whole["also_learned"]) == {"rated"}
    assert whole["also_learned"]["rated"]["split_by"] == "document"
    assert set(whole["controls"]) == {"constant", "text_only", "shuffled_audio_vision"}
    (epoch,) = whole["history"]
    assert epoch["valid_MAE"] == pytest.approx((epoch["word_MAE"] + epoch["rated_MAE"]) / 2)
    shown = capsys.readouterr().out
    assert "Rated sentences: rated.csv; 60 of 300 held out by document" in shown
    assert "on 60 held out by document" in summary(whole, tmp_path / "whole")
    card = (tmp_path / "whole" / "model" / "README.md").read_text()
    assert "from text, voice and face and to predict people's ratings of texts" in card
    assert "| rated sentences |" in card
    step = Trainer.train_step

    def stop(self, batch):
        if self.progress.step == 13:
            raise KeyboardInterrupt
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", stop)
        with pytest.raises(KeyboardInterrupt):
            run_pretraining(rated_options(given, tmp_path / "run", **changes))
    torch.manual_seed(99)
    assert run_pretraining(rated_options(given, tmp_path / "run", **changes))["controls"] == whole["controls"]
    assert same_weights(tmp_path / "whole", tmp_path / "run")


def test_a_teachers_scores_beside_rated_sentences(given, teacher, tmp_path):
    objective = ObjectiveOptions(word=0.0, rated=0.5, distil=1.0)
    changes = {"data": [str(given[0])], "objective": objective, "teacher": str(teacher[0]), "epochs": 4}
    results = run_pretraining(rated_options(given, tmp_path / "run", **changes))
    assert results["learned"] == "distil"
    assert set(results["also_learned"]) == {"rated"}
    assert set(results["controls"]) == {"constant", "text_only", "shuffled_audio_vision"}
    assert "| teacher's scores |" in (tmp_path / "run" / "model" / "README.md").read_text()
    weights = load_file(tmp_path / "run" / "model" / "model.safetensors")
    heard = [value for name, value in weights.items() if "audio" in name and name.endswith("output.weight")]
    assert heard
    assert all(value.abs().sum() > 0 for value in heard)  # no longer silent
    # that run has audio and vision, and can be a teacher itself, of words too
    objective = ObjectiveOptions(word=1.0, distil=1.0)
    again = {**changes, "objective": objective, "teacher": str(tmp_path / "run"), "epochs": 1, "freeze_lm": True}
    assert set(run_pretraining(rated_options(given, tmp_path / "second", **again))["also_learned"]) == {"distil"}


def test_a_transcript_of_a_hundred_thousand_words_is_cut(given, teacher, tmp_path):
    rows = rated_rows(40)
    rows.loc[0, "text"] = "great film " * 50_000
    rows.to_csv(tmp_path / "long.csv", index=False)
    run_pretraining(rated_options(given, tmp_path / "run", rated=str(tmp_path / "long.csv"), epochs=1))
    dataset = long_dataset(tmp_path / "data")
    changes = {"data": [str(dataset)], "objective": ObjectiveOptions(word=0.0, distil=1.0), "teacher": str(teacher[0]), "epochs": 1}
    assert run_pretraining(rated_options(given, tmp_path / "taught", **changes))["learned"] == "distil"


def long_dataset(folder):
    """The synthetic dataset, its first transcript followed by 100,000 words."""
    from synthetic_pretraining import feature_info, made_utterances

    from preprocessing.schema import DatasetInfo
    from preprocessing.store import write_dataset

    utterances = list(made_utterances(count=20))
    utterances[0].text += " the film" * 50_000
    info = DatasetInfo(corpus={"name": "made", "root": "", "made": True}, audio=feature_info(33, 43.0), vision=feature_info(8, 12.0))
    write_dataset(folder, utterances, info)
    return folder


def test_ratings_of_many_texts_keep_their_order(teacher):
    model, tokenizer = load_rater(teacher[0])
    texts = ["awful dull film", "great", "the food was lovely and i think that film was great", "horrid"]
    tokens = [tokenizer(text)["input_ids"] for text in texts]
    one_by_one = [rate_token_lists(model, [row], tokenizer.pad_token_id)[0] for row in tokens]
    np.testing.assert_allclose(rate_token_lists(model, tokens, tokenizer.pad_token_id, batch_size=3), one_by_one, atol=1e-5)
    assert one_by_one[0] < 0 < one_by_one[1]


def test_without_ratings_there_is_no_head_and_no_mixture(given, tmp_path):
    results = run_pretraining(options_of(given[:2], tmp_path / "run", epochs=1, max_steps=1, trackers=[]))
    assert results["learned"] == "word"
    assert results["also_learned"] == {}
    assert "rated" not in results["data"]
    assert set(results["history"][0]) == {"epoch", "step", "train_loss", "valid_MAE", "valid_Corr", "seconds"}
    model = SkeslForMaskedIntensity.from_pretrained(tmp_path / "run" / "model")
    assert model.rating_head is None
    assert load_rating_head(tmp_path / "run") is None
    with pytest.raises(ValueError, match="not trained on ratings"):
        model.rate(input_ids=torch.tensor([[2, 3]]), attention_mask=torch.ones(1, 2))


def test_a_decoder_without_a_mask_token_learns_ratings_and_no_masked_words(given, tmp_path):
    from transformers import AutoTokenizer, LlamaConfig, LlamaModel

    decoder = tmp_path / "decoder"
    tokenizer = AutoTokenizer.from_pretrained(given[1])
    tokenizer.mask_token = None
    tokenizer.save_pretrained(decoder)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    LlamaModel(LlamaConfig(vocab_size=30, **shape)).save_pretrained(decoder)
    results = run_pretraining(rated_options(given, tmp_path / "run", lm=str(decoder), epochs=1))
    assert results["learned"] == "rated"
    with pytest.raises(UserError, match="has no mask token"):
        run_pretraining(rated_options(given, tmp_path / "words", lm=str(decoder), data=[str(given[0])], objective=ObjectiveOptions()))


def refused(capsys, *arguments):
    """The line that the command prints on stderr with status 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        run_command(PretrainOptions, main, [str(argument) for argument in arguments])
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(("Loading", "Fetching"))]
    assert left.value.code == 2
    assert len(said) == 1, said
    return said[0]


def test_bad_input_is_one_line(given, teacher, tmp_path, capsys):
    data, lm, rated = given
    common = ["--lm", lm, "--output", tmp_path / "run"]
    rates = [*common, "--objective.word", 0, "--objective.rated", 1]
    rows = rated_rows(30)
    for name, scores in (("words", ["good"] * 30), ("constant", [1.5] * 30)):
        rows.assign(score=scores).to_csv(tmp_path / f"{name}.csv", index=False)
    rows[:1].to_csv(tmp_path / "one.csv", index=False)
    for name, told in (
        ("missing", "no such file"),
        ("words", "holds words"),
        ("constant", "all its 30 scores are 1.5"),
        ("one", "at least 20 different texts"),
    ):
        said = refused(capsys, *rates, "--rated", tmp_path / f"{name}.csv")
        assert said.startswith(f"error: --rated {tmp_path / name}.csv: "), said
        assert told in said
    assert "--data: choose an utterance dataset" in refused(capsys, *common)
    assert "--objective.word 0: nothing is left to learn" in refused(capsys, *common, "--data", data, "--objective.word", 0)
    assert "--data is not used" in refused(capsys, *rates, "--data", data)
    assert "--objective.distil: needs utterances" in refused(capsys, *rates, "--objective.distil", 1)
    taught = [*common, "--data", data, "--objective.distil", 1, "--teacher"]
    unable = SkeslForMaskedIntensity.from_text_model(lm, 0, 0, attention_dim=8, num_blocks=1)
    unable.save_pretrained(tmp_path / "unable")
    assert "was not trained on ratings" in refused(capsys, *taught, tmp_path / "unable")
    assert "no such folder" in refused(capsys, *taught, tmp_path / "nowhere")
    assert "was not trained on ratings" in refused(capsys, *taught, lm)
    assert "--objective.rated -1" in refused(capsys, *rates[:-1], -1, "--rated", rated)


def test_one_of_several_processes_trains_the_starter_outside_their_job(given, tmp_path, monkeypatch, capfd):
    """The others wait for its lock and cannot take part in the starter's training."""
    monkeypatch.setattr("pretrain.pretraining._run_silently", pretrain_on_csv)
    monkeypatch.setenv(CSV_VARIABLE, str(given[2]))
    monkeypatch.setenv("SKESL_MUG_CACHE", str(tmp_path))
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0"), ("LOCAL_RANK", "0"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    folder = ensure_starter(str(given[1]))
    assert json.loads((folder / "results.json").read_text())["learned"] == "rated"
    assert os.environ["WORLD_SIZE"] == "2"
    assert capfd.readouterr().err.count("Training the starter model") == 1
