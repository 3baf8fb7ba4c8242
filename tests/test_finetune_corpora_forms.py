"""Pickles of other toolkits: MulT, MultiBench, MAG-BERT and M-SENA; keys that are not understood; text vectors in a run."""

import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from synthetic_corpus import SMALL
from synthetic_pretraining import write_text_model

from finetune.corpora import load_corpus
from finetune.options import MugOptions
from finetune.prediction.sentiment_model import SentimentModel
from finetune.run_mug import main
from finetune.training.experiment import open_corpus
from skesl_mug.console import parse_options
from skesl_mug.errors import UserError

SIZES = {"train": 12, "valid": 8, "test": 8}


def write(folder: Path, content: object) -> Path:
    path = folder / "corpus.pkl"
    path.write_bytes(pickle.dumps(content))
    return path


def found(corpus, where: str) -> list[str]:
    return [finding.what for finding in corpus.findings if finding.where == where]


def mult(seed: int = 0, signal: bool = False) -> dict:
    """MulT's columns: text vectors, labels [N, 1, 1], ids (video, start, end)."""
    random = np.random.default_rng(seed)
    content = {}
    for split, count in SIZES.items():
        labels = random.uniform(-3, 3, (count, 1, 1))
        text = random.normal(size=(count, 6, 10))
        text[:, :2] = 0
        content[split] = {
            "vision": random.normal(size=(count, 6, 4)),
            "audio": random.normal(size=(count, 6, 3)),
            "text": text + 3 * labels * (text != 0) * signal,
            "labels": labels,
            "id": np.array([[f"{split}{row // 4}", f"{row}.5", f"{row + 1}.0"] for row in range(count)]),
        }
    return content


@pytest.mark.parametrize("ids", ["text", "bytes", "objects"])
def test_mult_has_all_modalities_and_its_videos(tmp_path, ids):
    content = mult()
    for split in content.values():
        split["id"] = {"text": split["id"], "bytes": split["id"].astype("S20"), "objects": split["id"].astype(object)}[ids]
    corpus = load_corpus("mosi", write(tmp_path, content))
    assert corpus.modalities == ("text", "audio", "vision")
    assert (corpus.text_width, corpus.audio_width, corpus.vision_width) == (10, 3, 4)
    train = corpus.splits["train"]
    assert (train.ids[5], train.video_ids[5]) == ("train1$_$5.5$_$6.0", "train1")
    assert train.text is None
    np.testing.assert_array_equal(train.text_vectors[2], content["train"]["text"][2, 2:].astype(np.float32))
    np.testing.assert_array_equal(train.vision[2], content["train"]["vision"][2].astype(np.float32))
    np.testing.assert_allclose(train.label, content["train"]["labels"].ravel(), rtol=1e-6)
    assert "text vectors instead of transcripts" in found(corpus, "text")[0]


@pytest.mark.parametrize(("form", "video"), [("{}[{}]", "aa_0"), ("{}_{}", "aa_0"), ("{}/{}", "aa_0")])
def test_multibench_has_one_id_per_sample(tmp_path, form, video):
    content = mult()
    for split in content.values():
        count = len(split["id"])
        split["labels"] = split["labels"][:, :, 0]
        split["id"] = np.array([[form.format(f"aa_{row // 4}", row)] for row in range(count)])
    corpus = load_corpus("custom", write(tmp_path, content))
    assert corpus.splits["train"].video_ids[:5] == [video] * 4 + ["aa_1"]
    assert not found(corpus, "train/id")


def test_numbered_ids_of_one_name_are_not_a_video(tmp_path):
    content = mult()
    for split in content.values():
        split["id"] = [f"sample_{row}" for row in range(len(split["id"]))]
    corpus = load_corpus("custom", write(tmp_path, content))
    assert len(set(corpus.splits["train"].video_ids)) == 12
    assert found(corpus, "train/id") == ["ids without a video: each sample is treated as a video of its own"]


def test_whether_numbered_ids_name_videos_is_decided_for_all_splits_together(tmp_path):
    content = mult()
    for name, videos in (("train", [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]), ("valid", range(10, 18)), ("test", [*range(6), 7, 8])):
        content[name]["id"] = [f"v{video}_{row}" for row, video in enumerate(videos)]
    corpus = load_corpus("custom", write(tmp_path, content))
    assert corpus.splits["test"].video_ids == ["v0", "v1", "v2", "v3", "v4", "v5", "v7", "v8"]
    assert "videos that are in both splits" in found(corpus, "train, test/id")


