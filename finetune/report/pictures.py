"""The report's pictures as PNG bytes; every random choice is seeded."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from finetune.report.run_results import MODALITIES
from preprocessing.plots import bins_between

# Okabe and Ito's palette for colour-blind readers
COLOURS = {"text": "#0072B2", "audio": "#D55E00", "vision": "#009E73", "fused": "#3B3B45"}
INK, QUIET, FAINT = "#26262E", "#8A8A94", "#E4E2DD"
OTHERS = ("#8FB4CF", "#E0B48C", "#9CC9B5", "#C3A8CF", "#B9B7AE", "#D9A7A7", "#A9B48C")
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": "#BDBBB5",
    "axes.linewidth": 0.8,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}
DPI = 170
MAX_POINTS = 600
PROJECTED = "projected multimodal"


def panels(rows: int, columns: int, width: float, height: float, **settings: Any) -> tuple[Figure, np.ndarray]:
    """A figure of width x height inches and its axes [rows, columns]."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **settings)


def png(figure: Figure) -> bytes:
    """The figure as PNG; the same bytes on every machine with the same libraries."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def result_dots(rows: Sequence[tuple[str, float, float]]) -> bytes:
    """MAE by model: (name, mean, std) from top to bottom; the first is the main model, whose standard deviation is shaded."""
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(1, 1, 7.6, 0.62 + 0.3 * len(rows))
        axis: Axes = axes[0, 0]
        places = np.arange(len(rows))[::-1]
        _, own, deviation = rows[0]
        axis.axvspan(own - deviation, own + deviation, color="#EEF3F7", zorder=0)
        axis.axvline(own, color=COLOURS["text"], linewidth=0.9, alpha=0.7, zorder=1)
        for place, (_, mean, std) in zip(places, rows, strict=True):
            colour = COLOURS["text"] if place == places[0] else "#6B6B76"
            axis.errorbar(mean, place, xerr=std or None, fmt="o", color=colour, markersize=6, elinewidth=1.6, capsize=0, zorder=3)
        axis.set_yticks(places, [name for name, _, _ in rows])
        axis.get_yticklabels()[0].set_fontweight("bold")
        axis.set_ylim(-0.6, len(rows) - 0.4)
        axis.grid(axis="y", visible=False)
        axis.spines["left"].set_visible(False)
        axis.set_xlabel("MAE (lower is better)")
        return png(figure)


def learning_curves(history: pd.DataFrame, headline: str, names: Mapping[str, str]) -> bytes:
    """Development MAE of stages 1 and 3 (main model: seeds thin, mean thick; other variants: means) and the main model's training loss."""
    stages = [stage for stage in sorted(history["stage"].unique()) if (history["stage"] == stage).any()]
    variants = list(dict.fromkeys(history["variant"]))
    headline = headline if headline in variants else variants[0]
    with matplotlib.rc_context(STYLE):
        shown = {"dev_MAE": "development MAE", "train_loss": "training loss"}
        shown = {key: label for key, label in shown.items() if history[key].notna().any()}  # there may be no development part
        heights = [1.6, 1] if len(shown) == 2 else [1]
        figure, axes = panels(len(shown), len(stages), 7.6, 1.5 + 1.5 * len(shown), sharex="col", sharey="row", height_ratios=heights)
        for column, stage in enumerate(stages):
            here = history[history["stage"] == stage]
            top, bottom = axes[0, column], axes[-1, column]
            for place, variant in enumerate(variant for variant in variants if variant != headline):
                mean = _mean_of_all_seeds(here[here["variant"] == variant], next(iter(shown)))
                label = names.get(variant, variant)
                top.plot(mean.index, mean, color=OTHERS[place % len(OTHERS)], linewidth=1.5, label=label, marker=_marker(mean))
            own = here[here["variant"] == headline]
            for axis, key in zip(axes[:, column], shown, strict=True):
                for _, seed in own.groupby("seed"):
                    axis.plot(seed["epoch"], seed[key], color=COLOURS["text"], linewidth=0.8, alpha=0.35)
                mean = _mean_of_all_seeds(own, key)
                axis.plot(mean.index, mean, color=COLOURS["text"], linewidth=2.2, label=names.get(headline, headline), marker=_marker(mean))
            top.set_title(f"Stage {stage}: " + {1: "alignment", 3: "joint training"}.get(int(stage), ""))
            bottom.set_xlabel("epoch")
            bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axis, label in zip(axes[:, 0], shown.values(), strict=True):
            axis.set_ylabel(label)
        handles, labels = axes[0, -1].get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=min(3, len(labels)), fontsize=8.5)
        return png(figure)


