"""A document as one self-contained HTML page and as Markdown with its pictures beside it."""

import re
from html import escape
from pathlib import Path

from finetune.report.cards import cards_html, cards_markdown, data_uri
from finetune.report.document import Banner, Block, Cards, Cell, Chips, Details, Document, Figure, Paragraph, Table
from finetune.report.run_folder import RunFolder
from finetune.report.sections import build_document
from skesl_mug.files import write_atomically

PICTURES = "pictures"
CHIP_MARKS = {"yes": "✓", "no": "✗", "unclear": "≈"}


def write_report(run: str | Path) -> Path:
    """Write `report.html` (one file, nothing from outside), `report.md` and `pictures/` into a run's folder, from its files alone.

    Returns:
        the path of `report.html`.

    Raises:
        UserError: the folder holds no `results.json`, or a damaged one.
    """
    folder = Path(run)
    document = build_document(RunFolder(folder))
    for figure in _figures(document):
        write_atomically(folder / PICTURES / f"{figure.name}.png", lambda path, raw=figure.png: path.write_bytes(raw))  # type: ignore[misc]
    write_atomically(folder / "report.md", lambda path: path.write_text(to_markdown(document), encoding="utf-8"))
    page = folder / "report.html"
    write_atomically(page, lambda path: path.write_text(to_html(document), encoding="utf-8"))
    return page


def _figures(document: Document) -> list[Figure]:
    return [block for section in document.sections for block in section.blocks if isinstance(block, Figure)]


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