def test_ids_numbered_under_the_name_of_their_split_name_no_video(tmp_path):
    content = mult()
    for name, split in content.items():
        split["id"] = [f"{name}_{row}" for row in range(len(split["id"]))]
    assert len(set(load_corpus("custom", write(tmp_path, content)).splits["train"].video_ids)) == 12


def test_transcripts_are_preferred_to_vectors(tmp_path):
    content = mult()
    for split in content.values():
        split["raw_text"] = [f"sentence {row}" for row in range(len(split["id"]))]
    corpus = load_corpus("mosi", write(tmp_path, content))
    assert corpus.text_width == 0
    assert corpus.splits["train"].text_vectors is None
    assert corpus.splits["train"].text[1] == "sentence 1"


def test_half_a_character_pair_in_a_text_is_replaced(tmp_path):
    content = mult()
    for split in content.values():
        split["raw_text"] = [f"smile \ud83d {row}" for row in range(len(split["id"]))]
    assert load_corpus("mosi", write(tmp_path, content)).splits["train"].text[1] == "smile \ufffd 1"


def test_text_that_is_sentences_is_the_transcripts(tmp_path):
    content = mult()
    for split in content.values():
        split["text"] = np.array([f"sentence {row}" for row in range(len(split["id"]))])
    corpus = load_corpus("mosi", write(tmp_path, content))
    assert (corpus.text_width, corpus.splits["train"].text[1]) == (0, "sentence 1")


def test_an_empty_split_does_not_decide_what_a_column_is(tmp_path):
    content = mult()
    for split in content.values():
        split["text"] = [f"sentence {row}" for row in range(len(split["id"]))]
    content["test"] = {key: values[:0] for key, values in content["test"].items()}
    corpus = load_corpus("mosi", write(tmp_path, content))
    assert (corpus.text_width, corpus.splits["train"].text is not None, corpus.evaluated_on) == (0, True, "valid")


def padded(count: int) -> np.ndarray:
    numbers = np.arange(1, 6 * count + 1).reshape(count, 6)
    numbers[:, 4:] = 0
    return numbers


@pytest.mark.parametrize(
    "form", [padded, lambda n: padded(n).astype(np.float32), lambda n: padded(n)[:, None], lambda n: [[3, 7, 2]] * n], ids=range(4)
)
def test_word_indices_are_not_vectors(tmp_path, form):
    content = mult()
    for split in content.values():
        split["text"] = form(len(split["id"]))
    corpus = load_corpus("mosi", write(tmp_path, content))
    assert corpus.modalities == ("audio", "vision")
    assert [finding.what for finding in corpus.findings if "text" in finding.what] == [
        "word indices without a vocabulary: text is treated as missing; add `raw_text`"
    ]


def test_counts_of_words_and_one_hot_vectors_are_vectors(tmp_path):
    content = mult()
    for rows in ([[0.0, 2, 0, 1, 0, 3]], [[0.0, 0, 1, 0, 0, 0]]):
        for split in content.values():
            split["text"] = np.array(rows * len(split["id"]))
        assert load_corpus("mosi", write(tmp_path, content)).text_width == 6


@pytest.mark.parametrize(
    ("content", "kind"), [(5, "contains an int"), ({"train": 5}, "is an int"), ({"train": np.ones(3)}, "is a numpy array")]
)
def test_what_is_not_a_dictionary_is_named(tmp_path, content, kind):
    with pytest.raises(UserError, match=kind):
        load_corpus("mosi", write(tmp_path, content))


def test_text_vectors_beside_token_ids_name_the_option(tmp_path):
    content = mult()
    for split in content.values():
        split["text_bert"] = np.ones((len(split["id"]), 3, 6))
    assert "--text-bert uses the token ids of `text_bert`" in found(load_corpus("mosi", write(tmp_path, content)), "text")[0]


