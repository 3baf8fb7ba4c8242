"""Labelled corpora: pickles of both families and utterance datasets, their checks and their splits."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.corpora import LabelledSplit, carve_by_video, load_corpus
from finetune.corpora.splits import Finding
from preprocessing.schema import DatasetInfo, FeatureInfo, Utterance
from preprocessing.store import write_dataset
from skesl_mug.errors import UserError


def mmsa_split(name: str, count: int = 12, per_video: int = 3, seed: int = 0) -> dict:
    """A split in MMSA's form: lengths 3..6 of 6 audio frames, 4 of 5 vision frames, padded with zeros."""
    rng = np.random.default_rng(seed)
    audio = rng.normal(size=(count, 6, 4)).astype(np.float32)
    vision = rng.normal(size=(count, 5, 3)).astype(np.float32)
    lengths = rng.integers(3, 7, count)
    for row, length in enumerate(lengths):
        audio[row, length:] = 0
    vision[:, 4:] = 0
    label = np.linspace(-0.9, 0.9, count).astype(np.float32)
    return {
        "id": [f"{name}{row // per_video}$_${row}" for row in range(count)],
        "raw_text": [f"Sentence {row} of {name}" for row in range(count)],
        "audio": audio,
        "vision": vision,
        "audio_lengths": lengths.tolist(),
        "vision_lengths": [4] * count,
        "annotations": ["Negative" if value < 0 else "Positive" for value in label],
        "regression_labels": label,
        "regression_labels_T": label * 0.5,
    }


@pytest.fixture
def content() -> dict:
    return {name: mmsa_split(name, seed=place) for place, name in enumerate(("train", "valid", "test"))}


def write(folder: Path, content: object, protocol: int = 4) -> Path:
    path = folder / "corpus.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def found(corpus, text: str) -> int:
    return sum(finding.count for finding in corpus.findings if text in finding.what)


@pytest.mark.parametrize("protocol", range(6))
def test_mmsa_with_three_splits(tmp_path, content, protocol):
    corpus = load_corpus("sims", write(tmp_path, content, protocol))
    assert (corpus.evaluated_on, corpus.evaluated_on_note) == ("test", None)
    assert list(corpus.splits) == ["train", "dev", "test"]
    assert corpus.modalities == ("text", "audio", "vision")
    assert (corpus.audio_width, corpus.vision_width) == (4, 3)
    train = corpus.splits["train"]
    for row, length in enumerate(content["train"]["audio_lengths"]):
        np.testing.assert_array_equal(train.audio[row], content["train"]["audio"][row, :length])
        assert train.vision[row].shape == (4, 3)
    np.testing.assert_array_equal(corpus.splits["dev"].label, content["valid"]["regression_labels"])
    np.testing.assert_array_equal(corpus.splits["test"].label_T, content["test"]["regression_labels_T"])
    assert train.label_A is None
    assert train.label.dtype == np.float32
    assert train.video_ids[:4] == ["train0", "train0", "train0", "train1"]
    assert len(corpus.sha256) == 64
    assert corpus.known_as is None
    assert corpus.findings == []


def test_without_a_test_split_dev_is_carved_from_train_by_video(tmp_path, content):
    del content["test"]
    content["train"] = mmsa_split("train", count=60)
    path = write(tmp_path, content)
    corpus = load_corpus("mosi", path)
    assert corpus.evaluated_on == "valid"
    assert "no test split" in corpus.evaluated_on_note
    train, dev = corpus.splits["train"], corpus.splits["dev"]
    assert not set(train.video_ids) & set(dev.video_ids)
    assert sorted(train.ids + dev.ids) == sorted(content["train"]["id"])
    assert len(dev) == 9  # 15 % of 60, in videos of 3
    assert load_corpus("mosi", path).splits["dev"].ids == dev.ids
    assert load_corpus("mosi", path, seed=1).splits["dev"].ids != dev.ids


