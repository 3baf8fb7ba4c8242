"""The studies' pictures as PNG bytes."""

from collections.abc import Collection, Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from finetune.report.pictures import COLOURS, OTHERS, QUIET, STYLE, panels, png

LINES = (COLOURS["text"], COLOURS["audio"], COLOURS["vision"], COLOURS["fused"], *OTHERS)
Points = Sequence[tuple[float, float, float]]
"""(x, mean, deviation)."""


def curves(series: Mapping[str, Points], across: str, up: str, log: bool = False) -> bytes:
    """One line a series with a band of ± one deviation; `across` and `up` name the axes."""
    return curve_panels({"": series}, across, up, log)


def curve_panels(parts: Mapping[str, Mapping[str, Points]], across: str, up: str, log: bool = False) -> bytes:
    """The same side by side, on one scale; the series have one colour in all panels."""
    names = list(dict.fromkeys(name for series in parts.values() for name in series))
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(1, len(parts), 7.6, 3.3, sharey=True)
        for place, (title, series) in enumerate(parts.items()):
            axis: Axes = axes[0, place]
            for name, points in series.items():
                colour = LINES[names.index(name) % len(LINES)]
                x, mean, std = (np.array(column) for column in zip(*sorted(points), strict=True))
                axis.plot(x, mean, color=colour, linewidth=1.8, marker="o", markersize=3.5, label=name)
                axis.fill_between(x, mean - std, mean + std, color=colour, alpha=0.13, linewidth=0)
            if log:
                axis.set_xscale("log")
                axis.set_xticks(sorted({x for points in series.values() for x, _, _ in points}))
                axis.get_xaxis().set_major_formatter(matplotlib.ticker.ScalarFormatter())
                axis.minorticks_off()
            axis.set_title(title)
            axis.set_xlabel(across)
        axes[0, 0].set_ylabel(up)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
        return png(figure)


def scatter(groups: Mapping[str, Sequence[tuple[str, float, float, float]]], across: str, up: str, joined: Collection[str]) -> bytes:
    """Named points (name, x, mean, deviation) in groups; those of the `joined` groups are joined by a pale line."""
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(1, 1, 7.6, 4.0)
        axis: Axes = axes[0, 0]
        for place, (group, points) in enumerate(groups.items()):
            colour = LINES[place % len(LINES)]
            x, mean, std = ([point[column] for point in points] for column in (1, 2, 3))
            if group in joined:
                axis.plot(x, mean, color=colour, linewidth=1, alpha=0.35)
            axis.errorbar(x, mean, yerr=std, fmt="o", color=colour, markersize=5, elinewidth=1, capsize=0, label=group)
            for name, across_at, up_at, _ in points:
                axis.annotate(name, (across_at, up_at), xytext=(5, 4), textcoords="offset points", fontsize=7.5, color=QUIET)
        axis.set_xlabel(across)
        axis.set_ylabel(up)
        axis.legend()
        return png(figure)


def stacked(bars: Mapping[str, Mapping[str, float]], across: str) -> bytes:
    """Horizontal bars of several parts each, from top to bottom."""
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(1, 1, 7.6, 1.2 + 0.45 * len(bars))
        axis: Axes = axes[0, 0]
        left = np.zeros(len(bars))
        for place, part in enumerate(next(iter(bars.values()))):
            widths = np.array([bar[part] for bar in bars.values()])
            axis.barh(list(bars), widths, left=left, color=LINES[place % len(LINES)], height=0.6, label=part)
            left += widths
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.set_xlabel(across)
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=4)
        return png(figure)