def test_transcripts_that_are_lists_of_words(tmp_path):
    content = mult()
    for split in content.values():
        split["raw_text"] = [["hello", "sp", b"world"], ("one ",), np.array(["a", "b"])] * (len(split["id"]) // 3) + [[], None]
        split["raw_text"] = split["raw_text"][-len(split["id"]) :]
    texts = load_corpus("mosi", write(tmp_path, content)).splits["train"].text
    assert {"hello world", "one ", "a b", ""} == set(texts)
    assert not any("[" in text for text in texts)


ITSELF: list = []
ITSELF.append(ITSELF)


@pytest.mark.parametrize(
    ("key", "row", "message"),
    [
        ("raw_text", ["a", ["b", "c"]], "`raw_text` of split `train`: sample 0 contains a list where a word is expected"),
        ("raw_text", [3, 4], "`raw_text` of split `train`: sample 0 contains an int where a word is expected"),
        ("raw_text", {"a": 1}, "`raw_text` of split `train`: sample 0 is a dict, not text or a list of words"),
        ("raw_text", ITSELF, "sample 0 contains a list where a word is expected"),
        ("id", ["a", ["b"]], "`id` of split `train` contains a list within an id"),
        ("id", ITSELF, "`id` of split `train` contains a list within an id"),
        ("labels", [1.0, [2.0]], "`labels` of split `train` contains something other than numbers"),
        ("text", [1.0, [2.0]], "`text` of split `train` contains something other than arrays of numbers"),
        ("audio", ITSELF, "`audio` of split `train` contains something other than arrays of numbers"),
    ],
)
def test_ragged_lists_are_refused_in_a_line(tmp_path, key, row, message):
    content = mult()
    for split in content.values():
        split[key] = [row] * len(split["id"])
    with pytest.raises(UserError, match=message):
        load_corpus("mosi", write(tmp_path, content))


def test_ragged_token_ids_are_refused_in_a_line(tmp_path):
    content = mult()
    for split in content.values():
        split["text_bert"] = [[1, [2]]] * len(split["id"])
    with pytest.raises(UserError, match=r"`text_bert` of split `train` is a list, not \[12, 3, L\]"):
        load_corpus("mosi", write(tmp_path, content), text_bert=True)


@pytest.mark.parametrize("words", [[["a", "b"], ["c"]], ["a", ["b"]], ITSELF])
def test_ragged_words_of_mag_bert_are_refused_in_a_line(tmp_path, words):
    with pytest.raises(UserError, match="the transcript of sample 0 of split `train` contains a list where a word is expected"):
        load_corpus("mosi", write(tmp_path, examples(lambda count: words)))


def test_a_key_that_is_not_understood_is_a_finding(tmp_path):
    content = mult()
    for split in content.values():
        split["gaze"] = np.zeros((len(split["id"]), 5, 8))
        split["video"] = split["vision"]
    corpus = load_corpus("mosi", write(tmp_path, content))
    assert found(corpus, "all splits/gaze") == ["samples of a key that is not understood: not used (5 x 8 each)"]
    assert found(corpus, "all splits/video") == ["samples not used, because `vision` is"]


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("text", np.ones((12, 6, 10, 2)), r"`text` of split `train` must be \[N, T, D\].*\[6, 10, 2\]"),
        ("text", np.ones((11, 6, 10)), "`text` of split `train` holds 11 samples, but there are 12"),
        ("text", np.ones((12, 6, 9)), "`text` has different widths: 9 in `train`, 10 in `valid`"),
        ("labels", np.ones((12, 4, 2)), r"`labels` of split `train` has shape \[12, 4, 2\], not \[N\]"),
    ],
)
def test_faults_of_vectors_name_the_key_and_the_shapes(tmp_path, key, values, message):
    content = mult()
    content["train"][key] = values
    with pytest.raises(UserError, match=message):
        load_corpus("mosi", write(tmp_path, content))


def examples(words=lambda count: ["good", "sp", "film"] + ["w"] * (count - 3)) -> dict:
    """MAG-BERT's pickle: lists of ((words, visual, acoustic), label, segment)."""
    random = np.random.default_rng(0)
    return {
        split: [
            (
                (words(4 + row % 3), random.normal(size=(4 + row % 3, 5)), random.normal(size=(4 + row % 3, 3))),
                np.array([[row / 5]]),
                segment,
            )
            for row in range(count)
            for segment in [f"{split}{row // 4}[{row}]"]
        ]
        for split, count in {"train": 12, "dev": 8, "test": 8}.items()
    }


def test_mag_bert_examples(tmp_path):
    content = examples()
    corpus = load_corpus("mosi", write(tmp_path, content))
    assert (corpus.modalities, corpus.audio_width, corpus.vision_width) == (("text", "audio", "vision"), 3, 5)
    train = corpus.splits["train"]
    assert train.text[1] == "good film w w"
    assert (train.ids[5], train.video_ids[5]) == ("train1[5]", "train1")
    np.testing.assert_array_equal(train.vision[1], content["train"][1][0][1].astype(np.float32))
    np.testing.assert_array_equal(train.audio[1], content["train"][1][0][2].astype(np.float32))
    assert train.label[2] == pytest.approx(0.4)
    assert set(corpus.splits) == {"train", "dev", "test"}


def test_mag_bert_numbers_of_words_are_reported(tmp_path):
    corpus = load_corpus("mosi", write(tmp_path, examples(lambda count: list(range(count)))))
    assert corpus.modalities == ("audio", "vision")
    assert "word indices" in found(corpus, "train/words")[0]


