"""The transcript as HTML: words tinted by their lexicon intensity, utterances by their score, disagreements marked."""

from dataclasses import dataclass
from html import escape

from finetune.modalities import AUDIO, LETTERS, MODALITIES, TEXT, VISION
from finetune.prediction.outputs import figure, minutes
from finetune.prediction.predictions import PredictedWord, RecordingPrediction, UtterancePrediction, in_words, sentiment_class
from skesl_mug.wording import counted, signed

GREEN_RGB, RED_RGB = "30, 140, 90", "195, 70, 45"
STRONGEST = 0.55  # opacity of the most intense word


def tint(value: float, largest: float) -> str:
    """A CSS colour: green above zero, red below, the stronger the further from it."""
    share = min(1.0, abs(value) / largest) if largest else 0.0
    return f"rgba({GREEN_RGB if value > 0 else RED_RGB}, {share * STRONGEST:.2f})"


def transcript(recording: RecordingPrediction, before: RecordingPrediction | None = None) -> str:
    """All utterances; with `before` (the prediction with every modality) each one's change is shown."""
    earlier = before.by_start() if before is not None else {}
    rows = [utterance(row, earlier.get(row.start), place) for place, row in enumerate(recording.utterances)]
    rows += [
        f'<p class="gap" data-seek="{gap.start:.2f}">{minutes(gap.start)} to {minutes(gap.end)}: {escape(_gap(gap.reason, gap.detail))}</p>'
        for gap in recording.skipped
    ]
    if not rows:
        rows = ['<p class="gap">Nobody speaks in this recording, and no face could be judged without words.</p>']
    return f'<div class="transcript">{"".join(rows)}</div>'


def _gap(reason: str, detail: str) -> str:
    return f"no prediction ({reason.replace('_', ' ')}{': ' + detail if detail else ''})"


def utterance(row: UtterancePrediction, before: UtterancePrediction | None, place: int) -> str:
    """One utterance: time, score in numbers and words, single scores, words."""
    low, high = row.label_range
    lean = sentiment_class(row.score, row.label_range)
    kind = "positive" if lean > 0 else "negative" if lean < 0 else "neutral"
    scores = {name: figure(value, row.label_range) for name, value in row.unimodal().items()}
    singles = "".join(
        f'<span class="single {name}" title="{name} alone">{LETTERS[name]} {scores.get(name, "–")}</span>'
        for name in (MODALITIES if scores else ())
    )
    change = ""
    if before is not None and row.used != before.used:
        full = figure(before.score, row.label_range)
        change = f'<span class="change" title="with every modality: {full}">{signed(row.score - before.score)} changed</span>'
    apart = row.disagreement()
    mark = f'<span class="apart">{apart[0]} says {_word(row, apart[0])}, {apart[1]} {_word(row, apart[1])}</span>' if apart else ""
    words = tinted_words(row, max(abs(low), abs(high))) or '<i class="gap">no words: no sound</i>'
    return (
        f'<div class="utterance {kind}" data-place="{place}" data-from="{row.start:.2f}" data-to="{row.end:.2f}">'
        f'<button class="when" data-seek="{row.start:.2f}" title="play from here">{minutes(row.start)}</button>'
        f'<div><p class="said">{words}</p><p class="scores"><b class="score">{figure(row.score, row.label_range)}</b> '
        f'<span class="sentiment">{row.sentiment}</span>{change}{singles}{mark}</p></div></div>'
    )


def _figure(row: UtterancePrediction, modality: str) -> str:
    return f"{modality} {figure(row.unimodal()[modality], row.label_range)}"


def _word(row: UtterancePrediction, modality: str) -> str:
    return in_words(row.unimodal()[modality], row.label_range)


def tinted_words(row: UtterancePrediction, largest: float) -> str:
    """The text of an utterance with its lexicon words tinted; each word can be clicked to hear it."""
    html, at = "", 0
    for word in row.words:
        place = row.text.find(word.text, at)
        if place < 0:
            continue
        html += escape(row.text[at:place]) + _word_html(word, largest)
        at = place + len(word.text)
    return html + escape(row.text[at:])


def _word_html(word: PredictedWord, largest: float) -> str:
    seek = f' data-seek="{word.start:.2f}"' if word.start is not None else ""
    if word.intensity is None:
        return f"<span{seek}>{escape(word.text)}</span>"
    label = f"lexicon intensity {signed(word.intensity)}"
    return f'<mark{seek} style="background:{tint(word.intensity, largest)}" title="{label}">{escape(word.text)}</mark>'


def disagreements(recording: RecordingPrediction) -> str:
    """The moments where one modality is positive and another negative, as a list to click on."""
    items = []
    for row in recording.utterances:
        apart = row.disagreement()
        if apart is not None:
            items.append(
                f'<li><button class="when" data-seek="{row.start:.2f}">{minutes(row.start)}</button> '
                f"{_figure(row, apart[0])}, {_figure(row, apart[1])}: {escape(row.text)}</li>"
            )
    if not items:
        return '<p class="gap">Nowhere is one modality positive and another negative.</p>'
    return f'<ul class="moments">{"".join(items)}</ul>'


def headline(recording: RecordingPrediction, notes: list[str]) -> str:
    """Length, number of utterances, mean score, modalities, and what the user has to know."""
    mean = recording.mean_score()
    facts = [minutes(recording.seconds), counted(len(recording.utterances), "utterance")]
    if mean is not None:
        facts.append(f"<b>mean {figure(mean, recording.label_range)}, {in_words(mean, recording.label_range)}</b>")
    used = [name for name in MODALITIES if any(name in row.used for row in recording.utterances)]
    listed = f"{', '.join(used[:-1])} and {used[-1]}" if len(used) > 1 else "".join(used) or "nothing"
    facts.append(f"scores rest on {listed}")
    notes = [*notes, *filter(None, [recording.seen_note()])]
    told = "".join(f'<p class="warning">{escape(note)}</p>' for note in notes)
    return f'<p class="facts">{" · ".join(facts)}</p>{told}'


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