def test_without_a_valid_split_the_figures_are_those_of_test(tmp_path, content):
    del content["valid"]
    corpus = load_corpus("mosi", write(tmp_path, content))
    assert corpus.evaluated_on == "test"
    assert "no valid split" in corpus.evaluated_on_note


@settings(deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=12), st.floats(0.05, 0.5), st.integers(0, 5))
def test_carving_divides_the_samples_by_video(sizes, share, seed):
    videos = [f"v{video}" for video, size in enumerate(sizes) for _ in range(size)]
    split = LabelledSplit(ids=[str(place) for place in range(len(videos))], video_ids=videos, label=np.zeros(len(videos), np.float32))
    rest, carved, by_video = carve_by_video(split, share, seed)
    assert sorted([*rest, *carved]) == list(range(len(videos)))
    assert by_video == (len(sizes) > 1)
    if len(videos) > 1:
        assert len(rest)
        assert len(carved)
    if by_video:
        assert not {videos[place] for place in rest} & {videos[place] for place in carved}


def test_skesl_pickle_has_its_own_keys_and_no_ids(tmp_path, content):
    skesl = {}
    for name, split in content.items():
        skesl[name] = {
            "raw_text": split["raw_text"],
            "audio": split["audio"],
            "video": split["vision"],
            "labels": split["regression_labels"],
        }
    corpus = load_corpus("mosei", write(tmp_path, skesl))
    assert corpus.modalities == ("text", "audio", "vision")
    assert len(set(corpus.splits["train"].video_ids)) == 12
    assert found(corpus, "samples without ids") == 36
    assert found(corpus, "treated as padding") > 0
    assert corpus.splits["train"].vision[0].shape == (4, 3)


def test_unlabelled_skesl_pickle_is_refused(tmp_path):
    with pytest.raises(UserError, match="unlabelled pickle"):
        load_corpus("mosi", write(tmp_path, {"raw_text": ["a"], "audio": np.zeros((1, 2, 3)), "video": np.zeros((1, 2, 3))}))


def test_any_modality_may_be_absent(tmp_path, content):
    for split in content.values():
        del split["raw_text"], split["vision"]
        split["text_bert"] = np.zeros((12, 3, 5), np.float32)
    corpus = load_corpus("mosi", write(tmp_path, content))
    assert corpus.modalities == ("audio",)
    assert corpus.splits["train"].text is None
    assert corpus.splits["train"].vision is None
    assert found(corpus, "no transcripts") == 36


def test_nothing_to_learn_from_is_refused(tmp_path, content):
    for split in content.values():
        del split["raw_text"], split["vision"], split["audio"]
    with pytest.raises(UserError, match="neither transcripts nor audio nor vision"):
        load_corpus("mosi", write(tmp_path, content))


def test_all_zero_features_are_absent_and_a_zero_sample_is_absent_there(tmp_path, content):
    for split in content.values():
        split["vision"][:] = 0
    content["train"]["audio"][5] = 0
    corpus = load_corpus("mosi", write(tmp_path, content))
    assert corpus.vision_width == 0
    assert corpus.splits["test"].vision is None
    assert found(corpus, "the modality is treated as missing") == 36
    assert corpus.splits["train"].audio[5] is None
    assert found(corpus, "frames are all zero") == 1


def test_nan_and_infinities_are_repaired_and_counted(tmp_path, content):
    content["train"]["audio"][0, 0, 0] = -np.inf
    content["train"]["audio"][1, 1, 1] = np.nan
    content["test"]["vision"] = content["test"]["vision"].astype(np.float64)
    content["test"]["vision"][0, 0, 0] = 1e300  # infinite in float32
    corpus = load_corpus("mosi", write(tmp_path, content))
    assert corpus.splits["train"].audio[0][0, 0] == 0
    assert found(corpus, "NaN or infinite") == 3
    for split in corpus.splits.values():
        assert all(np.isfinite(array).all() for array in split.audio)


