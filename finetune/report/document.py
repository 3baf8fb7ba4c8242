"""What a report consists of, sections of blocks, and how it is written: as one self-contained HTML page and as Markdown."""

import base64
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from markupsafe import Markup, escape

from skesl_mug.templates import templates
from skesl_mug.wording import signed

PICTURES = "pictures"
CHIP_MARKS = {"yes": "✓", "no": "✗", "unclear": "≈"}
CARD_ROWS = (("T", "text"), ("A", "audio"), ("V", "vision"), ("M", "multimodal"))


@dataclass(frozen=True)
class Cell:
    """A table cell: its value and, in small print, a spread or a remark."""

    main: str
    small: str = ""


@dataclass
class Table:
    """A table whose first column holds the names of the rows; `strong` are the indices of highlighted rows."""

    headers: list[str]
    rows: list[list[Cell]]
    note: str = ""
    strong: frozenset[int] = frozenset()

    @property
    def is_pairs(self) -> bool:
        """Whether it lists names and values, without headings."""
        return not any(self.headers)

    def is_left(self, column: int) -> bool:
        """Whether a column is aligned to the left: names and texts, not numbers."""
        numbers = any(re.match(r"[+−-]?[\d.]", row[column].main) for row in self.rows)
        return column == 0 or self.is_pairs or not numbers


@dataclass
class Paragraph:
    """Running text with `**bold**` and `` `code` ``."""

    text: str
    kind: Literal["plain", "lead", "quiet"] = "plain"


@dataclass
class Banner:
    """A prominent notice."""

    text: str


@dataclass
class Chips:
    """Short findings side by side, each answered "yes", "no" or "unclear"."""

    items: list[tuple[str, str]]


@dataclass
class Figure:
    """A picture as PNG bytes; `name` is its file name without suffix."""

    name: str
    png: bytes
    caption: str


@dataclass
class Cards:
    """Example utterances from `examples/examples.json`; `frames` holds the pictures' bytes by file name."""

    examples: list[dict[str, Any]]
    label_range: tuple[float, float]
    frames: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Details:
    """Collapsed blocks."""

    title: str
    blocks: list["Block"]


Block = Table | Paragraph | Banner | Chips | Figure | Cards | Details


@dataclass
class Section:
    """A heading and its blocks."""

    title: str
    blocks: list[Block]

    @property
    def anchor(self) -> str:
        """Its id on the page."""
        return re.sub(r"[^a-z]+", "-", self.title.lower()).strip("-")


@dataclass
class Document:
    """A complete report."""

    title: str
    subtitle: str
    opening: list[Block]
    sections: list[Section]

    def figures(self) -> list[Figure]:
        """The pictures of its sections."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Figure)]


def to_html(document: Document) -> str:
    """The page; its style and pictures are embedded."""
    folder = Path(__file__).parent
    environment = templates(folder)
    environment.filters |= {"inline": _inline, "data_uri": data_uri, "signed": signed}
    page = environment.get_template("report.html.jinja").render(
        document=document,
        style=Markup((folder / "style.css").read_text(encoding="utf-8")),
        marks=CHIP_MARKS,
        card_rows=CARD_ROWS,
        spans=marked_spans,
        percent=_percent,
    )
    return page.lstrip()


def _inline(text: str) -> Markup:
    """Text with its bold and code passages as HTML."""
    marked = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(text)))
    return Markup(re.sub(r"`(.+?)`", r"<code>\1</code>", marked))


def data_uri(raw: bytes, name: str) -> str:
    """A picture as text inside the page."""
    kind = "png" if name.lower().endswith(".png") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"


def _percent(value: float, label_range: tuple[float, float]) -> float:
    """Where a value lies within the label range, in percent."""
    low, high = label_range
    return 100.0 * (min(max(value, low), high) - low) / (high - low)


def marked_spans(entry: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The text of an example as (text, kind, title): kind is "mask" for the masked span, "lexicon" for other lexicon words, else ""."""
    text = str(entry.get("text") or "")
    marks: dict[tuple[int, int], tuple[str, str]] = {}
    for word in entry.get("words") or []:
        if word.get("intensity") is not None:
            marks[(int(word["start_char"]), int(word["end_char"]))] = ("lexicon", f"intensity {signed(word['intensity'], 2)}")
    if mask := entry.get("mask"):
        start, end = int(mask["start_char"]), int(mask["end_char"])
        marks = {span: mark for span, mark in marks.items() if span[1] <= start or span[0] >= end}
        title = "masked in pretraining" + (f", intensity {signed(mask['intensity'], 2)}" if mask.get("intensity") is not None else "")
        marks[(start, end)] = ("mask", title)
    spans, place = [], 0
    for (start, end), (kind, title) in sorted(marks.items()):
        if place <= start < end <= len(text):
            spans += [(text[place:start], "", ""), (text[start:end], kind, title)]
            place = end
    return [span for span in [*spans, (text[place:], "", "")] if span[0]]


def to_markdown(document: Document) -> str:
    """The same document as Markdown; its pictures are files under `pictures/`."""
    parts = [f"# {document.title}", document.subtitle, *map(_markdown, document.opening)]
    for section in document.sections:
        parts += [f"## {section.title}", *map(_markdown, section.blocks)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Paragraph(text, _):
            return text
        case Banner(text):
            return f"> {text}"
        case Chips(items):
            return "\n".join(f"- {CHIP_MARKS[answer]} {text}" for text, answer in items)
        case Figure(name, _, caption):
            return f"![{caption}]({PICTURES}/{name}.png)\n\n*{caption}*"
        case Cards():
            return "\n\n".join(_card_markdown(entry, block.frames) for entry in block.examples)
        case Details(title, blocks):
            return "\n\n".join([f"**{title}**", *map(_markdown, blocks)])
        case Table():
            return _table_markdown(block)


def _card_markdown(entry: dict[str, Any], frames: dict[str, bytes]) -> str:
    text = "".join(f"**{part}**" if kind == "mask" else part for part, kind, _ in marked_spans(entry))
    lines = [f"> {text.strip() or '*no transcript*'}", "", "| | " + " | ".join(name for _, name in CARD_ROWS) + " |", "|---" * 5 + "|"]
    for kind in ("predicted", "label"):
        values = [(entry.get(kind) or {}).get(letter) for letter, _ in CARD_ROWS]
        if any(value is not None for value in values):
            lines.append(f"| {kind} | " + " | ".join("–" if value is None else signed(value, 2) for value in values) + " |")
    picture = [f"![a frame of the clip](examples/{entry['frame']})", ""] if entry.get("frame") in frames else []
    return "\n".join([*picture, *lines])


def _table_markdown(table: Table) -> str:
    def cell_text(cell: Cell, bold: bool) -> str:
        small = f" ({cell.small})" if cell.small and not cell.small.startswith("±") else f" {cell.small}" if cell.small else ""
        main = f"**{cell.main}**" if bold and cell.main else cell.main
        return (main + small).replace("|", "\\|").replace("\n", " ")

    lines = ["| " + " | ".join(table.headers) + " |", "|" + "---|" * len(table.headers)]
    for place, row in enumerate(table.rows):
        cells = [cell_text(cell, column == 0 and place in table.strong) for column, cell in enumerate(row)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + (f"\n\n{table.note}" if table.note else "")
