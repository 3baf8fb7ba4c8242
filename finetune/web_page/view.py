"""The page's HTML pieces for a prediction: headline, transcript, disagreements, and the chart of sentiment over time."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.modalities import LETTERS, MODALITIES
from finetune.prediction.intervals import ScoreInterval
from finetune.prediction.outputs import COLOURS, figure, minutes
from finetune.prediction.predictions import PredictedWord, RecordingPrediction, UtterancePrediction, in_words, sentiment_class
from skesl_mug.templates import templates
from skesl_mug.wording import counted, signed

GREEN, RED = "#1e8c5a", "#c3462d"
GREEN_RGB, RED_RGB = "30, 140, 90", "195, 70, 45"
MAX_OPACITY = 0.55  # of the most intense word
TICK_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
MAX_TICKS = 12


def pieces() -> Any:
    """The macros of `view.html.jinja`."""
    environment = templates(Path(__file__).parent)
    environment.filters |= {"signed": signed, "minutes": minutes, "figure": figure, "in_words": in_words, "tint": tint}
    environment.globals |= {"letters": LETTERS, "modalities": MODALITIES, "lean": sentiment_class, "spans": spans, "colours": COLOURS}
    return environment.get_template("view.html.jinja").module


def tint(value: float, largest: float) -> str:
    """A CSS colour: green for positive, red for negative, more opaque for larger values."""
    share = min(1.0, abs(value) / largest) if largest else 0.0
    return f"rgba({GREEN_RGB if value > 0 else RED_RGB}, {share * MAX_OPACITY:.2f})"


def spans(row: UtterancePrediction) -> list[tuple[str, PredictedWord | None]]:
    """The text of an utterance in pieces: its words, and what is between them."""
    found: list[tuple[str, PredictedWord | None]] = []
    end = 0
    for word in row.words:
        place = row.text.find(word.text, end)
        if place >= 0:
            found += [(row.text[end:place], None), (word.text, word)]
            end = place + len(word.text)
    return [*found, (row.text[end:], None)]


def tinted_words(row: UtterancePrediction, largest: float) -> str:
    """The text of an utterance with its lexicon words tinted; clicking a word plays it."""
    return str(pieces().words(row, largest))


def transcript(recording: RecordingPrediction, before: RecordingPrediction | None = None) -> str:
    """All utterances; `before` is the prediction with every modality, to show how each score changed."""
    return str(pieces().transcript(recording, before.by_place() if before is not None else {}))


def disagreements(recording: RecordingPrediction) -> str:
    """The moments where one modality is positive and another negative, as a list to click on."""
    rows = [(row, apart) for row in recording.utterances if (apart := row.disagreement()) is not None]
    return str(pieces().disagreements(rows))


def headline(recording: RecordingPrediction, notes: list[str], interval: ScoreInterval | None = None) -> str:
    """Length, number of utterances, mean score, modalities, what the intervals mean, and notes for the user."""
    used = [name for name in MODALITIES if any(name in row.used for row in recording.utterances)]
    listed = f"{', '.join(used[:-1])} and {used[-1]}" if len(used) > 1 else "".join(used) or "nothing"
    notes = [*notes, *recording.notes, *filter(None, [recording.seen_note()])]
    means = [(name, recording.of(name).mean_score()) for name in recording.speakers]
    count = counted(len(recording.utterances), "utterance")
    meaning = interval.sentence() if interval is not None else ""
    rows = recording.utterances
    if interval is not None and interval.half_width is not None and rows and all(row.low is None for row in rows):
        meaning = "No intervals: they are for utterances with every modality of the model."
    return str(pieces().headline(recording, recording.mean_score(), count, listed, notes, means, meaning))


@dataclass(frozen=True)
class Plane:
    """The coordinates of the chart: seconds and label units as places in the picture."""

    label_range: tuple[float, float]
    seconds: float
    width: float = 1000.0
    height: float = 250.0
    left: float = 132.0
    right: float = 982.0
    top: float = 16.0
    bottom: float = 226.0

    @property
    def middle(self) -> float:
        """The neutral score."""
        return sum(self.label_range) / 2

    @property
    def labels(self) -> list[float]:
        """The labels of the seven classes."""
        low, high = self.label_range
        return [low + (high - low) * step / 6 for step in range(7)]

    @property
    def ticks(self) -> list[int]:
        """Seconds on the time axis."""
        gap = next((step for step in TICK_SECONDS if self.seconds / step <= MAX_TICKS), TICK_SECONDS[-1])
        return list(range(0, int(self.seconds) + 1, gap))

    def x(self, time: float) -> float:
        """The place of a time."""
        return self.left + (self.right - self.left) * time / self.seconds

    def y(self, value: float) -> float:
        """The place of a score; scores outside the label range are drawn at its edge."""
        low, high = self.label_range
        return self.top + (self.bottom - self.top) * (high - min(high, max(low, value))) / (high - low)

    def points(self, rows: list[UtterancePrediction], modality: str) -> list[tuple[float, float]]:
        """The places of a modality's scores."""
        return [(self.x((row.start + row.end) / 2), self.y(row.unimodal()[modality])) for row in rows if modality in row.unimodal()]


def chart(recording: RecordingPrediction, label_range: tuple[float, float], before: RecordingPrediction | None = None) -> str:
    """An SVG with bars for the multimodal score and lines for text, audio and vision; `before` adds its scores as dashed lines.

    Speakers have a chart each. Clicking a bar plays the recording from there.
    """
    plane = Plane(label_range, max(recording.seconds, 0.1))
    legend = before is not None or any(row.unimodal() for row in recording.utterances)
    earlier = before.by_place() if before is not None else None
    charts: list[str] = []
    for speaker in recording.speakers or [""]:
        rows = recording.of(speaker).utterances
        charts.append(str(pieces().chart(rows, plane, earlier, legend and not charts, GREEN, RED, speaker)))
    return "".join(charts)
