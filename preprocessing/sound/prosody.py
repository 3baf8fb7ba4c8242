"""Prosody: pitch, loudness, spectral balance, flux and harmonicity, relative to the clip and to the speaker.

Each of pitch, loudness and spectral slope has three kinds of column: its movement relative to the clip's own level, that level, and the
level relative to the speaker's other clips, which only the finished dataset can tell (speakers.py).
"""

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import scipy.fft
import scipy.signal

from preprocessing.features import AudioExtractor
from preprocessing.schema import FeatureInfo
from preprocessing.sound.pitch import HIGHEST, HOP, LOWEST, SAMPLE_RATE, frame_count, track_pitch
from preprocessing.sound.rates import to_rate

if TYPE_CHECKING:
    from preprocessing.pipeline import PipelineSettings

NAME = "prosody"
RATE_HZ = 20.0
FRAMES_HZ = SAMPLE_RATE / HOP
WINDOW = 400  # samples, 25 ms
FFT = 512
QUIETEST = -80.0  # dB of full scale: the level of silence
RANGE = 50.0  # dB below the clip's loudest frames: what is quieter is background
REFERENCE_HZ = 55.0  # of absolute pitch in semitones
RISE_SECONDS = 0.1  # over which changes are measured

COLUMNS = {
    "voiced": "probability that the frame is voiced, 0 to 1",
    "pitch": "semitones relative to the clip's median, interpolated where unvoiced",
    "pitch_change": "semitones per second, 0 where unvoiced",
    "pitch_level": "semitones above 55 Hz, the clip's median; 0 if nothing is voiced",
    "pitch_to_speaker": "semitones, pitch_level relative to the median of the speaker's clips; 0 for a speaker with one clip",
    "loudness": "dB (A-weighted) relative to the clip's mean over speech",
    "loudness_change": "dB per second",
    "loudness_level": "dB (A-weighted) of full scale, the clip's mean over speech",
    "loudness_to_speaker": "dB, loudness_level relative to the median of the speaker's clips; 0 for a speaker with one clip",
    "slope": "dB per octave from 300 Hz to 5 kHz, relative to the clip's mean over speech",
    "slope_level": "dB per octave, the clip's mean over speech",
    "slope_to_speaker": "dB per octave, slope_level relative to the median of the speaker's clips; 0 for a speaker with one clip",
    "flux": "change of the normalised spectrum between frames, 0 to 1",
    "harmonicity": "dB, harmonics over noise in voiced frames, 0 where unvoiced",
    "alpha_ratio": "dB, energy in 50-1000 Hz over that in 1-5 kHz",
}
LEVELS = ("pitch", "loudness", "slope")
"""What has a level per clip and one relative to the speaker."""


def open_prosody(settings: "PipelineSettings | None" = None) -> AudioExtractor:
    """The extractor `prosody`."""
    return AudioExtractor(SAMPLE_RATE, prosody, prosody_info())


def prosody_info() -> FeatureInfo:
    """The entry of `dataset.json` for `prosody`."""
    columns = [{"name": name, "unit": unit} for name, unit in COLUMNS.items()]
    return FeatureInfo(NAME, RATE_HZ, columns, {}, {"sample_rate": SAMPLE_RATE, "pitch_hz": [LOWEST, HIGHEST], "version": 1})


def prosody(sound: np.ndarray) -> np.ndarray:
    """The columns of a clip, [frames, 15] float32 at 20 frames per second (means over 10 ms frames).

    Args:
        sound: [samples] float32 at 16,000 Hz; any length, silence included (all levels 0 but loudness, -80 dB).
    """
    track = track_pitch(sound)
    power = _power(sound)
    voiced, heard = track.voiced, _is_heard(power)
    found = {"voiced": _voicing(track.strength, voiced)}
    contour, level = _contour(track.hertz)
    found |= {"pitch": contour, "pitch_change": np.where(voiced, _change(contour), 0.0), "pitch_level": np.full(len(voiced), level)}
    for name, values in (("loudness", _decibels(power @ _a_weights())), ("slope", _slope(power))):
        level = float(values[heard].mean()) if heard.any() else (QUIETEST if name == "loudness" else 0.0)
        found |= {
            name: np.where(heard, values - level, -RANGE if name == "loudness" else 0.0),
            f"{name}_level": np.full(len(values), level),
        }
    found["loudness"] = np.maximum(found["loudness"], -RANGE)
    found["loudness_change"] = _change(found["loudness"])
    found["flux"] = np.where(heard, _flux(power), 0.0)
    clear = np.clip(track.strength, 1e-3, 0.9999)
    found["harmonicity"] = np.where(voiced, 10.0 * np.log10(clear / (1.0 - clear)), 0.0)
    low, high = power[:, _band(50, 1_000)].sum(axis=1), power[:, _band(1_000, 5_000)].sum(axis=1)
    found["alpha_ratio"] = np.where(heard, np.clip(_decibels(low) - _decibels(high), -40.0, 40.0), 0.0)
    none = np.zeros(len(voiced))
    columns = np.stack([found.get(name, none) for name in COLUMNS], axis=1).astype(np.float32)
    return to_rate(columns, FRAMES_HZ, RATE_HZ, len(sound) / SAMPLE_RATE)


