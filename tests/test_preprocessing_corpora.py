"""Layouts of corpora."""

import json

import pytest

from lexicons import UserError
from preprocessing.corpora import find_corpus
from preprocessing.corpora.folder import check_range, observed_range


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
        assert "1 video files lie elsewhere" in corpus.notes[0]
        assert corpus.label_range is None


def test_corpus_file_up_to_two_folders_above(tmp_path):
    touch(tmp_path, "a/unlabelled/mp4/s/v/1.mp4")
    (tmp_path / "a" / "corpus.json").write_text(json.dumps({"name": "made things", "made": True, "label_range": [-3, 3]}))
    for root in (tmp_path / "a/unlabelled/mp4", tmp_path / "a/unlabelled"):
        corpus = find_corpus("voxceleb2", root)
        assert corpus.info["made"] is True
        assert corpus.info["name"] == "made things"
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
        "labels.csv: 1 of 3 rows have no video (first: not/there)",
        "labels.csv: 2 of 4 videos have no row (first: top)",
    ]
    assert observed_range(corpus.clips) == (-2.0, 2.0)
    with pytest.raises(UserError, match="outside the label range"):
        check_range(corpus.clips, (-1.0, 1.0), "--label-range")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,label\na,1\n", "no column `clip`"),
        ("clip,label\na,high\n", "line 2 has the label 'high'"),
        ("clip,label\na,inf\n", "line 2 has the label 'inf'"),
        ("clip,split\na,later\n", "line 2 has the split 'later'"),
        ("clip,label\na,1\na.mp4,2\n", "line 3 has the clip a a second time"),
        ('clip,label\n"a,1\n', "no readable csv"),
    ],
)
def test_faults_of_the_table(tmp_path, table, message):
    touch(tmp_path, "a.mp4")
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(UserError, match=message):
        find_corpus("folder", tmp_path)


def test_labels_outside_the_corpus_own_range(tmp_path):
    touch(tmp_path, "a.mp4")
    (tmp_path / "labels.csv").write_text("clip,label\na,4\n")
    (tmp_path / "corpus.json").write_text('{"label_range": [-3, 3]}')
    with pytest.raises(UserError, match="outside the label range -3 to 3"):
        find_corpus("folder", tmp_path)


def test_nothing_there(tmp_path):
    for layout in ("folder", "voxceleb2"):
        with pytest.raises(UserError, match="is no folder"):
            find_corpus(layout, tmp_path / "none")
        with pytest.raises(UserError, match="holds no video files"):
            find_corpus(layout, tmp_path)
    touch(tmp_path, "a.mp4")
    with pytest.raises(UserError, match="is no readable csv"):
        find_corpus("folder", tmp_path, tmp_path / "none.csv")
    with pytest.raises(UserError, match="has no labels"):
        find_corpus("voxceleb2", tmp_path, tmp_path / "none.csv")


def test_same_name_other_suffix_loop_and_folder_named_like_a_video(tmp_path):
    touch(tmp_path, "a/x.avi", "a/x.mp4", "dir.mp4/y.mp4")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    corpus = find_corpus("folder", tmp_path)
    assert [clip.id for clip in corpus.clips] == ["a/x", "a/x.mp4", "dir.mp4/y"]
