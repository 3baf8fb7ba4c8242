"""A dataset written as MMSA's pickle has MMSA's columns, and our reader gives the same arrays back."""

import json
import math
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_pretraining import write_text_model

from finetune.corpora import load_corpus
from finetune.corpora.mmsa_columns import mmsa_id, mmsa_ids, words_of_tokens, write_pickle
from finetune.corpora.mmsa_description import notes_on_labels
from finetune.corpora.splits import Findings
from finetune.to_mmsa import Options, divide, main, to_mmsa
from preprocessing.schema import DatasetInfo, FeatureInfo, Utterance, Word
from preprocessing.store import UtteranceDataset, write_dataset
from skesl_mug.errors import UserError

RATE = 10.0
TEXT = "the film was great , really"
SPANS = [(0.0, 0.25), (0.25, 0.65), (0.65, 0.75), (0.75, 1.25), (1.25, 1.95)]
"""Times of the five words of TEXT."""


def feature(width: int) -> FeatureInfo:
    return FeatureInfo("synthetic", RATE, [{"name": f"c{place}", "unit": "none"} for place in range(width)], {"numpy": "2"})


def words(timed: bool = True) -> list[Word]:
    found, start = [], 0
    for token, (begin, end) in zip([part for part in TEXT.split() if part != ","], SPANS, strict=True):
        start = TEXT.index(token, start)
        times = (begin, end) if timed else (None, None)
        found.append(Word(token, start, start + len(token), *times))
    return found


def utterances(splits: tuple[str | None, ...] = ("train", "valid", "test"), count: int = 36) -> list[Utterance]:
    """Utterances of twelve videos, each video in one split; every seventh has no face, every fifth no sound."""
    random = np.random.default_rng(3)
    rows = []
    for place in range(count):
        video, seconds = place // 3, 20 + place % 6
        rows.append(
            Utterance(
                id=f"v{video:02d}/{place % 3:04d}",
                video_id=f"v{video:02d}",
                speaker=f"s{video}",
                start=0.0,
                end=seconds / RATE,
                language="en",
                text=TEXT if place % 4 else "awful food",
                words=words() if place % 4 else [Word("awful", 0, 5, 0.1, 0.5), Word("food", 6, 10, 0.5, 1.0)],
                audio=None if place % 5 == 4 else random.normal(size=(seconds, 3)),
                vision=None if place % 7 == 3 else random.normal(size=(seconds, 2)),
                vision_times=None if place % 7 == 3 else np.arange(seconds, dtype=np.float32) / np.float32(RATE),
                vision_valid=None if place % 7 == 3 else random.random(seconds) > 0.2,
                split=splits[video % len(splits)],
                label=float(place % 7 - 3),
                label_T=float(place % 5 - 2),
                label_A=1.0,
                label_V=-1.0 if place % 2 else None,
            )
        )
    return rows


def write(folder: Path, rows: list[Utterance], audio: int = 3, vision: int = 2) -> Path:
    about = {"name": "synthetic", "root": "/home/somebody/clips", "synthetic": True}
    write_dataset(folder, rows, DatasetInfo(about, (-3.0, 3.0), feature(audio), feature(vision)))
    return folder


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_text_model(tmp_path_factory.mktemp("lm")))


def read(path: Path) -> dict:
    return pickle.loads(path.read_bytes())


@pytest.mark.parametrize("splits", [("train", "valid", "test"), ("train", "train", "test"), ("train", "dev", "train")])
def test_our_reader_gives_the_same_arrays_back(tmp_path: Path, lm: str, splits: tuple[str, ...]) -> None:
    data = write(tmp_path / "data", utterances(splits))
    to_mmsa(data, tmp_path / "file.pkl", lm=lm)
    ours, theirs = (load_corpus("custom", path, label_range=(-3, 3), cache=tmp_path / "cache") for path in (data, tmp_path / "file.pkl"))
    for first, second in zip(ours.splits.values(), theirs.splits.values(), strict=True):
        assert [name.replace("/", "$_$") for name in first.ids] == second.ids
        assert first.video_ids == second.video_ids
        assert first.text == second.text
        for name in ("label", "label_T", "label_A", "label_V"):
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
        for name in ("audio", "vision"):
            for mine, back in zip(getattr(first, name), getattr(second, name), strict=True):
                assert (mine is None) == (back is None)
                if mine is not None:
                    np.testing.assert_array_equal(mine, back)


