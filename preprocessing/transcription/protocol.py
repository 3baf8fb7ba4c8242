"""What an engine of speech recognition gives: a transcript with word times, and how sure it is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from lexicons.lexicon import bare_span
from preprocessing.schema import Word
from preprocessing.transcription.speech_activity import SAMPLE_RATE, Speech

__all__ = ["SAMPLE_RATE", "Doubt", "SpokenWord", "Transcriber", "Transcript", "another_language", "join_words", "trim_to_speech"]

SPEECH_MARGIN = 0.1  # seconds that speech may reach beyond what voice activity detection found


@dataclass
class SpokenWord:
    """A recognised word as the engine writes it (with blanks and punctuation), its times in seconds and its probability."""

    text: str
    start: float
    end: float
    probability: float


class Doubt(NamedTuple):
    """Why a text is not to be trusted: a skip's reason, and what was measured."""

    reason: str
    detail: str


@dataclass
class Transcript:
    """The text of a clip. `average_log_probability` is a token's, `no_speech_probability` the engine's own belief.

    `doubt` names why the text is not to be trusted (None: it is). A clip in another language than the one asked for has no text, and
    the doubt `language`. `language_probability` is None where the language was not detected.
    """

    text: str
    words: list[Word]
    language: str
    average_log_probability: float
    no_speech_probability: float
    language_probability: float | None = None
    doubt: Doubt | None = None
    details: dict[str, Any] = field(default_factory=dict)


class Transcriber(Protocol):
    """An engine of speech recognition with its model loaded. Sounds are [samples] float32 at 16,000 Hz."""

    def transcribe_many(self, sounds: Sequence[np.ndarray], speeches: Sequence[Speech]) -> list[Transcript]:
        """Transcribe clips; silence before and after the speech is not looked at."""
        ...

    def align_words(self, sound: np.ndarray, text: str, words: list[Word], language: str) -> list[Word]:
        """The words of a given text with the times at which they are spoken; without times where that cannot be found."""
        ...

    def describe(self) -> dict[str, Any]:
        """Engine, model, its sha256, compute type, language and settings, for `dataset.json`."""
        ...


def another_language(language: str, probability: float) -> Transcript:
    """The transcript of a clip that is not transcribed because of its language."""
    doubt = Doubt("language", f"{language}, probability {probability:.2f}")
    return Transcript("", [], language, 0.0, 0.0, probability, doubt)


def trim_to_speech(words: list[Word], speech: Speech | None) -> None:
    """Take silence before the first speech and after the last out of the word times: Whisper gives it to the words at the edges."""
    if speech is None or not speech.seconds:
        return
    first, last = speech.start - SPEECH_MARGIN, speech.end + SPEECH_MARGIN
    for word in words:
        if word.start is not None and word.end is not None:
            word.start = min(max(word.start, first, 0.0), max(word.end, 0.0))
            word.end = max(min(word.end, last), word.start)


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
