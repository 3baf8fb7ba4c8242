"""SKESL's 33 audio columns: zero-crossing rate, 20 MFCC and 12 chroma values, as librosa computes them; and the choice of extractors."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata

import numpy as np
import scipy.fft
import scipy.signal

from preprocessing.chroma import chroma_cqt
from preprocessing.schema import FeatureInfo
from skesl_mug.interruption import ctrl_c_deferred

SAMPLE_RATE = 22_050
HOP = 512  # samples
MFCC_COUNT = 20
WINDOW = 2_048  # samples
SHORTEST = WINDOW
SILENCE = 1e-10  # samples this small count as zero, which is positive
PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


@dataclass(frozen=True)
class SoundExtractor:
    """An extractor of audio features: `extract` takes [samples] float32 at `sample_rate` Hz and gives [frames, columns] float32."""

    sample_rate: int
    extract: Callable[[np.ndarray], np.ndarray]
    info: Callable[[], FeatureInfo]
    warm_up: Callable[[], None]


def open_extractor(name: str) -> SoundExtractor | None:
    """The extractor of a name: `librosa33`, `egemaps`, or None for `none`.

    Raises:
        UserError: its package is not installed.
    """
    if name == "none":
        return None
    if name == "egemaps":
        from preprocessing import egemaps

        egemaps.egemaps_info()  # a missing package is told now
        return SoundExtractor(egemaps.SAMPLE_RATE, egemaps.egemaps, egemaps.egemaps_info, lambda: None)
    return SoundExtractor(SAMPLE_RATE, librosa33, librosa33_info, warm_up)


def librosa33(sound: np.ndarray) -> np.ndarray:
    """The 33 columns of a clip, [frames, 33] float32 at 22,050 / 512 = 43.07 frames a second.

    The recipe of SKESL's authors: `zero_crossing_rate` (they name it f0), `mfcc(n_mfcc=20, htk=True)`, `chroma_cqt`, each with
    librosa's own defaults and a hop of 512 samples. The columns equal those functions' results; the spectrum is computed once, and
    filters are kept between clips.

    Args:
        sound: [samples] float32 at 22,050 Hz, at least 2,048 samples.

    Raises:
        ValueError: the sound is too short.
    """
    if len(sound) < SHORTEST:
        raise ValueError(f"{len(sound)} samples are fewer than one analysis frame of {SHORTEST}")
    magnitude = spectrum(sound)  # shared by the MFCC and by the tuning of the chroma
    parts = [crossing_rate(sound), cepstrum(magnitude), chroma_cqt(sound, magnitude, SAMPLE_RATE, HOP)]
    frames = min(part.shape[1] for part in parts)
    return np.concatenate([part[:, :frames] for part in parts]).T.astype(np.float32)


def spectrum(sound: np.ndarray) -> np.ndarray:
    """Magnitudes of the short-time spectrum, [1025, frames] float32: Hann windows of 2,048 samples centred on each hop."""
    padded = np.pad(sound.astype(np.float32, copy=False), WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    return np.asarray(
        np.abs(scipy.fft.rfft(frames * _window(), axis=1).astype(np.complex64)).T
    )  # librosa too transforms in double precision


def crossing_rate(sound: np.ndarray) -> np.ndarray:
    """`librosa.feature.zero_crossing_rate`, [1, frames]: sign changes within each frame of 2,048 samples over its length."""
    padded = np.pad(np.where(np.abs(sound) <= SILENCE, 0.0, sound), WINDOW // 2, mode="edge")
    crossed = np.concatenate([[0], np.cumsum(np.diff(np.signbit(padded)))])  # up to and with each sample
    starts = np.arange(0, len(padded) - WINDOW + 1, HOP)
    return np.asarray(((crossed[starts + WINDOW - 1] - crossed[starts]) / WINDOW)[None])


def cepstrum(magnitude: np.ndarray) -> np.ndarray:
    """`librosa.feature.mfcc(n_mfcc=20, htk=True)` of a magnitude spectrum, [20, frames]."""
    import librosa

    decibels = librosa.power_to_db(_mel_filters() @ magnitude**2)
    return np.asarray(scipy.fft.dct(decibels, axis=0, type=2, norm="ortho")[:MFCC_COUNT])


@lru_cache(maxsize=1)
def _window() -> np.ndarray:
    return np.asarray(scipy.signal.get_window("hann", WINDOW, fftbins=True))


@lru_cache(maxsize=1)
def _mel_filters() -> np.ndarray:
    import librosa

    return librosa.filters.mel(sr=SAMPLE_RATE, n_fft=WINDOW, htk=True)


def warm_up() -> None:
    """Have librosa load (once after its installation: compile) its numba functions now, so that no clip's time holds it."""
    noise = np.random.default_rng(0).standard_normal(SAMPLE_RATE // 2)
    with ctrl_c_deferred():  # llvmlite, which compiles, prints a trace of it and goes on
        librosa33(noise.astype(np.float32))


def librosa33_info() -> FeatureInfo:
    """How `librosa33` makes its columns: names, units, rate, versions."""
    columns = [{"name": "zero_crossing_rate", "unit": "crossings per sample"}]
    columns += [{"name": f"mfcc_{number}", "unit": "dB (cosine transform of the log-mel spectrum)"} for number in range(MFCC_COUNT)]
    columns += [{"name": f"chroma_{name}", "unit": "share of the strongest pitch class"} for name in PITCH_CLASSES]
    return FeatureInfo(
        extractor="librosa33",
        rate_hz=SAMPLE_RATE / HOP,
        columns=columns,
        versions={name: metadata.version(name) for name in ("librosa", "soxr")},
        settings={
            "sample_rate": SAMPLE_RATE,
            "hop_length": HOP,
            "n_fft": 2048,
            "mfcc": "htk=True",
            "chroma": "chroma_cqt with its defaults",
        },
    )
