"""`datasets` reads a local dataset, and what is pushed has splits and a card, but no media and no path of this machine."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from test_preprocessing_store import info, utterance

from preprocessing.local_paths import is_path, without_paths
from preprocessing.push import Options, main, push_dataset
from preprocessing.schema import Utterance
from preprocessing.store import UtteranceDataset, shard_path, write_dataset, write_shard
from skesl_mug.errors import UserError


def rows(splits: tuple[str | None, ...] = ("train", "valid", "test", None)) -> list[Utterance]:
    bare = {"audio": None, "vision": None, "vision_times": None, "vision_valid": None, "label": None}
    return [utterance(f"v{n}/{n}", split=splits[n % len(splits)], video_id=f"v{n}", **(bare if n == 3 else {})) for n in range(10)]


def write(folder: Path, utterances: list[Utterance] | None = None, **corpus: Any) -> Path:
    about = info()
    about.corpus |= {"name": "my corpus", "root": "/home/somebody/private/clips", "synthetic": False, **corpus}
    about.asr = {"engine": "faster-whisper", "model": "/home/somebody/models/whisper-small"}
    about.lexicon = {"name": "words", "source": "from /home/somebody/words.csv, see https://example.org/a/b", "licence": "MIT"}
    write_dataset(folder, rows() if utterances is None else utterances, about, shard_rows=4)
    (folder / "clips.csv").write_text("id,path\nv0/0,v0/0.mp4\n")
    return folder


def load(folder: Path, tmp_path: Path, **options: Any) -> Any:
    return datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"), **options)


def test_datasets_reads_a_local_dataset(tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    found = load(folder, tmp_path, split="train")
    assert found["id"] == [row.id for row in rows()]
    np.testing.assert_array_equal(np.array(found[0]["audio"], np.float32), rows()[0].audio)
    assert found[0]["words"][1]["text"] == "good"
    assert found[3]["audio"] is None
    streamed = load(folder, tmp_path, split="train", streaming=True)
    assert [row["label"] for row in streamed] == [row.label for row in rows()]


def test_what_would_be_pushed_has_splits_and_reads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, shared = write(tmp_path / "data"), tmp_path / "shared"
    main(Options(dataset=str(folder), name="owner/name", licence="cc-by-4.0", dry_run=shared))
    shown = capsys.readouterr().out
    assert "train 3, validation 3, test 2, unassigned 2 utterances" in shown
    assert "nothing was uploaded" in shown
    found = load(shared, tmp_path)
    assert {name: part["id"] for name, part in found.items()} == {
        "train": ["v0/0", "v4/4", "v8/8"],
        "validation": ["v1/1", "v5/5", "v9/9"],
        "test": ["v2/2", "v6/6"],
        "unassigned": ["v3/3", "v7/7"],
    }
    np.testing.assert_array_equal(np.array(found["test"][1]["vision"], np.float32), rows()[6].vision)
    ours = UtteranceDataset(shared)
    assert len(ours) == 10
    assert ours.info.corpus["root"] == "clips"
    assert sorted(path.name for path in shared.iterdir()) == ["README.md", "data", "dataset.json"]
    for path in shared.rglob("*"):
        assert not path.is_file() or b"/home/" not in path.read_bytes()
        assert not path.is_file() or str(tmp_path).encode() not in path.read_bytes()


def test_shards_without_rows_and_other_names_of_splits(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", rows(("Train", "dev")))
    write_shard(shard_path(folder, 0), [], 3, 2)
    write_shard(shard_path(folder, 7), rows(("Train", "dev"))[:4], 3, 2)
    push_dataset(folder, "owner/name", licence="other", folder=tmp_path / "shared")
    assert {name: len(part) for name, part in load(tmp_path / "shared", tmp_path).items()} == {"train": 5, "validation": 5}


def test_a_dataset_without_splits_and_labels(tmp_path: Path) -> None:
    unlabelled = [replace(row, split=None, label=None) for row in rows()]
    push_dataset(write(tmp_path / "data", unlabelled), "owner/name", licence="other", folder=tmp_path / "shared")
    assert "There are no labels." in (tmp_path / "shared" / "README.md").read_text()
    assert list(load(tmp_path / "shared", tmp_path)) == ["train"]


def test_the_card(tmp_path: Path) -> None:
    write(tmp_path / "data")
    push_dataset(tmp_path / "data", "owner/name", licence="cc-by-nc-4.0", folder=tmp_path / "shared")
    card = (tmp_path / "shared" / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["license"] == "cc-by-nc-4.0"
    assert header["language"] == ["en"]
    assert header["configs"][0]["data_files"][1] == {"split": "validation", "path": "data/validation-*.parquet"}
    for needed in (
        "| train | 3 |",
        "The recordings are not included",
        "Labels: 9 of 10 utterances, on a scale from -3",
        "Without audio: 1; without a face: 1",
        "c0, c1, c2",
        "faster-whisper, whisper-small",
        "Whisper weights MIT",
        "masks by the lexicon words: MIT",
        "are personal data",
        "hours, 1 speaker (or",
        "- audio: made, 3 columns, 10 rows per second (numpy 2)",
    ):
        assert needed in card, needed
    assert card.count("- made: its own terms") == 1
    assert "ynthetic" not in card
    described = json.loads((tmp_path / "shared" / "dataset.json").read_text())
    assert described["lexicon"]["source"] == "from words.csv, see https://example.org/a/b"


class FakeHub:
    """In place of the hub's client: remembers what it was sent."""

    public = False
    sent: dict[str, Any]

    def create_repo(self, name: str, *, repo_type: str, private: bool, exist_ok: bool) -> str:
        FakeHub.sent = {"private": private, "exist_ok": exist_ok}
        return f"https://hub/{repo_type}s/{name}"

    def repo_info(self, name: str, *, repo_type: str) -> SimpleNamespace:
        return SimpleNamespace(private=not FakeHub.public)

    def upload_folder(self, *, repo_id: str, repo_type: str, folder_path: Path, delete_patterns: str) -> None:
        FakeHub.sent |= {"type": repo_type, "deleted": delete_patterns}
        FakeHub.sent["files"] = sorted(str(path.relative_to(folder_path)) for path in Path(folder_path).rglob("*") if path.is_file())


