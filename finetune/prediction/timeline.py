"""A picture of sentiment over the time of a recording."""

import io

from finetune.modalities import AUDIO, TEXT, VISION
from finetune.prediction.predictions import RecordingPrediction, in_words
from finetune.prediction.terminal_table import minutes
from skesl_mug.wording import signed

COLOURS = {TEXT: "#0072b2", AUDIO: "#d55e00", VISION: "#009e73"}
INK, QUIET = "#26262e", "#6d6d78"
SECONDS_AN_INCH = 9.0
SHORTEST, LONGEST = 9.0, 40.0  # inches


def draw_timeline(recording: RecordingPrediction, label_range: tuple[float, float]) -> bytes:
    """The scores of a recording over its time as PNG: multimodal as bars, the modalities as lines, a mark where they disagree."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    width = min(LONGEST, max(SHORTEST, recording.seconds / SECONDS_AN_INCH))
    figure = Figure(figsize=(width, 4.2), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    low, high = label_range
    middle = (low + high) / 2
    for row in recording.utterances:
        shown = min(high, max(low, row.score))
        colour = "#2a9d63" if shown > middle else "#c8553d"
        axes.fill_between([row.start, row.end], middle, shown, color=colour, alpha=0.28, linewidth=0)
        axes.plot([row.start, row.end], [shown, shown], color=colour, linewidth=2.2, solid_capstyle="butt", clip_on=False)
        if row.disagreement():
            axes.plot([(row.start + row.end) / 2], [high * 1.04 - middle * 0.04], marker="v", color=INK, markersize=5, clip_on=False)
    for name, colour in COLOURS.items():
        rows = [row for row in recording.utterances if name in row.unimodal()]
        points = [((row.start + row.end) / 2, min(high, max(low, row.unimodal()[name]))) for row in rows]
        if points:
            axes.plot(
                *zip(*points, strict=True), color=colour, linewidth=1.0, marker="o", markersize=3.2, label=name, alpha=0.9, clip_on=False
            )
    axes.axhline(middle, color=INK, linewidth=0.8)
    axes.set(xlim=(0, max(recording.seconds, 0.1)), ylim=(low, high))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: minutes(seconds).split(".")[0]))
    ticks = [low + (high - low) * step / 6 for step in range(7)]
    axes.set_yticks(ticks, [f"{signed(tick)}  {in_words(tick, label_range)}" for tick in ticks])
    axes.grid(axis="y", color="#e4e2dd", linewidth=0.7)
    axes.tick_params(colors=QUIET, labelsize=8.5, length=0)
    axes.tick_params(axis="x", pad=9)  # clear of the lowest score's name
    for side in axes.spines.values():
        side.set_visible(False)
    mean = recording.mean_score()
    title = recording.source + (f": mean {signed(mean)}, {in_words(mean, label_range)}" if mean is not None else ": no utterance")
    axes.set_title(title, loc="left", fontsize=11, color=INK, pad=14)
    if any(row.unimodal() for row in recording.utterances):
        axes.legend(loc="upper right", bbox_to_anchor=(1, 1.13), ncols=3, frameon=False, fontsize=8.5, title=None)
    raw = io.BytesIO()
    figure.savefig(raw, format="png")
    return raw.getvalue()
