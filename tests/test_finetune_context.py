"""`--context`: which transcripts are before an utterance, the tokens the language model reads, whole runs, and prediction."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from synthetic_corpus import SMALL, write_pickle
from synthetic_pretraining import write_text_model
from synthetic_text_models import FAMILIES, POSITIONS, write_family
from test_finetune_run import run

from finetune.corpora import load_corpus
from finetune.corpora.context import earlier_texts, numbers_in, turn_of, with_context
from finetune.corpora.splits import LabelledCorpus, Turn, joined
from finetune.model.context import token_context
from finetune.model.minibatches import prepare
from finetune.model.networks import MugConfig, MugModel
from finetune.options import MugOptions
from finetune.prediction.inputs import earlier_in
from finetune.prediction.recipe import Recipe
from finetune.prediction.sentiment_model import SentimentModel
from finetune.studies.missing_data import DroppedAtRandom, FewerRows, Without
from finetune.training.experiment import open_corpus
from preprocessing.schema import DatasetInfo, Utterance
from preprocessing.store import write_dataset
from pretrain.encoder import SkeslModel, load_tokenizer
from pretrain.tokens import tokenise
from skesl_mug.console import parse_options
from skesl_mug.errors import UserError


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_model(tmp_path_factory.mktemp("lm"))


def corpus_of(
    folder: Path, rows: list[tuple[object, str]], valid: list[tuple[object, str]] = (), labels: list[float] = ()
) -> LabelledCorpus:
    """A corpus from a pickle of (id, transcript) of train; `valid` has two rows of another video at least."""
    content = {}
    for name, part in {"train": rows, "valid": [*valid, ("other$_$1", "w1"), ("other$_$2", "w2")], "test": [("more$_$1", "x")] * 2}.items():
        values = [*labels, *np.linspace(-1, 1, len(part))][: len(part)]
        content[name] = {"id": [own for own, _ in part], "raw_text": [text for _, text in part], "regression_labels": np.array(values)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "corpus.pkl").write_bytes(pickle.dumps(content))
    return load_corpus("custom", folder / "corpus.pkl", label_range=(-1, 1), cache=folder / "cache")


def context_of(corpus: LabelledCorpus, count: int, split: str = "train") -> dict[str, tuple[str, ...]]:
    part = with_context(corpus, count).splits[split]
    return dict(zip(part.ids, part.context, strict=True))


def messages(corpus: LabelledCorpus) -> list[str]:
    return [f"{finding.where}: {finding.count} {finding.what}" for finding in corpus.findings]


def test_the_transcripts_before_an_utterance_in_order_of_the_clip_numbers(tmp_path: Path) -> None:
    rows = [("a$_$10", "ten"), ("a$_$2", "two"), ("b$_$1", "one"), ("a$_$9", "nine"), ("b$_$3", ""), ("b$_$4", "four"), ("a$_$1", "first")]
    found = context_of(corpus_of(tmp_path, rows, valid=[("a$_$11", "eleven")]), 2)
    assert found == {
        "a$_$1": (), "a$_$2": ("first",), "a$_$9": ("first", "two"), "a$_$10": ("two", "nine"),
        "b$_$1": (), "b$_$3": (), "b$_$4": ("one",),
    }  # fmt: skip
    corpus = corpus_of(tmp_path, rows, valid=[("a$_$11", "eleven")])
    assert context_of(corpus, 2, "dev")["a$_$11"] == ()  # never of another split
    assert "train/text: 4 transcripts read after up to 2 earlier ones of their video" in messages(with_context(corpus, 2))
    assert with_context(corpus, 0) is corpus
    assert "context" not in corpus.describe()
    assert with_context(corpus, 2).describe()["context"] == 2


@pytest.mark.parametrize(
    ("sample_id", "video", "place"),
    [
        ("v$_$12", "v", (12.0,)), ("v1$_$0012", "v1", (12.0,)), ("v$_$clip_7.mp4", "v", (7.0, 4.0)), ("v/0003", "v", (3.0,)),
        ("v[4]", "v", (4.0,)), ("v_5", "v", (5.0,)), ("v$_$-0.5$_$1e-05", "v", (-0.5, 1e-05)), ("v$_$2.5$_$7", "v", (2.5, 7.0)),
        ("v$_$intro", "v", None), ("sample", "", None), ("v$_$" + "9" * 400, "v", None),
    ],
)  # fmt: skip
def test_places_in_ids(sample_id: str, video: str, place: tuple[float, ...] | None) -> None:
    assert turn_of(sample_id, video) == (None if place is None else Turn(video, place))


def test_start_times_as_ids_and_numbers_behind_an_underscore(tmp_path: Path) -> None:
    timed = context_of(
        corpus_of(tmp_path / "a", [(["v", 10.5, 12.0], "late"), (["v", 2.25, 4.0], "early"), (["v", 9.0, 10.0], "middle")]), 1
    )
    assert list(timed.values()) == [("middle",), (), ("early",)]
    content = pickle.loads((tmp_path / "a" / "corpus.pkl").read_bytes())
    for name, prefix in (("train", "v"), ("valid", "w"), ("test", "x")):
        count = len(content[name]["id"])
        content[name]["id"] = [f"{prefix}{row % 2}_{count - row}" for row in range(count)]
    (tmp_path / "b.pkl").write_bytes(pickle.dumps(content))
    numbered = context_of(load_corpus("custom", tmp_path / "b.pkl", label_range=(-1, 1), cache=tmp_path / "cache"), 1)
    assert numbered == {"v0_3": ("middle",), "v1_2": (), "v0_1": ()}


WORDS = st.sampled_from(["", " ", "good", "bad", "fine film"])
TURNS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 6), WORDS), max_size=12)


@given(TURNS, TURNS, st.integers(1, 4), st.randoms(use_true_random=False))
def test_shuffled_rows_have_the_same_context_and_nothing_later_is_in_it(rows, others, count, random) -> None:
    def found(order: list[int], extra: list) -> list[tuple[str, ...]]:
        turns = [Turn(rows[row][0], (float(rows[row][1]),)) for row in order]
        rest = [(Turn(video, (float(place),)), text) for video, place, text in extra]
        return earlier_texts(turns, [rows[row][2] for row in order], count, rest)

    first = found(list(range(len(rows))), others)
    order = list(range(len(rows)))
    random.shuffle(order)
    shuffled = found(order, others[::-1])
    assert [shuffled[order.index(row)] for row in range(len(rows))] == first
    for (video, place, text), context in zip(rows, first, strict=True):
        before = sorted((p, t) for v, p, t in rows + others if v == video and p < place and t.strip())
        assert context == (tuple(t for _, t in before[-count:]) if text.strip() else ())


def test_a_shuffled_pickle_trains_on_the_same_context(tmp_path: Path) -> None:
    rows = [(f"v{place // 4}$_${place}", f"text {place}") for place in range(16)]
    shuffled = [rows[place] for place in np.random.default_rng(3).permutation(16)]
    assert context_of(corpus_of(tmp_path / "a", rows), 3) == context_of(corpus_of(tmp_path / "b", shuffled), 3)


def test_unlabelled_utterances_and_those_that_few_leaves_out_are_context(tmp_path: Path) -> None:
    rows = [("v$_$1", "ONE"), ("v$_$2", "TWO"), ("v$_$3", "THREE"), ("w$_$1", "W")]
    corpus = corpus_of(tmp_path, rows, labels=[0.5, np.nan, -0.5])
    assert context_of(corpus, 1) == {"v$_$1": (), "v$_$3": ("two",), "w$_$1": ()}  # in lower case, as the other transcripts
    parts = [corpus.splits["train"].select([row]) for row in (0, 1)]  # as a development part is carved from train
    assert joined(*parts).unlabelled == [(Turn("v", (2.0,)), "two")]
    many = [(f"v$_${place}", f"text {place}") for place in range(20)]
    corpus_of(tmp_path / "many", many)
    options = MugOptions(
        dataset="custom", data=str(tmp_path / "many" / "corpus.pkl"), lm="x", output=tmp_path / "run", few=8, context=2,
        label_range=(-1, 1), cache=tmp_path / "cache",
    )  # fmt: skip
    train = open_corpus(options).splits["train"]
    assert len(train) == 8
    for own, context in zip(train.ids, train.context, strict=True):
        place = int(own.split("$")[-1])
        assert context == tuple(f"text {earlier}" for earlier in range(max(0, place - 2), place))


def test_dataset_rows_are_in_order_of_their_start_and_channels_are_apart(tmp_path: Path) -> None:
    def row(own: str, video: str, start: float, text: str, **more: object) -> Utterance:
        return Utterance(own, video, "s", start, start + 1, "en", text, **{"split": "train", "label": 1.0, **more})

    rows = [
        row("v/1", "v", 7.5, "late"), row("v/2", "v", 0.0, "early"), row("v/3", "v", 3.0, "unlabelled", label=None),
        row("v/4", "v", 5.0, "elsewhere", split="test", label=0.5),
        row("clips/b10", "clips", 0.0, "ten"), row("clips/b9", "clips", 0.0, "nine"),
        row("call/1#left", "call", 0.0, "hello", label=-1.0), row("call/1#right", "call", 0.0, "who is it"),
        row("call/2#left", "call", 0.0, "me"),
        *(row(f"t/{place}", "t", 0.0, "x", split="test", label=float(place)) for place in range(2)),
        *(row(f"d/{place}", "d", 0.0, "x", split="valid", label=float(place)) for place in range(2)),
    ]  # fmt: skip
    write_dataset(tmp_path / "data", rows, DatasetInfo(corpus={"name": "x", "root": ""}, label_range=(-3.0, 3.0)))
    corpus = load_corpus("custom", tmp_path / "data", cache=tmp_path / "cache")
    assert context_of(corpus, 1) == {
        "v/1": ("unlabelled",), "v/2": (), "clips/b10": ("nine",), "clips/b9": (),
        "call/1#left": (), "call/1#right": (), "call/2#left": ("hello",),
    }  # fmt: skip


def test_csd_segments_are_in_order_of_their_start(tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason="the extra `csd` is not installed")
    from test_finetune_corpora_csd import SEGMENTS, VIDEOS, sdk_folder, write

    folder = sdk_folder(tmp_path / "sdk")
    assert context_of(load_corpus("mosi", folder, cache=tmp_path / "cache"), 1)[f"{VIDEOS[0]}$_$2"] == ("bad one",)
    labels = {video: (np.arange(3.0)[:, None], np.array(SEGMENTS[::-1])) for video in VIDEOS}
    write(folder / "CMU_MOSI_Opinion_Labels.csd", "Opinion Segment Labels", labels)  # the last segment first
    found = context_of(load_corpus("mosi", folder, cache=tmp_path / "cache"), 2)
    assert [found[f"{VIDEOS[0]}$_${number}"] for number in range(3)] == [("good film", "bad one"), ("good film",), ()]


def test_what_cannot_have_context_is_refused_or_counted(tmp_path: Path) -> None:
    plain = corpus_of(tmp_path / "plain", [("one", "a"), ("two", "b"), ("three", "c")])
    with pytest.raises(UserError, match=r"--context 2: .*corpus\.pkl has no utterance in train with an earlier one .* needs `id`s such as"):
        with_context(plain, 2)
    some = with_context(corpus_of(tmp_path / "some", [("v$_$1", "a"), ("v$_$2", "b"), ("v$_$end", "c"), ("x", "d")]), 1)
    assert "train/id: 2 utterances whose id has no video or no clip number: read without context" in messages(some)
    assert some.splits["train"].context == [(), ("a",), (), ()]
    twice = with_context(corpus_of(tmp_path / "twice", [("v$_$1", "a"), ("v$_$2", "c"), ("v$_$2", "b"), ("v$_$3", "d")]), 2)
    assert twice.splits["train"].context == [(), ("a",), ("a",), ("b", "c")]
    assert "train/id: 2 utterances at the same place in their video as another: neither is context of the other" in messages(twice)
    with pytest.raises(UserError, match="has no transcripts"):
        with_context(replace(twice, splits={"train": replace(twice.splits["train"], text=None)}), 2)
    with pytest.raises(UserError, match="has text vectors instead of transcripts"):
        with_context(replace(twice, text_width=300), 2)
    with pytest.raises(UserError, match="--text-bert"):
        with_context(replace(twice, splits={"train": replace(twice.splits["train"], tokens=[[1]] * 4)}), 2)
    wrong = ["--dataset", "sims", "--data", "x", "--lm", "embedded", "--output", "y", "--context"]
    for flags, message in ((["-1"], "--context -1: must be 0 or more"), (["1", "--text-bert"], "--context 1: --text-bert reads")):
        with pytest.raises(UserError, match=message):
            parse_options(MugOptions, [*wrong, *flags])


def test_the_tokens_of_an_example(lm: Path) -> None:
    tokenizer = load_tokenizer(lm)
    own = tokenise(["the film was great", "a phone", ""], tokenizer, 6)
    context = token_context([("i think", "horrid food"), ("a film",), ()], own, tokenizer, 6, 2)
    assert tokenizer.convert_ids_to_tokens(context.sequence(0, own[0])) == [
        "[CLS]", "i", "think", "[SEP]", "hor", "##rid", "food", "[SEP]", "the", "film", "was", "great", "[SEP]",
    ]  # fmt: skip
    assert context.own_places(0, own[0]) == [0, 8, 9, 10, 11, 12]
    assert tokenizer.convert_ids_to_tokens(context.sequence(1, own[1])) == ["[CLS]", "a", "film", "[SEP]", "a", "phone", "[SEP]"]
    assert context.sequence(2, own[2]) == own[2] == [2, 3]
    long = token_context([("film " * 30, "i think that")], own[:1], tokenizer, 6, 2)  # cut from the oldest end: 18 tokens
    assert tokenizer.convert_ids_to_tokens(long.rows[0]) == ["film"] * 7 + ["[SEP]", "i", "think", "that", "[SEP]"]
    assert token_context([("film",)], [[2] * 5 + [3]], tokenizer, 3, 1).rows == [[]]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_reads_its_own_text_in_full_within_its_positions(family: str, tmp_path: Path) -> None:
    folder = write_family(tmp_path, family)
    tokenizer = load_tokenizer(folder)
    own = tokenise(["the film was great", "a"], tokenizer, 12)
    context = token_context([("a really great film, I think " * 5, "the food"), ("film",)], own, tokenizer, 12, 2)
    encoder = SkeslModel.from_text_model(folder, 0, 0, attention_dim=8, num_blocks=1).eval()
    for row, tokens in enumerate(own):
        whole, places = context.sequence(row, tokens), context.own_places(row, tokens)
        assert len(whole) <= POSITIONS
        assert [whole[place] for place in places] == tokens
        with torch.no_grad():
            states = encoder.text_states(torch.tensor([whole]))
            alone = encoder.text_states(torch.tensor([tokens]))
        assert torch.isfinite(states).all()
        assert not torch.allclose(states[0, places[-1]], alone[0, -1], atol=1e-4)  # it is read


def prepared(corpus: LabelledCorpus, lm: Path, folder: Path, freeze: bool = False) -> dict:
    torch.manual_seed(0)
    encoder = SkeslModel.from_text_model(lm, 5, 3, attention_dim=8, num_blocks=1).eval()
    return prepare(corpus, lambda: encoder, load_tokenizer(lm), folder, max_tokens=8, freeze_lm=freeze, progress=False)


def test_the_network_sees_the_states_of_the_own_tokens_alone(lm: Path, tmp_path: Path) -> None:
    data = write_pickle(tmp_path / "sims.pkl", {"train": 12, "valid": 8, "test": 8})
    corpus = with_context(load_corpus("sims", data, cache=tmp_path / "cache"), 2)
    trained, frozen = prepared(corpus, lm, tmp_path / "a")["train"], prepared(corpus, lm, tmp_path / "b", freeze=True)["train"]
    torch.manual_seed(0)
    model = MugModel.around(
        SkeslModel.from_text_model(lm, 5, 3, attention_dim=8, num_blocks=1), MugConfig(audio_dim=5, vision_dim=3, dim=8)
    )
    model.eval()
    rows = [0, 3, 5, 2]
    inputs = trained.batch(rows)
    assert inputs.input_ids.shape[1] > inputs.own_mask.shape[1]
    assert inputs.own_mask.sum(1).tolist() == [len(trained.tokens[row]) for row in rows]
    first, second = model(inputs), model(frozen.batch(rows))  # the cached states are rounded
    for name, values in first.predictions.items():
        assert torch.allclose(values, second.predictions[name], atol=2e-3), name
    other = inputs.to(torch.device("cpu"))
    other.input_ids = torch.where(inputs.attention_mask.bool(), inputs.input_ids, 7)
    assert torch.allclose(model(other).predictions["fused"], first.predictions["fused"], atol=1e-6)  # padding does not count
    alone = replace(trained, context=None).batch(rows)
    assert torch.allclose(model(alone).predictions["text"][0], first.predictions["text"][0], atol=1e-5)  # the first of its video
    assert not torch.allclose(model(alone).predictions["text"][1:], first.predictions["text"][1:], atol=1e-5)
    assert frozen.descriptors("text").shape == (12, 16)


def test_views_of_studies_keep_the_context_of_their_rows(lm: Path, tmp_path: Path) -> None:
    data = write_pickle(tmp_path / "sims.pkl", {"train": 24, "valid": 8, "test": 8})
    split = prepared(with_context(load_corpus("sims", data, cache=tmp_path / "cache"), 2), lm, tmp_path / "a")["train"]
    fewer = FewerRows(6)("train", split, 1)
    assert [fewer.context.rows[row] for row in range(6)] == [split.context.rows[split.split.ids.index(own)] for own in fewer.split.ids]
    assert Without(("text",))("test", split, 1).context is None
    dropped = DroppedAtRandom((0.5,))("test", split, 1)
    lengths = [sum(map(len, each.context.rows)) for each in (split, dropped)]
    assert 0.3 < lengths[1] / lengths[0] < 0.7
    assert not any(DroppedAtRandom((1.0,))("test", split, 1).context.rows)


@pytest.fixture(scope="module")
def finished(lm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with context on a dataset with words alone."""
    folder = tmp_path_factory.mktemp("run")
    content = pickle.loads(write_pickle(folder / "sims.pkl", {"train": 40, "valid": 16, "test": 16}, vision=False).read_bytes())
    rows = [
        Utterance(
            f"{name}{row}", f"{name}{row // 4}", "s", 2.0 * row, 2.0 * row + 1, "en", "" if row == 5 else part["raw_text"][row],
            audio=part["audio"][row], split=name, label=float(part["regression_labels"][row]),
        )
        for name, part in content.items()
        for row in range(len(part["id"]))
    ]  # fmt: skip
    from synthetic_pretraining import feature_info

    info = DatasetInfo(corpus={"name": "x", "root": ""}, label_range=(-1.0, 1.0), audio=feature_info(5, 43.0))
    write_dataset(folder / "data", rows, info)
    run(
        "--dataset", "custom", "--data", folder / "data", "--lm", lm, "--freeze-lm", "--output", folder / "run", "--seeds", 1,
        "--context", 2, "--compare-labels", "copy", "--controls", "constant", *SMALL,
    )  # fmt: skip
    return folder / "run"