def test_pushing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", FakeHub)
    folder = write(tmp_path / "data", rows(("train", "test")))
    main(Options(dataset=str(folder), name="owner/name", licence="other"))
    assert "https://hub/datasets/owner/name: train 5, test 5 utterances" in capsys.readouterr().out
    assert FakeHub.sent["private"] is True
    main(Options(dataset=str(folder), name="owner/name", licence="other", private=False))
    assert "\nprivate (the repository exists and stays private; its settings on the hub change that); read it" in capsys.readouterr().out
    assert FakeHub.sent["type"] == "dataset"
    assert FakeHub.sent["deleted"] == "data/*.parquet"  # of an earlier push
    assert [name for name in FakeHub.sent["files"] if name.endswith(".parquet")] == [
        f"data/{split}-0000{number}.parquet" for split in ("test", "train") for number in range(3)
    ]
    monkeypatch.setattr(FakeHub, "public", True)
    with pytest.raises(UserError, match="exists and is public; nothing was uploaded"):
        push_dataset(folder, "owner/name", licence="other")
    assert "files" not in FakeHub.sent
    main(Options(dataset=str(folder), name="owner/name", licence="other", private=False))
    assert "\npublic; read it" in capsys.readouterr().out
    assert FakeHub.sent["private"] is False

    def fail(*given: Any, **named: Any) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(FakeHub, "create_repo", fail)
    with pytest.raises(UserError, match=r"owner/name: cannot be pushed \(ConnectionError\); log in with"):
        push_dataset(folder, "owner/name", licence="other")


