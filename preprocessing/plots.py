"""Pictures of a dataset: histograms whose bins and ticks are round numbers, and the feature curves of an utterance over its words."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from preprocessing.schema import DatasetInfo, FeatureInfo, Utterance

BLUE, GREY, FAINT = "#0072b2", "#6d6d78", "#e4e2dd"
BINS = 24
STEPS = (1, 2, 2.5, 5, 10)
"""Round steps between ticks, times a power of ten."""
ROWS = 6  # columns drawn as curves per modality


@dataclass(frozen=True)
class Bins:
    """Edges of the bins, and positions of the ticks."""

    edges: tuple[float, ...]
    ticks: tuple[float, ...]
    percent: bool = False


def round_step(span: float, most: int) -> float:
    """The smallest round step of which at most `most` fit into a span."""
    power = 10.0 ** math.floor(math.log10(span / most))
    return next(step * power for step in STEPS if span / (step * power) <= most + 1e-9)


def _edges(low: float, high: float, bins: int) -> tuple[float, ...]:
    return tuple(np.linspace(low, high, bins + 1).tolist())


def bins_between(low: float, high: float) -> Bins:
    """Bins over a range, as many below its middle as above, with one around the middle (where 0 lies)."""
    step = round_step(high - low, 6)
    first = math.ceil(low / step - 1e-9)
    ticks = tuple(number * step for number in range(first, math.floor(high / step + 1e-9) + 1))
    half = (high - low) / BINS / 2
    return Bins(_edges(low - half, high + half, BINS + 1), ticks)


def bins_from_zero(values: Sequence[float]) -> Bins:
    """Bins from 0 to the next round number above the largest value."""
    largest = max([*values, 1e-6])
    step = round_step(largest, 5)
    high = max(step * math.ceil(max(largest, step) / step - 1e-9), largest)  # a rounding error above a round number is still inside
    return Bins(_edges(0.0, high, BINS + 1), tuple(np.arange(0, high + step / 2, step).tolist()))


def bins_of_counts(values: Sequence[float]) -> Bins:
    """Bins of whole numbers: each holds one value, or the same number of values if there are many."""
    most = max([*values, 1])
    width = max(1, math.ceil((most + 1) / BINS))
    bins = math.ceil((most + 1) / width)
    step = max(1, math.ceil(round_step(max(most, 5), 5)))
    return Bins(tuple(width * place - 0.5 for place in range(bins + 1)), tuple(range(0, int(most) + 1, step)))


SHARES = Bins(_edges(0.0, 1.0, BINS + 1), (0.0, 0.25, 0.5, 0.75, 1.0), percent=True)


def histogram(values: Sequence[float], bins: Bins) -> bytes:
    """A histogram as PNG; values beyond the outermost bins are counted in them."""
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


def draw_curves(utterance: Utterance, info: DatasetInfo, path: Path) -> None:
    """Write a PNG: the words along time, all audio and vision columns as a map, and the smoothest columns as curves."""
    from matplotlib.figure import Figure

    shown = [
        (name, values, times, feature)
        for name, values, times, feature in (
            ("audio", utterance.audio, _times(utterance.audio, info.audio), info.audio),
            ("vision", utterance.vision, utterance.vision_times, info.vision),
        )
        if values is not None and feature is not None and times is not None and len(values)
    ]
    figure = Figure(figsize=(11, 1.2 + 4.4 * max(1, len(shown))))
    grid = figure.add_gridspec(1 + 2 * len(shown), 1, height_ratios=[0.5] + [1.6, 1.6] * len(shown), hspace=0.45)
    length = utterance.end - utterance.start
    _draw_words(figure.add_subplot(grid[0]), utterance, length)
    for number, (name, values, times, feature) in enumerate(shown):
        _draw_map(figure.add_subplot(grid[1 + 2 * number]), name, values, length, feature)
        _draw_lines(figure.add_subplot(grid[2 + 2 * number]), values, np.asarray(times), length, feature)
    figure.savefig(path, dpi=110, bbox_inches="tight")


def _times(values: np.ndarray | None, feature: FeatureInfo | None) -> np.ndarray | None:
    return None if values is None or feature is None or not feature.rate_hz else np.arange(len(values)) / feature.rate_hz


def _draw_words(axes: Any, utterance: Utterance, length: float) -> None:
    mask = utterance.masks[0] if utterance.masks else None
    for number, word in enumerate(utterance.words):
        if word.start is None or word.end is None:
            continue
        masked = mask is not None and mask.start_char <= word.start_char < mask.end_char
        axes.axvspan(word.start, word.end, color="#ffe08a" if masked else "#eef3f7")
        axes.text((word.start + word.end) / 2, 0.3 + 0.4 * (number % 2), word.text, ha="center", va="center", fontsize=8)
    axes.set(xlim=(0, length), ylim=(0, 1), yticks=[], title=f"{utterance.id}   {length:.2f} s")
    axes.spines[:].set_visible(False)


def standardised(values: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and standard deviation 1; constant ones are zero."""
    spread = values.std(axis=0)
    return np.asarray((values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0))


def _draw_map(axes: Any, name: str, values: np.ndarray, length: float, feature: FeatureInfo) -> None:
    axes.imshow(
        standardised(values).T, aspect="auto", origin="lower", cmap="RdBu_r", vmin=-3, vmax=3, extent=(0, length, 0, values.shape[1])
    )
    axes.set_ylabel(f"{name}\n{feature.extractor}\n{values.shape[1]} columns", fontsize=8)
    axes.tick_params(labelsize=7)


def _draw_lines(axes: Any, values: np.ndarray, times: np.ndarray, length: float, feature: FeatureInfo) -> None:
    changes = np.abs(np.diff(standardised(values), axis=0)).mean(axis=0) if len(values) > 1 else np.zeros(values.shape[1])
    alive = values.std(axis=0) > 0
    for column in np.argsort(np.where(alive, changes, np.inf), kind="stable")[:ROWS]:  # the smoothest are the easiest to follow
        if alive[column]:
            axes.plot(times, standardised(values)[:, column], lw=1, label=feature.columns[column]["name"])
    axes.set_xlim(0, length)
    axes.tick_params(labelsize=7)
    axes.set_ylabel("standard deviations", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(fontsize=7, ncols=2, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
