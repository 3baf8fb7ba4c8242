"""The feature curves of an utterance as a picture, over its words."""

from pathlib import Path
from typing import Any

import numpy as np

from preprocessing.schema import DatasetInfo, FeatureInfo, Utterance

ROWS = 6  # columns drawn a modality: those that vary most for their size


def draw_curves(utterance: Utterance, info: DatasetInfo, path: Path) -> None:
    """Write a PNG: the words along time, all audio and vision columns as a map, and the liveliest columns as curves."""
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
    """Columns less their mean over their standard deviation; constant ones are zero."""
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
    for column in np.argsort(np.where(alive, changes, np.inf), kind="stable")[:ROWS]:  # the smoothest are the ones an eye can follow
        if alive[column]:
            axes.plot(times, standardised(values)[:, column], lw=1, label=feature.columns[column]["name"])
    axes.set_xlim(0, length)
    axes.tick_params(labelsize=7)
    axes.set_ylabel("standard deviations", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(fontsize=7, ncols=2, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
