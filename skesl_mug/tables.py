"""Reading tables that people made: csv and tsv files of unknown encoding and delimiter, as spreadsheets and scripts write them."""

import csv
import io
import math
import sys
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from skesl_mug.errors import UserError
from skesl_mug.text_files import print_notes, read_text
from skesl_mug.wording import counted

DELIMITERS = (",", "\t", ";", "|")
NO_DELIMITER = "\x1f"
"""For a table of one column, whose texts may hold commas."""
NEEDED = "choose a csv or tsv file"


@dataclass
class Table:
    """A table of text cells: columns by name in the order of the file, the line of each row, and notes for the user."""

    columns: dict[str, list[str]]
    lines: list[int]
    notes: list[str] = field(default_factory=list)
    skipped: int = 0
    """Rows with more cells than columns."""
    delimiter: str = ","

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.lines)

    def renamed(self, names: Mapping[str, str]) -> Iterator[tuple[int, dict[str, str]]]:
        """Each row's line and its stripped cells under our names of the columns; `names`: our name -> the file's."""
        given = [(ours, self.columns[theirs]) for ours, theirs in names.items()]
        for row, line in enumerate(self.lines):
            yield line, {ours: cells[row].strip() for ours, cells in given}

    def column_named(self, *names: str) -> str | None:
        """The file's name of the first of some columns that it has, whatever their capitals, spaces and hyphens."""
        known = {plain_name(column): column for column in reversed(self.columns)}
        exact = next((name for name in names if name in self.columns), None)
        return exact or next((known[plain_name(name)] for name in names if plain_name(name) in known), None)


def plain_name(column: str) -> str:
    """A column name in lower case with underscores: `Video ID` becomes `video_id`."""
    return "_".join(column.replace("-", " ").replace("_", " ").casefold().split())


def excerpt(text: str, most: int = 40) -> str:
    """The beginning of a cell, printable on one line."""
    return "".join(character if character.isprintable() else "?" for character in text[:most])


def parse_number(cell: str) -> float | None:
    """The finite number in a cell, None if there is none; `1,5` is read as 1.5, and full-width digits and the minus sign are known."""
    plain = unicodedata.normalize("NFKC", cell).strip().replace("\u2212", "-")
    if "." not in plain and plain.count(",") == 1:
        plain = plain.replace(",", ".")
    try:
        number = float(plain)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in plain else None


def read_table(
    path: Path,
    known: Collection[str] = (),
    *,
    place: str | None = None,
    needed: str = NEEDED,
    names: Collection[str] = (),
    long_rows: str = "refuse",
    quiet: bool = True,
) -> Table:
    """The cells of a csv or tsv file with a header line; blank rows, also those of a spreadsheet (`,,`), are left out.

    Shorter rows are filled up with empty cells, which a note counts. Rows with more cells than columns are refused, because their cells
    cannot be assigned, or skipped and counted (`long_rows="skip"`).

    Args:
        path: the file.
        known: expected column names, which help to detect the delimiter.
        place: how messages name the file; default: its path.
        needed: advice for messages on what to choose instead.
        names: see `read_text`.
        long_rows: "refuse" or "skip".
        quiet: if False, print the notes to stderr.

    Raises:
        UserError: the file cannot be read, is not text, is empty, has an unclosed quotation mark, or a row that is too long.
    """
    place = place or str(path)
    text, notes = read_text(path, place=place, needed=needed, names=names)
    lines = list(io.StringIO(text, newline=""))
    first, declared = 0, None
    while first < len(lines) and (not lines[first].strip() or lines[first].lower().startswith("sep=")):
        if lines[first].strip():  # Excel's `sep=;`
            declared = lines[first].strip("\r\n")[4:5] or None
        first += 1
    if first == len(lines):
        raise UserError(f"{place}: is empty; {needed}")
    wanted = {plain_name(name) for name in known}
    delimiter = declared or max(DELIMITERS, key=lambda one: _rank(lines[first], one, wanted))
    if declared is None and all(one not in lines[first] for one in DELIMITERS):
        delimiter = NO_DELIMITER
    rows = [(line, row) for line, row in _parse(place, lines[first:], first + 1, delimiter) if any(cell.strip() for cell in row)]
    if not rows:
        raise UserError(f"{place}: is empty; {needed}")
    heading = [name.strip().strip("\ufeff").strip() for name in rows.pop(0)[1]]
    while heading and not heading[-1]:
        heading.pop()
    width = len(heading)
    fitting, long, short = [], [], []
    for line, row in rows:
        if any(cell.strip() for cell in row[width:]):
            long.append(line)
            continue
        if len(row) < width:
            short.append(line)
        fitting.append((line, row + [""] * (width - len(row))))
    if long and long_rows == "refuse":
        others = f" (and {counted(len(long) - 1, 'other row')})" if len(long) > 1 else ""
        raise UserError(
            f"{place}: line {long[0]}{others} has more cells than the {width} columns; put texts that contain the delimiter in quotes"
        )
    if long:
        notes.append(
            f"{len(long):,} of {len(rows):,} rows skipped (first: line {long[0]}): more cells than columns (a text with a delimiter needs "
            "quotation marks)"
        )
    if short:
        notes.append(f"{counted(len(short), 'row')} shorter than the header (first: line {short[0]}): the missing cells count as empty")
    repeated = sorted({name for name in heading if name and heading.count(name) > 1})
    if repeated:
        notes.append(f"several columns are named {', '.join(map(excerpt, repeated))}: the first is used")
    columns = {name: [row[column] for _, row in fitting] for column, name in reversed(list(enumerate(heading)))}
    if not quiet:
        print_notes(path, notes)
    return Table(dict(reversed(columns.items())), [line for line, _ in fitting], notes, len(long), delimiter)


def _rank(heading: str, delimiter: str, known: Collection[str]) -> tuple[int, int]:
    """How well a delimiter splits a header: number of known columns, then of all columns."""
    names = {plain_name(name.strip("\ufeff")) for name in next(csv.reader([heading], delimiter=delimiter), [])}
    return len(names & set(known)), len(names)


def _parse(place: str, lines: list[str], first: int, delimiter: str) -> list[tuple[int, list[str]]]:
    """The rows, each with the number of the line in which it starts; `first` is that of the first line."""
    if delimiter == "\t" and len({line.count("\t") for line in lines if line.strip()}) == 1:
        # one row per line: an opening quotation mark need not be closed
        return [(number, [_unquoted(cell) for cell in line.rstrip("\r\n").split("\t")]) for number, line in enumerate(lines, first)]
    usual = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # allow long texts
    spaced = any(f'{delimiter} "' in line for line in lines)  # a, "b, c"
    if lines and not lines[-1].endswith(("\n", "\r")):
        lines = [*lines[:-1], lines[-1] + "\n"]  # so that a cell which is never closed has a line break
    rows = []
    start = first
    try:
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=spaced)
        for row in reader:
            rows.append((start, row))
            if any("\n" in cell or "\r" in cell for cell in row):  # a text of several lines, or a stray quotation mark
                list(csv.reader(lines[start - first : reader.line_num], delimiter=delimiter, skipinitialspace=spaced, strict=True))
            start = first + reader.line_num
    except csv.Error as error:
        why = "is never closed" if "end of data" in str(error) else "is closed in another line; remove it, or double it inside a text"
        raise UserError(f"{place}: the quotation mark that opens a cell in line {start:,} {why}") from error
    finally:
        csv.field_size_limit(usual)
    return rows


def _unquoted(cell: str) -> str:
    whole = len(cell) > 1 and cell[0] == cell[-1] == '"'
    return cell[1:-1].replace('""', '"') if whole else cell
