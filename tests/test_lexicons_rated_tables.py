"""Rated sentences in a user's files: any delimiter, encoding and scale, and unusable files."""

import csv
import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexicons.rated import load_rated
from skesl_mug.errors import UserError
from skesl_mug.pip_files import hash_of


def table(path, rows, heading=("text", "score"), delimiter=",", encoding="utf-8"):
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=delimiter)
    writer.writerow(heading)
    writer.writerows(rows)
    path.write_bytes(buffer.getvalue().encode(encoding))
    return path


def numbered(scores, word="text"):
    return [(f"{word} {place}", score) for place, score in enumerate(scores)]


FIVE = [1, 2, 3, 4, 5] * 5


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gbk", "cp1252"])
def test_delimiter_and_encoding_are_guessed(tmp_path, delimiter, encoding):
    word = {"gbk": "这部电影很好看，演员也不错", "cp1252": "très joli, un été “français”"}.get(encoding, "bon, 好; “été” | x")
    path = table(tmp_path / "a.csv", numbered(FIVE, word), delimiter=delimiter, encoding=encoding)
    rated = load_rated(path)
    assert rated.texts[1] == f"{word} 1"
    assert rated.scores.tolist() == pytest.approx([-3, -1.5, 0, 1.5, 3] * 5)
    assert any("read as" in note for note in rated.notes) == (not encoding.startswith("utf-8"))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_long_chinese_texts_without_a_mark_of_their_encoding(tmp_path, encoding):
    word = "这部电影很好看，演员也不错。" * 40
    assert load_rated(table(tmp_path / "a.csv", numbered(FIVE, word), encoding=encoding)).texts[0] == f"{word} 0"


