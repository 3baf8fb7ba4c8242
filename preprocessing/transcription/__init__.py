"""Speech recognition: a small protocol, and one file an engine."""

from preprocessing.transcription.models import find_model, open_transcriber
from preprocessing.transcription.protocol import SAMPLE_RATE, Doubt, SpokenWord, Transcriber, Transcript, join_words
from preprocessing.transcription.settings import WhisperSettings

__all__ = [
    "SAMPLE_RATE",
    "Doubt",
    "SpokenWord",
    "Transcriber",
    "Transcript",
    "WhisperSettings",
    "find_model",
    "join_words",
    "open_transcriber",
]
