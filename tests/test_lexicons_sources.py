"""Reading lexicon files."""

import json
from importlib.util import find_spec

import pytest

from lexicons import Match, UserError, load_lexicon
from lexicons.sources import read_entries
from lexicons.words import word_spans


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
        ("a.yaml", "- good\n", "not hold a mapping"),
        ("a.json", "{", "is not JSON"),
        ("a.tsv", "good\t0\n", "range of its numbers is empty"),
        ("a.json", '{"good": NaN}', "'good' has no number"),
        ("a.json", '{"good": 1' + "0" * 400 + "}", "'good' has no number"),
        ("a.json", "[" * 100_000, "is not JSON"),
        ("a.yaml", "[" * 3000, "is not YAML"),
        ("a.yaml", 'good: "\\UFFFFFFFF"', "is not YAML"),
        ("a.csv", "x" * 200_000 + ",1", "not a readable csv"),
    ],
)
def test_faults_name_the_place(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_lexicon(path)


def test_unknown_name_and_absent_file(tmp_path):
    with pytest.raises(UserError, match="vadder: unknown"):
        load_lexicon("vadder")
    with pytest.raises(UserError, match="cannot be read"):
        load_lexicon(tmp_path / "none.tsv")
    binary = tmp_path / "b.tsv"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a text file"):
        load_lexicon(binary)


@pytest.mark.parametrize(
    ("name", "module", "language", "least", "word", "score"),
    [
        ("afinn", "afinn", "en", 3000, "good", 3.0),
        ("labmt", "labMTsimple", "en", 3000, "laughter", 8.50),
        ("labmt-zh", "labMTsimple", "zh", 1500, "快乐", 7.82),
        ("senticnet", "senticnet", "en", 190_000, "absolve love", -0.26),
        ("senticnet-zh", "senticnet", "zh", 20_000, "12月", 0.799),
        ("emobank-zh", "cntext", "zh", 5000, "不安", 3.8),
    ],
)
def test_lexicons_of_packages(name, module, language, least, word, score):
    """The numbers in the files of the packages."""
    if find_spec(module) is None or (language == "zh" and find_spec("jieba") is None):
        pytest.skip(f"{module} or jieba is not installed")
    lexicon = load_lexicon(name, scale_to=None)
    spans = [word[start:end] for start, end in word_spans(word, language)]
    found = lexicon.most_intense(spans)
    assert (found.first, found.last, found.intensity) == (0, len(spans), pytest.approx(score))
    assert len(lexicon) > least
    assert lexicon.language == language
    assert lexicon.licence
    scaled = load_lexicon(name, scale_to=3.0)
    assert scaled.range == (-3.0, 3.0)
    assert all(-3.0 <= value <= 3.0 for value in [*scaled.scores.values(), *scaled.phrases.values()])


def test_labmt_leaves_neutral_words_out():
    pytest.importorskip("labMTsimple", reason="the extra `lexicons` is not installed")
    assert load_lexicon("labmt").score("the") is None
    assert load_lexicon("labmt").score("laughter") == pytest.approx((8.5 - 5) / 4 * 3)


def test_a_file_in_the_form_of_chinese_emobank(tmp_path):
    pytest.importorskip("jieba", reason="the extra `lexicons` (jieba) is not installed")
    path = tmp_path / "valence.yaml"
    path.write_text(
        "Name: x\nDictionary:\n    快乐:\n        valence: 7\n        arousal: 6\n    不耐烦:\n        valence: 3\n",
        encoding="utf-8",
    )
    lexicon = load_lexicon(path)
    assert lexicon.score("快乐") == pytest.approx(1.5)
    # an entry matches however the segmenter cuts it, at the bounds of its segments alone
    assert lexicon.matches(["他", "不", "耐烦", "了"]) == [Match(1, 3, -1.5)]
    assert lexicon.matches(["他不", "耐烦", "了"]) == []


def test_a_missing_package(monkeypatch):
    monkeypatch.setattr("lexicons.sources.find_spec", lambda name: None)
    with pytest.raises(UserError, match="its package is not installed; `pip install afinn`"):
        load_lexicon("afinn")
    with pytest.raises(UserError, match=r"affin: unknown; choose from vader, afinn"):
        load_lexicon("affin")
