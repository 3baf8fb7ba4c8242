"""Audio features: SKESL's 33 columns (zero-crossing rate, 20 MFCC, 12 chroma values, as librosa computes them), and eGeMAPS."""

from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.fft
import scipy.signal

from preprocessing.chroma import chroma_cqt
from preprocessing.features import AudioExtractor
from preprocessing.schema import FeatureInfo
from skesl_mug.errors import UserError
from skesl_mug.interruption import ctrl_c_deferred

if TYPE_CHECKING:
    from preprocessing.pipeline import PipelineSettings

SAMPLE_RATE = 22_050
HOP = 512  # samples
MFCC_COUNT = 20
WINDOW = 2_048  # samples
SILENCE = 1e-10  # smaller samples count as zero, which is positive
PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
EGEMAPS_SAMPLE_RATE = 16_000
EGEMAPS_RATE_HZ = 100.0


def open_librosa33(settings: "PipelineSettings | None" = None) -> AudioExtractor:
    """The extractor `librosa33`."""
    return AudioExtractor(SAMPLE_RATE, librosa33, librosa33_info(), warm_up)


def open_egemaps(settings: "PipelineSettings | None" = None) -> AudioExtractor:
    """The extractor `egemaps`.

    Raises:
        UserError: openSMILE is not installed.
    """
    return AudioExtractor(EGEMAPS_SAMPLE_RATE, egemaps, egemaps_info())


def librosa33(sound: np.ndarray) -> np.ndarray:
    """The 33 columns of a clip, [frames, 33] float32 at 22,050 / 512 = 43.07 frames per second.

    The recipe of SKESL's authors: `zero_crossing_rate` (which they call f0), `mfcc(n_mfcc=20, htk=True)`, `chroma_cqt`, each with
    librosa's defaults and a hop of 512 samples. The columns equal those functions' results; the spectrum is computed only once, and
    filters are kept between clips.

    Args:
        sound: [samples] float32 at 22,050 Hz, at least 2,048 samples.

    Raises:
        ValueError: the sound is too short.
    """
    if len(sound) < WINDOW:
        raise ValueError(f"{len(sound)} samples are fewer than one analysis frame of {WINDOW}")
    magnitude = spectrum(sound)  # shared by the MFCC and the tuning of the chroma
    parts = [crossing_rate(sound), cepstrum(magnitude), chroma_cqt(sound, magnitude, SAMPLE_RATE, HOP)]
    frames = min(part.shape[1] for part in parts)
    return np.concatenate([part[:, :frames] for part in parts]).T.astype(np.float32)


def spectrum(sound: np.ndarray) -> np.ndarray:
    """Magnitudes of the short-time spectrum, [1025, frames] float32: Hann windows of 2,048 samples centred on each hop."""
    padded = np.pad(sound.astype(np.float32, copy=False), WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    transformed = scipy.fft.rfft(frames * _window(), axis=1)  # in double precision, like librosa
    return np.asarray(np.abs(transformed.astype(np.complex64)).T)


def crossing_rate(sound: np.ndarray) -> np.ndarray:
    """`librosa.feature.zero_crossing_rate`, [1, frames]: sign changes within each frame of 2,048 samples over its length."""
    padded = np.pad(np.where(np.abs(sound) <= SILENCE, 0.0, sound), WINDOW // 2, mode="edge")
    crossed = np.concatenate([[0], np.cumsum(np.diff(np.signbit(padded)))])  # up to and including each sample
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
    """Load (once after installation: compile) librosa's numba functions now, so that no clip's time includes it."""
    noise = np.random.default_rng(0).standard_normal(SAMPLE_RATE // 2)
    with ctrl_c_deferred():  # llvmlite, which compiles, would print a stack trace and continue
        librosa33(noise.astype(np.float32))


def librosa33_info() -> FeatureInfo:
    """The entry of `dataset.json` for `librosa33`."""
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


# openSMILE's licence (audEERING) permits private, educational and research use; commercial use needs another one.
LICENCE = "openSMILE: audEERING research licence, no commercial use"
_UNITS = (
    ("Loudness", "sone (auditory model)"),
    ("alphaRatio", "dB, energy in 50-1000 Hz over 1-5 kHz"),
    ("hammarbergIndex", "dB, strongest peak in 0-2 kHz over that in 2-5 kHz"),
    ("slope", "dB per Hz, spectral slope"),
    ("spectralFlux", "change of the spectrum between frames"),
    ("mfcc", "cepstral coefficient"),
    ("F0semitone", "semitones above 27.5 Hz, 0 where unvoiced"),
    ("jitter", "share of the period"),
    ("shimmer", "dB"),
    ("HNR", "dB"),
    ("logRelF0", "dB, ratio of harmonics"),
    ("frequency", "Hz"),
    ("bandwidth", "Hz"),
    ("amplitude", "dB relative to F0"),
)


@lru_cache(maxsize=1)
def _smile() -> Any:
    if find_spec("opensmile") is None:
        raise UserError(
            "--audio egemaps: openSMILE is not installed; `pip install opensmile` (extra `egemaps`; its licence permits research use only)"
        )
    import opensmile

    return opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02, feature_level=opensmile.FeatureLevel.LowLevelDescriptors, num_workers=1
    )


def egemaps(sound: np.ndarray) -> np.ndarray:
    """The 25 low-level descriptors of eGeMAPS v02 (Eyben et al. 2016) by openSMILE, [frames, 25] float32 at 100 frames per second.

    Args:
        sound: [samples] float32 at 16,000 Hz.

    Raises:
        UserError: openSMILE is not installed.
    """
    return np.asarray(np.nan_to_num(_smile().process_signal(sound, EGEMAPS_SAMPLE_RATE).to_numpy(np.float32)))


def egemaps_info() -> FeatureInfo:
    """The entry of `dataset.json` for `egemaps`."""
    columns = [
        {"name": name, "unit": next((unit for key, unit in _UNITS if key in name), "openSMILE's own")} for name in _smile().feature_names
    ]
    settings = {"sample_rate": EGEMAPS_SAMPLE_RATE, "feature_set": "eGeMAPSv02 low-level descriptors", "licence": LICENCE}
    return FeatureInfo("egemaps", EGEMAPS_RATE_HZ, columns, {"opensmile": metadata.version("opensmile")}, settings)
