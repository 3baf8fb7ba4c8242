"""Measures of the face named after the action units of FACS (Ekman and Friesen 1978) that they rise with.

They are geometry, not FACS coding: sums of the columns of `geometry.py`, without a resting face taken off, each growing as its action
unit grows. The formula of each is its unit in `dataset.json`; a name without a side means the mean of left and right.
"""

import numpy as np

from preprocessing.vision import geometry

_NAMES = [column["name"] for column in geometry.COLUMNS]

# name -> weights of geometry columns; a column of both sides is named without its side
FORMULAS: dict[str, dict[str, float]] = {
    "AU01_inner_brow_raiser": {"brow_inner_height": 1},
    "AU02_outer_brow_raiser": {"brow_outer_height": 1},
    "AU04_brow_lowerer": {"brow_inner_height": -0.5, "brow_middle_height": -0.5, "brow_distance": -1},
    "AU05_upper_lid_raiser": {"eye_openness": 1, "lower_lid_height": 1},
    "AU06_cheek_raiser": {"cheek_height": 1, "lower_lid_height": 1},
    "AU07_lid_tightener": {"lower_lid_height": 1, "eye_openness": -1},
    "AU10_upper_lip_raiser": {"nose_to_lip": -1},
    "AU12_lip_corner_puller": {"mouth_corner_to_eye": -1},
    "AU15_lip_corner_depressor": {"mouth_corner_height": -1},
    "AU17_chin_raiser": {"nose_to_lip": 1, "mouth_height": 1, "jaw_drop": -1},
    "AU18_lip_puckerer": {"upper_lip_thickness": 1, "lower_lip_thickness": 1, "mouth_width": -1},
    "AU20_lip_stretcher": {"mouth_width": 1, "mouth_corner_height": -1},
    "AU24_lip_pressor": {"upper_lip_thickness": -1, "lower_lip_thickness": -1},
    "AU25_lips_part": {"mouth_opening": 1},
    "AU26_jaw_drop": {"jaw_drop": 1},
    "AU43_eyes_closed": {"eye_openness": -1},
}


def _weights() -> np.ndarray:
    matrix = np.zeros((len(FORMULAS), len(_NAMES)), np.float32)
    for row, formula in enumerate(FORMULAS.values()):
        for name, weight in formula.items():
            places = [_NAMES.index(name)] if name in _NAMES else [_NAMES.index(f"{name}_{side}") for side in ("left", "right")]
            matrix[row, places] += weight / len(places)
    return matrix


WEIGHTS = _weights()
COLUMNS = [
    {"name": name, "unit": "unitless: " + " ".join(f"{weight:+g} {column}" for column, weight in formula.items())}
    for name, formula in FORMULAS.items()
]


def action_units(values: np.ndarray) -> np.ndarray:
    """The measures [T, 16] of geometry columns [T, 38]."""
    return np.asarray(values @ WEIGHTS.T)
