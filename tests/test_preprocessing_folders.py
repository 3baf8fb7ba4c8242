"""Folders of recordings: which files are clips, which belong to others, and which are left out; names of any kind."""

import os
import unicodedata
from pathlib import Path

import pytest

from finetune.predict import find_recordings
from preprocessing.layouts import find_corpus
from preprocessing.layouts.files import list_files, pair_tracks
from preprocessing.preprocess import announce, preprocess
from skesl_mug.errors import UserError
from skesl_mug.files import write_json


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_sound_files_are_utterances_and_the_rest_is_named(tmp_path, capsys):
    sounds = [f"s/{number}.{suffix}" for number, suffix in enumerate("wav MP3 m4a flac OGG opus aac wma webm amr aiff mka".split())]  # noqa: SIM905
    touch(tmp_path, *sounds, "a.txt", "b/B.TXT", "c.docx", "README", "odd.na\nme", "labels.csv", "corpus.json", "s/0.csv", "other.csv")
    touch(tmp_path, ".DS_Store", "Thumbs.db", "._x.mp4", "__MACOSX/s/0.wav", ".git/config", "@eaDir/0.mp4")
    (tmp_path / "corpus.json").write_text("{}")
    (tmp_path / "labels.csv").write_text("clip,label,split,speaker\ns/1.MP3,1,train,a\ns/0,2,test,b\n")
    corpus = find_corpus("folder", tmp_path)
    assert {clip.path.relative_to(tmp_path).as_posix() for clip in corpus.clips} == set(sounds)
    assert {clip.id: clip.labels for clip in corpus.clips if clip.labels} == {"s/0": {"label": 2.0}, "s/1": {"label": 1.0}}
    assert corpus.info["left_out"] == {".txt": 2, "without extension": 2, ".csv": 1, ".docx": 1}
    announce(corpus, len(corpus.clips))
    assert "note: left out: 2 .txt, 2 without extension, 1 .csv, 1 .docx\n" in capsys.readouterr().out


def test_an_extracted_track_is_not_a_second_utterance(tmp_path):
    touch(tmp_path, "a.mp4", "a.wav", "a.m4a", "B.MP4", "b.wav", "c.wav", "video/d.mp4", "sound/d.wav", "e.avi", "e.mp4")
    corpus = find_corpus("folder", tmp_path)
    named = {clip.id: clip.sound and clip.sound.name for clip in corpus.clips}
    assert named == {"B": "b.wav", "a": "a.m4a", "c": None, "e": None, "e.mp4": None, "sound/d": None, "video/d": None}
    assert "sound files that belong to a video of the same name beside them: 3 (first: a.m4a); used where the video has no sound track" in (
        corpus.notes
    )
    (copies,) = (note for note in corpus.notes if "in another format" in note)
    assert copies.startswith("recordings with the name of another in another format: 2 (first: e.avi, e.mp4); each is an utterance")
    assert pair_tracks(list_files(tmp_path / "sound").recordings) == ([tmp_path / "sound" / "d.wav"], {})


def test_a_table_names_clips_in_either_form_and_with_either_suffix(tmp_path):
    decomposed = unicodedata.normalize("NFD", "été")
    touch(tmp_path, f"{decomposed}.wav", "x.avi", "x.mp4")
    (tmp_path / "labels.csv").write_text("clip,label\nété,1\nx.mp4,2\nx.avi,-2\n", encoding="utf-8")
    labels = {clip.path.name: clip.labels["label"] for clip in find_corpus("folder", tmp_path).clips}
    assert labels == {f"{decomposed}.wav": 1.0, "x.avi": -2.0, "x.mp4": 2.0}


def test_labelled_corpora_use_sound_files_where_there_is_no_video(tmp_path):
    touch(tmp_path, "Video/v/1.mp4", "Audio/v/1.wav", "Audio/v/2.wav", "Audio/w_3.wav", "notes.pdf")
    (tmp_path / "label.csv").write_text("video_id,clip_id,text,label\nv,1,a,1\nv,2,b,1\nw,3,c,1\n")
    corpus = find_corpus("mosi", tmp_path)
    assert [clip.path.relative_to(tmp_path).as_posix() for clip in corpus.clips] == ["Video/v/1.mp4", "Audio/v/2.wav", "Audio/w_3.wav"]
    assert corpus.notes[0] == "left out: 1 .pdf, 1 .wav"


