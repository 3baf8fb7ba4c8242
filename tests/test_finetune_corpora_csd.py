"""CMU-MultimodalSDK's computational sequences, before and after the SDK's alignment."""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from finetune.corpora import load_corpus
from finetune.corpora.cached import sequence_files
from finetune.corpora.csd import _column_names
from preprocessing.layouts.labelled import standard_folds
from skesl_mug.errors import UserError

h5py = pytest.importorskip("h5py", reason="the extra `csd` is not installed")
MOSI = {split: [video for video, own in standard_folds()["mosi"].items() if own == split] for split in ("train", "valid", "test")}
VIDEOS = [*MOSI["train"][:2], MOSI["valid"][0], MOSI["test"][0]]
SEGMENTS = [(0.5, 2.0), (2.0, 3.5), (4.0, 6.0)]
WORDS = ["sp", "good", "film", "sp", "bad", "one", "sp", "fine"]
"""One in each half second from 0.5 s."""


def write(path: Path, root: str, data: dict, names: list[str] | None = None) -> None:
    with h5py.File(path, "w") as file:
        for key, (features, intervals) in data.items():
            group = file.create_group(f"{root}/data/{key}")
            group.create_dataset("features", data=features, compression="gzip")
            group.create_dataset("intervals", data=intervals)
        metadata = file.create_group(f"{root}/metadata")
        for name, value in {"root name": root, "dimension names": names}.items():
            metadata.create_dataset(name, (1,), dtype=h5py.special_dtype(vlen=str))
            metadata[name][0] = json.dumps(value)