def _marker(values: pd.Series) -> str:
    """A line through a single epoch is invisible without a marker."""
    return "o" if len(values.dropna()) == 1 else ""


def _mean_of_all_seeds(history: pd.DataFrame, key: str) -> pd.Series:
    """Mean over seeds by epoch, up to the last epoch of the seed that stopped first."""
    epochs = history.groupby("epoch")[key]
    return epochs.mean()[epochs.size() == history["seed"].nunique()]


def clouds(arrays: Mapping[str, np.ndarray], moments: Sequence[str] = ("before", "after")) -> bytes | None:
    """Unimodal and projected multimodal representations (unit length) in the first two principal components of each panel.

    Pale lines connect the two points of a sample, for a random choice of samples.
    """
    kinds = [f"{moment}_{{}}_{kind}" for moment in moments for kind in ("unimodal", "projected")]
    present = [name for name in MODALITIES if all(kind.format(name) in arrays for kind in kinds)]
    if not present:
        return None
    with matplotlib.rc_context({**STYLE, "axes.grid": False, "axes.spines.left": False, "axes.spines.bottom": False}):
        figure, axes = panels(len(moments), len(present), 2.53 * len(present), 2.5 * len(moments))
        for row, moment in enumerate(moments):
            for column, name in enumerate(present):
                axis: Axes = axes[row, column]
                unimodal, projected = (_unit(arrays[f"{moment}_{name}_{kind}"]) for kind in ("unimodal", "projected"))
                chosen = np.random.default_rng(0).permutation(len(unimodal))[:MAX_POINTS]
                points = _principal(np.concatenate([unimodal[chosen], projected[chosen]]))
                first, second = points[: len(chosen)], points[len(chosen) :]
                for pair in range(min(40, len(chosen))):
                    axis.plot(*zip(first[pair], second[pair], strict=True), color="#C9C7C0", linewidth=0.5, zorder=1)
                size = 9 if len(chosen) < 300 else 6
                axis.scatter(first[:, 0], first[:, 1], s=size, color=COLOURS[name], alpha=0.55, linewidths=0, label=name, zorder=2)
                axis.scatter(
                    second[:, 0],
                    second[:, 1],
                    s=size,
                    color=COLOURS["fused"],
                    alpha=0.45,
                    linewidths=0,
                    label=PROJECTED,
                    zorder=3,
                )
                axis.set_xticks([])
                axis.set_yticks([])
                axis.set_facecolor("#FAFAF8")
                axis.set_aspect("equal", adjustable="datalim")
                if column == 0:
                    axis.set_ylabel(f"{moment} stage 1")
                if row == 0:
                    axis.set_title(name.capitalize())
        handles = [axes[0, column].get_legend_handles_labels()[0][0] for column in range(len(present))]
        handles.append(axes[0, 0].get_legend_handles_labels()[0][1])
        figure.legend(handles, [*present, PROJECTED], loc="outside lower center", ncols=4, markerscale=2)
        return png(figure)


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.nan_to_num(np.asarray(rows, np.float64))
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def _principal(rows: np.ndarray) -> np.ndarray:
    """Coordinates [N, 2] in the first two principal components, with a fixed sign, so that the picture is reproducible."""
    centred = rows - rows.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:2] * np.where(directions[:2].sum(axis=1, keepdims=True) < 0, -1, 1)
    points = centred @ directions.T
    return points if points.shape[1] == 2 else np.pad(points, ((0, 0), (0, 2 - points.shape[1])))


def label_ticks(label_range: tuple[float, float]) -> list[float]:
    """The ticks of a label axis: whole numbers, or tenths for a narrow range."""
    return list(bins_between(*label_range).ticks)


