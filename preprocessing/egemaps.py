"""The 25 low-level descriptors of eGeMAPS v02 (Eyben et al. 2016) by openSMILE, an extra.

openSMILE's licence (audEERING) admits private, educational and research use; commercial use needs another one.
"""

from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import numpy as np

from preprocessing.schema import FeatureInfo
from skesl_mug.errors import UserError

SAMPLE_RATE = 16_000
RATE_HZ = 100.0
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
            "--audio egemaps: needs openSMILE; `pip install opensmile` (extra `egemaps`; its licence admits research use alone)"
        )
    import opensmile

    return opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02, feature_level=opensmile.FeatureLevel.LowLevelDescriptors, num_workers=1
    )


def egemaps(sound: np.ndarray) -> np.ndarray:
    """The 25 descriptors of a clip, [frames, 25] float32 at 100 frames a second.

    Args:
        sound: [samples] float32 at 16,000 Hz.

    Raises:
        UserError: openSMILE is not installed.
    """
    return np.asarray(np.nan_to_num(_smile().process_signal(sound, SAMPLE_RATE).to_numpy(np.float32)))


def egemaps_info() -> FeatureInfo:
    """How the columns are made: names, units, rate, versions, licence."""
    columns = [{"name": name, "unit": _unit(name)} for name in _smile().feature_names]
    settings = {"sample_rate": SAMPLE_RATE, "feature_set": "eGeMAPSv02 low-level descriptors", "licence": LICENCE}
    return FeatureInfo("egemaps", RATE_HZ, columns, {"opensmile": metadata.version("opensmile")}, settings)


def _unit(name: str) -> str:
    return next((unit for key, unit in _UNITS if key in name), "openSMILE's own")
