"""Calibrated intervals around scores: split conformal prediction with absolute residuals.

Source: Vovk, Gammerman and Shafer 2005; Lei et al. 2018 (J. Am. Stat. Assoc. 113, section 2.2). An interval of level L around the score of
a new utterance contains its label with probability at least L, averaged over calibration parts, if the new utterance is exchangeable with
those of the calibration part. Utterances of a video resemble each other, so it is the number of videos that makes a calibration reliable.
"""

import math
from dataclasses import dataclass

import numpy as np

FEW = 50
"""With fewer calibration utterances, the report says how much the coverage varies."""


@dataclass(frozen=True)
class ScoreInterval:
    """score ± `half_width` (label units) contains the label at `level` (0 to 1); within the label range, where scores are clipped first.

    Attributes:
        level: nominal coverage.
        half_width: None if there is no interval; `reason` says why.
        n: calibration utterances: those that have every modality of the model.
        videos: the number of their videos; None if unknown.
        coverage: share of the evaluated utterances (with every modality) whose label is in the interval; None if not measured.
        evaluated: their number.
        selected: the calibration part also chose the epoch, so that intervals are slightly too narrow.
        reason: why there is no interval.
    """

    level: float
    half_width: float | None = None
    n: int = 0
    videos: int | None = None
    coverage: float | None = None
    evaluated: int = 0
    selected: bool = False
    reason: str = ""

    def sentence(self) -> str:
        """What the interval means, or why there is none; empty if nothing is known."""
        if self.half_width is None:
            return f"{self.reason[:1].upper()}{self.reason[1:]}." if self.reason else ""
        measured = ""
        if self.coverage is not None:
            measured = f" ({100 * self.coverage:.0f} % measured on {self.evaluated:,} held-out ones)"
        return f"{100 * self.level:g} % intervals: score ± {self.half_width:.2f}, for utterances like those of its corpus{measured}."

    def around(self, score: float, label_range: tuple[float, float]) -> tuple[float | None, float | None]:
        """The interval (low, high) around a score; (None, None) if there is none."""
        if self.half_width is None or math.isnan(score):
            return None, None
        low, high = label_range
        centre = min(high, max(low, score))
        return max(low, centre - self.half_width), min(high, centre + self.half_width)


def utterances_needed(level: float) -> int:
    """The smallest calibration part that has a finite interval: n >= level / (1 - level)."""
    return math.ceil(level / (1 - level) - 1e-9)


def conformal_half_width(residuals: np.ndarray, level: float) -> float | None:
    """The half width of an interval of `level` from the residuals [n] of a calibration part (Lei et al. 2018, algorithm 2).

    It is the ceil((n + 1) level)-th smallest absolute residual; None if n is below `utterances_needed`.
    """
    rank = math.ceil((len(residuals) + 1) * level - 1e-9)
    if rank > len(residuals) or not len(residuals):
        return None
    value = float(np.partition(np.abs(np.asarray(residuals, np.float64)), rank - 1)[rank - 1])
    return math.ceil(value * 1e6) / 1e6  # rounded up: the residual of that rank is within it


def clipped_residuals(predictions: np.ndarray, labels: np.ndarray, label_range: tuple[float, float]) -> np.ndarray:
    """label - prediction [n] in label units, of predictions clipped to the label range as `ScoreInterval.around` clips them."""
    return np.asarray(labels, np.float64) - np.clip(np.asarray(predictions, np.float64), *label_range)


def coverage_of(residuals: np.ndarray, half_width: float) -> float | None:
    """The share of residuals [n] within a half width; None if there are none."""
    return float(np.mean(np.abs(residuals) <= half_width + 1e-6)) if len(residuals) else None


def coverage_spread(level: float, n: int) -> float:
    """The standard deviation of the coverage over calibration parts of n exchangeable utterances (Vovk 2012, proposition 2a)."""
    rank = math.ceil((n + 1) * level - 1e-9)  # the coverage is Beta(rank, n + 1 - rank)
    return math.sqrt(rank * (n + 1 - rank) / ((n + 1) ** 2 * (n + 2)))
