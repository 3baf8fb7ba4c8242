"""The utterance dataset on disk."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lexicons import UserError
from preprocessing import store
from preprocessing.schema import DatasetInfo, FeatureInfo, Mask, Utterance, Word
from preprocessing.store import UtteranceDataset, read_info, read_shard, shard_path, write_dataset, write_info, write_shard
from skesl_mug.files import read_json


def feature(width: int) -> FeatureInfo:
    return FeatureInfo("made", 10.0, [{"name": f"c{n}", "unit": "none"} for n in range(width)], {"numpy": "2"}, {"a": 1})


def info(audio: int = 3, vision: int = 2) -> DatasetInfo:
    return DatasetInfo(
        corpus={"name": "made", "root": "x", "synthetic": True},
        label_range=(-3.0, 3.0),
        audio=feature(audio) if audio else None,
        vision=feature(vision) if vision else None,
    )


def utterance(name: str = "a/b", **changes) -> Utterance:
    values = {
        "id": name,
        "video_id": "v",
        "speaker": "s",
        "start": 0.0,
        "end": 1.5,
        "language": "en",
        "text": "so good",
        "words": [Word("so", 0, 2), Word("good", 3, 7, 0.5, 0.75, 0.5)],
        "masks": [Mask(3, 7, 1.5)],
        "audio": np.arange(12, dtype=np.float32).reshape(4, 3),
        "vision": np.ones((2, 2), np.float32),
        "vision_times": np.array([0.0, 0.5], np.float32),
        "vision_valid": np.array([True, False]),
        "face_rate": 0.5,
        "split": "train",
        "label": -1.5,
    }
    return Utterance(**{**values, **changes})


def assert_same(first: Utterance, second: Utterance) -> None:
    for name, value in vars(first).items():
        other = getattr(second, name)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, other, err_msg=name)
        else:
            assert value == other, name


def test_what_is_written_is_read(tmp_path, capsys):
    bare = utterance(
        "c", audio=None, vision=None, vision_times=None, vision_valid=None, face_rate=None, split=None, label=None, words=[], masks=[]
    )
    rows = [utterance(), bare, utterance("d", label_T=0.5, label_A=-3.0, label_V=3.0)]
    write_dataset(tmp_path / "d", rows, info(), shard_rows=2)
    data = UtteranceDataset(tmp_path / "d")
    assert len(data) == 3
    for written, read in zip(rows, data, strict=True):
        assert_same(written, read)
    assert_same(rows[-1], data[-1])
    with pytest.raises(IndexError):
        data[3]
    assert data.column("id") == ["a/b", "c", "d"]
    assert data.info == info()
    assert data.info.synthetic
    assert capsys.readouterr() == ("", "")  # no progress bar of a library
    assert not list((tmp_path / "d").rglob("*.tmp"))


def test_datasets_without_a_modality(tmp_path):
    write_dataset(tmp_path / "d", [utterance(audio=None, vision=None)], info(0, 0))
    data = UtteranceDataset(tmp_path / "d")
    assert data[0].audio is None
    assert data.info.audio is None


def test_an_empty_sequence_is_not_an_absent_one(tmp_path):
    write_dataset(tmp_path / "d", [utterance(audio=np.zeros((0, 3), np.float32))], info())
    assert UtteranceDataset(tmp_path / "d")[0].audio.shape == (0, 3)


def test_new_and_rewritten_shards_are_noticed(tmp_path):
    """Whatever the reader caches, it must not return what is no longer in the folder."""
    folder = tmp_path / "d"
    write_dataset(folder, [utterance("one")], info())
    assert UtteranceDataset(folder).column("id") == ["one"]
    write_shard(shard_path(folder, 1), [utterance("two")], 3, 2)
    assert UtteranceDataset(folder).column("id") == ["one", "two"]
    write_shard(shard_path(folder, 0), [utterance("new")], 3, 2)
    assert UtteranceDataset(folder).column("id") == ["new", "two"]


@given(
    st.lists(st.one_of(st.none(), st.integers(0, 5)), min_size=1, max_size=4),
    st.floats(-1e6, 1e6),
)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_features_are_kept_to_half_precision(tmp_path_factory, lengths, scale):
    rng = np.random.default_rng(0)
    arrays = [None if n is None else (rng.standard_normal((n, 3)) * scale).astype(np.float32) for n in lengths]
    folder = tmp_path_factory.mktemp("half")
    write_dataset(folder, [utterance(str(n), audio=array) for n, array in enumerate(arrays)], info())
    limit = float(np.finfo(np.float16).max)
    for array, read in zip(arrays, UtteranceDataset(folder), strict=True):
        if array is None:
            assert read.audio is None
        else:
            np.testing.assert_array_equal(read.audio, np.clip(array, -limit, limit).astype(np.float16).astype(np.float32))


def test_wrong_width_is_refused(tmp_path):
    with pytest.raises(ValueError, match="width is 3"):
        write_dataset(tmp_path / "d", [utterance(audio=np.zeros((2, 4)))], info())


def test_faults(tmp_path):
    with pytest.raises(UserError, match="is not an utterance dataset"):
        UtteranceDataset(tmp_path)
    write_info(tmp_path, info())
    with pytest.raises(UserError, match="has no shards"):
        UtteranceDataset(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "part-000000.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match=r"part-000000\.parquet"):
        UtteranceDataset(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        read_info(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({"format_version": 99, "corpus": {}}))
    with pytest.raises(UserError, match="newer version"):
        read_info(tmp_path)


def test_the_size_of_row_groups(tmp_path):
    small = [Utterance(f"u{n}", "v", "s", 0.0, 1.0, "en", "a word") for n in range(600)]
    store.write_dataset(tmp_path / "text", small, DatasetInfo(corpus={"name": "made", "root": ""}))
    assert pq.ParquetFile(next((tmp_path / "text" / "data").iterdir())).num_row_groups == 1
    tables = [store.utterances_to_table([Utterance("u", "v", "s", 0.0, 1.0, "en", "x", audio=np.zeros((500, 33)))], 33, 0)] * 400
    store.write_tables(tmp_path / "wide.parquet", tables)
    file = pq.ParquetFile(tmp_path / "wide.parquet")
    assert file.metadata.num_rows == 400
    assert file.num_row_groups >= 3
    assert all(file.metadata.row_group(n).num_rows < 200 for n in range(file.num_row_groups))


def three_shards(folder):
    described = info()
    described.counts = {"kept": 6}
    write_dataset(folder, [utterance(f"u{n}") for n in range(6)], described, shard_rows=2)
    return folder


def test_a_missing_shard_is_reported(tmp_path):
    folder = three_shards(tmp_path / "d")
    assert len(UtteranceDataset(folder)) == 6
    shard_path(folder, 1).unlink()
    with pytest.raises(UserError, match=r"has 4 utterances but dataset\.json counts 6; a shard is missing"):
        UtteranceDataset(folder)


def test_a_folder_with_brackets_in_its_name(tmp_path):
    assert len(UtteranceDataset(three_shards(tmp_path / "clips [2024] {a} *"))) == 6


def test_damaged_files_are_named(tmp_path):
    path = shard_path(three_shards(tmp_path / "d"), 0)
    assert read_shard(path, ["id"]).column_names == ["id"]
    with pytest.raises(UserError, match=r"part-000000\.parquet: is not a readable shard"):
        read_shard(path, ["stranger"])
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(UserError, match=r"part-000000\.parquet: is not a readable shard"):
        read_shard(path)
    (tmp_path / "piece.json").write_text('{"a": ')
    with pytest.raises(UserError, match=r"piece\.json: is damaged .*delete it"):
        read_json(tmp_path / "piece.json")


def test_a_description_with_wrong_types(tmp_path):
    for part in ('"corpus": null', '"corpus": {}, "counts": []'):
        (tmp_path / "dataset.json").write_text(f'{{"format_version": 1, {part}}}')
        with pytest.raises(UserError, match="is not a mapping"):
            read_info(tmp_path)


def test_rows_are_read_without_a_home_folder(tmp_path, monkeypatch):
    folder = three_shards(tmp_path / "d")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", Path("/proc/no/home"))
    assert len(UtteranceDataset(folder)) == 6
    assert not Path("/proc/no").exists()
