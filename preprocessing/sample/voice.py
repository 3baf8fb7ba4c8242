"""The voices of the sample corpus: one synthetic speaker (hibari-tts) turned into many, with prosody that expresses a sentiment."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

SAMPLE_RATE = 24_000
FFT, HOP = 1024, 256
LIFTER = 40  # cepstral coefficients of the spectral envelope: formants, not harmonics (at 60 and above)
LEAD_SECONDS, TAIL_SECONDS = 0.15, 0.2
SHORTEST_SPEECH, LONGEST_SPEECH = 2.65, 3.6  # seconds
SECONDS_PER_PHONEME = 0.06  # of hibari at its default speed
LEVEL_RMS = 0.06


@dataclass(frozen=True)
class VoiceTraits:
    """A speaker: factors on the synthetic voice's pitch, formants and rate; level in dB and brightness in dB per octave."""

    pitch: float
    formants: float
    rate: float
    level_db: float
    tilt_db: float


@dataclass(frozen=True)
class VoiceExpression:
    """The prosody of one clip, on top of the speaker's traits.

    `pitch` in semitones, `movement` in semitones (standard deviation of slow pitch movement), `slope` in semitones from the first to the
    last second, `rate` a factor, `level_db`, `tilt_db` per octave above 500 Hz, `dynamics_db` the slow variation of the level.
    """

    pitch: float
    movement: float
    slope: float
    rate: float
    level_db: float
    tilt_db: float
    dynamics_db: float


def draw_traits(rng: np.random.Generator) -> VoiceTraits:
    """Draw a speaker: half of them have low voices with long vocal tracts, half high ones."""
    low = rng.random() < 0.5
    return VoiceTraits(
        pitch=float(rng.uniform(0.7, 0.82) if low else rng.uniform(0.88, 1.12)),
        formants=float(rng.uniform(0.88, 0.95) if low else rng.uniform(0.96, 1.06)),
        rate=float(rng.normal(1.0, 0.04)),
        level_db=float(rng.normal(0.0, 2.0)),
        tilt_db=float(rng.normal(0.0, 0.8)),
    )


def draw_expression(sentiment: float, rng: np.random.Generator) -> VoiceExpression:
    """The prosody of a sentiment in [-3, 3]: a pleased voice is higher, livelier, faster, louder and brighter than a displeased one.

    Every cue is linear in the sentiment plus independent noise, so that no single one determines it (the directions are those of happy
    versus sad speech: Juslin and Laukka 2003, table 11).
    """
    return VoiceExpression(
        pitch=float(0.5 * sentiment + rng.normal(0.0, 0.6)),
        movement=float(max(0.2, 1.3 + 0.3 * sentiment + rng.normal(0.0, 0.25))),
        slope=float(0.7 * sentiment + rng.normal(0.0, 0.7)),
        rate=float(np.exp(0.03 * sentiment + rng.normal(0.0, 0.03))),
        level_db=float(0.9 * sentiment + rng.normal(0.0, 2.2)),
        tilt_db=float(0.45 * sentiment + rng.normal(0.0, 0.9)),
        dynamics_db=float(max(0.3, 2.0 + 0.35 * sentiment + rng.normal(0.0, 0.6))),
    )


@cache
def _synthesizer() -> Any:
    from hibari import Hibari

    return Hibari(threads=1)


def speak(text: str, traits: VoiceTraits, expression: VoiceExpression, seed: int) -> np.ndarray:
    """Speak a sentence.

    Returns:
        Mono sound [samples], float32 in (-1, 1), at `SAMPLE_RATE` (24 kHz), about 3 to 4 seconds with a little silence around the words.
    """
    rng = np.random.default_rng(seed)
    pitch = traits.pitch * 2.0 ** (expression.pitch / 12.0)
    plain = _read_aloud(text, traits.rate * expression.rate, pitch, seed)
    moved, local_pitch = bend_pitch(plain, pitch, expression, rng)
    shaped = shape_spectrum(moved, traits.formants / local_pitch, traits.tilt_db + expression.tilt_db)
    swing = _slow_noise(len(shaped), rng) * expression.dynamics_db
    level = traits.level_db + expression.level_db + swing
    loudness = float(np.sqrt(np.mean(shaped**2))) or 1.0
    sound = shaped * (LEVEL_RMS / loudness) * 10.0 ** (level / 20.0)
    lead = int(LEAD_SECONDS * SAMPLE_RATE)
    tail = max(int(TAIL_SECONDS * SAMPLE_RATE), int((SHORTEST_SPEECH + TAIL_SECONDS) * SAMPLE_RATE) - len(sound))
    sound = np.pad(sound, (lead, tail)) + rng.normal(0.0, 4e-4, lead + len(sound) + tail)  # a quiet room, not digital silence
    return np.tanh(sound).astype(np.float32)  # soft limiter: linear at speech levels, no clipping at peaks


