"""Large corpora: pickles whose arrays stay in the file, the converted form in the cache, URLs, and statistics of what does not fit."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_finetune_corpora import found, make_dataset, mmsa_split, write

from finetune.corpora import LabelledSplit, load_corpus, loading, mapped_file
from finetune.corpora.mapped_file import FrameWriter, map_beneath
from finetune.corpora.safe_pickle import load_pickle
from finetune.model.minibatches import PreparedSplit, frames_of, own_tokens
from pretrain.crossmodal import feature_statistics
from skesl_mug.cache import cache_folder, make_once
from skesl_mug.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
LONG = np.random.default_rng(0).normal(size=(50, 40, 20))
ARRAYS = {
    "float64": LONG,
    "float32": LONG.astype(np.float32),
    "big-endian": LONG.astype(">f4"),
    "by columns": np.asfortranarray(LONG[0].repeat(20, axis=0)),
    "integers": np.arange(20_000),
    "text": np.asarray([f"video{row}" for row in range(3000)]),
    "million": np.arange(1 << 18, dtype=np.float32),  # old protocols write such bytes as a text of more than a megabyte
}


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", ARRAYS)
def test_long_arrays_stay_in_the_file(tmp_path, name, protocol):
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps([ARRAYS[name], "after"], protocol=protocol))
    array, after = load_pickle(path, tmp_path)
    assert after == "after"
    np.testing.assert_array_equal(array, ARRAYS[name])
    assert (array.dtype.newbyteorder("="), array.shape) == (ARRAYS[name].dtype.newbyteorder("="), ARRAYS[name].shape)
    if protocol > 2 or name == "million":
        assert map_beneath(array) is not None
        assert not array.flags.writeable
    assert [file.name for file in tmp_path.iterdir()] == ["data.pkl"]


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_an_array_named_twice_is_one(tmp_path, protocol):
    path = tmp_path / "data.pkl"
    content = {"a": ARRAYS["float32"], "b": [ARRAYS["float32"], np.arange(3)]}
    path.write_bytes(pickle.dumps({**content, "c": content["b"]}, protocol=protocol))
    read = load_pickle(path)
    assert read["a"] is read["b"][0]
    assert read["c"] is read["b"]
    np.testing.assert_array_equal(read["a"], ARRAYS["float32"])


@pytest.mark.parametrize(("old", "new"), [(b"K(K\x14\x87", b"K(K\x15\x87"), (b"K(K\x14\x87", b"K(K\x13\x87")])
def test_a_long_array_of_another_size_than_its_shape_is_refused(tmp_path, old, new):
    path = tmp_path / "data.pkl"
    raw = pickle.dumps(LONG, protocol=4)
    assert raw.count(old) == 1
    path.write_bytes(raw.replace(old, new))
    with pytest.raises(UserError, match="another size than its shape"):
        load_pickle(path)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(LONG, protocol=4)[:-5000])
    with pytest.raises(UserError, match="ends too early"):
        load_pickle(path)


def test_long_text_and_bytes_are_still_readable(tmp_path):
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(["é" * (1 << 20), b"x" * 20_000]))
    text, raw = load_pickle(path)
    assert str(text) == "é" * (1 << 20)
    assert bytes(raw) == b"x" * 20_000


def big_content(rows: int = 40) -> dict:
    """Three splits whose arrays are long enough to stay in the file; float64, NaN, -inf, lists, padding at both ends."""
    content = {}
    for place, name in enumerate(("train", "valid", "test")):
        rng = np.random.default_rng(place)
        split = mmsa_split(name, rows, seed=place)
        audio = rng.normal(size=(rows, 60, 9))
        for row, length in enumerate(rng.integers(0, 61, rows)):
            audio[row, length:] = 0
        audio[3, 0, 0], audio[4, 1, 1] = -np.inf, np.nan
        vision = [rng.normal(size=(rng.integers(1, 50), 300)).astype(np.float32) for _ in range(rows)]
        vision[5][:] = 0
        content[name] = {**split, "audio": audio, "vision": vision}
        del content[name]["audio_lengths"], content[name]["vision_lengths"]
    return content


@pytest.mark.parametrize("protocol", [2, 4])
def test_conversion_keeps_every_value(tmp_path, protocol):
    content = big_content()
    corpus = load_corpus("sims", write(tmp_path, content, protocol), cache=tmp_path / "cache")
    assert found(corpus, "NaN or infinite") == 6
    for name, mine in (("train", "train"), ("valid", "dev"), ("test", "test")):
        for modality in ("audio", "vision"):
            frames = getattr(corpus.splits[mine], modality)
            for row, raw in enumerate(content[name][modality]):
                wanted = np.nan_to_num(raw, nan=0, posinf=0, neginf=0).astype(np.float32)
                filled = np.flatnonzero(wanted.any(1))
                if not len(filled):
                    assert frames[row] is None
                else:
                    np.testing.assert_array_equal(frames[row], wanted[filled[0] : filled[-1] + 1])
                    assert frames[row].dtype == np.float32
    split = corpus.splits["train"]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(split.audio))[0], split.audio[0])
    with pytest.raises(IndexError):
        split.audio[len(split)]


def test_a_file_is_converted_once_by_its_content(tmp_path, monkeypatch):
    content = big_content()
    path = write(tmp_path, content)
    first = load_corpus("sims", path, cache=tmp_path / "cache")
    monkeypatch.setattr(loading, "load_pickle", lambda *_: pytest.fail("the pickle was read again"))
    moved = path.rename(tmp_path / "moved.pkl")
    again = load_corpus("sims", moved, cache=tmp_path / "cache")
    assert again.findings == first.findings
    for name, split in first.splits.items():
        other = again.splits[name]
        assert (split.ids, split.video_ids, split.text) == (other.ids, other.video_ids, other.text)
        np.testing.assert_array_equal(split.label, other.label)
        np.testing.assert_array_equal(split.label_T, other.label_T)
        assert split.audio.file.path == other.audio.file.path
    monkeypatch.undo()
    content["train"]["raw_text"][0] = "other words"
    assert load_corpus("sims", write(tmp_path, content), cache=tmp_path / "cache").splits["train"].text[0] == "other words"
    assert len([folder for folder in (tmp_path / "cache" / "corpora").iterdir() if folder.is_dir()]) == 2


def test_nothing_stays_of_a_conversion_that_failed_or_was_killed(tmp_path):
    target = tmp_path / "cache" / "made"

    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise UserError("a fault in the file")

    with pytest.raises(UserError, match="a fault in the file"):
        make_once(target, fail)
    assert not list(target.parent.glob("made*/"))
    (tmp_path / "cache" / "made.part").mkdir()
    (tmp_path / "cache" / "made.part" / "half").write_text("left by a killed process")
    make_once(target, lambda folder: (folder / "whole").write_text("whole"))
    assert [file.name for file in target.iterdir()] == ["whole"]
    assert not (tmp_path / "cache" / "made.part").exists()


def test_several_processes_convert_once(tmp_path):
    path = write(tmp_path, big_content())
    script = (
        "import sys\nfrom finetune.corpora import load_corpus\n"
        "rows = load_corpus('sims', sys.argv[1]).splits['train'].vision\nprint(float(sum(row.sum() for row in rows if row is not None)))"
    )
    environment = {**os.environ, "SKESL_MUG_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, str(path)]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outcomes = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], outcomes
    assert outcomes[0][0] == outcomes[1][0]
    assert len([folder for folder in (tmp_path / "cache" / "corpora").iterdir() if folder.is_dir()]) == 1


def test_the_cache_folder_and_one_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("SKESL_MUG_CACHE", str(tmp_path / "named"))
    assert cache_folder() == tmp_path / "named"
    assert cache_folder(tmp_path / "given") == tmp_path / "given"
    monkeypatch.delenv("SKESL_MUG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "skesl-mug"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written .* --cache or SKESL_MUG_CACHE"):
        load_corpus("sims", write(tmp_path, big_content()), cache=tmp_path / "file")


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    path = write(tmp_path, big_content())
    script = (
        "import resource, signal, sys\nfrom pathlib import Path\nfrom finetune.corpora import load_corpus\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try:\n    load_corpus('sims', sys.argv[1], cache=Path(sys.argv[2]))\n"
        "except Exception as error:\n    print(type(error).__name__, error)"
    )
    command = [sys.executable, "-c", script, str(path), str(tmp_path / "cache")]
    outcome = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120)
    assert outcome.stdout.startswith("UserError"), outcome
    assert "cannot be written (File too large); free some space" in outcome.stdout
    assert not [folder for folder in (tmp_path / "cache" / "corpora").iterdir() if folder.is_dir()]
    assert len(load_corpus("sims", path, cache=tmp_path / "cache").splits["train"]) == 40


def peak_growth(work) -> float:
    """MB by which the resident set grows at most while `work` runs, file pages included."""

    def status(key: str) -> float:
        return next(float(line.split()[1]) / 1024 for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))

    try:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    except OSError:
        pytest.skip("this system does not let a process reset its peak memory")
    before = status("VmRSS")
    work()
    return status("VmHWM") - before


def test_memory_stays_small_beside_the_data(tmp_path, monkeypatch):
    for module in (mapped_file, sys.modules["finetune.corpora.checks"]):
        monkeypatch.setattr(module, "RESIDENT_BYTES", 2 << 20)
    content = {name: mmsa_split(name, 40, seed=place) for place, name in enumerate(("train", "valid"))}
    for split in content.values():
        split["audio"] = np.random.default_rng(0).normal(size=(40, 500, 400)).astype(np.float32)  # 32 MB
        del split["audio_lengths"]
    path = write(tmp_path, content)
    del content, split

    def work() -> None:
        train = load_corpus("sims", path, cache=tmp_path / "cache").splits["train"]
        feature_statistics(frames_of(train))
        prepared(train).descriptors("audio")

    assert peak_growth(work) < 32, "half of the file's 64 MB"


def prepared(split: LabelledSplit) -> PreparedSplit:
    import torch

    return PreparedSplit(split, [[2, 3]] * len(split), None, False, torch.zeros(len(split)), 0)


def mapped(folder: Path, arrays: list[np.ndarray | None]):
    with FrameWriter(folder / "frames") as writer:
        for array in arrays:
            writer.append(array)
        return writer.frames()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=8), st.integers(1, 4), st.integers(0, 99))
def test_streamed_statistics_are_those_of_all_frames(tmp_path_factory, lengths, width, seed):
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(1e3, 0.1, size=(length, width)).astype(np.float32) if length else None for length in lengths]
    ids = [str(row) for row in range(len(arrays))]
    split = LabelledSplit(ids, ids, np.zeros(len(ids), np.float32), audio=mapped(tmp_path_factory.mktemp("frames"), arrays))
    frames = [array for array in arrays if array is not None]
    statistics = feature_statistics(frames_of(split))
    if not frames:
        assert statistics == {}
        return
    together = np.concatenate(frames).astype(np.float64)
    np.testing.assert_allclose(statistics["audio"][0], together.mean(0), rtol=1e-6)
    np.testing.assert_allclose(statistics["audio"][1], together.std(0), rtol=1e-5, atol=1e-9)


def test_selecting_and_permuting_move_frames_not_copies(tmp_path):
    arrays = [np.full((row + 1, 2), row, np.float32) if row != 2 else None for row in range(6)]
    ids = [str(row) for row in range(6)]
    split = LabelledSplit(ids, ids, np.zeros(6, np.float32), audio=mapped(tmp_path, arrays), vision=[None] * 6)
    chosen = split.select([4, 2, 1])
    assert [None if row is None else int(row[0, 0]) for row in chosen.audio] == [4, None, 1]
    data = prepared(split)
    assert data.present("audio").tolist() == [True, True, False, True, True, True]
    moved = data.with_permuted_frames(0)
    assert moved.split.audio.file is split.audio.file
    assert sorted(len(row) for row in moved.split.audio if row is not None) == [1, 2, 4, 5, 6]
    assert all(mine is None or len(mine) != row + 1 for row, mine in enumerate(moved.split.audio))  # nobody keeps their own
    assert moved.present("audio").tolist() == [row is not None for row in moved.split.audio]


def test_a_pickle_and_a_dataset_behind_a_url(tmp_path):
    store = fsspec.filesystem("memory")
    content = big_content()
    store.pipe("/corpora/file.pkl", pickle.dumps(content))
    corpus = load_corpus("sims", "memory://corpora/file.pkl", cache=tmp_path / "cache")
    assert corpus.source == "memory://corpora/file.pkl"
    assert corpus.describe()["source"] == "file.pkl"
    content["train"]["raw_text"][0] = "other words"
    store.pipe("/corpora/file.pkl", pickle.dumps(content))
    assert load_corpus("sims", "memory://corpora/file.pkl", cache=tmp_path / "cache").splits["train"].text[0] == "other words"
    store.put(str(make_dataset(tmp_path / "data")), "/corpora/dataset", recursive=True)
    corpus = load_corpus("custom", "memory://corpora/dataset", cache=tmp_path / "cache")
    assert corpus.info is not None
    assert corpus.splits["train"].ids == ["train-0", "train-1", "train-2", "train-4"]
    for url, message in (
        ("memory://corpora/absent.pkl", "does not exist"),
        ("memory://corpora", "is not an utterance dataset"),
        ("nostore://a", "cannot be opened"),
    ):
        with pytest.raises(UserError, match=message) as fault:
            load_corpus("sims", url, cache=tmp_path / "cache")
        assert "\n" not in str(fault.value)


def with_text_bert(rows: int = 12) -> dict:
    content = {name: mmsa_split(name, rows, seed=place) for place, name in enumerate(("train", "valid"))}
    for split in content.values():
        ids = np.zeros((rows, 3, 8), np.float32)
        ids[:, 0, :4], ids[:, 1, :4] = [2, 7, 9, 3], 1
        ids[1, 0, :4], ids[1, 0, :2], ids[1, 1, 2:] = 0, [2, 3], 0
        split["text_bert"] = ids
        del split["raw_text"]
    return content


def test_text_bert_is_read_on_request_only(tmp_path):
    path = write(tmp_path, with_text_bert())
    plain = load_corpus("mosi", path)
    assert plain.modalities == ("audio", "vision")
    assert found(plain, "needs --text-bert") == 24
    corpus = load_corpus("mosi", path, text_bert=True)
    assert corpus.has_text
    valid = corpus.splits["valid"]
    assert valid.tokens[:2] == [[2, 7, 9, 3], [2, 3]]
    assert prepared(valid).present("text").tolist() == [True, False] + [True] * 10
    for spoilt, message in ((np.zeros((12, 8)), r"has shape \[12, 8\], not \[12, 3, L\]"), (None, "has no `text_bert`")):
        content = with_text_bert()
        content["train"]["text_bert"] = spoilt
        with pytest.raises(UserError, match=message):
            load_corpus("mosi", write(tmp_path, content), text_bert=True)
    with pytest.raises(UserError, match=r"--text-bert: .* is an utterance dataset"):
        load_corpus("custom", make_dataset(tmp_path / "data"), text_bert=True)


class Vocabulary:
    cls_token_id, sep_token_id, model_max_length = 2, 3, 512

    def __len__(self) -> int:
        return 20


def test_own_tokens_are_cut_and_checked():
    assert own_tokens([[2, 7, 9, 8, 3], [], [2, 3]], Vocabulary(), 4) == [[2, 7, 9, 3], [2, 3], [2, 3]]
    for rows in ([[101, 7, 102]], [[2, 25, 3]]):
        with pytest.raises(UserError, match="do not belong to the vocabulary"):
            own_tokens(rows, Vocabulary(), 10)


def test_transcripts_that_are_all_empty_are_no_text(tmp_path):
    content = {name: mmsa_split(name) for name in ("train", "valid")}
    content["valid"]["raw_text"] = [" "] * 12
    corpus = load_corpus("sims", write(tmp_path, content))
    assert corpus.has_text  # train's are there
    content["train"]["raw_text"] = [""] * 12
    corpus = load_corpus("sims", write(tmp_path, content))
    assert corpus.modalities == ("audio", "vision")
    assert found(corpus, "samples with empty transcripts") == 24


def test_a_split_of_one_sample_and_unimodal_labels_that_nobody_knows(tmp_path):
    content = {name: mmsa_split(name, count) for name, count in (("train", 12), ("valid", 12), ("test", 1))}
    for split in content.values():
        split["regression_labels_T"] = np.full(len(split["id"]), np.nan)
    corpus = load_corpus("sims", write(tmp_path, content))
    assert found(corpus, "a single sample") == 1
    assert corpus.splits["train"].label_T is None


def test_an_empty_valid_split_is_found_and_dev_carved(tmp_path):
    content = {name: mmsa_split(name, count) for name, count in (("train", 12), ("valid", 0), ("test", 12))}
    corpus = load_corpus("sims", write(tmp_path, content))
    assert [finding.where for finding in corpus.findings if "empty split" in finding.what] == ["valid"]
    assert corpus.evaluated_on == "test"
    assert "no valid split" in corpus.evaluated_on_note
    assert len(corpus.splits["dev"]) == 3


@pytest.mark.skipif(os.environ.get("MSA_DATA") is None, reason="MSA_DATA names no folder of corpora")
def test_the_tokens_of_a_real_file_are_those_of_its_transcripts():
    from pretrain.encoder import load_tokenizer
    from pretrain.tokens import tokenise

    corpus = load_corpus("mosi", Path(os.environ["MSA_DATA"]) / "mosi/mosi_text_audio_train_valid.pkl", text_bert=True)
    tokenizer, train = load_tokenizer("embedded"), corpus.splits["train"]
    ours = tokenise(train.text, tokenizer, 64)
    theirs = own_tokens(train.tokens, tokenizer, 64)
    assert np.mean([a == b for a, b in zip(ours, theirs, strict=True)]) > 0.9