def test_frames_of_nan_alone_are_a_missing_modality_in_both(tmp_path: Path, lm: str) -> None:
    rows = utterances()
    rows[0] = replace(rows[0], audio=np.full((3, 3), np.nan))
    rows[1] = replace(rows[1], audio=np.array([[np.nan, 1.0, 2.0], [0.0, 0.0, 0.0]]))
    data = write(tmp_path / "data", rows)
    to_mmsa(data, tmp_path / "file.pkl", lm=lm)
    for path in (data, tmp_path / "file.pkl"):
        audio = load_corpus("custom", path, label_range=(-3, 3), cache=tmp_path / "cache").splits["train"].audio
        assert audio[0] is None
        np.testing.assert_array_equal(audio[1], [[0, 1, 2], [0, 0, 0]])


def test_the_file_has_the_columns_of_mmsa(tmp_path: Path, lm: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "data", utterances())
    main(Options(dataset=str(data), output=tmp_path / "file.pkl", unaligned=True, lm=lm))
    shown = capsys.readouterr().out
    assert "train 12, valid 12, test 12 utterances; splits: those of the dataset" in shown
    assert "utterances without it: zeros of length 1" in shown
    content = read(tmp_path / "file.pkl")
    assert list(content) == ["train", "valid", "test"]
    for split in content.values():
        count = len(split["raw_text"])
        assert split["text_bert"].shape == (count, 3, 8)  # five words, the comma, [CLS] and [SEP]
        assert split["text"].shape == (count, 8, 16)
        assert split["audio"].shape == (count, 25, 3)
        assert split["vision"].shape[::2] == (count, 2)
        for name in ("audio", "vision", "text", "regression_labels", "regression_labels_T"):
            assert split[name].dtype == np.float32
        assert set(split["annotations"]) <= {"Negative", "Neutral", "Positive"}
        np.testing.assert_array_equal(split["classification_labels"], np.sign(split["regression_labels"]) + 1)
        for name in ("audio", "vision"):
            absent = ~split[name].any(axis=(1, 2))
            assert absent.any()
            assert min(split[f"{name}_lengths"]) == 1
            assert all((length == 1) == missing for length, missing in zip(split[f"{name}_lengths"], absent, strict=True))
        ids, mask, segments = split["text_bert"][1]
        assert ids[0] == 2
        assert ids[mask.sum() - 1] == 3
        assert not segments.any()
        assert not split["text"][1][mask == 0].any()
    raw = (tmp_path / "file.pkl").read_bytes()
    assert b"numpy._core" not in raw  # MMSA's users have NumPy 1
    about = json.loads((tmp_path / "file.json").read_text())
    assert about["columns"]["audio"]["extractor"] == "synthetic"
    assert [column["name"] for column in about["columns"]["audio"]["columns"]] == ["c0", "c1", "c2"]
    assert about["columns"]["text"]["layer"] == "last"
    assert len(about["dataset"]["sha256"]) == 64
    assert "/home/" not in json.dumps(about)
    assert str(tmp_path) not in json.dumps(about)


