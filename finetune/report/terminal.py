"""Result tables on the terminal: the report's figures in columns that fit a screen."""

from collections.abc import Sequence

from finetune.report.document import Cell
from finetune.report.tables import DECIMAL, Column


def result_lines(
    name: str, columns: Sequence[Column], rows: Sequence[tuple[str, Sequence[Cell], Sequence[str]]], further: Sequence[str] = ()
) -> str:
    """A heading and a line for each row; F1 and the deviations of shares are left to the files.

    Args:
        name: heading of the rows' names.
        columns: what the cells hold.
        rows: of each its name, the cells of `columns`, and those of `further`.
        further: headings of more columns.
    """
    kept = [place for place, (heading, _, _) in enumerate(columns) if not heading.startswith("F1")]
    lines = [[name, *(columns[place][0].replace(" (", " ").rstrip(")") for place in kept), *further]]
    for title, cells, more in rows:
        shown = (f"{cells[place].main} {cells[place].small if columns[place][2] == DECIMAL else ''}".strip() for place in kept)
        lines.append([title, *shown, *more])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]).rstrip()
        for first, *rest in lines
    )
