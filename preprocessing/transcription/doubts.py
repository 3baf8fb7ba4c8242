"""Why a recognised text is not to be trusted: Whisper's own measures, and what it does where it invents."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from preprocessing.transcription.protocol import Doubt, Transcript
from preprocessing.transcription.speech_activity import Speech

EARLY_END = 1.0  # seconds of speech left after the last word: the text stopped early


@dataclass(frozen=True, kw_only=True)
class DoubtLimits:
    """Where doubt begins. The first three values are Whisper's own (Radford et al. 2022, section 4.5).

    As there, a high no-speech probability counts only together with a low log probability.
    """

    no_speech_probability: float = 0.6
    log_probability: float = -1.0
    compression_ratio: float = 2.4
    repeated_phrases: bool = True


def find_doubt(found: Transcript, limits: DoubtLimits) -> Doubt | None:
    """The first doubt about a text, as a skip's reason with what was measured; None where there is none."""
    unsure = found.average_log_probability < limits.log_probability
    if unsure and found.no_speech_probability > limits.no_speech_probability:
        return Doubt("no_speech_probability", f"{found.no_speech_probability:.2f}, log probability {found.average_log_probability:.2f}")
    if compression_ratio(found.text) > limits.compression_ratio:
        return Doubt("compression_ratio", f"{compression_ratio(found.text):.1f}")
    if limits.repeated_phrases and repeats_phrase([word.text.casefold() for word in found.words]):
        return Doubt("repeated_phrase", "says the same words again and again")
    if unsure:
        return Doubt("log_probability", f"{found.average_log_probability:.2f}")
    return None


def compression_ratio(text: str) -> float:
    """The length of a text in bytes over its length compressed by zlib; high where it repeats itself."""
    written = text.encode()
    return len(written) / len(zlib.compress(written)) if written else 0.0


def stops_early(found: Transcript, speech: Speech | None) -> bool:
    """Whether speech goes on for more than a second after the last word, by voice activity detection."""
    ends = [word.end for word in found.words if word.end is not None]
    return bool(speech is not None and ends and speech.end - max(ends) > EARLY_END)


def repeats_phrase(words: Sequence[str], shortest: int = 3) -> bool:
    """Whether `shortest` or more words are said twice in a row, or one word four times."""
    for length in range(shortest, len(words) // 2 + 1):
        for start in range(len(words) - 2 * length + 1):
            if words[start : start + length] == words[start + length : start + 2 * length]:
                return True
    run = 1
    for before, after in pairwise(words):
        run = run + 1 if before == after else 1
        if run == 4:
            return True
    return False