def test_text_case_is_folded_where_it_is_upper_case(tmp_path, content):
    for split in content.values():
        split["raw_text"] = [text.upper() for text in split["raw_text"]]
    path = write(tmp_path, content)
    assert load_corpus("mosi", path).splits["test"].text[0] == "sentence 0 of test"
    assert load_corpus("mosi", path, fold_case=False).splits["test"].text[0] == "SENTENCE 0 OF TEST"
    assert found(load_corpus("mosi", path), "folded") == 36


def test_text_in_mixed_case_is_kept_unless_asked(tmp_path, content):
    path = write(tmp_path, content)
    assert load_corpus("mosi", path).splits["test"].text[0] == "Sentence 0 of test"
    assert load_corpus("mosi", path, fold_case=True).splits["test"].text[0] == "sentence 0 of test"


def test_a_sample_without_a_label_is_left_out(tmp_path, content):
    content["train"]["regression_labels"][3] = np.nan
    corpus = load_corpus("mosi", write(tmp_path, content))
    assert len(corpus.splits["train"]) == 11
    assert "train1$_$3" not in corpus.splits["train"].ids
    assert len(corpus.splits["train"].audio) == 11
    assert found(corpus, "without a label") == 1


def test_lengths_are_cut_or_ignored_where_they_are_wrong(tmp_path, content):
    content["train"]["audio_lengths"] = [99] * 12
    content["test"]["audio_lengths"] = [1] * 12
    corpus = load_corpus("mosi", write(tmp_path, content))
    assert found(corpus, "beyond the end of the arrays") == 12
    assert all(len(array) == 6 for array in corpus.splits["train"].audio)
    assert found(corpus, "the lengths were not used") == 12
    assert all(len(array) >= 3 for array in corpus.splits["test"].audio)


def test_padding_in_front_is_removed_too(tmp_path, content):
    for split in content.values():
        split["audio"] = split["audio"][:, ::-1].copy()
        del split["audio_lengths"]
    corpus = load_corpus("mosi", write(tmp_path, content))
    train = corpus.splits["train"]
    assert all(array[0].any() and array[-1].any() for array in train.audio)


def test_ragged_lists_of_arrays_and_vectors(tmp_path, content):
    for split in content.values():
        split["audio"] = [array[:3] for array in split["audio"]]
        split["vision"] = split["vision"][:, 0]
        del split["audio_lengths"], split["vision_lengths"]
    corpus = load_corpus("mosi", write(tmp_path, content))
    assert corpus.splits["train"].audio[0].shape == (3, 4)
    assert corpus.splits["train"].vision[0].shape == (1, 3)


def test_videos_in_two_splits(tmp_path, content):
    content["valid"]["id"][0] = content["train"]["id"][0] + "b"
    path = write(tmp_path, content)
    assert found(load_corpus("sims", path), "videos that are in both") == 1
    with pytest.raises(UserError, match=r"1 videos are in both `train` and `valid` \(`train0`\)"):
        load_corpus("mosi", path)


def test_ids_are_made_unique(tmp_path, content):
    content["train"]["id"][1] = content["train"]["id"][0]
    corpus = load_corpus("mosi", write(tmp_path, content))
    assert corpus.splits["train"].ids[:2] == ["train0$_$0", "train0$_$0#2"]
    assert found(corpus, "more than once") == 1


def test_custom_takes_its_range_from_train_or_from_the_flag(tmp_path, content):
    path = write(tmp_path, content)
    assert load_corpus("custom", path).label_range == pytest.approx((-0.9, 0.9))
    assert load_corpus("custom", path, label_range=(-2, 2)).label_range == (-2, 2)
    content["test"]["regression_labels"] = content["test"]["regression_labels"] * 2
    wider = write(tmp_path, content)
    assert found(load_corpus("custom", wider), "outside the range [-0.9, 0.9] of train's labels; set --label-range") == 6
    with pytest.raises(UserError, match=r"`test` are outside the range \[-0.9, 0.9\].*--label-range"):
        load_corpus("custom", wider, label_range=(-0.9, 0.9))


