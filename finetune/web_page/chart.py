"""Sentiment over time as an SVG that plays the recording where it is clicked."""

from dataclasses import dataclass

from finetune.modalities import AUDIO, TEXT, VISION
from finetune.prediction.prediction_files import figure
from finetune.prediction.predictions import RecordingPrediction, UtterancePrediction, in_words
from finetune.prediction.terminal_table import minutes
from skesl_mug.wording import signed

COLOURS = {TEXT: "#0072b2", AUDIO: "#d55e00", VISION: "#009e73"}
WIDTH, HEIGHT = 1000.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 132.0, 18.0, 16.0, 24.0
GREEN, RED, INK, QUIET, FAINT = "#1e8c5a", "#c3462d", "#26262e", "#6d6d78", "#e4e2dd"
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
TICKS = 12


@dataclass(frozen=True)
class Plane:
    """Seconds and label units as places in the picture."""

    label_range: tuple[float, float]
    seconds: float

    @property
    def middle(self) -> float:
        """The neutral score."""
        return sum(self.label_range) / 2

    def x(self, time: float) -> float:
        """From the left."""
        return LEFT + (WIDTH - LEFT - RIGHT) * time / self.seconds

    def y(self, value: float) -> float:
        """From the top; values beyond the label range lie on its edge."""
        low, high = self.label_range
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - min(high, max(low, value))) / (high - low)


def chart(recording: RecordingPrediction, label_range: tuple[float, float], before: RecordingPrediction | None = None) -> str:
    """Bars for the multimodal score, lines for text, audio and vision; with `before`, its scores as dashed lines."""
    plane = Plane(label_range, max(recording.seconds, 0.1))
    parts = [_grid(plane)]
    earlier = before.by_start() if before is not None else {}
    for row in recording.utterances:
        parts.append(_bar(plane, row, earlier[row.start].score if row.start in earlier else None))
    for name, colour in COLOURS.items():
        points = [
            (plane.x((row.start + row.end) / 2), plane.y(row.unimodal()[name])) for row in recording.utterances if name in row.unimodal()
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.4" opacity="0.85"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{colour}"/>' for x, y in points]
    parts.append(f'<line id="playhead" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="{INK}" stroke-width="1.2" opacity="0"/>')
    geometry = f'data-left="{LEFT}" data-wide="{WIDTH - LEFT - RIGHT}" data-seconds="{plane.seconds:.3f}"'
    alone = any(row.unimodal() for row in recording.utterances)
    keys = _legend(before is not None) if alone or before is not None else ""
    return f'{keys}<svg class="chart" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" {geometry}>{"".join(parts)}</svg>'


def _bar(plane: Plane, row: UtterancePrediction, before: float | None) -> str:
    said = f"{figure(row.score, plane.label_range)} {in_words(row.score, plane.label_range)}"
    left = plane.x(row.start)
    wide = max(1.5, plane.x(row.end) - left)
    score, zero = plane.y(row.score), plane.y(plane.middle)
    colour = GREEN if row.score > plane.middle else RED
    across = f'x1="{left:.1f}" x2="{left + wide:.1f}"'
    column = f'x="{left:.1f}" width="{wide:.1f}"'
    parts = [
        f'<g data-seek="{row.start:.2f}"><title>{minutes(row.start)}  {said}</title>',
        f'<rect {column} y="{TOP}" height="{HEIGHT - TOP - BOTTOM}" fill="transparent"/>',
        f'<rect {column} y="{min(score, zero):.1f}" height="{max(1.5, abs(score - zero)):.1f}" fill="{colour}" fill-opacity="0.3"/>',
        f'<line {across} y1="{score:.1f}" y2="{score:.1f}" stroke="{colour}" stroke-width="3"/></g>',
    ]
    if before is not None:
        was = plane.y(before)
        parts.append(f'<line class="was" {across} y1="{was:.1f}" y2="{was:.1f}" stroke="{INK}" stroke-dasharray="5 3" stroke-width="1.5"/>')
    if row.disagreement():
        parts.append(f'<path d="M{left + wide / 2 - 5:.1f} 2 h10 l-5 8 z" fill="{INK}"><title>the modalities disagree</title></path>')
    return "".join(parts)


def _grid(plane: Plane) -> str:
    low, high = plane.label_range
    lines = []
    for step in range(7):
        value = low + (high - low) * step / 6
        y, colour = plane.y(value), INK if step == 3 else FAINT
        lines.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}" stroke-width="0.9"/>')
        lines.append(
            f'<text x="{LEFT - 8}" y="{y + 3.5:.1f}" text-anchor="end">{in_words(value, plane.label_range)} {signed(value)}</text>'
        )
    gap = next((step for step in STEPS if plane.seconds / step <= TICKS), STEPS[-1])
    for tick in range(0, int(plane.seconds) + 1, gap):
        lines.append(f'<text x="{plane.x(tick):.1f}" y="{HEIGHT - 7}" text-anchor="middle">{minutes(tick).split(".")[0]}</text>')
    return f'<g font-size="11" fill="{QUIET}">{"".join(lines)}</g>'


def _legend(with_before: bool) -> str:
    keys = "".join(f'<span><i style="background:{colour}"></i>{name}</span>' for name, colour in COLOURS.items())
    was = '<span><i class="dashed"></i>with every modality</span>' if with_before else ""
    return f'<p class="keys"><span><i class="block"></i>all together</span>{keys}{was}<span>▼ they disagree</span></p>'