@pytest.mark.parametrize(("head", "delimiter"), [("\n \r\n", ","), ("sep=;\n", ";"), ("", "\t")])
def test_what_programs_write_before_the_heading(tmp_path, head, delimiter):
    """Blank lines, Excel's delimiter, the nameless column of row numbers that pandas writes."""
    path = table(tmp_path / "a.csv", [(row, *cells) for row, cells in enumerate(numbered(FIVE))], ("", "text", "score"), delimiter)
    path.write_text(head + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert load_rated(path).texts[:2] == ["text 0", "text 1"]


def test_bytes_that_windows_1252_lacks_are_counted(tmp_path):
    path = table(tmp_path / "a.csv", numbered(FIVE, "caf\xe9 \x81"), encoding="latin-1")
    assert load_rated(path).texts[0] == "caf\xe9 \ufffd 0"


def test_utf_8_with_a_damaged_character_stays_utf_8(tmp_path):
    path = table(tmp_path / "a.csv", numbered(FIVE, "这部电影很好看"))
    path.write_bytes(path.read_bytes().replace("影".encode(), "影".encode()[:2], 1))
    rated = load_rated(path)
    assert rated.texts[1] == "这部电影很好看 1"
    assert rated.notes[0] == "1 damaged character in UTF-8 text"


@pytest.mark.parametrize(
    "heading",
    [
        ("Text", "SCORE"),
        (" Sentence ", "Rating"),
        ("transcript", "Label"),
        ("REVIEW", "stars"),
        ("text", "Mean"),
        ("raw-text", "Mean Rating"),
    ],
)
def test_columns_are_known_by_their_usual_names(tmp_path, heading):
    rated = load_rated(table(tmp_path / "a.csv", numbered(FIVE), heading=heading))
    assert rated.scores.tolist() == pytest.approx([-3, -1.5, 0, 1.5, 3] * 5)


def test_a_column_of_numbers_goes_before_one_of_words(tmp_path):
    rows = [(text, "good", score) for text, score in numbered(FIVE)]
    assert load_rated(table(tmp_path / "a.csv", rows, heading=("text", "label", "stars"))).scores[0] == -3


def test_spreads_and_groups_of_a_file(tmp_path):
    spreads = ["1", "", "-1", "much", "0,5"] * 5
    rows = [
        (text, score, spread, ["v1", "v2", ""][i % 3])
        for i, ((text, score), spread) in enumerate(zip(numbered(FIVE), spreads, strict=True))
    ]
    rated = load_rated(table(tmp_path / "a.csv", rows, heading=("text", "score", "SD", "Video ID"), delimiter=";"))
    np.testing.assert_allclose(rated.spreads[:5], [1.5, math.nan, math.nan, math.nan, 0.75])
    assert rated.groups[:6] == ["a-v1", "a-v2", "a-row-3", "a-v1", "a-v2", "a-row-6"]
    assert not any("column group" in note for note in rated.notes)


def test_the_mapping_of_scores_is_reported(tmp_path):
    symmetric = load_rated(table(tmp_path / "a.csv", numbered([-1, 0, 0.5, 1, 2] * 4)))
    assert symmetric.scores[:5].tolist() == pytest.approx([-1.5, 0, 0.75, 1.5, 3])
    assert symmetric.notes[0] == "scores from -1 to 2: the scale -2 to 2 (symmetric, as some scores are below 0) is mapped to -3 to 3"
    stars = load_rated(table(tmp_path / "b.csv", numbered([2, 3, 4, 5] * 5)), score_range=(1, 5))
    assert stars.scores[:4].tolist() == pytest.approx([-1.5, 0, 1.5, 3])
    assert "the scale 1 to 5 (given)" in stars.notes[0]
    found = load_rated(tmp_path / "b.csv")
    assert found.scores[:4].tolist() == pytest.approx([-3, -1, 1, 3])
    assert "the scale 2 to 5 (the lowest and highest found)" in found.notes[0]


def test_a_german_excel_file(tmp_path):
    path = table(tmp_path / "a.csv", numbered(["-1,5", "\u22123", "0", "1,5", "３"] * 4), delimiter=";", encoding="utf-16")
    assert load_rated(path).scores[:5].tolist() == pytest.approx([-1.5, -3, 0, 1.5, 3])


def test_skipped_rows_are_counted(tmp_path):
    rows = [*numbered(FIVE), ("", 3), ("  ", "x"), ("a", ""), ("b", "n/a"), ("c", "nan"), ("d", "1e999"), ("e", "1_0"), ("short",)]
    rated = load_rated(table(tmp_path / "a.csv", [*rows, ("too", "many", "cells"), ("fits", 5, "")]))
    assert rated.notes[:4] == (
        "1 of 35 rows skipped (first: line 35): more cells than columns (a text with a delimiter needs quotation marks)",
        "1 row shorter than the header (first: line 34): the missing cells count as empty",
        "2 of 34 rows skipped: no text",
        "6 of 34 rows skipped: a score that is not a number",
    )
    assert len(rated) == 26
    assert rated.texts[-1] == "fits"


def test_a_repeated_text_is_kept_once_with_its_mean_and_all_its_raters(tmp_path):
    rows = [(text, score, 1, f"g{place}") for place, (text, score) in enumerate(numbered([-3, 3] * 10))]
    rows += [("Text  0", 3, 1, "other"), ("text 1", 3, 1, "g1"), ("unlike", 0, 1, "other")]
    rated = load_rated(table(tmp_path / "a.csv", rows, heading=("text", "score", "std", "group")))
    assert len(rated) == 21
    assert rated.scores[:2].tolist() == [0, 3]
    assert rated.spreads[:2].tolist() == pytest.approx([math.sqrt(1 + 9), 1])
    assert rated.groups[0] == rated.groups[20] == "a-g0"
    assert "2 of 23 rows repeat a text: each is kept once, with its mean score (texts with different scores: 1)" in rated.notes


def test_two_scripts_are_reported(tmp_path):
    rows = [*numbered(FIVE), *numbered([1, 2, 3, 4, 5], "好"), ("片假名 カタカナ ひらがな", 3), (":-)", 3)]
    assert load_rated(table(tmp_path / "a.csv", rows)).notes[-1] == (
        "6 of 32 texts are in another script than the rest; the language model must know both"
    )
    assert not any("script" in note for note in load_rated(table(tmp_path / "b.csv", numbered(FIVE, "naïve"))).notes)


def test_texts_are_kept_whole(tmp_path):
    texts = ["x " * 200_000 + "end", 'a "quoted" word', "two\nlines, here", '"', "tab\tbed", *(text for text, _ in numbered(FIVE))]
    rows = [(text, place % 5) for place, text in enumerate(texts)]
    assert load_rated(table(tmp_path / "a.csv", rows)).texts == texts
    assert load_rated(table(tmp_path / "a.tsv", rows, delimiter="\t")).texts == texts


def test_quotation_marks_of_tab_separated_text_need_not_be_closed(tmp_path):
    lines = ['"Great, he said\t1', '"all ""quoted"""\t2', 'so "so"\t3', *(f"{text}\t{score}" for text, score in numbered(FIVE))]
    (tmp_path / "a.tsv").write_text("text\tscore\n" + "\n".join(lines) + "\n", encoding="utf-8")
    assert load_rated(tmp_path / "a.tsv").texts[:3] == ['"Great, he said', 'all "quoted"', 'so "so"']


BAD = {
    "words": (table, numbered(["pos", "neg"] * 15), {}, r"column score holds words \(pos, neg\); it must hold a number"),
    "equal": (table, numbered([3] * 30), {}, "all its 30 scores are 3; choose texts with different scores"),
    "few": (table, numbered([1, 2] * 5), {}, "has 10 usable texts in 10 rows; at least 20 different texts"),
    "none": (table, [], {}, "has 0 usable texts in 0 rows"),
    "few once": (table, [("same", 1), ("same", 2)] * 15, {}, "has 1 usable texts in 30 rows"),
    "equal means": (table, [(f"text {place}", score) for place in range(20) for score in (1, 2)], {}, "have the same mean score"),
    "no score": (table, numbered(FIVE), {"heading": ("text", "wert")}, r"has no column score \(or .*; found: text, wert; its first line"),
    "no text": (table, numbered(FIVE), {"heading": ("satz", "score")}, r"has no column text \(or .*; found: satz, score"),
    "neither": (table, numbered(FIVE), {"heading": ("a", "b")}, r"no column text .* and no column score .*; found: a, b"),
}


@pytest.mark.parametrize("fault", BAD)
def test_unusable_tables(tmp_path, fault):
    write, rows, form, said = BAD[fault]
    path = write(tmp_path / "a.csv", rows, **form)
    with pytest.raises(UserError, match=said) as caught:
        load_rated(path)
    assert str(caught.value).startswith(f"--rated {path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf\n \n", "is empty"),
        (b"\xff\xfe", "is empty"),
        (b"PK\x03\x04abc", "is an Excel workbook"),
        (b"\xd0\xcf\x11\xe0abc", "is an Excel workbook"),
        (b"\x1f\x8babc", "is compressed"),
        (b"PAR1\0\0", "is a parquet file"),
        (b"text,score\n\0\1\2\0\n", "is not a text file"),
        (b"\xff\xfe\x00", "is not a text file"),
        (b'text,score\na,1\n"b,2\nc,3\n', "the quotation mark that opens a cell in line 3 is never closed"),
        (b"text", "has no column score"),
        (b"\x80\x81\x82", "has no column text"),
    ],
)
def test_files_that_are_not_tables(tmp_path, content, said):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        load_rated(path)
    assert str(caught.value).startswith(f"--rated {path}: ")
    assert "\n" not in str(caught.value)


