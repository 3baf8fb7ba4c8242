"""Speech recognition: a small protocol, and one file an engine."""

from preprocessing.transcription.protocol import SAMPLE_RATE, SpokenWord, Transcriber, Transcript, join_words

__all__ = ["SAMPLE_RATE", "SpokenWord", "Transcriber", "Transcript", "join_words"]
