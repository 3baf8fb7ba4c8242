"""Showing a dataset, and the word error rate."""

import cv2
import numpy as np
import pytest
from clip_factory import plain, write_clip
from hypothesis import given
from hypothesis import strategies as st

from lexicons import UserError
from preprocessing import show
from preprocessing.facts import plain_words, read_references, word_error_rate
from preprocessing.schema import DatasetInfo, FeatureInfo, Mask, Utterance, Word
from preprocessing.store import write_dataset
from preprocessing.summary import write_summary


@pytest.fixture
def dataset(tmp_path):
    feature = FeatureInfo("made", 10.0, [{"name": "loudness", "unit": "none"}])
    info = DatasetInfo({"name": "made", "root": "x", "made": True}, (-3.0, 3.0), feature)
    info.counts = {"kept": 2, "skipped": {"no_sound": 1}, "hours": 0.1}
    words = [Word("so", 0, 2, 0.0, 0.5, 0.9), Word("good", 3, 7)]
    common = {"video_id": "v", "speaker": "s", "start": 0.0, "end": 1.5, "language": "en", "text": "so good", "words": words}
    rows = [
        Utterance(id="a", masks=[Mask(3, 7, 1.5)], audio=np.full((4, 1), 2.0), label=-1.0, split="test", **common),
        Utterance(id="b", masks=[Mask(0, 2, 0.0, from_lexicon=False)], **common),
    ]
    write_dataset(tmp_path / "d", rows, info)
    return tmp_path / "d"


def test_a_dataset_and_an_utterance(dataset, capsys, tmp_path):
    show.main(show.Options(dataset=dataset))
    listed = capsys.readouterr().out
    assert "made (synthetic)" in listed
    assert "skipped: 1 no sound" in listed
    assert "labelled  1 utterance, from −1.00 to −1.00" in listed
    assert "splits    " in listed
    assert "a    −1.00  so [good +1.5]" in listed
    assert "b           [so 0] good" in listed
    assert "[word 0]     no word of the text is in the lexicon" in listed
    show.main(show.Options(dataset=dataset, id="a", picture=tmp_path / "a.png"))
    assert cv2.imread(str(tmp_path / "a.png")).shape[0] > 300
    one = capsys.readouterr().out
    assert "label −1.00 (test)" in one
    assert "0.00 to  0.50 s   90%  so" in one
    assert "loudness                         2.000     0.000" in one
    assert "vision: absent" in one
    with pytest.raises(UserError, match="has no utterance zzz"):
        show.main(show.Options(dataset=dataset, id="zzz"))


def test_the_summary_page(dataset, tmp_path):
    page = write_summary(dataset).read_text(encoding="utf-8")
    assert "Synthetic data" in page
    assert "so <mark>good <small>+1.50</small></mark>" in page
    assert '<mark class="none">so <small>not in the lexicon</small></mark>' in page
    assert "<td>no sound</td><td>" in page
    assert page.count("data:image/png") == 5  # no face rates
    assert "http" not in page.replace("http-equiv", "")
    write_dataset(tmp_path / "none", [], DatasetInfo({"name": "none", "root": "x"}))
    assert write_summary(tmp_path / "none") is None


def test_the_summary_shows_frames_and_escapes(tmp_path):
    write_clip(tmp_path / "root/v/1.mp4", None, plain(200), seconds=1.0)
    info = DatasetInfo({"name": "a <b>", "root": str(tmp_path / "root")})
    write_dataset(tmp_path / "d", [Utterance("v/1", "v", "s", 0.0, 1.0, "en", "x < y", [], [Mask(4, 5, 0.5, -0.5)], face_rate=1.0)], info)
    (tmp_path / "d" / "clips.csv").write_text("id,path,state,reason,detail,shard\nv/1,v/1.mp4,kept,,,0\n")
    page = write_summary(tmp_path / "d").read_text(encoding="utf-8")
    assert "data:image/jpeg" in page
    assert "x &lt; <mark>y <small>+0.50, in context −0.50</small></mark>" in page
    assert "a &lt;b&gt;" in page


def test_word_error_rate_by_hand(tmp_path):
    texts = {"a": "The film, was GOOD!", "b": "no reference", "c": "one two"}
    # a: one deletion of five words; c: one insertion to one word
    assert word_error_rate(texts, {"a": "the film was very good", "c": "two", "d": "absent"}) == {"value": round(2 / 6, 4), "utterances": 2}
    assert word_error_rate(texts, {}) is None
    assert word_error_rate({"a": "x"}, {"a": "..."}) is None
    path = tmp_path / "t.csv"
    path.write_text("clip,other,true_text\na,1,so good\n")
    assert read_references(path) == {"a": "so good"}
    path.write_text("clip,text\na,so good\n")
    with pytest.raises(UserError, match="lacks the columns"):
        read_references(path)


@pytest.mark.parametrize(("text", "plain"), [("It's GOOD.", "its good"), ("well-made,  film", "well made film"), ("\u201cNo\u201d", "no")])
def test_plain_words(text, plain):
    assert plain_words(text) == plain


@given(st.text(max_size=30))
def test_plain_words_twice_is_once(text):
    once = plain_words(text)
    assert plain_words(once) == once or not once.isascii()