def _voicing(strength: np.ndarray, voiced: np.ndarray) -> np.ndarray:
    """Probability of voicing: a logistic function of the periodicity, at most one half where the best path is unvoiced."""
    probability = 1.0 / (1.0 + np.exp(-(strength - 0.5) / 0.08))
    return np.asarray(np.where(voiced, np.maximum(probability, 0.5), np.minimum(probability, 0.5)))


def _contour(hertz: np.ndarray) -> tuple[np.ndarray, float]:
    """Pitch relative to the median in semitones, interpolated where unvoiced, and the median above 55 Hz; zeros if nothing is voiced."""
    voiced = np.nonzero(hertz > 0)[0]
    if not len(voiced):
        return np.zeros(len(hertz)), 0.0
    semitones = 12.0 * np.log2(hertz[voiced] / REFERENCE_HZ)
    level = float(np.median(semitones))
    return np.interp(np.arange(len(hertz)), voiced, semitones - level), level


def _change(values: np.ndarray) -> np.ndarray:
    """Change per second over `RISE_SECONDS`."""
    reach = max(1, round(RISE_SECONDS * FRAMES_HZ / 2))
    padded = np.pad(values, reach, mode="edge")
    return np.asarray((padded[2 * reach :] - padded[: -2 * reach]) * FRAMES_HZ / (2 * reach))


def _power(sound: np.ndarray) -> np.ndarray:
    """Power spectrum of frames of 25 ms around each 10 ms, [T, 257]; a full-scale sine has power 1/2 in all bins together."""
    padded = np.pad(np.asarray(sound, np.float32), (FFT // 2, FFT))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT)[::HOP][: frame_count(sound)]
    window = np.pad(scipy.signal.get_window("hann", WINDOW), (FFT - WINDOW) // 2).astype(np.float32)
    spectrum = scipy.fft.rfft(frames * window, axis=1)
    return np.asarray((spectrum.real**2 + spectrum.imag**2) * (2.0 / (FFT * float((window**2).sum()))))


def _is_heard(power: np.ndarray) -> np.ndarray:
    """Frames that are neither silent nor `RANGE` dB quieter than the clip's loud ones, [T] bool."""
    level = _decibels(power.sum(axis=1))
    return np.asarray((level > QUIETEST + 1.0) & (level > np.quantile(level, 0.95) - RANGE))


def _decibels(power: np.ndarray) -> np.ndarray:
    return np.asarray(10.0 * np.log10(np.maximum(power, 10.0 ** (QUIETEST / 10.0))))


def _frequencies() -> np.ndarray:
    return np.asarray(np.fft.rfftfreq(FFT, 1.0 / SAMPLE_RATE))


def _band(low: float, high: float) -> slice:
    bins = np.searchsorted(_frequencies(), (low, high))
    return slice(int(bins[0]), int(bins[1]))


def _a_weights() -> np.ndarray:
    """A-weighting (IEC 61672-1) as factors on the power of each bin, 1 at 1 kHz."""
    squares = np.maximum(_frequencies(), 1.0) ** 2
    gain = 12_194.0**2 * squares**2
    gain /= (squares + 20.6**2) * np.sqrt((squares + 107.7**2) * (squares + 737.9**2)) * (squares + 12_194.0**2)
    return np.asarray(((gain * 1.2589) ** 2).astype(np.float32))


def _slope(power: np.ndarray) -> np.ndarray:
    """Least-squares slope of the level over log frequency, in bands a third of an octave wide: dB per octave, [T]."""
    edges = 300.0 * 2.0 ** (np.arange(14) / 3.0)
    edges = edges[edges <= 5_100.0]
    levels = np.stack([_decibels(power[:, _band(low, high)].mean(axis=1)) for low, high in pairwise(edges)], axis=1)
    octaves = np.arange(levels.shape[1]) / 3.0
    octaves -= octaves.mean()
    return np.asarray(levels @ (octaves / (octaves**2).sum()))


def _flux(power: np.ndarray) -> np.ndarray:
    """Distance between the spectra of neighbouring frames, each scaled to length 1, over its maximum: 0 to 1."""
    magnitude = np.sqrt(power)
    magnitude /= np.maximum(np.linalg.norm(magnitude, axis=1, keepdims=True), 1e-9)
    change = np.linalg.norm(np.diff(magnitude, axis=0, prepend=magnitude[:1]), axis=1)
    return np.asarray(change / np.sqrt(2.0))