def frames(width: int, rate: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    count = int(7 * rate)
    starts = np.arange(count) / rate
    return np.random.default_rng(seed).normal(size=(count, width)), np.stack([starts, starts + 1 / rate], axis=1)


def sdk_folder(folder: Path, videos: list[str] = VIDEOS) -> Path:
    """MOSI's raw sequences: words, COVAREP, FACET, labels."""
    folder.mkdir(parents=True, exist_ok=True)
    starts = 0.5 + 0.5 * np.arange(len(WORDS))
    words = (np.array(WORDS, "S32")[:, None], np.stack([starts, starts + 0.5], axis=1))
    labels = {video: (np.arange(3.0)[:, None] - place / 9, np.array(SEGMENTS)) for place, video in enumerate(videos)}
    write(folder / "CMU_MOSI_TimestampedWords.csd", "words", dict.fromkeys(videos, words))
    write(folder / "CMU_MOSI_COVAREP.csd", "COVAREP", {video: frames(4, 10, place) for place, video in enumerate(videos)})
    write(folder / "CMU_MOSI_Visual_Facet_42.csd", "FACET_4.2", {video: frames(3, 5, place) for place, video in enumerate(videos)})
    write(folder / "CMU_MOSI_Opinion_Labels.csd", "Opinion Segment Labels", labels)
    return folder


def found(corpus, where: str) -> list[str]:
    return [finding.what for finding in corpus.findings if where in finding.where]


def test_sequences_are_cut_at_the_labelled_segments(tmp_path):
    corpus = load_corpus("mosi", sdk_folder(tmp_path))
    assert {name: len(split) for name, split in corpus.splits.items()} == {"train": 6, "dev": 3, "test": 3}
    train = corpus.splits["train"]
    place = train.ids.index(f"{VIDEOS[0]}$_$0")
    assert train.video_ids[place] == VIDEOS[0]
    assert train.text[place : place + 3] == ["good film", "bad one", "fine"]
    np.testing.assert_allclose(train.label[place : place + 3], [0, 1, 2])
    audio, _ = frames(4, 10, 0)
    np.testing.assert_allclose(train.audio[place], audio[5:20], rtol=1e-6)
    np.testing.assert_allclose(train.vision[place + 2], frames(3, 5, 0)[0][20:30], rtol=1e-6)
    assert found(corpus, "folds") == ["the standard folds of MOSI"]
    assert "read as audio" in found(corpus, "COVAREP")
    assert corpus.info is None


def test_aligned_sequences_have_a_key_per_segment(tmp_path):
    one = np.array([[0.0, 1.0]])
    keys = [f"{video}[{number}]" for video in VIDEOS for number in range(11)]
    words = np.array([["sp"], ["hello"], ["caf\xe9".encode()]], "S16")
    write(tmp_path / "words.csd", "words", {key: (words, np.zeros((3, 2))) for key in keys})
    write(
        tmp_path / "OpenFace_2.csd", "OpenFace_2", {key: (np.full((2, 5), place + 1.0), np.zeros((2, 2))) for place, key in enumerate(keys)}
    )
    write(tmp_path / "labels.csd", "Opinion Segment Labels", {key: (np.array([[place % 3 - 1.0]]), one) for place, key in enumerate(keys)})
    corpus = load_corpus("mosi", tmp_path)
    train = corpus.splits["train"]
    assert train.ids[:11] == [f"{min(VIDEOS[:2])}$_${number}" for number in range(11)]
    assert train.text[0].startswith("hello caf")
    assert corpus.modalities == ("text", "vision")
    place = keys.index(f"{min(VIDEOS[:2])}[3]")
    np.testing.assert_array_equal(train.vision[3], np.full((2, 5), place + 1.0))


def test_word_vectors_without_words_are_text(tmp_path):
    sdk_folder(tmp_path)
    (tmp_path / "CMU_MOSI_TimestampedWords.csd").unlink()
    write(tmp_path / "CMU_MOSI_TimestampedWordVectors.csd", "glove_vectors", {video: frames(6, 2, 0) for video in VIDEOS})
    corpus = load_corpus("mosi", tmp_path)
    assert corpus.modalities == ("text", "audio", "vision")
    assert corpus.text_width == 6


def test_folds_of_other_videos_come_from_a_file(tmp_path):
    videos = ["a", "b", "c", "d"]
    sdk_folder(tmp_path, videos)
    with pytest.raises(UserError, match=r"its 4 videos are not in the standard folds of MOSI, MOSEI, POM; put a folds\.csv"):
        load_corpus("custom", tmp_path, label_range=(-3, 3))
    (tmp_path / "cmu_mosei_std_folds.py").write_text("standard_train_fold=['a']\nstandard_valid_fold=['b']\nstandard_test_fold=['c']\n")
    corpus = load_corpus("custom", tmp_path, label_range=(-3, 3))
    assert [set(split.video_ids) for split in corpus.splits.values()] == [{"a"}, {"b"}, {"c"}]
    assert "segments of videos that are in no fold, dropped" in found(corpus, "folds")


def test_standard_folds_have_the_published_sizes():
    parts = ("train", "valid", "test")
    sizes = {corpus: tuple(Counter(folds.values())[part] for part in parts) for corpus, folds in standard_folds().items()}
    assert sizes == {"mosi": (52, 10, 31), "mosei": (2250, 300, 678), "pom": (600, 100, 203)}


def test_sentiment_of_mosei_is_the_first_of_seven_labels(tmp_path):
    sdk_folder(tmp_path)
    labels = np.arange(21.0).reshape(3, 7) / 10
    write(tmp_path / "CMU_MOSI_Opinion_Labels.csd", "All Labels", {video: (labels, np.array(SEGMENTS)) for video in VIDEOS})
    corpus = load_corpus("mosei", tmp_path)
    np.testing.assert_allclose(corpus.splits["test"].label, [0, 0.7, 1.4], rtol=1e-6)
    assert found(corpus, "label")[0].endswith("column 0 is read as sentiment")
    names = ["confident", "passionate", "sentiment"]
    write(tmp_path / "CMU_MOSI_Opinion_Labels.csd", "labels", {video: (labels[:, :3], np.array(SEGMENTS)) for video in VIDEOS}, names)
    np.testing.assert_allclose(load_corpus("mosei", tmp_path).splits["test"].label, [0.2, 0.9, 1.6], rtol=1e-6)


def test_no_sequence_is_dropped_silently(tmp_path):
    sdk_folder(tmp_path)
    write(tmp_path / "CMU_MOSI_openSMILE_IS09.csd", "OpenSMILE", {video: frames(6, 2, 0) for video in VIDEOS})
    write(tmp_path / "gaze.csd", "gaze", {video: frames(6, 2, 0) for video in VIDEOS})
    corpus = load_corpus("mosi", tmp_path)
    assert "audio is read from CMU_MOSI_COVAREP.csd/COVAREP" in found(corpus, "OpenSMILE")[0]
    assert "neither labels, words, audio nor vision" in found(corpus, "gaze")[0]


def test_one_file_with_all_sequences(tmp_path):
    """MultiBench's mosi.hdf5: sequences beside each other, without `data`."""
    sdk_folder(tmp_path)
    with h5py.File(tmp_path / "mosi.hdf5", "w") as file:
        for path in sorted(tmp_path.glob("*.csd")):
            with h5py.File(path) as other:
                for root in other:
                    other.copy(f"{root}/data", file, root)
    corpus = load_corpus("mosi", tmp_path / "mosi.hdf5")
    assert corpus.modalities == ("text", "audio", "vision")
    assert corpus.splits["test"].text[0] == "good film"


def test_faults_name_the_file(tmp_path, monkeypatch):
    sdk_folder(tmp_path)
    with h5py.File(tmp_path / "CMU_MOSI_COVAREP.csd", "a") as file:
        del file[f"COVAREP/data/{VIDEOS[0]}/intervals"]
        file[f"COVAREP/data/{VIDEOS[0]}/intervals"] = np.zeros((3, 2))
    with pytest.raises(UserError, match=r"COVAREP.csd: .* has features \[70, 4\] and intervals \[3, 2\]"):
        load_corpus("mosi", tmp_path)
    (tmp_path / "CMU_MOSI_COVAREP.csd").write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"COVAREP\.csd: is not an HDF5 file, or damaged"):
        load_corpus("mosi", tmp_path)
    (tmp_path / "CMU_MOSI_COVAREP.csd").unlink()
    (tmp_path / "CMU_MOSI_Opinion_Labels.csd").unlink()
    with pytest.raises(UserError, match=r"has no sequence of labels \(there is FACET_4\.2, words\)"):
        load_corpus("mosi", tmp_path)
    with pytest.raises(UserError, match=r"\(there is words\); choose the folder of all \.csd files"):
        load_corpus("mosi", tmp_path / "CMU_MOSI_TimestampedWords.csd")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match="need h5py; `pip install h5py`"):
        load_corpus("mosi", tmp_path)


