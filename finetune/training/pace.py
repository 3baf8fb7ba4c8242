"""How far a run is, for the lines that it prints."""

import time
from collections.abc import Iterable
from pathlib import Path


class Pace:
    """How far a run is, from the finished pieces on disk: `model 3 of 27, about 12 min left`.

    The time left is extrapolated from the models that all processes finished since this process started. Models differ in cost, hence
    "about".
    """

    def __init__(self, pieces: Iterable[Path]):
        self.pieces = list(pieces)
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


def duration(seconds: float) -> str:
    """A rough time for people: 40 s, 12 min, 3.5 h."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
