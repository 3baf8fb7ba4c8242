"""Reading csv and tsv files of unknown origin: encoding and delimiter are detected."""

import csv
import io
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import dropwhile
from pathlib import Path

from skesl_mug.errors import UserError

DELIMITERS = (",", "\t", ";", "|")
WANTED = "give a csv or tsv file with the columns text and score"
PACKED = {
    b"PK\x03\x04": "an Excel workbook or a zip archive",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"\x1f\x8b": "compressed",
    b"PAR1": "a parquet file",
}
FEW_DAMAGED = 0.1  # damaged characters per intact non-ASCII character up to which a text counts as UTF-8


@dataclass
class Cells:
    """A table of text cells: columns by name in the order of the file, and notes for the user."""

    columns: dict[str, list[str]]
    rows: int
    notes: list[str] = field(default_factory=list)
    skipped: int = 0
    """Rows with more cells than columns."""


def plain_name(column: str) -> str:
    """A column name in lower case with underscores: `Video ID` becomes `video_id`."""
    return "_".join(column.replace("-", " ").replace("_", " ").casefold().split())


def read_cells(path: Path, known: Collection[str], *, flag: str = "--rated", needed: str = WANTED) -> Cells:
    """The cells of a csv or tsv file with a header line.

    Rows with more cells than columns are skipped and counted; shorter rows are filled up with empty cells.

    Args:
        path: the file.
        known: expected column names, which help to detect the delimiter.
        flag, needed: for error messages: the option that names the file, and advice on what to pass.

    Raises:
        UserError: the file cannot be read, is not text, is empty, or has an unclosed quotation mark.
    """
    place = f"{flag} {path}"
    text, notes = _decode(path, place, needed)
    lines = list(dropwhile(_is_preamble, io.StringIO(text, newline="")))
    if not lines:
        raise UserError(f"{place}: is empty; {needed}")
    delimiter = max(DELIMITERS, key=lambda one: _rank(lines[0], one, known))
    rows = [row for row in _parse(place, lines, delimiter) if any(cell.strip() for cell in row)]
    heading = [name.strip() for name in rows.pop(0)]
    while heading and not heading[-1]:
        heading.pop()
    width = len(heading)
    fitting = [row + [""] * (width - len(row)) for row in rows if not any(cell.strip() for cell in row[width:])]
    if len(fitting) < len(rows):
        long = len(rows) - len(fitting)
        notes.append(f"{long:,} of {len(rows):,} rows skipped: more cells than columns (a text with a delimiter needs quotation marks)")
    columns = {name: [row[column] for row in fitting] for column, name in reversed(list(enumerate(heading)))}
    return Cells(dict(reversed(columns.items())), len(fitting), notes, len(rows) - len(fitting))


def _is_preamble(line: str) -> bool:
    """Whether a line before the header is blank, or Excel's `sep=;`."""
    return not line.strip() or line.lower().startswith("sep=")


def printable(text: str, most: int = 40) -> str:
    """The beginning of a cell, printable on one line."""
    return "".join(character if character.isprintable() else "?" for character in text[:most])


def _decode(path: Path, place: str, needed: str) -> tuple[str, list[str]]:
    """The text of a file, with a note if it is not plain UTF-8."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{place}: cannot be read ({error.strerror or error})") from error
    for mark, what in PACKED.items():
        if content.startswith(mark):
            raise UserError(f"{place}: is {what}; save or unpack it as a csv file (UTF-8)")
    for encoding in _encodings(content):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text, [] if encoding == "utf-8-sig" else [f"read as {encoding}, because it is not UTF-8"]
        break
    repaired = content.decode("utf-8-sig", errors="replace")
    if "\0" in repaired:
        raise UserError(f"{place}: is not a text file; {needed}")
    return repaired, [f"{repaired.count(chr(0xFFFD)):,} damaged characters in UTF-8 text"]


def _encodings(content: bytes) -> Iterator[str]:
    """Candidate encodings in order; after `utf-8-sig` none if the text is UTF-8 with a few damaged characters."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        yield "utf-16"
        return
    even, odd = content[0::2].count(0), content[1::2].count(0)
    if max(even, odd) > 8 * min(even, odd):  # one byte of each ASCII character is zero; other encodings have no zeros
        yield "utf-16-be" if even > odd else "utf-16-le"
        return
    yield "utf-8-sig"
    repaired = content.decode("utf-8-sig", errors="replace")
    damaged = repaired.count("\ufffd")
    if damaged <= FEW_DAMAGED * (sum(character > "\x7f" for character in repaired) - damaged):
        return
    if _in_pairs(content):
        yield "gb18030"  # a superset of GBK and GB2312
    yield "cp1252"
    yield "latin-1"


def _in_pairs(content: bytes) -> bool:
    """Whether bytes above 127 come in pairs, as in GBK; in western encodings accented letters mostly stand alone.

    Pairs have to begin like punctuation or common characters, up to 0xD7: two accented letters in a row (`üß`) do not.
    """
    high = pairs = place = 0
    while place < min(len(content), 1 << 20):
        if content[place] < 128:
            place += 1
            continue
        pair = place + 1 < len(content) and content[place + 1] > 127
        high, pairs, place = high + 1, pairs + (pair and content[place] <= 0xD7), place + 1 + pair
    return pairs > 0.7 * high


def _rank(heading: str, delimiter: str, known: Collection[str]) -> tuple[int, int]:
    """How well a delimiter splits a header: number of known columns, then of all columns."""
    names = {plain_name(name) for name in next(csv.reader([heading], delimiter=delimiter), [])}
    return len(names & set(known)), len(names)


def _parse(place: str, lines: list[str], delimiter: str) -> list[list[str]]:
    if delimiter == "\t" and len({line.count("\t") for line in lines if line.strip()}) == 1:
        # one row per line: an opening quotation mark need not be closed
        return [[_unquoted(cell) for cell in line.rstrip("\r\n").split("\t")] for line in lines]
    start = 1
    usual = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # allow long texts
    try:
        rows = list(csv.reader(lines, delimiter=delimiter))
        if rows and any("\n" in cell for cell in rows[-1]):
            strictly = csv.reader(lines, delimiter=delimiter, strict=True)
            for _ in strictly:
                start = strictly.line_num + 1
    except csv.Error as error:
        if "end of data" not in str(error):
            return rows
        raise UserError(f"{place}: the quotation mark that opens a cell in line {start:,} is never closed") from error
    finally:
        csv.field_size_limit(usual)
    return rows


def _unquoted(cell: str) -> str:
    whole = len(cell) > 1 and cell[0] == cell[-1] == '"'
    return cell[1:-1].replace('""', '"') if whole else cell
