"""How far a run of many models is, and about how long it will take: read off the finished pieces on disk, so that every process may ask."""

import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path


class Pace:
    """The pieces of a run: `model 3 of 27, about 12 min left`.

    The time left is that of the models finished since this process looked first, all processes together, extended to those that are
    missing. Models differ in cost, hence "about".
    """

    def __init__(self, pieces: tuple[Path, ...]):
        self.pieces = pieces
        self._first, self._began = self.finished(), time.perf_counter()

    def finished(self) -> int:
        """How many pieces there are."""
        return sum(piece.is_file() for piece in self.pieces)

    def __str__(self) -> str:
        done, total = self.finished(), len(self.pieces)
        text = f"model {done} of {total}"
        if self._first < done < total:
            text += f", about {duration((time.perf_counter() - self._began) / (done - self._first) * (total - done))} left"
        return text


@cache
def _pace(pieces: tuple[Path, ...]) -> Pace:
    return Pace(pieces)


def pace_of(pieces: Iterable[Path]) -> Pace:
    """The pace of these pieces; one clock for all seeds of a process."""
    return _pace(tuple(pieces))


def duration(seconds: float) -> str:
    """A rough time for people: 40 s, 12 min, 3.5 h."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
