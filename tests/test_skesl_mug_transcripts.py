"""Missing transcripts are absent text, never the word "nan"; control characters are removed and counted."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finetune.corpora.loading import load_corpus
from finetune.predict import read_texts
from lexicons.rated import load_rated
from preprocessing.layouts import Clip, clean_transcripts, find_corpus
from skesl_mug.transcripts import CONTROLS, EMPTY, FROM_FLOAT, NAN_WORD, clean_text, is_missing, read_transcripts


def test_what_is_missing():
    for value in (None, float("nan"), np.nan, np.float32("nan"), np.float64("nan"), pd.NA, pd.NaT):
        assert is_missing(value)
        assert read_transcripts([value]) == ([""], {EMPTY: 1})
    for value in ("nan", "None", "", 0.0, 1, "good"):
        assert not is_missing(value)


@pytest.mark.parametrize("kind", [list, lambda values: np.array(values, object)])
def test_transcripts_of_a_column(kind):
    texts, counts = read_transcripts(kind(["good", None, float("nan"), " ", "nan", "go\x00od\x07", b"caf\xc3\xa9", "NaN"]))
    assert texts == ["good", "", "", " ", "nan", "good", "café", "NaN"]
    assert counts == {EMPTY: 3, NAN_WORD: 1, CONTROLS: 1}


def test_a_nan_that_numpy_made_from_a_float_is_missing_and_a_typed_one_is_text():
    assert read_transcripts(np.array(["good", float("nan")])) == (["good", ""], {FROM_FLOAT: 1, EMPTY: 1})
    assert read_transcripts(np.array(["good", "nan"])) == (["good", "nan"], {NAN_WORD: 1})
    assert read_transcripts(pd.Series(["good", "nan", None]).tolist())[0] == ["good", "nan", ""]


def test_ordinary_texts_are_unchanged():
    for text in ("good", "two\nlines\tand a tab", "很好 😀 é", "don\u200bt", "\ufeffa", "soft\u00adhyphen", "👩\u200d👧"):
        assert clean_text(text) is text or clean_text(text) == text
    assert clean_text("a\x0bb\x85c\u2028d") == "a b c d"
    assert clean_text("\ud83d\ude00 \ud800") == "😀 \ufffd"


def corpus_file(folder: Path, texts: object) -> Path:
    random = np.random.default_rng(0)

    def split(name: str, texts: object) -> dict[str, object]:
        return {
            "raw_text": texts,
            "audio": random.normal(size=(8, 5, 3)).astype(np.float32),
            "vision": random.normal(size=(8, 5, 3)).astype(np.float32),
            "regression_labels": np.linspace(-3, 3, 8, dtype=np.float32),
            "id": [f"{name}{place // 2}$_${place}" for place in range(8)],
        }

    plain = [f"this is sentence {place}" for place in range(8)]
    path = folder / "corpus.pkl"
    path.write_bytes(pickle.dumps({"train": split("a", texts), "valid": split("b", plain), "test": split("c", plain)}))
    return path


MARKED = ["[CLS] good [MASK] \x00 <unk> </s>", None, float("nan"), "", "nan", "fine", "so so", "bad"]


def test_a_pickle_with_missing_transcripts(tmp_path):
    corpus = load_corpus("custom", corpus_file(tmp_path, MARKED), cache=tmp_path / "cache")
    assert corpus.splits["train"].text == ["[CLS] good [MASK]  <unk> </s>", "", "", "", "nan", "fine", "so so", "bad"]
    said = {finding.what: finding.count for finding in corpus.findings if finding.where.startswith("train")}
    assert (said[EMPTY], said[CONTROLS], said[NAN_WORD]) == (3, 1, 1)
    floats = load_corpus("custom", corpus_file(tmp_path, np.array([text or "x" for text in MARKED])), cache=tmp_path / "cache2")
    assert floats.splits["train"].text[2] == ""


def test_transcripts_of_a_corpus_of_clips(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.mp4").touch()
    (tmp_path / "labels.csv").write_text("clip,transcript\na,go\x07od\nb,nan\nc,  \n")
    corpus = find_corpus("folder", tmp_path)
    assert [clip.transcript for clip in corpus.clips] == ["good", "nan", None]
    assert f"{CONTROLS}: 1" in corpus.notes
    assert f"{NAN_WORD}: 1" in corpus.notes
    assert any("transcripts of 2 of 3 clips are used as they are; the others are recognised" in note for note in corpus.notes)


def test_a_layout_may_return_nan_for_a_missing_transcript():
    clips = [Clip("a", Path("a.mp4"), "a", "a", transcript=text) for text in ("good", float("nan"), pd.NA, " ", 5)]
    assert clean_transcripts(clips) == []
    assert [clip.transcript for clip in clips] == ["good", None, None, None, 5]


def test_texts_of_a_table(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("text\ngo\x07od\nnan\n\n")
    assert read_texts(tmp_path / "t.csv") == {"text": ["good", "nan"]}
    shown = capsys.readouterr().err.splitlines()
    assert shown == [f"note: t.csv: {CONTROLS}: 1", f"note: t.csv: {NAN_WORD}: 1"]
    (tmp_path / "r.csv").write_text("text,score\n" + "".join(f"film\x07 {place},{place}\n" for place in range(30)))
    rated = load_rated(tmp_path / "r.csv")
    assert rated.texts[0] == "film 0"
    assert rated.notes[0] == f"{CONTROLS}: 30"