def test_misa_has_the_words_after_their_numbers(tmp_path):
    content = examples()
    for split in content.values():
        split[:] = [((np.arange(len(words)), visual, acoustic, words), *rest) for (words, visual, acoustic), *rest in split]
    assert load_corpus("mosi", write(tmp_path, content)).splits["train"].text[1] == "good film w w"


def test_mag_bert_examples_without_a_modality_and_in_arrays(tmp_path):
    content = {name: [((words, None, sound), *rest) for (words, _, sound), *rest in split] for name, split in examples().items()}
    content["train"][3] = ((content["train"][3][0][0], None, None), *content["train"][3][1:])
    arrays = {name: np.array([None, *split], dtype=object)[1:] for name, split in content.items()}
    corpus = load_corpus("mosi", write(tmp_path, arrays))
    assert corpus.modalities == ("text", "audio")
    assert [place for place, frames in enumerate(corpus.splits["train"].audio) if frames is None] == [3]


def test_columns_without_splits_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"has no splits `train`, `valid` and `test` \(there is `vision`, `audio`"):
        load_corpus("mosi", write(tmp_path, mult()["train"]))


@pytest.mark.parametrize("tensors", [False, True])
def test_mmsa_fet_output(tmp_path, tensors):
    """MMSA-FET 0.4: float64 arrays or tensors, lists as arrays of objects or text, no classification labels."""
    random = np.random.default_rng(0)
    content = {}
    for split, count in SIZES.items():
        ids = np.stack([random.integers(5, 90, (count, 9)), np.ones((count, 9)), np.zeros((count, 9))], axis=1).astype(float)
        sizes = {"audio": (8, 5), "vision": (7, 6), "text": (9, 16)}
        features = {"text_bert": ids, **{key: random.normal(size=(count, *size)) for key, size in sizes.items()}}
        content[split] = {
            **{key: torch.from_numpy(values) if tensors else values for key, values in features.items()},
            "id": np.array([f"{split}{row // 4}$_$000{row}" for row in range(count)]),
            "raw_text": np.array([f"sentence {row}" for row in range(count)]),
            "annotations": np.array(["Positive"] * count),
            "regression_labels": np.linspace(0.1, 1, count),
            "audio_lengths": np.full(count, 6),
            "vision_lengths": np.full(count, 7),
            "mode": [],
        }
        features["audio"][:, 6:] = 0
    corpus = load_corpus("sims", write(tmp_path, content))
    train = corpus.splits["train"]
    assert corpus.modalities == ("text", "audio", "vision")
    assert (train.text[2], train.video_ids[5], train.audio[0].shape) == ("sentence 2", "train1", (6, 5))
    np.testing.assert_allclose(train.vision[3], np.asarray(content["train"]["vision"][3], np.float32))
    assert load_corpus("sims", write(tmp_path, content), text_bert=True).splits["train"].tokens[0][0] >= 5


def test_a_spoilt_mag_bert_example_is_named(tmp_path):
    content = examples()
    content["dev"][3] = (1, 2)
    with pytest.raises(UserError, match="sample 3 of split `valid` is not"):
        load_corpus("mosi", write(tmp_path, content))


def test_equal_labels_are_read_but_not_trained_on(tmp_path):
    content = mult()
    content["train"]["labels"][:] = 1.2
    path = write(tmp_path, content)
    corpus = load_corpus("mosi", path)
    assert found(corpus, "train/label") == ["labels that are all equal: correlation is undefined"]
    with pytest.raises(UserError, match=r"all 12 labels of split `train` are 1\.2, so there is nothing to learn"):
        open_corpus(SimpleNamespace(case="auto"), corpus)


def test_vectors_of_text_are_a_modality_of_a_run(tmp_path):
    data, text_model = write(tmp_path, mult(signal=True)), write_text_model(tmp_path / "lm")
    options = parse_options(MugOptions, [
        "--dataset", "mosi", "--data", str(data), "--lm", str(text_model), "--output", str(tmp_path / "run"), "--seeds", "1",
        "--compare-labels", "copy", "--training.batch-size", "4", *SMALL,
    ])  # fmt: skip
    main(options)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["data"]["modalities"] == ["text", "audio", "vision"]
    assert "vectors of 10 columns, without transcripts" in (tmp_path / "run" / "report.html").read_text()
    assert {"text", "audio", "vision"} <= set(results["unimodal_head_metrics"])
    assert "text_only" in results["controls"]
    model = SentimentModel.from_pretrained(tmp_path / "run")
    assert model.network.config.text_dim == 10
    with pytest.raises(UserError, match="was trained on text vectors"):
        model.predict_texts(["a good film"])