def test_the_standard_folds_are_those_that_cover_most_videos(tmp_path):
    """Half of POM's videos are MOSEI's too."""
    pom, mosei = standard_folds()["pom"], standard_folds()["mosei"]
    shared, own = [video for video in pom if video in mosei], [video for video in pom if video not in mosei]
    corpus = load_corpus("custom", sdk_folder(tmp_path, [*shared[:40], *own[-35:]]), label_range=(-9, 9))
    assert found(corpus, "folds") == ["the standard folds of POM"]
    sdk_folder(tmp_path, shared[:20])
    with pytest.raises(UserError, match=r"its 20 videos are in the standard folds of MOSEI \(20\) and of POM \(20\); put a folds\.csv"):
        load_corpus("custom", tmp_path, label_range=(-9, 9))


def test_a_renamed_sequence_is_read_again(tmp_path):
    sdk_folder(tmp_path)
    write(tmp_path / "gaze.csd", "gaze", {video: frames(6, 2, 0) for video in VIDEOS})
    (tmp_path / "CMU_MOSI_Visual_Facet_42.csd").unlink()
    assert load_corpus("mosi", tmp_path).vision_width == 0
    (tmp_path / "gaze.csd").rename(tmp_path / "gaze_vision.csd")
    assert load_corpus("mosi", tmp_path).vision_width == 6


def test_numbers_that_the_file_cannot_hold_are_refused(tmp_path):
    sdk_folder(tmp_path)
    with h5py.File(tmp_path / "CMU_MOSI_COVAREP.csd", "a") as file:
        del file[f"COVAREP/data/{VIDEOS[0]}/features"]
        file[f"COVAREP/data/{VIDEOS[0]}"].create_dataset("features", (60_000_000, 4), "f4", chunks=(1000, 4), compression="gzip")
    with pytest.raises(UserError, match=r"claims 960,\d+,\d+ bytes, too many for this file"):
        load_corpus("mosi", tmp_path)


def test_groups_that_are_not_sequences_are_findings(tmp_path):
    sdk_folder(tmp_path)
    with h5py.File(tmp_path / "CMU_MOSI_COVAREP.csd", "a") as file:
        file["FACET/video/values"] = np.zeros(3)
        file["version"] = 1
    corpus = load_corpus("mosi", tmp_path)
    assert [found(corpus, f"COVAREP.csd/{name}") for name in ("FACET", "version")] == [
        ["entries that are not a sequence (`data/VIDEO/features`): not used"]
    ] * 2


def test_folds_beside_one_file(tmp_path):
    sdk_folder(tmp_path / "parts", ["a", "b", "c", "d"])
    with h5py.File(tmp_path / "all.hdf5", "w") as file:
        for path in (tmp_path / "parts").glob("*.csd"):
            with h5py.File(path) as other:
                for root in other:
                    other.copy(root, file)
    (tmp_path / "folds.csv").write_text("video_id,split\na,train\nb,valid\nc,test\nd,test\n")
    (tmp_path / "._folds.csv").write_bytes(b"\x00\x05\x16\x07")
    corpus = load_corpus("custom", tmp_path / "all.hdf5", label_range=(-3, 3))
    assert [set(split.video_ids) for split in corpus.splits.values()] == [{"a"}, {"b"}, {"c", "d"}]


def test_a_folder_with_some_hdf5_file_is_not_a_corpus(tmp_path):
    for name in ("weights.h5", ".venv/test.h5", "venv/lib/python/test.h5"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(tmp_path / name, "w") as file:
            file["layer/kernel"] = np.zeros(3)
    assert sequence_files(tmp_path) == []
    sdk_folder(tmp_path / "venv/lib/python")
    assert sequence_files(tmp_path) == []
    assert len(sequence_files(tmp_path / "venv/lib/python")) == 5
    assert len(sequence_files(tmp_path / "venv/lib")) == 5


def test_only_the_names_of_columns_are_read_of_the_metadata():
    class Metadata(dict):
        shape, dtype = (1,), np.dtype("S2000000")

    def read(name):
        return _column_names({"metadata": {"dimension names": name}})

    assert read(np.array([b'["A", "Sentiment"]'])) == ["a", "sentiment"]
    assert [read(value) for value in (Metadata(), np.array([b"1"]), np.zeros((1, 9)), None)] == [[]] * 4
    assert _column_names({}) == []
