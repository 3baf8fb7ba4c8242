"""The aligned face crop that image encoders see: eyes and mouth always in the same places."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

# Where the middles of the person's left eye, right eye and mouth come to lie, (x, y) as shares of the crop; the forehead and the chin of a
# frontal face are inside with a margin of about a tenth. The distances have the proportions of the usual five-point template of face
# recognition (ArcFace, Deng et al. 2019).
PLACES = np.array([(0.65, 0.38), (0.35, 0.38), (0.5, 0.727)])
_LANDMARKS = ((263, 362), (33, 133), (61, 291))  # mesh points whose mean is each of these
CROP = "similarity transform, eyes at (0.35, 0.38) and (0.65, 0.38), mouth at (0.5, 0.727)"
"""How `dataset.json` describes the crop."""


@dataclass(frozen=True)
class ImageInput:
    """What an image network takes: height and width in pixels; pixels times `scale`, less `mean`, over `std` (RGB)."""

    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: float = 1 / 255

    def describe(self) -> dict[str, Any]:
        """The entries of `dataset.json`."""
        return {"height": self.height, "width": self.width, "mean": list(self.mean), "std": list(self.std), "scale": self.scale}

    def pixels(self, crops: list[np.ndarray]) -> np.ndarray:
        """Crops (RGB [height, width, 3] uint8) as the network's input [N, 3, height, width] float32."""
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        values = (np.stack(crops).astype(np.float32) * np.float32(self.scale) - mean) / std
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def crop_matrix(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """The similarity transform [2, 3] from a picture to its crop that brings eyes and mouth to their places (least squares).

    Args:
        points: [478, 3], the mesh in pixels of the picture.
        height: of the crop, pixels.
        width: of the crop, pixels; the face fills the middle square if it is not `height`.
    """
    side = min(height, width)
    target = PLACES * side + ((width - side) / 2, (height - side) / 2)
    source = np.stack([points[list(each), :2].mean(axis=0) for each in _LANDMARKS])
    there, here = target @ (1, 1j), source @ (1, 1j)  # as complex numbers: rotation and scaling are one factor
    moved = here - here.mean()
    factor = np.vdot(moved, there - there.mean()) / max(np.vdot(moved, moved).real, 1e-12)
    shift = there.mean() - factor * here.mean()
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def crop(frame: np.ndarray, points: np.ndarray, height: int, width: int) -> np.ndarray:
    """The aligned face [height, width, 3] uint8 of a picture (RGB uint8); what lies outside the picture repeats its edge."""
    matrix = crop_matrix(points, height, width)
    shrink = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    finer = int(np.clip(np.floor(1 / max(shrink, 1e-6)), 1, 8))  # large faces: sampled finer, then averaged, against aliasing
    size = (width * finer, height * finer)
    matrix = matrix * finer + np.array([0, 0, (finer - 1) / 2])  # the middle of each group of pixels
    found = cv2.warpAffine(np.ascontiguousarray(frame), matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return found if finer == 1 else np.asarray(cv2.resize(found, (width, height), interpolation=cv2.INTER_AREA))
