"""The drill's table, on the terminal and in docs/reliability.md."""

import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from skesl_mug.errors import UserError

from .frame import Fault

FAULTS_MARK, FUZZ_MARK = "faults", "fuzz"
LONGEST = 170  # longest text in the column "seen"


@dataclass(frozen=True)
class Row:
    """A fault and what was seen."""

    fault: Fault
    seen: str
    held: bool
    seconds: float

    def line(self) -> str:
        """For the terminal."""
        return f"{'held' if self.held else 'NOT HELD':8} {self.seconds:5.1f} s  {self.fault.command}: {self.fault.name} -> {self.seen}"

    def cells(self) -> str:
        """For Markdown."""
        return f"| {self.fault.name} | {self.fault.expected} | {'' if self.held else '**not held:** '}{_cell(self.seen)} |"


def _cell(text: str) -> str:
    # without random folder names and characters that break the table
    plain = re.sub(r"…/run-\w+/", "…/", " ".join(text.split())).replace("|", "\\|").replace("<", "&lt;")
    return plain if len(plain) <= LONGEST else plain[:LONGEST].rstrip() + " …"


def write_table(path: Path, rows: list[Row]) -> None:
    """Write the table between the marks of a Markdown file."""
    held = sum(row.held for row in rows)
    minutes = sum(row.seconds for row in rows) / 60
    lines = [f"{len(rows)} faults, {held} as promised; {minutes:.0f} minutes.", ""]
    ordered = sorted(rows, key=lambda row: row.fault.command)
    for command, group in groupby(ordered, key=lambda row: row.fault.command):
        lines += [f"### {command}", "", "| fault | expected | seen |", "|---|---|---|", *(row.cells() for row in group), ""]
    put_between_marks(path, FAULTS_MARK, "\n".join(lines).rstrip())


def put_between_marks(path: Path, mark: str, text: str) -> None:
    """Replace the text between `<!-- mark -->` and `<!-- /mark -->`."""
    content = path.read_text(encoding="utf-8")
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    if begin not in content or end not in content:
        raise UserError(f"--table {path}: has no marks {begin} and {end} between which the table goes")
    before, rest = content.split(begin, 1)
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end, 1)[1]}", encoding="utf-8")