def test_voxceleb2_without_videos(tmp_path):
    touch(tmp_path, "aac/id1/v/1.m4a", "aac/id1/v/2.m4a", "aac/id1/v/readme.txt", "vox2_meta.csv")
    (tmp_path / "vox2_meta.csv").write_text("VoxCeleb2 ID,Nationality\nid1,USA\n")
    for root in (tmp_path, tmp_path / "aac"):
        corpus = find_corpus("voxceleb2", root)
        assert [(clip.id, clip.speaker) for clip in corpus.clips] == [("id1/v/1", "id1"), ("id1/v/2", "id1")]
        assert corpus.notes[0] == "left out: 1 .txt"


def test_a_folder_without_recordings_says_what_it_contains(tmp_path):
    touch(tmp_path, "a.docx", "b.docx", "c")
    with pytest.raises(UserError, match=r"contains no recordings in the folder layout; .* \(found: 2 .docx, 1 without extension\)"):
        find_corpus("folder", tmp_path)


def test_many_extensions_are_summed_up_and_an_earlier_dataset_is_not_counted(tmp_path):
    touch(tmp_path, "a.mp4", *(f"{number}.x{number}" for number in range(12)))
    touch(tmp_path, "out/dataset.json", "out/clips.csv", "out/summary.html", "out/data/part-000000.parquet")
    corpus = find_corpus("folder", tmp_path)
    assert sum(corpus.info["left_out"].values()) == 12
    assert corpus.notes[0].startswith("left out: 1 .x0, 1 .x1, 1 .x10, ")
    assert corpus.notes[0].endswith("1 .x4, 5 with other extensions")


def test_links_and_closed_folders(tmp_path, monkeypatch):
    touch(tmp_path, "real/a.wav")
    (tmp_path / "real" / "again").symlink_to(tmp_path)
    (tmp_path / "there").symlink_to(tmp_path / "real")
    (tmp_path / "one.mp4").symlink_to(tmp_path / "two.mp4")
    (tmp_path / "two.mp4").symlink_to(tmp_path / "one.mp4")
    files = list_files(tmp_path)
    assert [path.name for path in files.recordings] == ["one.mp4", "a.wav", "two.mp4"]
    scan = os.scandir

    def closed(path):
        if str(path).endswith("real"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", closed)
    files = list_files(tmp_path)
    assert files.notes({}) == ["left out: 1 folder that cannot be opened (first: real, Permission denied)"]


ODD_NAMES = [
    "名 字 'q' \"dq\".wav", "new\nline.wav", os.fsdecode(b"bad\xff\xfe.wav"), "x" * 246 + ".wav", "é" * 120 + ".wav", "-dash.wav",
    "\x1b[31mred.wav", "عربي.WAV", "trailing .wav", "%s{}.wav", "a;b&c.wav", "http:.wav", "\u2028.wav",
]  # fmt: skip


def test_names_in_any_script(tmp_path, capsys):
    """A name that is not UTF-8 lost its clip (UnicodeEncodeError) and ended `predict` with a stack trace."""
    touch(tmp_path / "in", *ODD_NAMES)
    corpus = find_corpus("folder", tmp_path / "in")
    ids = {clip.id for clip in corpus.clips}
    assert len(ids) == len(ODD_NAMES)
    assert ids >= {"名 字 'q' \"dq\"", r"new\nline", r"bad\xff\xfe", "x" * 246, r"\x1b[31mred", r"\u2028", "عربي", "trailing "}
    assert all(text.encode() and len(text.splitlines()) == 1 for clip in corpus.clips for text in (clip.id, clip.speaker, clip.video_id))
    recordings, _ = find_recordings([tmp_path / "in"])
    for _, stem in recordings:
        write_json(tmp_path / f"{stem}.json", {"source": stem})
    assert len(list(tmp_path.glob("*.json"))) == len(ODD_NAMES)
    table = tmp_path / "labels.csv"
    table.write_bytes(b'clip,label\nbad\\xff\\xfe,1\n"new\nline",-1\n')
    labels = {clip.id: clip.labels["label"] for clip in find_corpus("folder", tmp_path / "in", table).clips if clip.labels}
    assert labels == {r"bad\xff\xfe": 1.0, r"new\nline": -1.0}


def test_a_root_whose_name_is_not_utf8_is_refused_in_one_line(tmp_path):
    root = tmp_path / os.fsdecode(b"r\xff")
    touch(root, "a.wav")
    with pytest.raises(UserError, match=r"--root .*r\\xff: the name contains bytes that are not UTF-8; rename the folder"):
        preprocess("folder", root, tmp_path / "out")