def test_aligned_frames_are_means_over_the_words_of_the_tokens(tmp_path: Path, lm: str) -> None:
    rows = utterances()
    rows[1] = replace(rows[1], vision_valid=np.arange(21) < 5)  # no face after 0.5 s
    data = write(tmp_path / "data", rows)
    to_mmsa(data, tmp_path / "file.pkl", aligned=50, lm=lm)
    split = read(tmp_path / "file.pkl")["train"]
    assert split["text_bert"].shape[2] == split["text"].shape[1] == split["audio"].shape[1] == split["vision"].shape[1] == 50
    row = UtteranceDataset(data)[1]
    expected = np.stack([row.audio[math.ceil(10 * a) : math.ceil(10 * b)].mean(axis=0) for a, b in SPANS])
    np.testing.assert_allclose(split["audio"][1][[1, 2, 3, 4, 6]], expected, atol=1e-5)
    np.testing.assert_array_equal(split["audio"][1][5], split["audio"][1][4])  # the comma is that of the word before it
    assert not split["audio"][1][[0, 7]].any()  # [CLS], [SEP]
    assert not split["audio"][1][8:].any()
    np.testing.assert_allclose(split["vision"][1][2], row.vision[3:5].mean(axis=0), atol=1e-5)
    assert not split["vision"][1][3:].any()
    about = json.loads((tmp_path / "file.json").read_text())
    assert {"train/vision: words without a face: zeros"} <= {f"{entry['where']}: {entry['what']}" for entry in about["findings"]}
    assert split["audio_lengths"][1] == 8


def test_a_dataset_that_is_aligned_already(tmp_path: Path, lm: str) -> None:
    frames = np.arange(10, dtype=np.float32).reshape(5, 2) + 1
    rows = [replace(row, text=TEXT, words=words(), audio=frames, vision=-frames, vision_valid=np.arange(5) != 2) for row in utterances()]
    aligned = replace(feature(2), rate_hz=0.0, settings={"aligned": "words: mean over the frames of each"})
    write_dataset(tmp_path / "data", rows, DatasetInfo({"name": "synthetic", "root": "x"}, (-3.0, 3.0), aligned, aligned))
    to_mmsa(tmp_path / "data", tmp_path / "file.pkl", aligned=9, lm=lm)
    split = read(tmp_path / "file.pkl")["test"]
    np.testing.assert_array_equal(split["audio"][0][[1, 2, 3, 4, 6]], frames)
    np.testing.assert_array_equal(split["vision"][0][[1, 2, 4, 6]], -frames[[0, 1, 3, 4]])
    assert not split["vision"][0][3].any()


def test_tokens_and_their_words() -> None:
    tokens = [(2, 0, 0), (9, 0, 3), (9, 3, 5), (9, 5, 6), (9, 6, 9), (3, 0, 0)]
    assert words_of_tokens(tokens, [Word("first", 0, 5), Word("two", 6, 9)]) == [None, 0, 0, 0, 1, None]
    assert words_of_tokens(tokens, []) == [None] * 6


def test_cuts_are_counted(tmp_path: Path, lm: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "data", utterances())
    main(Options(dataset=str(data), output=tmp_path / "file.pkl", lm=lm, text_length=5, audio_length=21, vision_length=4))
    shown = capsys.readouterr().out
    assert "27 texts cut to 5 tokens" in shown
    data = UtteranceDataset(data)
    assert f"[N, 21, 3]; {sum(row.audio is not None and len(row.audio) > 21 for row in data)} utterances cut" in shown
    split = read(tmp_path / "file.pkl")["train"]
    assert split["text_bert"].shape[2] == 5
    assert max(split["audio_lengths"]) == 21
    assert max(split["vision_lengths"]) == 4


@pytest.mark.parametrize("text_length", [None, 5000])
def test_texts_beyond_the_limit_of_the_model_are_counted(tmp_path: Path, lm: str, text_length: int | None) -> None:
    rows = utterances()
    rows[1] = replace(rows[1], text="great film " * 450, words=[])
    about = to_mmsa(write(tmp_path / "data", rows), tmp_path / "file.pkl", lm=lm, text_length=text_length)
    cut = next(finding for finding in about["findings"] if finding["where"] == "text")
    assert cut["what"] == "texts cut to 512 tokens, the limit of the language model"
    assert cut["count"] == 1