def test_a_run_says_its_context_and_predicts_with_it(finished: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    assert results["data"]["context"] == 2
    assert "up to 2 earlier transcripts of the same video" in (finished / "report.md").read_text()
    assert "after up to 2 earlier utterances" in (finished / "model" / "README.md").read_text()
    assert Recipe.read(finished / "model").context == 2
    model = SentimentModel.from_pretrained(finished, device="cpu")
    predictions = pd.read_csv(finished / "predictions.csv", keep_default_na=False).set_index("id")
    from preprocessing.store import UtteranceDataset

    data = UtteranceDataset(finished.parent / "data")
    test = [data[row] for row in range(len(data)) if data.column("split")[row] == "test"]
    for first in range(0, len(test), 4):  # one recording each
        video = [replace(row, speaker="") for row in test[first : first + 4]]
        for row, scored in zip(video, model.score(video, earlier=earlier_in(video, 2)), strict=True):
            assert scored.score == pytest.approx(float(predictions.loc[row.id, "pred_M"]), abs=2e-3)
    (alone,) = model.score([test[2]])
    assert alone.score != pytest.approx(float(predictions.loc[test[2].id, "pred_M"]), abs=1e-6)
    (single,) = model.score([test[0]], earlier=earlier_in([test[0]], 2))
    assert single.score == pytest.approx(float(predictions.loc[test[0].id, "pred_M"]), abs=2e-3)
    from finetune.predict import Options, main

    (tmp_path / "texts.txt").write_text("the film was great\n")
    capsys.readouterr()
    main(Options(texts=tmp_path / "texts.txt", model=str(finished), device="cpu"))
    assert "note: each text is scored alone; the model also learned from up to 2 before it" in capsys.readouterr().err


def test_context_is_part_of_what_a_run_is(finished: Path, lm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--dataset", "custom", "--data", finished.parent / "data", "--lm", lm, "--freeze-lm", "--output", finished, "--seeds", 1]
    flags += ["--compare-labels", "copy", "--controls", "constant", *SMALL]
    with pytest.raises(UserError, match="context"):
        run(*flags)
    run(*flags, "--context", 2)
    assert "all models of this run are already trained" in capsys.readouterr().out


def test_a_run_from_before_the_option_resumes(lm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_pickle(tmp_path / "sims.pkl", {"train": 16, "valid": 8, "test": 8})
    flags = ["--dataset", "sims", "--data", data, "--lm", lm, "--freeze-lm", "--output", tmp_path / "run", "--seeds", 1]
    flags += ["--labels", "copy", "--compare-labels", "--controls", "constant", *SMALL]
    run(*flags)
    config = tmp_path / "run" / "config.yaml"
    assert "context: 0\n" in config.read_text()
    config.write_text(config.read_text().replace("context: 0\n", ""))
    capsys.readouterr()
    run(*flags)
    assert "all models of this run are already trained" in capsys.readouterr().out


def test_earlier_utterances_of_a_recording_are_of_the_same_channel() -> None:
    rows = [
        Utterance(str(place), "v", speaker, float(place), place + 1.0, "en", text)
        for place, (speaker, text) in enumerate([("left", "a"), ("right", "b"), ("left", ""), ("left", "c"), ("right", "d"), ("left", "e")])
    ]
    assert earlier_in(rows, 2) == [(), (), (), ("a",), ("b",), ("a", "c")]
    assert earlier_in([replace(row, speaker="") for row in rows], 2)[-1] == ("c", "d")
    assert numbers_in("") == ()
