"""`predict --texts`: a score for each row of a csv file."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rated_texts import rated_rows, use_rated, write_rated
from synthetic_pretraining import write_text_model

from finetune.predict import Options, main, read_texts
from finetune.prediction.predictions import in_words
from finetune.prediction.recipe import Recipe
from finetune.prediction.sentiment_model import SentimentModel
from skesl_mug.console import run_command
from skesl_mug.errors import UserError


@pytest.fixture(scope="module")
def name(tmp_path_factory: pytest.TempPathFactory):
    """The starter around a tiny language model."""
    base = tmp_path_factory.mktemp("texts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKESL_MUG_CACHE", str(base / "cache"))
        use_rated(patch, write_rated(base / "rated.csv", 60))
        yield f"starter:{write_text_model(base / 'lm')}"


def score(name: str, file: Path, **options: object) -> None:
    main(Options(texts=file, model=name, device="cpu", **options))  # type: ignore[arg-type]


def test_rows_keep_their_columns_and_get_the_models_scores(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [*rated_rows(40)["text"], "", 'she said "great", twice', "  ", "eine schöne Zeile,\nund eine zweite"]
    table = pd.DataFrame({"id": [f"{place:03d}" for place in range(44)], "TEXT": texts, "note": ["NA", ""] * 22})
    table.to_csv(tmp_path / "texts.csv", index=False, encoding="utf-8-sig")  # with a byte order mark, as spreadsheets write it
    score(name, tmp_path / "texts.csv", output=tmp_path / "out" / "scores.csv")
    shown = capsys.readouterr()
    assert f"written: 42 scores in {tmp_path / 'out' / 'scores.csv'}" in shown.out
    assert "2 rows without a text: no score" in shown.err
    assert "note: starter model: text only" in shown.err
    written = pd.read_csv(tmp_path / "out" / "scores.csv", dtype=str, keep_default_na=False)
    assert list(written.columns) == ["id", "text", "note", "score", "sentiment"]
    assert list(written["id"]) == list(table["id"])
    assert list(written["text"]) == texts
    assert list(written["note"]) == list(table["note"])
    model = SentimentModel.from_pretrained(name, device="cpu")
    expected = model.score_texts(texts)
    for found, word, value in zip(written["score"], written["sentiment"], expected, strict=True):
        if np.isnan(value):
            assert found == word == ""
        else:
            assert float(found) == pytest.approx(float(value), abs=5.1e-4)
            assert word == in_words(float(value), (-3.0, 3.0))
    assert len(set(written["score"])) > 10


def test_texts_in_python_are_utterances_with_a_score_in_words(name: str) -> None:
    model = SentimentModel.from_pretrained(name, device="cpu")
    great, empty = model.predict_texts(["the film was great", " "])
    assert great.text == "the film was great"
    assert great.score == pytest.approx(float(model.score_texts([great.text])[0]))
    assert great.sentiment == in_words(great.score, great.label_range)
    assert great.used == ["text"]
    assert np.isnan(empty.score)
    assert (empty.sentiment, empty.used) == ("", [])


def test_without_an_output_scores_are_printed(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "texts.csv").write_text("score,text\n7,the film was great\n8,\n9," + "awful " * 80 + "\n")  # its own column stays its own
    score(name, tmp_path / "texts.csv")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    value = SentimentModel.from_pretrained(name, device="cpu").score_texts(["the film was great"])[0]
    assert lines[0].split()[0] == f"{value:+.2f}".replace("-", "−")
    assert lines[0].endswith("the film was great")
    assert lines[1].strip() == "–"
    assert lines[2].endswith("…")
    assert all(len(line) <= 120 for line in lines)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("id,words\n1,great\n", "has no column `text`"),
        ("text,id\n,1\n  ,2\n", "its column `text` is empty"),
        ("text\n", "its column `text` is empty"),
        ("", "is empty"),
        ("id,text\n1,great film, I liked it\n2,awful\n", "line 2 has more cells than the 2 columns"),
        ("id,text\n1,awful\n2,great film, I liked it\n3,a,b,c\n", "line 3 (and 1 other row) has more cells than the 2 columns"),
        ("PK\x03\x04", "is an Excel workbook"),
        ("text,score\ngreat,1\n", "already has a column `score`"),
        (None, "no such file"),
    ],
)
def test_files_that_cannot_be_scored_are_reported_in_one_line(
    tmp_path: Path, content: str | None, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded before the file was read")

    monkeypatch.setattr(SentimentModel, "from_pretrained", load)
    file = tmp_path / "texts.csv"
    if content is not None:
        file.write_bytes(content.encode("latin-1"))
    with pytest.raises(SystemExit) as left:
        run_command(Options, main, ["--texts", str(file), "--output", str(tmp_path / "out.csv")])
    assert left.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"error: --texts {file}: ")
    assert told in said


def test_conflicting_options(name: str, tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text("text,Text\ngreat,other\n")
    with pytest.raises(UserError, match="is a folder; with --texts, name the csv file"):
        score(name, tmp_path / "texts.csv", output=tmp_path)
    with pytest.raises(UserError, match="cannot be combined with recordings"):
        Options(texts=tmp_path / "texts.csv", videos=[tmp_path / "clip.mp4"])
    with pytest.raises(UserError, match="name at least one video"):
        Options()
    with pytest.raises(UserError, match="no such run"):
        score(str(tmp_path / "nothing"), tmp_path / "texts.csv")
    score(name, tmp_path / "texts.csv", output=tmp_path / "out.csv")  # the column of exactly that name is read
    assert list(pd.read_csv(tmp_path / "out.csv").columns) == ["text", "Text", "score", "sentiment"]


@pytest.mark.parametrize(
    ("content", "encoding", "note"),
    [
        ("id;text\n1;schön, wirklich schön\n", "utf-8-sig", ""),
        ("id;text\n1;schön, wirklich schön\n", "cp1252", "read as cp1252"),
        ("id;text\n1;Grüße\n", "cp1252", "read as cp1252"),  # two accented letters in a row are not a character of GBK
        ("id\ttext\n1\tschön, wirklich schön\n", "utf-16", "read as utf-16"),
        ("id,text\n1,这部电影非常好看\n", "gb18030", "read as gb18030"),
        ("sep=;\r\nID;Text\r\n1;这部电影非常好看\r\n", "utf-8-sig", ""),
    ],
)
def test_files_saved_by_spreadsheets_are_read(
    tmp_path: Path, content: str, encoding: str, note: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.csv").write_bytes(content.encode(encoding))
    columns = read_texts(tmp_path / "texts.csv")
    assert columns["text"] == [content.splitlines()[-1].split("1", 1)[1][1:]]
    assert [name.lower() for name in columns] == ["id", "text"]
    assert note in capsys.readouterr().err


def test_a_file_of_one_column_may_have_commas_in_its_texts(tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text('Text\ngreat film, I liked it\n"so, so"\n')
    assert read_texts(tmp_path / "texts.csv") == {"text": ["great film, I liked it", "so, so"]}


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "utf-16"])
def test_a_text_file_has_a_text_per_line(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes("很好, 我很喜欢\r\n\r\n太差了".encode(encoding))
    assert read_texts(tmp_path / "a.txt") == {"text": ["很好, 我很喜欢", "", "太差了"]}
    (tmp_path / "b.txt").write_text("id\ttext\n1\tso, so\n")
    assert read_texts(tmp_path / "b.txt") == {"id": ["1"], "text": ["so, so"]}


def test_a_model_without_text_is_refused(name: str, tmp_path: Path) -> None:
    saved = SentimentModel.from_pretrained(name, device="cpu").save_pretrained(tmp_path / "model")
    recipe = Recipe.read(saved)
    recipe.modalities = ["audio"]
    recipe.write(saved)
    (tmp_path / "texts.csv").write_text("text\ngreat\n")
    with pytest.raises(UserError, match="does not use text"):
        score(str(saved), tmp_path / "texts.csv")