def test_words_without_times_are_not_counted_as_without_a_face(tmp_path: Path, lm: str) -> None:
    rows = [replace(row, text=TEXT, words=[*words()[:3], *words(timed=False)[3:]]) for row in utterances()]
    rows = [replace(row, vision_valid=None if row.vision is None else np.ones(len(row.vision), bool)) for row in rows]
    about = to_mmsa(write(tmp_path / "data", rows), tmp_path / "file.pkl", lm=lm, aligned=50)
    found = {f"{finding['where']}: {finding['what']}": finding["count"] for finding in about["findings"]}
    assert found["train/words: words without times: zeros for audio and vision"] == 24
    assert not [name for name in found if "without a face" in name]


def test_nothing_but_a_file_of_this_command_is_replaced(tmp_path: Path, lm: str) -> None:
    data = write(tmp_path / "data", utterances())
    kept = (data / "dataset.json").read_bytes()
    for name in ("dataset.pkl", "more/file.pkl"):
        with pytest.raises(UserError, match="is inside the dataset; choose a place outside it"):
            to_mmsa(data, data / name, lm="none")
    assert (data / "dataset.json").read_bytes() == kept
    for name in ("a.json", "b.pkl", "file"):
        (tmp_path / name).write_text('{"format": "another"}')
    for name in ("a.pkl", "b.pkl"):
        with pytest.raises(UserError, match="exists and was not written by to-mmsa; choose another name, or delete it"):
            to_mmsa(data, tmp_path / name, lm="none")  # refused before the language model is loaded
    with pytest.raises(UserError, match="is not a folder that can be written"):
        to_mmsa(data, tmp_path / "file" / "a.pkl", lm="none")
    for name in ("c.pkl", "d.json"):
        (tmp_path / name).mkdir()
        with pytest.raises(UserError, match="is a folder; choose another name"):
            to_mmsa(data, (tmp_path / name).with_suffix(".pkl"), lm="none")
    for _ in range(2):
        to_mmsa(data, tmp_path / "new" / "file.pkl", lm=lm)
    assert read(tmp_path / "new" / "file.pkl")["train"]["id"]


def test_the_dataset_name_for_mmsa_suits_the_labels() -> None:
    def notes(known: tuple[float, float] | None, labels: list[float], *unimodal: str, **values: list[float]) -> str:
        columns = {"regression_labels": labels, **{f"regression_labels_{name}": values.get(name, labels) for name in unimodal}}
        return "; ".join(notes_on_labels(known, [{name: np.array(column, np.float32) for name, column in columns.items()}]))

    assert "labels are from -9 to 8, but MMSA's metrics suit -3 to 3" in notes(None, [-9, 8])
    assert "`mosi` (or `mosei`): its metrics suit labels from -3 to 3; these are from -2.5 to 1" in notes(None, [-2.5, 1])
    assert notes((-1, 1), [-1, 0.5], *"TAV") == "in MMSA use the dataset name `sims`"
    assert "`sims` needs all unimodal labels" in notes((-1, 1), [-1, 0.5], "T")
    unknown = notes((-1, 1), [-1, 0.5], *"TAV", V=[np.nan, 1])
    assert "unimodal labels are NaN (regression_labels_V 1 of 2): avoid MMSA's networks that learn them, MTFN, MLF-DNN, MLMF" in unknown


def test_a_large_array_is_pickled_without_a_copy(tmp_path: Path) -> None:
    array = np.arange(60_000, dtype=np.float32).reshape(3, 200, 100)
    content = {"a": array, "again": array, "turned": array.T, "labels": np.arange(20_000), "none": array[:0]}
    write_pickle(tmp_path / "file.pkl", content)
    back = read(tmp_path / "file.pkl")
    for name, values in content.items():
        assert back[name].dtype == values.dtype
        np.testing.assert_array_equal(back[name], values)
    assert back["a"] is back["again"]
    assert back["a"].flags.writeable


