"""What a report is made of: sections of blocks, which `page.py` writes as HTML and as Markdown."""

import base64
import re
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Literal

from skesl_mug.wording import signed


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


ROWS = (("T", "text"), ("A", "audio"), ("V", "vision"), ("M", "multimodal"))


def cards_html(cards: Cards) -> str:
    """All examples as HTML."""
    return '<div class="cards">' + "".join(_card(entry, cards) for entry in cards.examples) + "</div>"


def _card(entry: dict[str, Any], cards: Cards) -> str:
    frame = cards.frames.get(str(entry.get("frame") or ""))
    picture = f'<img class="frame" alt="a frame of the clip" src="{data_uri(frame, str(entry["frame"]))}">' if frame else ""
    words = marked_text(entry, lambda text, kind, title: f'<span class="{kind}" title="{escape(title)}">{escape(text)}</span>', escape)
    quote = f"<blockquote>{words}</blockquote>" if words.strip() else '<blockquote class="none">no transcript</blockquote>'
    bars = "".join(_bar(letter, name, entry, cards.label_range) for letter, name in ROWS)
    classes = "card" if picture else "card bare"
    name = f'<p class="id">{escape(str(entry.get("id", "")))}</p>'
    return f'<article class="{classes}">{picture}<div>{quote}<div class="bars">{bars}</div>{name}</div></article>'


def marked_text(entry: dict[str, Any], mark: Any, plain: Any) -> str:
    """The text with `mark(text, kind, title)` around the masked span ("mask") and other words of the lexicon ("lexicon")."""
    text = str(entry.get("text") or "")
    spans: dict[tuple[int, int], tuple[str, str]] = {}
    for word in entry.get("words") or []:
        if word.get("intensity") is not None:
            spans[(int(word["start_char"]), int(word["end_char"]))] = ("lexicon", f"intensity {signed(word['intensity'], 2)}")
    if mask := entry.get("mask"):
        start, end = int(mask["start_char"]), int(mask["end_char"])
        spans = {span: value for span, value in spans.items() if span[1] <= start or span[0] >= end}
        title = "masked in pretraining" + (f", intensity {signed(mask['intensity'], 2)}" if mask.get("intensity") is not None else "")
        spans[(start, end)] = ("mask", title)
    parts, place = [], 0
    for (start, end), (kind, title) in sorted(spans.items()):
        if not place <= start < end <= len(text):
            continue
        parts += [plain(text[place:start]), mark(text[start:end], kind, title)]
        place = end
    return "".join([*parts, plain(text[place:])])


def _bar(letter: str, name: str, entry: dict[str, Any], label_range: tuple[float, float]) -> str:
    predicted, label = (entry.get("predicted") or {}).get(letter), (entry.get("label") or {}).get(letter)
    if predicted is None and label is None:
        return ""
    low, high = label_range
    zero = _percent(min(max(0.0, low), high), low, high)
    fill = ""
    if predicted is not None:
        place = _percent(predicted, low, high)
        fill = f'<i class="fill {name}" style="left:{min(zero, place):.1f}%;width:{abs(place - zero):.1f}%"></i>'
    known = (
        f'<i class="known" style="left:{_percent(label, low, high):.1f}%" title="label {signed(label, 2)}"></i>'
        if label is not None
        else ""
    )
    value = "–" if predicted is None else signed(min(high, max(low, predicted)), 2)
    axis = f'<i class="zero" style="left:{zero:.1f}%"></i>'
    return f'<div class="bar"><span>{name}</span><div class="track">{axis}{fill}{known}</div><b>{value}</b></div>'


def _percent(value: float, low: float, high: float) -> float:
    return 100.0 * (min(max(value, low), high) - low) / (high - low)


def cards_markdown(cards: Cards) -> str:
    """All examples as Markdown: the text, then predictions and labels as a table."""
    parts = []
    for entry in cards.examples:
        text = marked_text(entry, lambda text, kind, _: f"**{text}**" if kind == "mask" else text, str)
        lines = [f"> {text.strip() or '*no transcript*'}", "", "| | " + " | ".join(name for _, name in ROWS) + " |", "|---" * 5 + "|"]
        for kind, title in (("predicted", "predicted"), ("label", "label")):
            values = [(entry.get(kind) or {}).get(letter) for letter, _ in ROWS]
            if any(value is not None for value in values):
                lines.append(f"| {title} | " + " | ".join("–" if value is None else signed(value, 2) for value in values) + " |")
        if entry.get("frame") in cards.frames:
            lines = [f"![a frame of the clip](examples/{entry['frame']})", "", *lines]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def data_uri(raw: bytes, name: str) -> str:
    """A picture as text inside the page."""
    kind = "png" if name.lower().endswith(".png") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"


