"""`python -m tests.drill [faults|fuzz]`: see docs/reliability.md."""

import json
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tests' builders

import tyro

from skesl_mug.console import CommandOptions, run_command

from .frame import FAULTS, ROOT, Fault, NotHeldError
from .table import Row, write_table

ROWS_FILE = "rows.json"
CANARY = "never"  # the file that malicious input would create


@dataclass(kw_only=True)
class Options(CommandOptions):
    """Cause every known fault in the real commands, on small synthetic input, and print what happens."""

    what: tyro.conf.Positional[Literal["faults", "fuzz"]] = "faults"
    """faults: the table of faults; fuzz: generated input to the readers and the segmenter."""
    output: Path | None = None
    """Folder for the work, which is kept, so that a later run with --only updates its table (default: a temporary folder)."""
    only: list[str] = field(default_factory=list)
    """Run only the faults whose name or command contains one of these texts."""
    show: bool = False
    """List the faults and stop."""
    seed: int = 1
    """Seed of the random moments."""
    minutes: float = 3.0
    """Minutes of fuzzing per reader."""
    table: Path | None = None
    """Markdown file to write the table into, between its marks (docs/reliability.md)."""


def main(options: Options) -> None:
    """Run the drill; status 1 if a promise was not kept."""
    if options.what == "fuzz":
        from .fuzz import fuzz_all

        fuzz_all(options.minutes, options.only, options.seed, options.table)
        return
    from . import broken_input, broken_runs, disturbed, places  # noqa: F401 - their faults enter the list
    from .ground import Ground

    chosen = [entry for entry in FAULTS if not options.only or any(text in f"{entry.command}: {entry.name}" for text in options.only)]
    if options.show:
        for entry in chosen:
            print(f"{entry.command:24} {entry.name}")
        return
    work = options.output or Path(tempfile.mkdtemp(prefix="drill-"))
    work.mkdir(parents=True, exist_ok=True)
    work.chmod(0o755)
    began = time.monotonic()
    rows: list[Row] = []
    known: list[Row] = []
    try:
        made = Path(tempfile.mkdtemp(prefix="made-", dir=work.resolve()))
        made.chmod(0o755)
        ground = Ground(made, random.Random(options.seed))
        for number, entry in enumerate(chosen, start=1):
            rows.append(drill(entry, ground))
            print(f"{number:3}/{len(chosen)} {rows[-1].line()}", flush=True)
            known = merged(rows, work / ROWS_FILE)
    finally:
        if options.output is None:
            shutil.rmtree(work, ignore_errors=True)
    minutes = (time.monotonic() - began) / 60
    missed = sum(not row.held for row in rows)
    print(f"\n{len(rows)} faults in {minutes:.1f} minutes, {missed} not as promised")
    if options.table is not None:
        write_table(options.table, known)
    if missed:
        raise SystemExit(1)


def merged(rows: list[Row], kept: Path) -> list[Row]:
    """The rows of this and of earlier runs with the same folder, in the order of the faults; stored again."""
    entries = {(entry.command, entry.name): entry for entry in FAULTS}
    before = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else []
    known = {(row[0], row[1]): Row(entries[row[0], row[1]], *row[2:]) for row in before if (row[0], row[1]) in entries}
    known |= {(row.fault.command, row.fault.name): row for row in rows}
    ordered = [known[key] for key in entries if key in known]
    kept.write_text(json.dumps([(row.fault.command, row.fault.name, row.seen, row.held, row.seconds) for row in ordered]), encoding="utf-8")
    return ordered


def drill(entry: Fault, ground: object) -> Row:
    """Check one fault; any exception of the check counts as a broken promise."""
    began = time.monotonic()
    try:
        seen, held = entry.check(ground), not (ROOT / CANARY).exists()
        seen = seen if held else "the command inside was run"
    except NotHeldError as error:
        seen, held = str(error), False
    except Exception as error:
        seen, held = f"the drill itself failed: {type(error).__name__}: {error}", False
    (ROOT / CANARY).unlink(missing_ok=True)
    folder = str(getattr(ground, "folder", ""))
    return Row(entry, seen.replace(folder, "…") if folder else seen, held, time.monotonic() - began)


if __name__ == "__main__":
    run_command(Options, main)
