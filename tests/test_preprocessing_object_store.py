"""A dataset on an object store: built there, resumed on another machine, read from there."""

import fsspec
import pytest
from clip_factory import tone, write_clip

from preprocessing import job as job_module
from preprocessing import run
from preprocessing.object_store import Mirror, cache_of, fetch_dataset
from preprocessing.options import AsrOptions
from preprocessing.run import Options
from preprocessing.store import UtteranceDataset
from skesl_mug.errors import UserError

COUNT = 7


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """Seven clips with transcripts, shards of two."""
    monkeypatch.setenv("SKESL_MUG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(job_module, "SHARD_CLIPS", 2)
    root = tmp_path / "corpus"
    for number in range(COUNT):
        write_clip(root / f"{number}.mp4", tone(0.6 + 0.1 * number), None)
    rows = "".join(f"{number},a good film number {number}\n" for number in range(COUNT))
    (root / "labels.csv").write_text("clip,transcript\n" + rows)
    return root


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path):
    """A location that is empty before and after."""
    place = f"memory://bucket-{tmp_path.name}/set" if request.param == "memory" else f"file://{tmp_path}/store/set"
    yield place
    store, path = fsspec.core.url_to_fs(place)
    if store.exists(path):
        store.rm(path, recursive=True)


def options(root, url, **more):
    return Options(corpus="folder", root=root, output=url, workers=1, vision="none", asr=AsrOptions(model="none"), **more)


def names_at(url):
    store, root = fsspec.core.url_to_fs(url)
    return sorted(path[len(root) + 1 :] for path in store.find(root))


def test_built_on_a_store_and_read_from_it(corpus, url, capsys):
    run.main(options(corpus, url))
    assert names_at(url) == sorted(
        ["clips.csv", "config.yaml", *(f"data/part-{n:06d}.parquet" for n in range(4)), "dataset.json", "summary.html"]
    )
    data = UtteranceDataset(url)
    assert [row.id for row in data] == [str(number) for number in range(COUNT)]
    assert data.info.counts["kept"] == COUNT
    assert f"dataset   {url}" in capsys.readouterr().out
    run.main(options(corpus, url))
    assert f"{url}: already complete" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--audio was librosa33, now none"):
        run.main(options(corpus, url, audio="none"))


def test_a_job_resumes_on_another_machine(corpus, url, tmp_path, capsys):
    run.main(options(corpus, url, limit=3, work=tmp_path / "one"))
    run.main(options(corpus, url, limit=5, work=tmp_path / "two"))  # knows about the first only through the store
    assert "3 clips done already; 2 to go" in capsys.readouterr().out
    run.main(options(corpus, url, work=tmp_path / "one"))  # its folder is behind the store
    assert "5 clips done already; 2 to go" in capsys.readouterr().out
    assert [row.id for row in UtteranceDataset(url)] == [str(number) for number in range(COUNT)]


def test_a_store_that_fails_loses_nothing(corpus, url, tmp_path, monkeypatch, capsys):
    put, count = Mirror.put, 0

    def failing(self, path):
        nonlocal count
        count += path.suffix == ".parquet"
        if count == 2:
            raise UserError("--output: cannot be used")
        put(self, path)

    monkeypatch.setattr(Mirror, "put", failing)
    with pytest.raises(UserError, match="cannot be used"):
        run.main(options(corpus, url, work=tmp_path / "one"))
    monkeypatch.setattr(Mirror, "put", put)
    capsys.readouterr()
    run.main(options(corpus, url, work=tmp_path / "one"))
    assert "clips done already" in capsys.readouterr().out
    assert UtteranceDataset(url).info.counts["kept"] == COUNT  # none counted twice
    assert [row.id for row in UtteranceDataset(url)] == [str(number) for number in range(COUNT)]


def test_a_changed_dataset_is_downloaded_again(corpus, url):
    run.main(options(corpus, url, limit=2))
    assert len(UtteranceDataset(url)) == 2
    run.main(options(corpus, url, overwrite=True, limit=1))
    assert len(UtteranceDataset(url)) == 1
    assert sorted(path.name for path in fetch_dataset(url).glob("data/*")) == ["part-000000.parquet"]


def test_faults_are_one_line(corpus, tmp_path):
    for url, message in (("nosuch://x/y", "cannot be opened"), (f"file://{tmp_path}/empty", "is not an utterance dataset")):
        with pytest.raises(UserError, match=message) as fault:
            UtteranceDataset(url)
        assert "\n" not in str(fault.value)
    with pytest.raises(UserError, match=r"--work .*: only applies to an --output on an object store"):
        options(corpus, str(tmp_path / "o"), work=tmp_path / "w")
    assert cache_of("s3://bucket/set/", "work") == cache_of("s3://bucket/set", "work")


def test_overwrite_leaves_other_files_alone(corpus, url):
    store, path = fsspec.core.url_to_fs(url)
    run.main(options(corpus, url, limit=1))
    for name in ("notes.txt", "data/raw.zip"):
        store.pipe_file(f"{path}/{name}", b"mine")
    run.main(options(corpus, url, overwrite=True, limit=2))
    assert {"notes.txt", "data/raw.zip", "dataset.json"} <= set(names_at(url))


def test_a_csv_of_another_program_is_not_deleted(corpus, url):
    store, path = fsspec.core.url_to_fs(url)
    store.makedirs(path, exist_ok=True)
    store.pipe_file(f"{path}/clips.csv", b"a,b\n")
    with pytest.raises(UserError, match="does not hold an utterance dataset"):
        run.main(options(corpus, url, overwrite=True))
    assert names_at(url) == ["clips.csv"]
