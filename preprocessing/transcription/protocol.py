"""What an engine of speech recognition gives: a transcript with word times, and how sure it is."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from lexicons.lexicon import bare_span
from preprocessing.schema import Word

SAMPLE_RATE = 16_000


@dataclass
class SpokenWord:
    """A recognised word as the engine writes it (with blanks and punctuation), its times in seconds and its probability."""

    text: str
    start: float
    end: float
    probability: float


@dataclass
class Transcript:
    """The text of a clip. `average_log_probability` is a token's, `no_speech_probability` the engine's own belief.

    `doubt` names why the text is not to be trusted (None: it is), such as "repeats itself".
    """

    text: str
    words: list[Word]
    language: str
    average_log_probability: float
    no_speech_probability: float
    doubt: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


class Transcriber(Protocol):
    """An engine of speech recognition with its model loaded."""

    def transcribe(self, sound: np.ndarray) -> Transcript:
        """Transcribe one clip, [samples] float32 at 16,000 Hz."""
        ...

    def describe(self) -> dict[str, Any]:
        """Engine, model, its sha256, compute type, language and settings, for `dataset.json`."""
        ...


def join_words(spoken: list[SpokenWord]) -> tuple[str, list[Word]]:
    """The text of some spoken words and the place of each in it, without its surrounding punctuation.

    Pieces that hold punctuation alone stay in the text and are no words.
    """
    text = ""
    words: list[Word] = []
    for piece in spoken:
        written = piece.text if text else piece.text.lstrip()
        first, last = bare_span(written)
        if last > first:
            start = len(text) + first
            words.append(Word(written[first:last], start, len(text) + last, piece.start, piece.end, piece.probability))
        text += written
    return text.rstrip(), words
