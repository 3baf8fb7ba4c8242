"""Corpus layouts."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from lexicons import UserError
from preprocessing.layouts import find_corpus
from preprocessing.layouts.folder import check_range, describe_range, observed_range
from preprocessing.layouts.labelled import read_rows
from preprocessing.layouts.voxceleb import keep_nationalities
from preprocessing.media import read_pictures


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_voxceleb2(tmp_path):
    touch(tmp_path, "mp4/id2/v/00002.mp4", "mp4/id1/v1/00001.mp4", "mp4/stray.mp4", "mp4/id1/v1/notes.txt", "mp4/.hidden/v/1.mp4")
    for root in (tmp_path, tmp_path / "mp4"):
        corpus = find_corpus("voxceleb2", root)
        assert [clip.id for clip in corpus.clips] == ["id1/v1/00001", "id2/v/00002"]
        assert [(clip.speaker, clip.video_id) for clip in corpus.clips] == [("id1", "v1"), ("id2", "v")]
        assert corpus.info["name"] == "voxceleb2"
        assert corpus.info["root"] == str(root)
        assert corpus.notes == ["left out: 1 .txt", "left out: 1 recording in other places than <speaker>/<video>/<clip>"]
        assert corpus.label_range is None


def test_corpus_file_up_to_two_folders_above(tmp_path):
    touch(tmp_path, "a/unlabelled/mp4/s/v/1.mp4")
    (tmp_path / "a" / "corpus.json").write_text(json.dumps({"name": "things", "made": True, "label_range": [-3, 3]}))
    for root in (tmp_path / "a/unlabelled/mp4", tmp_path / "a/unlabelled"):
        corpus = find_corpus("voxceleb2", root)
        assert corpus.info["synthetic"] is True
        assert corpus.info["name"] == "things"
        assert corpus.label_range is None  # nothing is labelled
    (tmp_path / "a" / "corpus.json").write_text("{")
    with pytest.raises(UserError, match=r"corpus\.json"):
        find_corpus("voxceleb2", tmp_path / "a/unlabelled")


def test_folder_with_labels(tmp_path):
    touch(tmp_path, "one/0001.mp4", "one/0002.avi", "two words/过去.MP4", "top.webm")
    (tmp_path / "labels.csv").write_text(
        "\ufeffclip,video_id,speaker,split,label,label_T,label_A\n"
        "one/0001,v1,ann,train,1.5,-1,\n./one/0002.avi,,,dev,nan,2,0.25\nnot/there,v,s,test,0,0,0\n",
        encoding="utf-8",
    )
    corpus = find_corpus("folder", tmp_path)
    clips = {clip.id: clip for clip in corpus.clips}
    assert list(clips) == ["one/0001", "one/0002", "top", "two words/过去"]
    first, second = clips["one/0001"], clips["one/0002"]
    assert (first.speaker, first.video_id, first.split, first.labels) == ("ann", "v1", "train", {"label": 1.5, "label_T": -1.0})
    assert (second.speaker, second.video_id, second.split, second.labels) == ("one", "one", "valid", {"label_T": 2.0, "label_A": 0.25})
    assert (clips["top"].speaker, clips["top"].split, clips["top"].labels) == ("top", None, {})
    assert corpus.notes == [
        "labels.csv: 1 of 3 rows without a recording (first: not/there)",
        "labels.csv: 2 of 4 recordings without a row (first: top)",
    ]
    values = [value for clip in corpus.clips for value in clip.labels.values()]
    assert observed_range(values) == (-2.0, 2.0)
    assert observed_range([0.2]) == (-1.0, 1.0)
    few, many = describe_range([-1.0, 1.6], (-2.0, 2.0)), describe_range([-1.0, 1.6] * 50, (-2.0, 2.0))
    assert few.startswith("label range inferred as -2 to 2: 2 labels from -1 to 1.6, rounded up and made symmetric; --label-range LOW HIGH")
    assert "\nwarning: 2 labels may not span your scale" in few
    assert "warning" not in many
    with pytest.raises(UserError, match="outside the label range"):
        check_range(corpus.clips, (-1.0, 1.0), "--label-range")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,label\na,1\n", "no column `clip`"),
        ("clip,label\na,high\n", "line 2 has the label 'high'"),
        ("clip,label\na,inf\n", "line 2 has the label 'inf'"),
        ("clip,split\na,later\n", "line 2 has the split 'later'"),
        ("clip,label\na,1\na.mp4,2\n", "line 3 repeats the clip a"),
        ('clip,label\n"a,1\n', "line 2 is never closed"),
    ],
)
def test_faults_of_the_table(tmp_path, table, message):
    touch(tmp_path, "a.mp4")
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(UserError, match=message):
        find_corpus("folder", tmp_path)


def test_labels_outside_the_corpus_range(tmp_path):
    touch(tmp_path, "a.mp4")
    (tmp_path / "labels.csv").write_text("clip,label\na,4\n")
    (tmp_path / "corpus.json").write_text('{"label_range": [-3, 3]}')
    with pytest.raises(UserError, match="outside the label range -3 to 3"):
        find_corpus("folder", tmp_path)


def test_missing_files(tmp_path):
    for layout in ("folder", "voxceleb2"):
        with pytest.raises(UserError, match="is not a folder"):
            find_corpus(layout, tmp_path / "none")
        with pytest.raises(UserError, match="contains no recordings"):
            find_corpus(layout, tmp_path)
    touch(tmp_path, "a.mp4")
    with pytest.raises(UserError, match=r"none\.csv: cannot be read"):
        find_corpus("folder", tmp_path, tmp_path / "none.csv")
    with pytest.raises(UserError, match="--corpus voxceleb2 does not read such a file; use --corpus folder"):
        find_corpus("voxceleb2", tmp_path, tmp_path / "none.csv")


def test_same_name_other_suffix_loop_and_folder_named_like_a_video(tmp_path):
    touch(tmp_path, "a/x.avi", "a/x.mp4", "dir.mp4/y.mp4")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    corpus = find_corpus("folder", tmp_path)
    assert [clip.id for clip in corpus.clips] == ["a/x", "a/x.mp4", "dir", "dir.mp4/y"]  # the folder becomes a counted skip


VOX_META = "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\nid1\tAnn_One\tf\tUSA\tdev\nid2\tBob_Two\tm\tNorway\tdev\n"


def test_voxceleb2_uses_the_sound_of_the_parallel_tree(tmp_path):
    touch(tmp_path, "mp4/id1/v/1.mp4", "mp4/id1/v/2.mp4", "mp4/id1/v/3.mp4", "aac/id1/v/1.m4a", "wav/id1/v/2.wav")
    corpus = find_corpus("voxceleb2", tmp_path / "mp4")
    assert [clip.sound and clip.sound.name for clip in corpus.clips] == ["1.m4a", "2.wav", None]
    assert corpus.notes == ["sound files in aac, wav/ for 2 of 3 clips"]


def test_nationalities(tmp_path):
    touch(tmp_path, "mp4/id1/v/1.mp4", "mp4/id2/v/1.mp4", "mp4/id3/v/1.mp4")
    with pytest.raises(UserError, match="no table of speakers"):
        keep_nationalities(find_corpus("voxceleb2", tmp_path), ["USA"], tmp_path)
    (tmp_path / "meta.csv").write_text(VOX_META)
    corpus = find_corpus("voxceleb2", tmp_path / "mp4")
    keep_nationalities(corpus, ["usa", "UK"], tmp_path / "mp4")
    assert {clip.id: clip.filtered for clip in corpus.clips} == {
        "id1/v/1": None,
        "id2/v/1": ("nationality", "Norway"),
        "id3/v/1": ("nationality_unknown", "meta.csv has none for speaker id3"),
    }
    with pytest.raises(UserError, match=r"no speaker is left; meta\.csv has Norway, USA"):
        keep_nationalities(corpus, ["UK"], tmp_path)
    (tmp_path / "vox2_meta.csv").write_text("VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \nid1 ,n0 ,m ,dev \n")
    with pytest.raises(UserError, match="has no column Nationality"):
        keep_nationalities(corpus, ["UK"], tmp_path, tmp_path / "vox2_meta.csv")


def test_voxceleb1_with_face_pictures(tmp_path):
    touch(
        tmp_path, "wav/id1/vid/00001.wav", "wav/id1/vid/00002.wav", "wav/id2/w/00001.wav", "wav/stray.wav", "faces/id2/w/00001/0000010.jpg"
    )
    touch(tmp_path, *(f"faces/Ann_One/1.6/vid/{number:07d}.jpg" for number in (75, 100, 125, 150, 999)))
    (tmp_path / "vox1_meta.csv").write_text(VOX_META)
    track = tmp_path / "txt/id1/vid/00001.txt"
    track.parent.mkdir(parents=True)
    track.write_text("Identity  : \tAnn\n\nFRAME \tX \tY \tW \tH \n000100 \t1 \t2 \t3 \t4 \n000101 \t1 \t2 \t3 \t4\n000150 \t1 1 1 1\n")
    corpus = find_corpus("voxceleb1", tmp_path)
    clips = {clip.id: clip for clip in corpus.clips}
    assert list(clips) == ["id1/vid/00001", "id1/vid/00002", "id2/w/00001"]
    assert clips["id1/vid/00002"].pictures is None  # no text file lists its frames
    for path in (tmp_path / "faces").rglob("*.jpg"):
        cv2.imwrite(str(path), np.full((8, 8, 3), 200, np.uint8))
    frames, times = read_pictures(clips["id1/vid/00001"].pictures, 5.0)
    assert times == [0.0, 1.0, 2.0]
    assert frames[0].shape == (8, 8, 3)
    assert read_pictures(clips["id2/w/00001"].pictures, 5.0)[1] == [0.0]


def test_sims_raw(tmp_path):
    touch(tmp_path, "Raw/video_0001/0001.mp4", "Raw/video_0001/0004.mp4", "Raw/video_0002/0001.mp4")
    heading = "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n"
    (tmp_path / "label.csv").write_text(
        f"\ufeff{heading}video_0001,0001,我不想嫁给李茶,-1.0,-1.0,-0.8,-1.0,Negative,train\n"
        "video_0001,4,有那么明显吗？,0,,,,Neutral,valid\nvideo_0002,0009,没有,0,0,0,0,Neutral,test\n",
        encoding="utf-8",
    )
    for layout in ("sims", "simsv2"):
        corpus = find_corpus(layout, tmp_path)
        assert [clip.id for clip in corpus.clips] == ["video_0001/0001", "video_0001/4"]
        first, second = corpus.clips
        assert (first.video_id, first.split, first.transcript, first.language) == ("video_0001", "train", "我不想嫁给李茶", "zh")
        assert first.labels == {"label": -1.0, "label_T": -1.0, "label_A": -0.8, "label_V": -1.0}
        assert (second.path.name, second.split, second.labels) == ("0004.mp4", "valid", {"label": 0.0})
        assert corpus.label_range == (-1.0, 1.0)
        assert corpus.notes[0] == "left out: 1 .mp4"
        assert corpus.notes[1] == "label.csv: 1 of 3 rows without a recording (first: video_0002/0009)"
    (tmp_path / "label.csv").write_text(f"{heading}video_0001,0001,x,3,,,,,train\n")
    with pytest.raises(UserError, match="outside the label range -1 to 1"):
        find_corpus("sims", tmp_path)


def test_mosi_cut_and_whole_videos(tmp_path):
    touch(tmp_path, "Video/Segmented/abc_1.mp4", "Video/Full/abc.mp4")
    (tmp_path / "mosi.csv").write_text(
        "id,video_id,clip_id,start,end,text,label,split\nabc_1,abc,1,1.5,3.5,SO GOOD,2.4,train\nabc_2,abc,2,7,9,BAD,-3,valid\n"
    )
    corpus = find_corpus("mosi", tmp_path)
    cut, whole = corpus.clips
    assert (cut.path.name, cut.start, cut.end) == ("abc_1.mp4", 0.0, None)
    assert (whole.path.name, whole.start, whole.end, whole.transcript) == ("abc.mp4", 7.0, 9.0, "BAD")
    (tmp_path / "mosi.csv").write_text("video_id,clip_id,label\nabc,2,0\n")
    with pytest.raises(UserError, match="line 2 has no start and end"):
        find_corpus("mosi", tmp_path)
    (tmp_path / "other.csv").write_text("video_id,clip_id\n")
    with pytest.raises(UserError, match="has several tables"):
        find_corpus("mosi", tmp_path)
    (tmp_path / "other.csv").write_text("video_id,clip_id\nq,1\n")
    with pytest.raises(UserError, match="none of the 1 utterance of"):
        find_corpus("mosi", tmp_path, tmp_path / "other.csv")


def test_mosei_with_its_folds(tmp_path):
    touch(tmp_path, "a-b_c.mp4", "-xyz.mp4")
    (tmp_path / "mosei_labels.csv").write_text(
        "id,link,segment_id,start,end,sentiment,happy\na-b_c,http,0,1,2,1.0,0\n-xyz,http,3,0.5,4,-0.33,0\n-xyz,http,4,6,8,0,0\n"
    )
    corpus = find_corpus("mosei", tmp_path)
    assert [(clip.id, clip.start, clip.labels["label"], clip.split) for clip in corpus.clips] == [
        ("-xyz/3", 0.5, -0.33, None),
        ("-xyz/4", 6.0, 0.0, None),
        ("a-b_c/0", 1.0, 1.0, None),
    ]
    assert corpus.notes[-1].endswith("3 of 3 utterances without a split")
    folds = tmp_path / "cmu_mosei_std_folds.py"
    folds.write_text("standard_train_fold=['-xyz']\nstandard_test_fold = ['a-b_c']\n")
    assert [clip.split for clip in find_corpus("mosei", tmp_path).clips] == ["train", "train", "test"]
    folds.write_text("standard_train_fold = __import__('os').listdir()\n")
    with pytest.raises(UserError, match="cannot be read as a list of folds"):
        find_corpus("mosei", tmp_path)
    table = tmp_path / "elsewhere" / "folds.csv"
    table.parent.mkdir()
    table.write_text("video_id,split\n-xyz,dev\na-b_c,Train\n")
    assert [clip.split for clip in find_corpus("mosei", tmp_path, folds=table).clips] == ["valid", "valid", "train"]
    with pytest.raises(UserError, match=r"--folds .*: --corpus folder does not read such a file; only mosi and mosei read one"):
        find_corpus("folder", tmp_path, folds=table)
    table.write_text("video_id,split\n-xyz,train\n-xyz,test\n")
    with pytest.raises(UserError, match="gives the video -xyz a second split"):
        find_corpus("mosei", tmp_path, folds=table)


@pytest.mark.parametrize(("corpus", "video", "split"), [("mosi", "tmZoasNr4rU", "test"), ("mosei", "7l3BNtSE0xc", "test")])
def test_a_table_without_splits_has_the_standard_ones(corpus, video, split, tmp_path):
    touch(tmp_path, f"{video}_1.mp4", "unknown_1.mp4")
    (tmp_path / "labels.csv").write_text(f"video_id,clip_id,label\n{video},1,1.0\nunknown,1,0.5\n")
    found = find_corpus(corpus, tmp_path)
    assert {clip.video_id: clip.split for clip in found.clips} == {video: split, "unknown": None}
    assert "labels.csv: has no splits; 1 of 2 utterances have one in the standard folds" in found.notes
    (tmp_path / "labels.csv").write_text(f"video_id,clip_id,label,mode\n{video},1,1.0,train\n")
    found = find_corpus(corpus, tmp_path)
    assert [clip.split for clip in found.clips] == ["train"]
    assert not any("standard folds" in note for note in found.notes)


DATA = Path(os.environ["MSA_DATA"]) if "MSA_DATA" in os.environ else None


@pytest.mark.skipif(DATA is None, reason="MSA_DATA is not set to the folder of real corpora")
@pytest.mark.parametrize(
    ("layout", "table", "count"),
    [("mosi", "mosi/mosi_train_valid.csv", 1513), ("mosei", "mosei/mosei_labels.csv", 23259), ("sims", "sims/sims_train_valid.csv", 1824)],
)
def test_the_released_tables(tmp_path, layout, table, count):
    """Every row of the real tables finds its video."""
    rows, _ = read_rows(DATA / table)
    touch(tmp_path, *{f"Raw/{row['clip' if layout == 'sims' else 'video']}.mp4" for _, row in rows})
    corpus = find_corpus(layout, tmp_path, DATA / table)
    assert len(corpus.clips) == count
    assert all("label" in clip.labels for clip in corpus.clips)
    assert sum(clip.transcript is not None for clip in corpus.clips) == (0 if layout == "mosei" else count)


def test_column_names_ignore_case_and_unknown_columns_are_reported(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.mp4").write_bytes(b"x")
    table = tmp_path / "labels.csv"
    table.write_text("Clip, LABEL,Split,mood\na,1.5,train,glad\nb,-1,test,sad\n")
    corpus = find_corpus("folder", tmp_path)
    assert [(clip.labels, clip.split) for clip in corpus.clips] == [({"label": 1.5}, "train"), ({"label": -1.0}, "test")]
    assert any("unknown columns: mood" in note for note in corpus.notes)
    table.write_text("name;label;split\na;1.5;train\n")
    with pytest.raises(UserError, match=r"no column `clip`.*; its columns are `name`, `label`, `split`"):
        find_corpus("folder", tmp_path)


def test_missing_labels_and_splits_are_reported(tmp_path):
    touch(tmp_path, "flat_a.mp4", "flat_b.mp4")
    table = tmp_path / "labels.csv"
    for text, missing in (
        ("clip,label\nflat_a,1\nflat_b,-1\n", "no clip has a split"),
        ("clip,split\nflat_a,train\nflat_b,test\n", "no clip has a label"),
    ):
        table.write_text(text)
        notes = find_corpus("folder", tmp_path).notes
        assert sum(missing in note for note in notes) == 1
        assert sum("speakers are unknown" in note for note in notes) == 1
    table.write_text("clip,label,split,speaker\nflat_a,1,train,ann\nflat_b,-1,test,bob\n")
    assert find_corpus("folder", tmp_path).notes == []