def label_scatter(table: pd.DataFrame, label_range: tuple[float, float]) -> bytes | None:
    """Labels of one generator and seed by known unimodal label: copies of y on top, learned labels below.

    Without known unimodal labels: learned labels by y.
    """
    present = [name for name in MODALITIES if (table["modality"] == name).any()]
    if not present:
        return None
    known = "known" in table and bool(table["known"].notna().any())
    rows = ("y", "learned") if known else ("learned",)
    low, high = label_range
    edge = 0.06 * (high - low)
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(len(rows), len(present), 2.53 * len(present), 2.45 * len(rows) + 0.15, sharex=True, sharey=True)
        for column, name in enumerate(present):
            part = table[table["modality"] == name]
            part = part[part["known"].notna()] if known else part
            part = part.sample(min(len(part), 2 * MAX_POINTS), random_state=0)
            across = part["known" if known else "y"].to_numpy()
            # labels are discrete: without jitter, points would cover each other
            jitter, rise = np.random.default_rng(0).uniform(-0.012, 0.012, (2, len(part))) * (high - low)
            for row, kind in enumerate(rows):
                axis: Axes = axes[row, column]
                axis.plot([low, high], [low, high], color=QUIET, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
                colour = "#8A8A94" if kind == "y" else COLOURS[name]
                axis.scatter(
                    across + jitter, part[kind] + (rise if kind == "y" else 0.0), s=8, color=colour, alpha=0.4, linewidths=0, zorder=2
                )
                axis.set_xlim(low - edge, high + edge)
                axis.set_ylim(low - edge, high + edge)
                axis.set_xticks(label_ticks(label_range))
                axis.set_yticks(label_ticks(label_range))
                axis.set_aspect("equal")
                if row == 0:
                    axis.set_title(name.capitalize())
                if column == 0:
                    axis.set_ylabel("copy of y" if kind == "y" else "learned label")
                if row == len(rows) - 1:
                    axis.set_xlabel("known unimodal label" if known else "multimodal label y")
        return png(figure)


def predictions_scatter(predictions: pd.DataFrame, label_range: tuple[float, float]) -> bytes:
    """Predictions (mean over seeds) by multimodal label of the evaluated split, and the mean absolute error by label."""
    mean = predictions.groupby("id", sort=False)[["label", "pred_M"]].mean()
    low, high = label_range
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(1, 2, 7.6, 2.9, width_ratios=[1, 1.35])
        axis: Axes = axes[0, 0]
        axis.plot([low, high], [low, high], color=QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
        axis.scatter(mean["label"], mean["pred_M"], s=8, color=COLOURS["text"], alpha=0.4, linewidths=0)
        axis.set_xticks(label_ticks(label_range))
        axis.set_yticks(label_ticks(label_range))
        axis.set_xlabel("label")
        axis.set_ylabel("prediction")
        axis.set_title("Predictions")
        error = (mean["pred_M"] - mean["label"]).abs()
        edges = np.linspace(low, high, 8)
        place = np.clip(np.digitize(mean["label"], edges) - 1, 0, 6)
        heights = [float(error[place == box].mean()) if (place == box).any() else 0.0 for box in range(7)]
        counts = [int((place == box).sum()) for box in range(7)]
        bars = axes[0, 1].bar(0.5 * (edges[:-1] + edges[1:]), heights, width=0.82 * (edges[1] - edges[0]), color="#A9C3D6")
        axes[0, 1].bar_label(bars, [f"n={count}" for count in counts], fontsize=7.5, color=QUIET, padding=2)
        axes[0, 1].set_title("Mean absolute error by label")
        axes[0, 1].set_xlabel("label")
        axes[0, 1].set_xticks(label_ticks(label_range))
        axes[0, 1].margins(y=0.12)
        axes[0, 1].grid(axis="x", visible=False)
        return png(figure)


def pretraining_curve(history: Sequence[Mapping[str, Any]]) -> bytes | None:
    """Training loss and validation MAE of the masked-intensity objective by epoch."""
    table = pd.DataFrame(history)
    if len(table) < 2 or not {"train_loss", "valid_MAE"} <= set(table):
        return None
    epoch = table["epoch"] if "epoch" in table else pd.Series(range(1, len(table) + 1))
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(1, 1, 7.6, 2.4)
        axis: Axes = axes[0, 0]
        axis.plot(epoch, table["train_loss"], color=QUIET, linewidth=1.5, label="training loss")
        axis.plot(epoch, table["valid_MAE"], color=COLOURS["text"], linewidth=2.2, label="validation MAE")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel("epoch")
        axis.set_ylabel("intensity")
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)  # above the curves
        return png(figure)