def test_what_is_not_shared(tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    for name, licence, message in (
        ("name", "other", "not a hub name"),
        ("owner/name", "CC BY", "--licence CC BY: write it as the hub does"),
    ):
        with pytest.raises(UserError, match=message):
            push_dataset(folder, name, licence=licence, folder=tmp_path / "shared")
    with pytest.raises(UserError, match="not an empty folder"):
        push_dataset(folder, "owner/name", licence="other", folder=folder)
    for column in ("id", "video_id", "speaker"):
        for value in ("/home/somebody/a", "C:\\Users\\somebody\\a", "~/clips/a"):
            bad = write(tmp_path / "bad", [replace(utterance(), **{column: value})])
            with pytest.raises(UserError, match=f"column `{column}` has paths of this machine"):
                push_dataset(bad, "owner/name", licence="other", folder=tmp_path / "shared")
    (folder / ".journal.bin").write_bytes(b"x")
    with pytest.raises(UserError, match="is not finished"):
        push_dataset(folder, "owner/name", licence="other", folder=tmp_path / "shared")
    with pytest.raises(UserError, match="is not an utterance dataset"):
        push_dataset(tmp_path, "owner/name", licence="other", folder=tmp_path / "shared")
    assert not (tmp_path / "shared").exists()


NAME = st.text("abz09_-", min_size=1, max_size=4)
OPENING = {"'": "'", '"': '"', "`": "`", "“": "”", "(": ")", "": "", "=": ""}


@given(
    root=st.sampled_from(["/", "~/", "~bob/", "C:\\", "d:/", "\\\\server\\", "file:///", "zip:///"]),
    folders=st.lists(st.tuples(NAME, st.sampled_from(["", " ", "'", ".", ",", "="]), NAME), min_size=1, max_size=3),
    last=NAME,
    before=st.sampled_from(["", "from ", "path:", "https://a.org/b ", "made of x, "]),
    opening=st.sampled_from(list(OPENING)),
    after=st.sampled_from(["", ".", ", and more", " see s3://bucket/key/a.csv", "\nhttps://a.org/b/c"]),
)
def test_no_folder_of_a_path_remains(
    root: str, folders: list[tuple[str, str, str]], last: str, before: str, opening: str, after: str
) -> None:
    slash = "\\" if root.endswith("\\") else "/"
    path = root + slash.join([*(f"SECRET{first}a{middle}z{second}" for first, middle, second in folders), "LAST" + last])
    start, end = before + opening, OPENING[opening] + after
    assert without_paths(start + path + end) == start + "LAST" + last + end


def test_paths() -> None:
    entries = {"a": ["/home/x/y", "C:\\x\\y.csv", 1.5, None], "b": "km/h and/or https://a.org/b/c", "c": "of /data/x/words.csv."}
    assert without_paths(entries) == {"a": ["y", "y.csv", 1.5, None], "b": "km/h and/or https://a.org/b/c", "c": "of words.csv."}
    sentences = {
        "C:/Users/ann/x.csv": "x.csv",
        "path:/home/ann/x": "path:x",
        "see \\\\server\\ann\\x.csv": "see x.csv",
        "'/home/ann/my clips/a.csv' in a sentence": "'a.csv' in a sentence",
        "from ~/clips/x": "from x",
        "at C:\\Program Files\\ann\\x.csv, D:/y": "at x.csv, y",
        "in /home/ann's new clips/x.csv and (/srv/ann/y)": "in x.csv and (y)",
        "file:///home/ann/x sqlite:////home/ann/x.db": "x x.db",
        "/home/ann/x.csv, see https://a.org/home/b": "x.csv, see https://a.org/home/b",
    }
    assert {text: without_paths(text) for text in sentences} == sentences
    for text in (
        "s3://b/c",
        "gs://b/c and https://a.org/b/c?d=/e/f",
        "v (1)/a/b",
        "~5/min",
        "1/2",
        "./a/b",
        "数据/甲/乙",
        "log(1+x)/a/b",
        "a: b/c",
    ):
        assert without_paths(text) == text
    assert not is_path("a/b")
    assert not is_path("http://a/b")
