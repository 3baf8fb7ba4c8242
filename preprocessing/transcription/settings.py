"""Which Whisper, and how it is run: the settings of both engines."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from preprocessing.transcription.doubts import DoubtLimits

FASTER_WHISPER, OPENAI_WHISPER = "faster-whisper", "openai-whisper"


@dataclass(kw_only=True)
class WhisperSettings:
    """A model on disk (see `find_model`) and how it is run.

    `language` is the corpus's: with a multilingual model, clips found to be in another one get no text but the doubt `language`; "auto"
    takes every clip in the language that is detected. `chinese` is "simplified" or "as-recognised".
    """

    model: str
    name: str
    engine: str = FASTER_WHISPER
    language: str = "en"
    device: str = "auto"
    compute_type: str = "auto"
    beam_size: int = 5
    chinese: str = "simplified"
    limits: DoubtLimits = field(default_factory=DoubtLimits)


LANGUAGE_PROBABILITY = 0.5  # from this on a detected language is believed against the corpus's


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