def _read_aloud(text: str, rate: float, resampling: float, seed: int) -> np.ndarray:
    """The plain synthetic voice, at the speed that makes the clip 3 to 4 s long after resampling by a factor.

    Long sentences are spoken faster than short ones (by the square root of their length).
    """
    synthesizer = _synthesizer()
    own_seconds = SECONDS_PER_PHONEME * sum(len(phonemes) for phonemes in synthesizer.phonemize(text))
    seconds = float(np.clip(2.95 * np.sqrt(own_seconds / 3.3) / rate, SHORTEST_SPEECH, LONGEST_SPEECH))
    speed = float(np.clip(own_seconds / (seconds - 0.2) / resampling, 0.5, 2.0))
    sound = synthesizer(text, speed=speed, seed=seed)
    longest = LONGEST_SPEECH * resampling * SAMPLE_RATE
    if len(sound) > longest:  # the estimate was too short: synthesise again, faster
        sound = synthesizer(text, speed=min(2.0, 1.02 * speed * len(sound) / longest), seed=seed)
    return np.asarray(sound, np.float32)


def bend_pitch(sound: np.ndarray, factor: float, expression: VoiceExpression, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Resample at a speed that varies in time: `factor` times a slow movement and a slope.

    Returns:
        The sound [about samples / factor] and the mean factor that was applied (formants are shifted with it).
    """
    from scipy.ndimage import map_coordinates

    length = int(len(sound) / factor)
    contour = expression.movement * _slow_noise(length, rng) + expression.slope * np.linspace(-0.5, 0.5, length)
    speed = factor * 2.0 ** (contour / 12.0)
    places = np.cumsum(speed)
    places = places[: int(np.searchsorted(places, len(sound) - 1))]
    bent = map_coordinates(sound, places[None], order=3, mode="nearest", prefilter=True)
    return bent.astype(np.float32), factor


def shape_spectrum(sound: np.ndarray, formant_factor: float, tilt_db: float) -> np.ndarray:
    """Shift the formants by a factor without shifting the pitch, and tilt the spectrum.

    The spectral envelope of each frame (its first cepstral coefficients) is stretched along the frequency axis.
    """
    import librosa

    spectrum = librosa.stft(sound, n_fft=FFT, hop_length=HOP)
    log_magnitude = np.log(np.abs(spectrum) + 1e-5)
    cepstrum = np.fft.irfft(log_magnitude, axis=0)
    cepstrum[LIFTER:-LIFTER] = 0.0
    envelope = np.fft.rfft(cepstrum, axis=0).real
    bins = np.arange(len(envelope))
    source = np.minimum(bins / formant_factor, bins[-1])
    low = np.floor(source).astype(int)
    high = np.minimum(low + 1, bins[-1])
    share = (source - low)[:, None]
    stretched = envelope[low] * (1.0 - share) + envelope[high] * share
    octaves = np.log2(np.maximum(bins * SAMPLE_RATE / FFT, 125.0) / 500.0)
    gain = np.clip(stretched - envelope, -3.0, 3.0) + np.log(10.0) / 20.0 * tilt_db * octaves[:, None]
    return librosa.istft(spectrum * np.exp(gain), hop_length=HOP, length=len(sound)).astype(np.float32)


def _slow_noise(length: int, rng: np.random.Generator, per_second: float = 2.5) -> np.ndarray:
    """Smooth noise of mean 0 and standard deviation about 1, [length], moving about `per_second` times a second."""
    from scipy.interpolate import CubicSpline

    knots = max(4, int(length / SAMPLE_RATE * per_second) + 2)
    values = rng.normal(0.0, 1.0, knots)
    values = (values - values.mean()) / max(float(values.std()), 1e-6)
    return np.asarray(CubicSpline(np.arange(knots), values)(np.linspace(0.0, knots - 1.0, length)))