def test_splits_are_drawn_by_video_where_there_are_none(tmp_path: Path) -> None:
    data = UtteranceDataset(write(tmp_path / "data", utterances((None,))))
    splits, how = divide(data, 0, Findings())
    videos = {name: {data[place].video_id for place in places} for name, places in splits.items()}
    assert sum(map(len, splits.values())) == 36
    assert not videos["train"] & videos["test"]
    assert not videos["train"] & videos["valid"]
    assert not videos["valid"] & videos["test"]
    assert how == "drawn by video with seed 0: test 20%, then valid 15% of the rest"
    assert divide(data, 0, Findings())[0] == splits


def test_a_modality_that_no_utterance_has(tmp_path: Path, lm: str) -> None:
    rows = [replace(row, vision=None, vision_times=None, vision_valid=None) for row in utterances()]
    data = write(tmp_path / "data", rows)
    about = to_mmsa(data, tmp_path / "file.pkl", lm=lm)
    assert "the dataset has no vision: the column is zeros" in about["notes"]
    assert read(tmp_path / "file.pkl")["train"]["vision"].shape == (12, 1, 2)
    assert load_corpus("custom", tmp_path / "file.pkl", label_range=(-3, 3), cache=tmp_path / "cache").vision_width == 0


def test_what_cannot_be_written_is_refused_in_one_line(tmp_path: Path, lm: str) -> None:
    unlabelled = write(tmp_path / "unlabelled", [replace(row, label=None) for row in utterances()])
    with pytest.raises(UserError, match=r"has no labels \(column `label`\), which MMSA needs; choose a labelled dataset"):
        to_mmsa(unlabelled, tmp_path / "file.pkl", lm=lm)
    untimed = write(tmp_path / "untimed", [replace(row, words=words(timed=False), text=TEXT) for row in utterances()])
    with pytest.raises(UserError, match=r"--aligned 50: the words of .* have no times; use --unaligned"):
        to_mmsa(untimed, tmp_path / "file.pkl", aligned=50, lm=lm)
    with pytest.raises(UserError, match=r"--aligned 50 --unaligned: choose one of the two"):
        main(Options(dataset=str(untimed), output=tmp_path / "file.pkl", aligned=50, unaligned=True, lm=lm))
    with pytest.raises(UserError, match=r"--aligned sets all three lengths"):
        to_mmsa(untimed, tmp_path / "file.pkl", aligned=50, audio_length=3, lm=lm)
    with pytest.raises(UserError, match=r"name a file that ends in \.pkl"):
        to_mmsa(untimed, tmp_path / "file.json", lm=lm)
    few = write(tmp_path / "few", utterances(("train",), count=1))
    with pytest.raises(UserError, match=r"too few labelled utterances \(1\)"):
        to_mmsa(few, tmp_path / "file.pkl", lm=lm)
    assert not (tmp_path / "file.pkl").exists()


@pytest.mark.parametrize(
    ("own", "video", "expected"),
    [("v1/0001", "v1", "v1$_$0001"), ("v1", "v1", "v1$_$0"), ("clip", None, "clip$_$0"), ("a_3", "a", "a$_$3"), ("x", "v", "v$_$x")],
)
def test_ids(own: str, video: str | None, expected: str) -> None:
    assert mmsa_id(own, video) == expected


def test_ids_that_would_be_the_same_stay_apart() -> None:
    findings = Findings()
    own, videos = ["a_1", "a/1", "a$1", "a_a/1", "a/2"], ["a"] * 5
    ids = mmsa_ids({"train": [0, 1, 2], "test": [3, 4]}, own, videos, findings)
    assert ids == {"train": ["a$_$1", "a$_$a/1", "a$_$a$1"], "test": ["a$_$a_a/1", "a$_$2"]}
    assert [(finding.where, finding.count) for finding in findings] == [("id", 3)]


def test_the_command_has_a_name_beside_the_other_commands_of_a_dataset() -> None:
    command = [sys.executable, "-m", "preprocessing.to_mmsa", "--help"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "--aligned" in found
    assert "--output" in found
