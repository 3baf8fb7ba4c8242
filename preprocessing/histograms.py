"""Histograms whose bins and ticks fall on round numbers."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

INK, BLUE, GREY, FAINT = "#26262e", "#0072b2", "#6d6d78", "#e4e2dd"
BINS = 24
STEPS = (1, 2, 2.5, 5, 10)
"""Round steps between ticks, times a power of ten."""


@dataclass(frozen=True)
class Bins:
    """Edges of the bins, and the values at which ticks stand."""

    edges: tuple[float, ...]
    ticks: tuple[float, ...]
    percent: bool = False


def round_step(span: float, most: int) -> float:
    """The least round step of which at most `most` fit into a span."""
    power = 10.0 ** math.floor(math.log10(span / most))
    return next(step * power for step in STEPS if span / (step * power) <= most + 1e-9)


def _edges(low: float, high: float, bins: int) -> tuple[float, ...]:
    return tuple(np.linspace(low, high, bins + 1).tolist())


def bins_between(low: float, high: float) -> Bins:
    """Bins over a range, as many below its middle as above, one about the middle itself (where 0 lies)."""
    step = round_step(high - low, 6)
    first = math.ceil(low / step - 1e-9)
    ticks = tuple(number * step for number in range(first, math.floor(high / step + 1e-9) + 1))
    half = (high - low) / BINS / 2
    return Bins(_edges(low - half, high + half, BINS + 1), ticks)


def bins_from_zero(values: Sequence[float]) -> Bins:
    """Bins from 0 to the next round number above the largest value."""
    largest = max([*values, 1e-6])
    step = round_step(largest, 5)
    high = max(step * math.ceil(max(largest, step) / step - 1e-9), largest)  # a hair above a round number is still within
    return Bins(_edges(0.0, high, BINS + 1), tuple(np.arange(0, high + step / 2, step).tolist()))


def bins_of_counts(values: Sequence[float]) -> Bins:
    """Bins of whole numbers: each holds one value, or the same number of values where there are many."""
    most = max([*values, 1])
    width = max(1, math.ceil((most + 1) / BINS))
    bins = math.ceil((most + 1) / width)
    step = max(1, math.ceil(round_step(max(most, 5), 5)))
    return Bins(tuple(width * place - 0.5 for place in range(bins + 1)), tuple(range(0, int(most) + 1, step)))


SHARES = Bins(_edges(0.0, 1.0, BINS + 1), (0.0, 0.25, 0.5, 0.75, 1.0), percent=True)


def histogram(values: Sequence[float], bins: Bins) -> bytes:
    """How many utterances have which value, as PNG; values beyond the outermost bins count into them."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(3.6, 1.9))
    axes = figure.add_subplot()
    axes.hist(np.clip(np.asarray(values, float), bins.edges[0], bins.edges[-1]), bins=list(bins.edges), color=BLUE, rwidth=0.9)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.tick_params(labelsize=8.5, colors=GREY, length=0, pad=4)
    axes.set_xlim(bins.edges[0], bins.edges[-1])
    axes.set_xticks(bins.ticks, [f"{tick:.0%}" if bins.percent else f"{tick:g}".replace("-", "−") for tick in bins.ticks])
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
    axes.set_ylabel("utterances", fontsize=8.5, color=GREY)
    axes.grid(axis="y", color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    figure.tight_layout(pad=0.4)
    return png(figure)


def png(figure: Any) -> bytes:
    """A matplotlib figure as the bytes of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
