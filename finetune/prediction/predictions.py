"""Predictions as plain data: utterances with scores in label units and in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from finetune.modalities import AUDIO, TEXT, VISION
from preprocessing.timeline import Faults

WORDS = ("very negative", "negative", "slightly negative", "neutral", "slightly positive", "positive", "very positive")
"""The seven classes of Acc7 in words."""


def in_words(value: float, label_range: tuple[float, float]) -> str:
    """A score as one of seven words: the label range in seven classes around its middle, as Acc7 rounds labels of -3 to 3."""
    return WORDS[sentiment_class(value, label_range) + 3]


def sentiment_class(value: float, label_range: tuple[float, float]) -> int:
    """The nearest of seven classes, -3 to 3; values outside the range belong to the outermost class."""
    low, high = label_range
    scaled = (value - (low + high) / 2) / ((high - low) / 2) * 3
    return max(-3, min(3, round(scaled)))


@dataclass
class PredictedWord:
    """A word with its times in the recording (seconds; None if unknown), the recogniser's confidence, and its lexicon intensity
    (None if it is not in the lexicon)."""

    text: str
    start: float | None
    end: float | None
    probability: float | None
    intensity: float | None


@dataclass
class UtterancePrediction:
    """The sentiment of one utterance. Scores are in label units (`label_range`) and not clipped, except those of `predict_texts`.

    `score` is the multimodal score, `sentiment` the same in words. `score_text`, `score_audio` and `score_vision` are None if the
    modality is missing, left out, or has no trained head. `low` to `high` is the interval around `score`, within the label range (see
    `ScoreInterval`); None if the model has none, or if the utterance lacks one of its modalities. `used` lists the modalities behind
    `score`. `start` and `end` are seconds in the recording `source`; `speaker` is the channel if channels are read on their own.
    """

    source: str = ""
    start: float = 0.0
    end: float = 0.0
    text: str = ""
    language: str = ""
    score: float = math.nan
    sentiment: str = ""
    score_text: float | None = None
    score_audio: float | None = None
    score_vision: float | None = None
    used: list[str] = field(default_factory=list)
    face_rate: float | None = None
    label_range: tuple[float, float] = (-3.0, 3.0)
    words: list[PredictedWord] = field(default_factory=list)
    speaker: str = ""
    low: float | None = None
    high: float | None = None

    def unimodal(self) -> dict[str, float]:
        """The scores of single modalities, by modality, where available."""
        scores = {TEXT: self.score_text, AUDIO: self.score_audio, VISION: self.score_vision}
        return {name: value for name, value in scores.items() if value is not None}

    def disagreement(self) -> tuple[str, str] | None:
        """The most positive and the most negative modality, if one is at least slightly positive and the other slightly negative."""
        scores = self.unimodal()
        if not scores:
            return None
        highest, lowest = max(scores, key=lambda name: scores[name]), min(scores, key=lambda name: scores[name])
        differ = sentiment_class(scores[highest], self.label_range) > 0 > sentiment_class(scores[lowest], self.label_range)
        return (highest, lowest) if differ else None


@dataclass
class SkippedStretch:
    """A stretch of a recording (seconds), or of one of its channels, without an utterance, and the reason."""

    start: float
    end: float
    reason: str
    detail: str
    speaker: str = ""

    def explanation(self, separator: str = " ") -> str:
        """The reason and its detail in words."""
        return f"{self.reason.replace('_', ' ')}{separator + self.detail if self.detail else ''}"


@dataclass
class RecordingPrediction:
    """A recording: its utterances in order, stretches without one, and its length in seconds.

    `seen_in` is the split of the model's own corpus (train, dev, test) that contains a clip of this name, if any. `notes` are on its sound
    and its faults (gaps, restarting timestamps, damage), `faults` the latter in seconds.
    """

    source: str
    seconds: float
    utterances: list[UtterancePrediction]
    skipped: list[SkippedStretch] = field(default_factory=list)
    seen_in: str | None = None
    notes: list[str] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)

    @property
    def label_range(self) -> tuple[float, float]:
        """The range of the scores."""
        return self.utterances[0].label_range

    def seen_note(self) -> str | None:
        """A note on a recording from the model's own corpus."""
        if self.seen_in is None:
            return None
        use = {"train": "was trained on", "dev": "was selected on"}.get(self.seen_in, "was evaluated on")
        return f"the model {use} a clip of this name ({self.seen_in} split): its score does not show how it does on new recordings"

    def by_place(self) -> dict[tuple[float, str], UtterancePrediction]:
        """The utterances by start time and speaker; with modalities left out, some of them may be skipped."""
        return {(row.start, row.speaker): row for row in self.utterances}

    @property
    def speakers(self) -> list[str]:
        """The speakers in the order in which they start; empty unless channels are read on their own."""
        return list(dict.fromkeys(row.speaker for row in self.utterances if row.speaker))

    def of(self, speaker: str) -> "RecordingPrediction":
        """The same with the utterances of one speaker."""
        return replace(self, utterances=[row for row in self.utterances if row.speaker == speaker])

    def mean_score(self) -> float | None:
        """The mean of the multimodal scores, weighted by duration; None without utterances."""
        return weighted_mean([(row.score, row.end - row.start) for row in self.utterances])


def weighted_mean(pairs: Sequence[tuple[float, float]]) -> float | None:
    """The mean of (value, weight) pairs; None if the weights sum to 0."""
    total = sum(weight for _, weight in pairs)
    return sum(value * weight for value, weight in pairs) / total if total > 0 else None
