"""Fuzzing: generated and damaged input to the readers and the segmenter, some minutes each."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis.strategies import SearchStrategy

from .table import FUZZ_MARK, put_between_marks

ROUND = 400  # inputs between two checks of the time


@dataclass(frozen=True)
class Target:
    """What is fuzzed: a strategy for inputs, and a check that raises if an input is not handled as promised."""

    name: str
    promised: str
    inputs: SearchStrategy[Any]
    check: Callable[[Any], None]


def try_inputs(target: Target, seconds: float, start: int, each_round: int = ROUND) -> int:
    """Try inputs for that long (at least one round); returns their number.

    Raises:
        Exception: of the check, for the smallest input that hypothesis found.
    """
    tried = 0
    ends = time.monotonic() + seconds
    while True:

        @settings(
            max_examples=each_round, deadline=None, database=None, suppress_health_check=list(HealthCheck), report_multiple_bugs=False
        )
        @seed(start)
        @given(target.inputs)
        def one(value: Any) -> None:
            nonlocal tried
            tried += 1
            target.check(value)

        one()
        start += 1
        if time.monotonic() >= ends:
            return tried


def fuzz_all(minutes: float, only: Sequence[str], start: int, table: Path | None) -> None:
    """Fuzz every target and print the numbers; status 1 if a promise was broken."""
    from .fuzz_targets import TARGETS

    lines, broken = [], 0
    for target in TARGETS:
        if only and not any(text in target.name for text in only):
            continue
        try:
            tried = try_inputs(target, 60 * minutes, start * 100_000)
            seen = f"{tried:,} inputs, no fault"
        except Exception as error:
            broken += 1
            seen = f"NOT HELD: {type(error).__name__}: {error} {' '.join(getattr(error, '__notes__', []))}"
        print(f"{target.name}: {seen}", flush=True)
        lines.append(f"| {target.name} | {target.promised} | {seen} |")
    if table is not None:
        head = [f"{minutes:g} minutes each.", "", "| what | promised for any input | tried |", "|---|---|---|"]
        put_between_marks(table, FUZZ_MARK, "\n".join([*head, *lines]))
    if broken:
        raise SystemExit(1)
