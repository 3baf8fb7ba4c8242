"""SKESL's 33 audio columns: zero-crossing rate, 20 MFCC and 12 chroma values, as librosa computes them."""

import warnings
from importlib import metadata

import numpy as np

from preprocessing.schema import FeatureInfo

SAMPLE_RATE = 22_050
HOP = 512  # samples
MFCC_COUNT = 20
CHROMA_COUNT = 12
SHORTEST = 2_048  # samples: one analysis frame
PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def librosa33(sound: np.ndarray) -> np.ndarray:
    """The 33 columns of a clip, [frames, 33] float32 at 22,050 / 512 = 43.07 frames a second.

    The recipe of SKESL's authors: `zero_crossing_rate` (they name it f0), `mfcc(n_mfcc=20, htk=True)`, `chroma_cqt`, each with
    librosa's own defaults and a hop of 512 samples. The columns equal those functions' results.

    Args:
        sound: [samples] float32 at 22,050 Hz, at least 2,048 samples.

    Raises:
        ValueError: the sound is too short.
    """
    if len(sound) < SHORTEST:
        raise ValueError(f"{len(sound)} samples are fewer than one analysis frame of {SHORTEST}")
    import librosa

    with warnings.catch_warnings():
        # the filters of the lowest octaves are longer than a clip of a second; librosa pads it with zeros and says so each time
        warnings.filterwarnings("ignore", message="n_fft=.* is too large")
        # an all-silent clip has no pitch to tune to
        warnings.filterwarnings("ignore", message="Trying to estimate tuning from empty frequency set")
        crossings = librosa.feature.zero_crossing_rate(sound, hop_length=HOP)
        cepstrum = librosa.feature.mfcc(y=sound, sr=SAMPLE_RATE, n_mfcc=MFCC_COUNT, hop_length=HOP, htk=True)
        chroma = librosa.feature.chroma_cqt(y=sound, sr=SAMPLE_RATE, hop_length=HOP, n_chroma=CHROMA_COUNT)
    frames = min(crossings.shape[1], cepstrum.shape[1], chroma.shape[1])
    return np.concatenate([crossings[:, :frames], cepstrum[:, :frames], chroma[:, :frames]]).T.astype(np.float32)


def warm_up() -> None:
    """Have librosa load (once after its installation: compile) its numba functions now, so that no clip's time holds it."""
    noise = np.random.default_rng(0).standard_normal(SAMPLE_RATE // 2)
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
