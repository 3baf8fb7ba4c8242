"""Draw the packages from their code: `python docs/draw_architecture.py` writes docs/images/architecture.svg and the table of files in
docs/architecture.md.

A package is a column, a folder a box, a file a line; commands are bold. An arrow shows how many lines import from another package. Hovering
over a file shows its docstring.
"""

import ast
import sys
import textwrap
from collections import Counter
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "architecture.svg"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- files: begin -->", "<!-- files: end -->"
ROOMS = {"skesl_mug": 1, "lexicons": 1, "preprocessing": 2, "pretrain": 1, "finetune": 3}
"""The packages in the direction of the data, and how many columns of boxes each has."""
FLOW = ("API and shared parts", "lexicons", "videos → utterance dataset", "→ encoder", "labelled corpus → model, report, predictions")
FILLS = ("#ececec", "#f6efe0", "#fbe6e6", "#e5f3e3", "#e3ecf6")
COLUMN, GAP, LINE, TOP = 182, 12, 15, 96


def describe(path: Path) -> str:
    """The first paragraph of a file's docstring, on one line."""
    return " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0].split())


def is_command(path: Path) -> bool:
    """Whether a file can be run."""
    return "\nif __name__ == " in path.read_text(encoding="utf-8")


def boxes_of(room: str) -> list[tuple[Path, list[Path]]]:
    """The folders of a package with their files, its own files first."""
    folders = [ROOT / room, *sorted({path.parent for path in (ROOT / room).rglob("*.py")} - {ROOT / room})]
    return [(folder, [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]) for folder in folders]


def count_imports() -> Counter[tuple[str, str]]:
    """Import lines by (importing package, imported package)."""
    found: Counter[tuple[str, str]] = Counter()
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.module:
                    other = node.module.split(".")[0]
                    if other in ROOMS and other != room:
                        found[room, other] += 1
    return found


def text(x: float, y: float, words: str, *, size: int = 12, weight: str = "normal", colour: str = "#222", title: str = "") -> str:
    """One line of text, with a tooltip."""
    note = f"<title>{escape(title)}</title>" if title else ""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" fill="{colour}">{escape(words)}{note}</text>'


def draw_box(folder: Path, files: list[Path], x: float, y: float) -> tuple[list[str], float]:
    """A folder's box, and its height."""
    about = textwrap.wrap(describe(folder / "__init__.py"), 30) if (folder / "__init__.py").is_file() else []
    height = 26 + 12 * len(about) + LINE * len(files) + 8
    parts = [f'<rect x="{x:g}" y="{y:g}" width="{COLUMN - GAP}" height="{height:g}" rx="5" fill="#fff" stroke="#bbb"/>']
    parts.append(text(x + 8, y + 18, f"{folder.relative_to(ROOT)}/" if folder.parent == ROOT else f"{folder.name}/", weight="bold"))
    parts += [text(x + 8, y + 32 + 12 * number, line, size=10, colour="#666") for number, line in enumerate(about)]
    for number, path in enumerate(files):
        weight = "bold" if is_command(path) else "normal"
        parts.append(text(x + 8, y + 40 + 12 * len(about) + LINE * number, path.name, weight=weight, title=describe(path)))
    return parts, height


def draw() -> str:
    """The picture as SVG."""
    parts: list[str] = []
    x, lowest = 20.0, 0.0
    edges: dict[str, tuple[float, float]] = {}
    for (room, columns), fill, flow in zip(ROOMS.items(), FILLS, FLOW, strict=True):
        heights = [TOP + 46.0] * columns
        inside: list[str] = []
        for folder, files in boxes_of(room):
            column = heights.index(min(heights))
            drawn, height = draw_box(folder, files, x + GAP + column * COLUMN, heights[column])
            inside += drawn
            heights[column] += height + GAP
        width = columns * COLUMN + GAP
        edges[room] = (x, x + width)
        lowest = max(lowest, *heights)
        parts.append(f'<rect x="{x:g}" y="{TOP}" width="{width:g}" height="HEIGHT" rx="8" fill="{fill}"/>')
        parts += [text(x + GAP, TOP + 20, room, size=16, weight="bold"), text(x + GAP, TOP + 36, flow, size=11, colour="#444"), *inside]
        x += width + 26
    for number, ((room, other), count) in enumerate(sorted(count_imports().items(), key=lambda item: (item[0][0], item[0][1]))):
        start, end, y = edges[room][0] + 30 + 14 * number, edges[other][1] - 24, 34 + 9 * number
        parts.append(
            f'<path d="M{start:g} {TOP} V{y} H{end:g} V{TOP - 3}" fill="none" stroke="#8a8a8a" marker-end="url(#head)">'
            f"<title>{room} imports {other} in {count} lines</title></path>"
        )
        parts.append(text(start + 3, y + 4 if y > 40 else y - 2, str(count), size=10, colour="#666"))
    tip = '<path d="M0 0 L6 0 L3 6 z" fill="#8a8a8a" transform="rotate(-90 3 3)"/>'
    head = f'<marker id="head" markerWidth="7" markerHeight="7" refX="3" refY="5" orient="auto">{tip}</marker>'
    note = "Arrows: imports between packages, with the number of lines; they only point left. Bold: commands."
    body = "\n".join(parts).replace("HEIGHT", f"{lowest - TOP:g}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{x:g}" height="{lowest + 20:g}" font-family="Helvetica, Arial, sans-serif">\n'
        f'<defs>{head}</defs>\n<rect width="100%" height="100%" fill="#fff"/>\n{text(20, 22, note, colour="#444")}\n{body}\n</svg>\n'
    )


def file_table() -> str:
    """The files of each folder as a Markdown table."""
    rows = ["| Folder | Files |", "|---|---|"]
    for room in ROOMS:
        for folder, files in boxes_of(room):
            names = " ".join(f"**{path.stem}**" if is_command(path) else path.stem for path in files if path.name != "__main__.py")
            rows.append(f"| `{folder.relative_to(ROOT)}/` | {names or '`__init__.py`'} |")
    return "\n".join(rows)


def page_with_files(page: str) -> str:
    """The page with its table of files replaced."""
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    return f"{before}{BEGIN}\n{file_table()}\n{END}{after}"


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    PAGE.write_text(page_with_files(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{PICTURE.relative_to(ROOT)} {PAGE.relative_to(ROOT)}\n")
