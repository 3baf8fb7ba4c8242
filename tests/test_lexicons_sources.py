"""Reading lexicon files."""

import json

import pytest

from lexicons import UserError, load_lexicon
from lexicons.sources import read_entries


def test_vader_file_is_read_by_tabs():
    lexicon = load_lexicon("vader", scale_to=None)
    assert lexicon.scores["good"] == 1.9
    assert len(lexicon) > 7000
    assert lexicon.licence == "MIT"
    assert "vaderSentiment" in lexicon.source


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "good\t2\nfed up\t-1.5\n"),
        ("a.txt", "word\tscore\tsd\ngood\t2\t.5\n\nfed up\t-1.5\t.2\n"),
        ("a.csv", 'word,score\ngood,2\n"fed up",-1.5\n'),
        ("a.yaml", "good: 2\nfed up: -1.5\n"),
        ("a.json", json.dumps({"good": 2, "fed up": -1.5})),
    ],
)
def test_every_format(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    lexicon = load_lexicon(path, scale_to=3.0)  # the widest number is 2
    assert lexicon.score("good") == pytest.approx(3.0)
    assert lexicon.phrases == {("fed", "up"): pytest.approx(-2.25)}
    assert lexicon.score("fed") is None


def test_yaml_words_that_look_like_truth_values(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("no: -1\nyes: 1\non: 0.5\n", encoding="utf-8")
    assert read_entries(path) == {"no": -1.0, "yes": 1.0, "on": 0.5}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "good\t2\nbad\n", "line 2"),
        ("a.csv", "word,score\ngood,2\nbad,much\n", "line 3"),
        ("a.yaml", "good: very\n", "'good' has no number"),
        ("a.yaml", "- good\n", "no mapping"),
        ("a.json", "{", "is no JSON"),
        ("a.tsv", "good\t0\n", "range of its numbers is empty"),
        ("a.json", '{"good": NaN}', "'good' has no number"),
    ],
)
def test_faults_name_the_place(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_lexicon(path)


def test_unknown_name_and_absent_file(tmp_path):
    with pytest.raises(UserError, match="is not known"):
        load_lexicon("vadder")
    with pytest.raises(UserError, match="cannot be read"):
        load_lexicon(tmp_path / "none.tsv")
    binary = tmp_path / "b.tsv"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        load_lexicon(binary)