PICTURES = "pictures"
CHIP_MARKS = {"yes": "✓", "no": "✗", "unclear": "≈"}


def to_html(document: Document) -> str:
    """The whole page; style and pictures are inside it."""
    style = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
    opening = "".join(_html(block) for block in document.opening)
    links = "".join(f'<a href="#{_anchor(section.title)}">{escape(section.title.split(":")[0])}</a>' for section in document.sections)
    body = "".join(
        f'<section id="{_anchor(section.title)}"><h2>{escape(section.title)}</h2>{"".join(map(_html, section.blocks))}</section>'
        for section in document.sections
    )
    subtitle = f'<p class="subtitle">{escape(document.subtitle)}</p>' if document.subtitle else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(document.title)}</title><style>{style}</style></head>\n<body><main>"
        f"<header><h1>{escape(document.title)}</h1>{subtitle}</header>{opening}<nav>{links}</nav>{body}</main></body></html>\n"
    )


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z]+", "-", title.lower()).strip("-")


def _inline(text: str) -> str:
    marked = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escape(text, quote=False))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", marked)


def _html(block: Block) -> str:
    match block:
        case Paragraph(text, kind):
            return f'<p class="{kind}">{_inline(text)}</p>'
        case Banner(text):
            return f'<p class="banner">{_inline(text)}</p>'
        case Chips(items):
            chips = "".join(f'<li class="{answer}"><b>{CHIP_MARKS[answer]}</b> {escape(text)}</li>' for text, answer in items)
            return f'<ul class="chips">{chips}</ul>'
        case Figure(name, png, caption):
            source = data_uri(png, f"{name}.png")
            return f'<figure><img alt="{escape(caption)}" src="{source}"><figcaption>{_inline(caption)}</figcaption></figure>'
        case Cards():
            return cards_html(block)
        case Details(title, blocks):
            return f"<details><summary>{escape(title)}</summary>{''.join(map(_html, blocks))}</details>"
        case Table():
            return _table_html(block)


def _table_html(table: Table) -> str:
    pairs = not any(table.headers)
    left = {place for place in range(len(table.headers)) if place == 0 or pairs or not any(_is_figure(row[place]) for row in table.rows)}
    align = [' class="left"' if place in left else "" for place in range(len(table.headers))]
    headings = "".join(f"<th{kind}>{_heading(header)}</th>" for kind, header in zip(align, table.headers, strict=True))
    rows = []
    for place, row in enumerate(table.rows):
        cells = [f"<td{kind}>{_cell_html(cell)}</td>" for kind, cell in zip(align, row, strict=True)]
        cells[0] = f'<th class="left">{_cell_html(row[0])}</th>'
        rows.append(f'<tr class="strong">{"".join(cells)}</tr>' if place in table.strong else f"<tr>{''.join(cells)}</tr>")
    note = f'<p class="note">{_inline(table.note)}</p>' if table.note else ""
    head = "" if pairs else f"<thead><tr>{headings}</tr></thead>"
    return f'<div class="table {"pairs" if pairs else "figures"}"><table>{head}<tbody>{"".join(rows)}</tbody></table></div>{note}'


def _is_figure(cell: Cell) -> bool:
    return bool(re.match(r"[+−-]?[\d.]", cell.main))


def _heading(header: str) -> str:
    name, bracket, rest = header.partition(" (")
    return escape(name) + (f"<small>({escape(rest)}</small>" if bracket else "")


def _cell_html(cell: Cell) -> str:
    return _inline(cell.main) + (f"<small>{escape(cell.small)}</small>" if cell.small else "")


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
            return cards_markdown(block)
        case Details(title, blocks):
            return "\n\n".join([f"**{title}**", *map(_markdown, blocks)])
        case Table():
            return _table_markdown(block)


def _table_markdown(table: Table) -> str:
    def cell_text(cell: Cell, first: bool, strong: bool) -> str:
        small = f" ({cell.small})" if cell.small and not cell.small.startswith("±") else f" {cell.small}" if cell.small else ""
        main = f"**{cell.main}**" if first and strong and cell.main else cell.main
        return (main + small).replace("|", "\\|").replace("\n", " ")

    lines = ["| " + " | ".join(table.headers) + " |", "|" + "---|" * len(table.headers)]
    for place, row in enumerate(table.rows):
        lines.append("| " + " | ".join(cell_text(cell, column == 0, place in table.strong) for column, cell in enumerate(row)) + " |")
    return "\n".join(lines) + (f"\n\n{table.note}" if table.note else "")
