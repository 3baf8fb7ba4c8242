"""Tables as people save them: any usual encoding, delimiter and spreadsheet habit, one row or many."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lexicons.compare import read_texts
from lexicons.sources import read_entries
from preprocessing.facts import read_references
from preprocessing.layouts import find_corpus
from preprocessing.layouts.labelled import read_folds
from preprocessing.layouts.voxceleb import read_speaker_table
from skesl_mug.errors import UserError
from skesl_mug.tables import parse_number, read_table
from skesl_mug.text_files import guess_encoding, read_text

SHORT = {
    "gb18030": ["很好", "视频1", "不喜欢", "太差了", "优秀", "一般", "这部电影很好看，演员也不错", "笑死我了", "张三"],
    "big5": ["很好", "影片1", "不喜歡", "優秀", "這部電影很好看，演員也不錯", "導演水準有限", "悲傷"],
    "shift_jis": ["とても良い", "映画", "最高でした", "アニメ", "ダメだ", "素晴らしい演技", "動画1", "つまらない映画だった。"],
    "euc_jp": ["とても良い", "最高でした", "つまらない映画だった。"],
    "euc_kr": ["좋아요", "별로", "영상1", "실망", "슬프다", "정말 재미있었어요", "배우 연기가 좋다", "행복"],
    "cp1252": [
        "café",
        "“fine” café",
        "naïve",
        "Straße",
        "für",
        "Größe",
        "Füße",
        "coração",
        "crème brûlée",
        "À bientôt",
        "don’t",
        "50€",
        "é",
    ],
    "cp1250": ["zażółć gęślą jaźń", "příliš žluťoučký kůň"],
    "cp1251": ["Хорошо", "очень плохо", "видео1", "Фильм понравился"],
    "cp1253": ["Πολύ καλή ταινία"],
    "cp1254": ["Işık çok güzel bir şey"],
    "koi8_r": ["Хорошо", "Фильм понравился"],
}
CASES = [(encoding, text) for encoding, texts in SHORT.items() for text in texts]
SENTENCES = {
    "gb18030": "我觉得这个导演的水平有限，剧情拖沓，但是女主角的演技还可以。音乐也不错！",
    "big5": "我覺得這個導演的水準有限，劇情拖沓，但是女主角的演技還可以。音樂也不錯！",
    "shift_jis": "この映画はとても面白かったです。主人公の演技が素晴らしく、音楽も最高でした。",
    "euc_kr": "이 영화는 정말 재미있었습니다. 배우들의 연기도 훌륭하고 음악도 최고였어요.",
    "cp1252": "C’était une très belle soirée – l’été déjà, et à côté un café où l’on goûte une crème brûlée.",
}


def save(folder: Path, content: str | bytes, encoding: str = "utf-8", name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


@pytest.mark.parametrize("form", ["clip,label,transcript\na,1,{}\n", "clip;label\r\n{};1,5\r\n", "text\n{}"])
@pytest.mark.parametrize(("encoding", "text"), CASES)
def test_the_encoding_of_one_short_row(encoding, text, form):
    raw = form.format(text).encode(encoding)
    assert raw.decode(guess_encoding(raw)) == form.format(text)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_encodings_with_and_without_a_mark(tmp_path, encoding):
    for text in ("a,1", "很好", "좋아요", "とても良い", "Хорошо", "καλό", "fine 😀"):
        form = f"clip,label\n{text},1\n"
        found, notes = read_text(save(tmp_path, form, encoding))
        assert found == form
        assert bool(notes) == (not encoding.startswith("utf-8"))


@pytest.mark.parametrize("encoding", SENTENCES)
def test_long_tables_and_the_note(tmp_path, encoding):
    text = SENTENCES[encoding]
    path = save(tmp_path, "id,text\n" + "".join(f'{row},"{text}"\n' for row in range(2000)), encoding)
    table = read_table(path)
    assert table.columns["text"] == [text] * 2000
    assert len(table.notes) == 1
    assert "read as" in table.notes[0]
    assert "save it as UTF-8" in table.notes[0]


def test_the_names_of_the_files_decide_where_the_text_is_too_short(tmp_path):
    (tmp_path / "牛.mp4").touch()
    save(tmp_path, "clip,label\n牛.mp4,1\n", "gb18030")  # these two bytes are UTF-8 for another letter
    (clip,) = find_corpus("folder", tmp_path).clips
    assert clip.labels == {"label": 1.0}


def test_numbers_that_a_spreadsheet_or_pandas_changed_find_their_files(tmp_path):
    for name in ("0001.mp4", "0002.mp4", "v/03.mp4", "7.mp4", "07.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    save(tmp_path, "clip,label\n1,1\n2.0,2\nv/3,3\n07,-1\n7,-2\n")
    found = {clip.id: clip.labels.get("label") for clip in find_corpus("folder", tmp_path).clips}
    assert found == {"0001": 1, "0002": 2, "v/03": 3, "07": -1, "7": -2}
    save(tmp_path, "video_id,clip_id,label\nv,3.0,1\n", name="label.csv")
    assert [clip.path.name for clip in find_corpus("mosi", tmp_path).clips] == ["03.mp4"]


def test_names_in_decomposed_unicode_find_their_rows(tmp_path):
    (tmp_path / "cafe\u0301.mp4").touch()
    save(tmp_path, "clip,label\ncaf\u00e9,1\n")
    (clip,) = find_corpus("folder", tmp_path).clips
    assert clip.labels == {"label": 1.0}


TABLES = st.lists(
    st.tuples(
        *[st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"], exclude_characters="\ufeff\ufffe\u2028\u2029\ufffd"), max_size=8)]
        * 3
    ),
    min_size=1,
    max_size=6,
)


@given(TABLES, st.sampled_from(",;\t|"), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]), st.booleans(), st.sampled_from(["\n", "\r\n"]))
@settings(deadline=None, max_examples=150)
def test_any_table_is_read_back(tmp_path_factory, rows, delimiter, encoding, last_line_ends, newline):
    letters = sum(letter > "\x7f" for row in rows for cell in row for letter in cell)
    assume(encoding != "utf-8" or letters == 0 or letters > 3)  # the bytes of fewer letters may be GBK too
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator=newline)
    writer.writerows([("clip", "label", "transcript"), *rows])
    content = text.getvalue() if last_line_ends else text.getvalue().removesuffix(newline)
    path = save(tmp_path_factory.getbasetemp(), content, encoding, "any.csv")
    table = read_table(path, ("clip", "label"))
    kept = [row for row in rows if any(cell.strip() for cell in row)]
    assert list(zip(*table.columns.values(), strict=True)) == kept
    assert table.delimiter == delimiter


WORDS = {
    encoding: text.split() if encoding == "cp1252" else sorted({text[a : a + 4] for a in range(len(text) - 4)})
    for encoding, text in SENTENCES.items()
}


@given(st.data(), st.sampled_from(sorted(SENTENCES)), st.sampled_from(",;\t"))
@settings(deadline=None, max_examples=150, derandomize=True)  # few words can be likelier in another encoding
def test_tables_of_words_in_older_encodings_are_read_back(tmp_path_factory, data, encoding, delimiter):
    join = " ".join if encoding == "cp1252" else "".join
    words = st.lists(st.sampled_from(WORDS[encoding]), min_size=4, max_size=12, unique=True).map(join)
    rows = data.draw(st.lists(st.tuples(st.integers(0, 99).map(str), words), min_size=1, max_size=5))
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows([("clip", "transcript"), *rows])
    path = save(tmp_path_factory.getbasetemp(), text.getvalue(), encoding, "words.csv")
    table = read_table(path, ("clip", "transcript"))
    assert list(zip(*table.columns.values(), strict=True)) == rows


@given(st.binary(max_size=80))
@settings(deadline=None, max_examples=300)
def test_any_bytes_are_a_table_or_refused_in_one_line(tmp_path_factory, content):
    path = save(tmp_path_factory.getbasetemp(), content, name="bytes.csv")
    message = ""
    try:
        read_table(path)
    except UserError as error:
        message = str(error)
    assert not message or message.startswith(f"{path}: ")
    assert "\n" not in message


def test_habits_of_spreadsheets(tmp_path):
    path = save(tmp_path, 'sep=;\r\n\ufeff Clip ;LABEL T;Notes;\r\na;1,5;"two\r\nlines; here";\r\n;;;\r\n\r\nb;-2;\r\n;;\r\n', "utf-16")
    table = read_table(path, ("clip", "label_T"))
    assert table.columns == {"Clip": ["a", "b"], "LABEL T": ["1,5", "-2"], "Notes": ["two\r\nlines; here", ""]}
    assert table.lines == [3, 7]
    assert table.column_named("label_T") == "LABEL T"
    assert [note for note in table.notes if "read as" not in note] == []


def test_habits_of_people_and_scripts(tmp_path):
    table = read_table(save(tmp_path, ',clip, label,label\n0,a, "1,5",9\n1,b,2,9\n'))  # an index of pandas, spaces, a column twice
    assert table.columns == {"": ["0", "1"], "clip": ["a", "b"], "label": ["1,5", "2"]}
    assert table.notes == ["several columns are named label: the first is used"]
    (tmp_path / "a.mp4").touch()
    (tmp_path / "corpus.json").write_text('{"label_range": [-3, 3], "name": "é"}', encoding="utf-16")
    corpus = find_corpus("folder", tmp_path)
    assert corpus.clips[0].labels == {"label": 1.5}
    assert corpus.info["name"] == "é"
    assert not any("unknown columns" in note for note in corpus.notes)


@pytest.mark.parametrize("content", ["", "\n\n", ",", ",,\n,,\n", "sep=;\n", "sep=;\n;;\n", "\ufeff", "\x1a"])
def test_files_without_cells_are_empty(tmp_path, content):
    with pytest.raises(UserError, match=r"labels\.csv: is empty; choose a csv or tsv file"):
        read_table(save(tmp_path, content))


def test_numbers_with_a_decimal_comma():
    cells = ["1,5", "-0,5", "\u22123", "３", "1.5", " 2 ", "1e2", "1,5,5", "1,234.5", "", "x", "inf", "nan", "1_0"]
    assert [parse_number(cell) for cell in cells] == [1.5, -0.5, -3, 3, 1.5, 2, 100, *[None] * 7]


def test_blank_rows_are_no_faults_and_are_not_counted(tmp_path):
    (tmp_path / "a.mp4").touch()
    save(tmp_path, "clip,label,split,speaker\na,1,train,x\n\n,,,\n , ,,\n,\n")
    assert find_corpus("folder", tmp_path).notes == []


def test_rows_that_are_too_long_or_too_short_are_named_with_their_line(tmp_path):
    path = save(tmp_path, 'clip,label,transcript\na,1,"two\nlines"\nb,2\nc,3,well, so\nd,1,x,\n')
    with pytest.raises(UserError, match=r"labels\.csv: line 5 has more cells than the 3 columns; put texts"):
        read_table(path)
    table = read_table(path, long_rows="skip")
    assert (table.columns["clip"], table.lines, table.skipped) == (["a", "b", "d"], [2, 4, 6], 1)
    assert "first: line 5" in table.notes[0]
    assert table.notes[1] == "1 row shorter than the header (first: line 4): the missing cells count as empty"


def test_nul_characters_are_removed_and_named_with_their_line(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.mp4").touch()
    save(tmp_path, b"clip,label,transcript\na,1\x00,go\x00od\nb,2,fine\n")
    corpus = find_corpus("folder", tmp_path)
    assert [(clip.labels["label"], clip.transcript) for clip in corpus.clips] == [(1.0, "good"), (2.0, "fine")]
    assert corpus.notes[0] == "labels.csv: line 2: 2 NUL characters (\\x00) removed; the file may be damaged"


@pytest.mark.parametrize("name", ["labels.xlsx", "labels.csv"])
def test_workbooks_are_refused_in_a_line_that_says_save_as_csv(tmp_path, name):
    (tmp_path / "a.mp4").touch()
    path = save(tmp_path, b"PK\x03\x04 workbook", name=name)
    with pytest.raises(UserError, match="is an Excel workbook or a zip archive; save or unpack it as a csv file"):
        find_corpus("folder", tmp_path, path)
    if name == "labels.xlsx":
        assert "labels.xlsx is not read; save it as labels.csv (UTF-8)" in find_corpus("folder", tmp_path).notes


def test_a_damaged_byte_in_utf_8_does_not_change_the_encoding(tmp_path):
    found, notes = read_text(save(tmp_path, "text\n很好\n".encode() * 20 + b"\xe5\n"))
    assert found.startswith("text\n很好")
    assert notes == ["1 damaged character in UTF-8 text"]


@pytest.mark.parametrize(
    ("encoding", "word"), [("gb18030", "很好"), ("cp1252", "schön"), ("utf-16", "좋아요"), ("shift_jis", "素晴らしい")]
)
def test_every_reader_of_tables(tmp_path, capsys, encoding, word):
    heading = f"Clip;True Text;Video ID;Split;Text\nv;{word};v;train;{word}\n"
    path = save(tmp_path, heading, encoding)
    assert read_references(path) == {"v": word}
    assert read_folds(path) == {"v": "train"}
    assert list(read_texts(path)) == [word]
    assert list(read_texts(save(tmp_path, f"{word}\n", encoding, "a.txt"))) == [word]
    assert read_speaker_table(save(tmp_path, f"ID\tNationality\nid1\t{word}\n", encoding)) == [{"id": "id1", "nationality": word}]
    assert read_entries(save(tmp_path, f"{word};1,5\n", encoding, "b.csv")) == {word: 1.5}
    assert read_entries(save(tmp_path, f"word\tscore\n{word}\t-2\n", encoding, "b.txt")) == {word: -2}
    assert capsys.readouterr().err.count("read as") == 4  # once per file
    (tmp_path / f"{word}.mp4").touch()
    (tmp_path / "label.csv").write_bytes(f'video_id,clip_id,label,text,start,end\n{word},1,1,{word},"0,5",2\n'.encode(encoding))
    corpus = find_corpus("mosi", tmp_path)
    assert [(clip.transcript, clip.start) for clip in corpus.clips] == [(word, 0.5)]
    assert sum("read as" in note for note in corpus.notes) == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('v1,1,"he said x,1,train\nv1,2,"c",2,train\nv1,3,"d",-1,test\n', "line 3 is closed in another line"),
        ('v1,1,a,1,train\r\nv1,2,"b,2,train\r\nv1,3,"c",2,train\r\nv1,4,d,1,test\r\n', "line 4 is closed in another line"),
        ('v1,1,a,1,train\nv1,2,"b,2,train', "line 4 is never closed"),
    ],
)
def test_a_stray_quotation_mark_is_refused_with_its_line(tmp_path, rows, message):
    path = save(tmp_path, "sep=,\nvideo_id,clip_id,text,label,split\n" + rows)
    with pytest.raises(UserError, match=message):
        read_table(path)


def test_quoted_line_breaks_and_careless_quotation_marks_within_a_row_are_read(tmp_path):
    table = read_table(save(tmp_path, 'clip,text\na,"two\n""lines"""\nb,"so" he said\nc,5" wide\n'))
    assert table.columns["text"] == ['two\n"lines"', "so he said", '5" wide']
    assert table.lines == [2, 4, 5]
