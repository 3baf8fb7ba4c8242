"""What an extractor of face features gives for a clip."""

from dataclasses import dataclass

import numpy as np


@dataclass
class VisionTrack:
    """Features of the frames of a clip: `values` [T, D] float32, `times` [T] in seconds, `valid` [T] bool (was there a face).

    Rows without a face hold the linear interpolation between the frames around them (the nearest frame's values at either end), so
    that a track is never broken by zeros that pose as data; `valid` tells them apart.
    """

    values: np.ndarray
    times: np.ndarray
    valid: np.ndarray

    @property
    def face_rate(self) -> float:
        """Share of the frames with a face."""
        return float(self.valid.mean()) if len(self.valid) else 0.0


def fill_gaps(values: np.ndarray, times: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """`values` [T, D] with the rows that are not valid interpolated in time; at least one row has to be valid."""
    if valid.all():
        return values
    known = times[valid]
    return np.stack([np.interp(times, known, column[valid]) for column in values.T], axis=1).astype(values.dtype)
