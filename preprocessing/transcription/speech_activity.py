"""Where in a clip somebody speaks: the Silero voice activity model that faster-whisper carries."""

from dataclasses import dataclass

import numpy as np

SAMPLE_RATE = 16_000
KEPT_SILENCE = 0.3  # seconds on either side of the speech
WORTH_CUTTING = 1.0  # seconds of silence; cutting less saves nothing, and Whisper repeats itself where speech ends at the very edge
SILENCE_PEAK = 1e-3  # -60 dB of full scale: below it there is nothing to hear, whatever a model believes


@dataclass
class Speech:
    """Seconds of speech in a clip, and when the first of it starts and the last ends."""

    seconds: float
    start: float
    end: float


def cut_to_speech(sound: np.ndarray, speech: Speech) -> tuple[np.ndarray, float]:
    """The sound from `KEPT_SILENCE` seconds before the first speech to as much behind the last, and the seconds cut off before it.

    Where less than `WORTH_CUTTING` seconds would go, the sound stays whole.
    """
    if not speech.seconds:
        return sound, 0.0
    first = max(0, int((speech.start - KEPT_SILENCE) * SAMPLE_RATE))
    last = min(len(sound), int((speech.end + KEPT_SILENCE) * SAMPLE_RATE))
    if len(sound) - (last - first) < WORTH_CUTTING * SAMPLE_RATE:
        return sound, 0.0
    return sound[first:last], first / SAMPLE_RATE


def find_speech(sound: np.ndarray) -> Speech:
    """Measure the speech in a clip ([samples] float32 at 16,000 Hz); all zeros where there is none."""
    spans = speech_spans(sound)
    if not spans:
        return Speech(0.0, 0.0, 0.0)
    return Speech(sum(end - start for start, end in spans), spans[0][0], spans[-1][1])


def speech_spans(sound: np.ndarray) -> list[tuple[float, float]]:
    """Start and end (seconds) of each stretch of speech in a clip ([samples] float32 at 16,000 Hz); pauses below 0.3 s are part of it."""
    if len(sound) == 0 or float(np.abs(sound).max()) < SILENCE_PEAK:
        return []
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    spans = get_speech_timestamps(sound, VadOptions(min_silence_duration_ms=300, speech_pad_ms=0))
    return [(span["start"] / SAMPLE_RATE, span["end"] / SAMPLE_RATE) for span in spans]
