"""What a report is made of: sections of blocks, which `page.py` writes as HTML and as Markdown."""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Cell:
    """A table cell: its value and, smaller beside or under it, a spread or a remark."""

    main: str
    small: str = ""


@dataclass
class Table:
    """A table; the first column holds the rows' names. `strong` are the numbers of the rows to set off."""

    headers: list[str]
    rows: list[list[Cell]]
    note: str = ""
    strong: frozenset[int] = frozenset()


@dataclass
class Paragraph:
    """Running text; `**bold**` and `` `code` `` are understood."""

    text: str
    kind: Literal["plain", "lead", "quiet"] = "plain"


@dataclass
class Banner:
    """A notice that cannot be overlooked."""

    text: str


@dataclass
class Chips:
    """Short findings side by side, each answered "yes", "no" or "unclear"."""

    items: list[tuple[str, str]]


@dataclass
class Figure:
    """A picture as PNG bytes; `name` is its file's name without the ending."""

    name: str
    png: bytes
    caption: str


@dataclass
class Cards:
    """Example utterances, as read from `examples/examples.json`; `frames` holds the pictures' bytes by file name."""

    examples: list[dict[str, Any]]
    label_range: tuple[float, float]
    frames: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Details:
    """Blocks that are folded away at first."""

    title: str
    blocks: list["Block"]


Block = Table | Paragraph | Banner | Chips | Figure | Cards | Details


@dataclass
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: list[Block]


@dataclass
class Document:
    """A whole report."""

    title: str
    subtitle: str
    opening: list[Block]
    sections: list[Section]