def spoil(split: str, key: str, value: object):
    def change(content: dict) -> None:
        if value is KeyError:
            del content[split][key]
        else:
            content[split][key] = value

    return change


FAULTS = [
    (spoil("valid", "regression_labels", KeyError), "split `valid` has no `regression_labels`.*there is `annotations`, `audio_lengths`"),
    (spoil("valid", "audio", KeyError), "split `valid` has no `audio`, but `train` has"),
    (spoil("test", "audio", np.zeros((11, 6, 4), np.float32)), "`audio` of split `test` holds 11 samples, but there are 12"),
    (spoil("test", "audio", np.ones((12, 6, 5), np.float32)), "`audio` has different widths: 4 in `train`.*5 in `test`"),
    (spoil("train", "vision", np.ones((12, 2, 2, 2), np.float32)), r"`vision` of split `train` must be \[N, T, D\]"),
    (spoil("train", "vision", np.ones(12, np.float32)), r"`vision` of split `train` must be \[N, T, D\]"),
    (spoil("train", "vision", ["x"] * 12), "`vision` of split `train` contains something other than arrays of numbers"),
    (spoil("train", "vision_lengths", [1, 2]), "`vision_lengths` of split `train` has 2 numbers"),
    (spoil("train", "regression_labels", np.ones((12, 2))), r"`regression_labels` of split `train` has shape \[12, 2\]"),
    (spoil("train", "regression_labels", ["good"] * 12), "`regression_labels` of split `train` contains something other than numbers"),
    (spoil("train", "regression_labels", np.arange(12.0)), r"labels contradict|lie outside the range \[-3, 3\]"),
    (spoil("train", "regression_labels", -np.linspace(-0.9, 0.9, 12)), "contradict the sign of `annotations`"),
    (spoil("train", "regression_labels_T", np.full(12, 5.0)), "`label_T` values of split `train` are outside"),
    (spoil("train", "raw_text", ["a"]), "`raw_text` of split `train` has 1 transcripts"),
    (spoil("train", "id", ["a"]), "`id` of split `train` has 1 entries"),
    (lambda content: content.pop("train"), "no samples in split `train`"),
    (lambda content: (content.pop("valid"), content.pop("test")), "add a split `valid` or `test`"),
    (lambda content: content.update(train=[1, 2]), "split `train` is a list"),
    (lambda content: content.update(dev=content["valid"]), "two splits named `valid`"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS)
def test_faults_name_the_file_the_key_and_the_split(tmp_path, content, change, message):
    change(content)
    with pytest.raises(UserError, match=message) as fault:
        load_corpus("mosi", write(tmp_path, content))
    assert "corpus.pkl" in str(fault.value)
    assert "\n" not in str(fault.value)


def test_faulty_flags(tmp_path, content):
    with pytest.raises(UserError, match="--dataset imdb: unknown dataset; choose from mosi"):
        load_corpus("imdb", tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        load_corpus("mosi", tmp_path / "absent.pkl")
    with pytest.raises(UserError, match="range of mosi is fixed"):
        load_corpus("mosi", write(tmp_path, content), label_range=(-1, 1))
    with pytest.raises(UserError, match="not an utterance dataset"):
        load_corpus("mosi", tmp_path)
    with pytest.raises(UserError, match="contains a list"):
        load_corpus("mosi", write(tmp_path, [1, 2]))


def make_dataset(folder: Path, *, splits=("train", "valid", "test"), label=True, made=True) -> Path:
    columns = [{"name": "c0", "unit": ""}, {"name": "c1", "unit": ""}]
    info = DatasetInfo(
        corpus={"name": "a corpus", "root": "somewhere", "made": made},
        label_range=(-2.0, 2.0),
        audio=FeatureInfo("extractor", 10.0, columns),
        vision=FeatureInfo("extractor", 10.0, columns),
    )
    rng = np.random.default_rng(0)
    rows = [
        Utterance(
            id=f"{name}-{row}",
            video_id=f"{name}-video{row // 2}",
            speaker="s",
            start=0.0,
            end=1.0,
            language="en",
            text=f"words {row}",
            audio=rng.normal(size=(3, 2)),
            vision=None if row == 1 else rng.normal(size=(4, 2)),
            vision_valid=np.array([row != 2] * 3 + [row == 0]),
            split=name,
            label=row - 2.0 if label and row != 3 else None,
            label_A=0.5 if row == 0 else None,
        )
        for name in splits
        for row in range(5)
    ]
    write_dataset(folder, rows, info)
    return folder


def test_labelled_utterance_dataset(tmp_path):
    corpus = load_corpus("custom", make_dataset(tmp_path / "data"))
    assert corpus.synthetic
    assert corpus.describe()["name"] == "a corpus"
    assert corpus.describe()["synthetic"] is True
    assert corpus.info.corpus["synthetic"] is True  # the file has the former name
    assert Finding("warning", "speaker", "speakers in more than one split: scores for new people may be lower", 1) in corpus.findings
    assert corpus.label_range == (-2.0, 2.0)
    assert corpus.modalities == ("text", "audio", "vision")
    train = corpus.splits["train"]
    assert train.ids == ["train-0", "train-1", "train-2", "train-4"]
    assert train.video_ids == ["train-video0", "train-video0", "train-video1", "train-video2"]
    assert train.text[0] == "words 0"
    assert [array is None for array in train.vision] == [False, True, True, False]  # none at all, and no face in any frame
    assert [len(array) for array in train.vision if array is not None] == [4, 3]  # the frame without a face is left out
    assert train.label_A[0] == 0.5
    assert np.isnan(train.label_A[1:]).all()
    assert train.label_T is None
    assert found(corpus, "without a label") == 3


def test_utterance_datasets_that_cannot_be_learned_from(tmp_path):
    with pytest.raises(UserError, match="has no labels"):
        load_corpus("custom", make_dataset(tmp_path / "unlabelled", label=False))
    with pytest.raises(UserError, match="has no splits"):
        load_corpus("custom", make_dataset(tmp_path / "undivided", splits=(None,)))


def test_selecting_keeps_the_columns_together(tmp_path, content):
    train = load_corpus("sims", write(tmp_path, content)).splits["train"]
    chosen = train.select([4, 1])
    assert chosen.ids == [train.ids[4], train.ids[1]]
    np.testing.assert_array_equal(chosen.audio[0], train.audio[4])
    assert chosen.audio.file is train.audio.file  # shared, not copied
    assert chosen.label_T.tolist() == [train.label_T[4], train.label_T[1]]
    assert chosen.label_V is None
    assert len(chosen) == 2


DATA = os.environ.get("MSA_DATA")


@pytest.mark.skipif(DATA is None, reason="MSA_DATA names no folder of corpora")
@pytest.mark.parametrize(
    ("dataset", "file", "modalities", "counts"),
    [
        ("mosi", "mosi/mosi_text_audio_train_valid.pkl", ("text", "audio"), (1284, 229)),
        ("sims", "sims/sims_made_av_train_valid.pkl", ("text", "audio", "vision"), (1368, 456)),
        ("custom", "mmmo/mmmo_audio_vision_train_valid.pkl", ("audio", "vision"), (220, 40)),
    ],
)
def test_real_files(dataset, file, modalities, counts):
    corpus = load_corpus(dataset, Path(DATA) / file)
    assert corpus.modalities == modalities
    assert corpus.evaluated_on == "valid"
    assert len(corpus.splits["train"]) + len(corpus.splits["dev"]) == counts[0]
    assert len(corpus.splits["valid"]) == counts[1]
    if dataset == "mosi":
        assert corpus.splits["train"].text[0] == "a lot of sad parts"
    if dataset == "sims":
        assert found(corpus, "videos that are in both") == 59