def test_paths_that_are_not_files(tmp_path):
    with pytest.raises(UserError, match="no such file; choose hutto-gilbert, snownlp, or a csv"):
        load_rated("huto-gilbert")
    with pytest.raises(UserError, match="is a folder"):
        load_rated(tmp_path)


@pytest.mark.parametrize(
    ("span", "said"), [((5, 1), "5 to 1 is empty"), ((1, math.inf), "is empty"), ((2, 5), r"1 to 5, go beyond the score range 2 to 5")]
)
def test_score_ranges_that_do_not_fit(tmp_path, span, said):
    with pytest.raises(UserError, match=said):
        load_rated(table(tmp_path / "a.csv", numbered(FIVE)), score_range=span)


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(scores=st.lists(FINITE, min_size=20, max_size=40), chinese=st.booleans())
def test_scores_lie_in_the_range_and_keep_their_order(tmp_path_factory, scores, chinese):
    path = table(tmp_path_factory.mktemp("rated") / "a.csv", numbered([repr(score) for score in scores], "好" if chinese else "text"))
    if len(set(scores)) == 1:
        with pytest.raises(UserError, match="scores are"):
            load_rated(path)
        return
    rated = load_rated(path)
    assert rated.scores.min() >= -3
    assert rated.scores.max() <= 3
    assert np.abs(rated.scores).max() == 3
    order = np.argsort(scores, kind="stable")
    assert (np.diff(rated.scores[order]) >= 0).all()
    if min(scores) < 0:
        assert all(np.sign(mapped) in (0, np.sign(score)) for mapped, score in zip(rated.scores, scores, strict=True))


@given(st.binary(max_size=300), st.sampled_from([b"", b"text,score\n", b"\xff\xfe", b"text\tscore\n"]))
def test_any_bytes_give_texts_or_one_line(tmp_path_factory, content, head):
    path = tmp_path_factory.mktemp("rated") / "a.csv"
    path.write_bytes(head + content)
    try:
        load_rated(path)
    except UserError as error:
        said = str(error)
    else:
        said = "texts"
    assert len(said.splitlines()) == 1


def test_the_hash_is_that_of_the_file(tmp_path):
    path = table(tmp_path / "a.csv", numbered(FIVE))
    assert load_rated(path).sha256 == hash_of(path)
