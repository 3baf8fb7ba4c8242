"""Fuzzing: generated and damaged input for the readers and the segmenter, some minutes each; counts the inputs."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis.strategies import SearchStrategy

from .table import FUZZ_MARK, put_between_marks

ROUND = 400  # inputs between two looks at the clock


@dataclass(frozen=True)
class Target:
    """What is fuzzed: inputs of a strategy, and a check that raises where one is treated otherwise than promised."""

    name: str
    promised: str
    inputs: SearchStrategy[Any]
    check: Callable[[Any], None]


def try_inputs(target: Target, seconds: float, start: int, each_round: int = ROUND) -> int:
    """Try inputs for so long (one round at least); gives their number.

    Raises:
        Exception: what the check raised, for the smallest input that hypothesis found.
    """
    tried = 0
    ends = time.monotonic() + seconds
    while True:

        @settings(
            max_examples=each_round, deadline=None, database=None, suppress_health_check=list(HealthCheck), report_multiple_bugs=False
        )
        @seed(start)
        @given(target.inputs)
        def one(made: Any) -> None:
            nonlocal tried
            tried += 1
            target.check(made)

        one()
        start += 1
        if time.monotonic() >= ends:
            return tried


def fuzz_all(minutes: float, only: Sequence[str], start: int, table: Path | None) -> None:
    """Fuzz every target and print the numbers; status 1 where one did not hold."""
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
        head = [f"{minutes:g} minutes each.", "", "| what | promised of any input | tried |", "|---|---|---|"]
        put_between_marks(table, FUZZ_MARK, "\n".join([*head, *lines]))
    if broken:
        raise SystemExit(1)
