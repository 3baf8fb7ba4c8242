"""Blocks of a page that a command writes: the text between two marks is replaced, the rest is kept."""

import os
import platform
import re
import time
from pathlib import Path

MARKS = "<!-- {}: begin -->", "<!-- {}: end -->"


def insert(page: str, name: str, block: str, heading: str = "") -> str:
    """The page with a block in its place; at the end, under a heading, where it has none."""
    first, last = (mark.format(name) for mark in MARKS)
    text = block.strip("\n")
    filled = f"{first}\n{text}\n{last}"
    if first in page:
        return re.sub(re.escape(first) + ".*?" + re.escape(last), lambda _: filled, page, flags=re.DOTALL)
    return f"{page.rstrip()}\n\n## {heading or name}\n\n{filled}\n"


def write_block(path: Path, name: str, block: str, heading: str = "") -> None:
    """`insert` on a file."""
    path.write_text(insert(path.read_text(encoding="utf-8"), name, block, heading), encoding="utf-8")


def machine() -> str:
    """The day, the cores and the processor, as the system tells them."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.+)$", info.read_text(), flags=re.MULTILINE) if info.is_file() else []
    return f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {names[0] if names else platform.machine()}"
