"""Expression columns that depend little on whose face it is: `--vision expression` (docs/features.md).

Every mesh is first brought into the frame of one canonical head. An affine fit on points that no expression moves splits into the head's
rotation, its size, and the proportions of this person's skull (median over the clip), and all three are removed: what is left are the
coordinates that the canonical head would have. From these come measures that follow FACS action units (Ekman and Friesen 1978), each as
its level, its difference from the speaker's neutral face (median over the clip's frames, as in the person-specific normalisation of
Baltrusaitis et al. 2015), and its speed; and single landmarks. An expression held through the clip is only in the levels.

Lengths are in outer eye-corner distances of the canonical head, x to the person's left, y upwards.
"""

from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np

from preprocessing.schema import FeatureInfo
from preprocessing.vision.faces import FACES, SMALLEST_FACE, Face, tracker_of
from preprocessing.vision.geometry import HEAD_MODEL, RIGID, nearest_rotation
from preprocessing.vision.mesh import FaceExtractor

if TYPE_CHECKING:
    from preprocessing.pipeline import PipelineSettings

UNIT = "canonical eye-corner distances"
# Landmarks as (person's left, person's right), or one on the middle line.
_CORNERS, _BROWS_INNER, _BROWS_OUTER = (291, 61), (336, 107), (300, 70)
_EYES_OUTER, _EYES_INNER = (263, 33), (362, 133)
_UPPER_LIDS, _LOWER_LIDS = ((386, 385), (159, 158)), ((374, 380), (145, 153))
_CHEEKS, _NOSE_WINGS, _IRISES = (280, 50), (358, 129), (473, 468)
_NOSE_BASE, _UPPER_OUTER, _UPPER_INNER, _LOWER_INNER, _LOWER_OUTER, _CHIN = 2, 0, 13, 14, 17, 152

MEASURES: dict[str, str] = {
    "mouth_corner_lift": "height of the mouth's corners above the canonical nose base (AU12 up, AU15 down)",
    "mouth_corner_asymmetry": "left corner's height less the right one's",
    "lip_curvature": "height of the corners above the middle of the lips",
    "mouth_width": "between the corners (AU20 up, AU18 down)",
    "mouth_opening": "between the inner lip rims (AU25)",
    "lip_press": "minus the height of the red of both lips (AU24)",
    "upper_lip_raise": "height of the upper lip's rim above the canonical nose base (AU10)",
    "jaw_drop": "chin below the canonical nose base (AU26)",
    "nose_wrinkle": "height of the nose's wings less that of the inner brows (AU09 with AU04)",
    "cheek_raise": "height of the cheeks (AU06)",
    "brow_inner_height": "of the brows' inner ends (AU01 up, AU04 down)",
    "brow_outer_height": "of the brows' outer ends (AU02)",
    "brow_distance": "between the brows' inner ends (AU04 down)",
    "eye_opening": "gap between the lids (AU05 up, AU43 down)",
    "lower_lid_raise": "height of the lower lids above the line of the eye corners (AU07)",
    "gaze_sideways": "irises from the middle of the eyes, towards the person's left",
    "gaze_height": "irises above the line of the eye corners",
}
"""Measures of the aligned face; where there are two sides, their mean."""
LANDMARKS: dict[str, int] = {
    "mouth_corner_left": 291,
    "mouth_corner_right": 61,
    "upper_lip": 0,
    "lower_lip": 17,
    "upper_lip_left": 269,
    "upper_lip_right": 39,
    "lower_lip_left": 405,
    "lower_lip_right": 181,
    "chin": 152,
    "cheek_left": 280,
    "cheek_right": 50,
    "brow_inner_left": 336,
    "brow_inner_right": 107,
    "brow_outer_left": 300,
    "brow_outer_right": 70,
}
"""Points of the mesh whose aligned positions are given."""
POSE = ("head_yaw", "head_pitch", "head_roll")
_POSE_UNITS = ("to its own left", "upwards", "clockwise in the picture")
COLUMNS: list[dict[str, str]] = [
    *({"name": name, "unit": f"degrees, positive {unit}"} for name, unit in zip(POSE, _POSE_UNITS, strict=True)),
    *({"name": f"{name}_speed", "unit": "degrees per second"} for name in POSE),
    *({"name": name, "unit": f"{UNIT}; {meaning}"} for name, meaning in MEASURES.items()),
    *({"name": f"{name}_change", "unit": f"{UNIT}, from the neutral face"} for name in MEASURES),
    *({"name": f"{name}_speed", "unit": f"{UNIT} per second"} for name in MEASURES),
    *(
        {"name": f"{name}_{axis}", "unit": f"{UNIT}, {towards}"}
        for name in LANDMARKS
        for axis, towards in (("x", "towards the person's left"), ("y", "upwards from the eyes"))
    ),
]


def open_expression(settings: "PipelineSettings") -> "ExpressionExtractor":
    """The extractor `expression`."""
    return ExpressionExtractor(tracker_of(settings), expression_info(settings.vision_fps, settings.faces))


class ExpressionExtractor(FaceExtractor):
    """The columns of `COLUMNS`."""

    def values(self, face: Face, frames: list[np.ndarray]) -> np.ndarray:
        """See `FaceExtractor`. Faces smaller than `SMALLEST_FACE` count as not seen."""
        values = np.full((len(face.points), len(COLUMNS)), np.nan, np.float32)
        seen = face.eye_distance() >= SMALLEST_FACE
        if seen.any():
            values[seen] = express(face.points[seen], face.times[seen])
        return values


def expression_info(frame_rate: float, faces: str) -> FeatureInfo:
    """The entry of `dataset.json`."""
    return FeatureInfo(
        extractor="expression",
        rate_hz=frame_rate,
        columns=[dict(column) for column in COLUMNS],
        versions={name: metadata.version(name) for name in ("mediapipe", "opencv-contrib-python")},
        settings={
            "faces": FACES[faces],
            "frames_without_face": "interpolated in time, vision_valid false",
            "neutral_face": "median over the clip's frames",
            "smallest_face": f"{SMALLEST_FACE:g} pixels between the outer eye corners",
        },
    )


def align(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Meshes of one person in the canonical head's frame.

    With M the rigid points of the canonical head and Q those of a mesh, both centred, `M A = Q` is solved by least squares and
    A = S R split into a rotation R and the person's proportions and size S (polar decomposition). S, normalised in size, is the median
    over the frames, so that noise of one frame does not bend the face.

    Args:
        points: [T, 478, 3], x to the right, y downwards, z away from the camera, in pixels.

    Returns:
        the meshes [T, 478, 3] with y upwards, and the rotations [T, 3, 3] from the canonical head to the pictures.
    """
    centre = points[:, RIGID].mean(axis=1, keepdims=True)
    middle = HEAD_MODEL.mean(axis=0)
    affine = np.linalg.pinv(HEAD_MODEL - middle) @ (points[:, RIGID] - centre)  # [T, 3, 3]
    rotation = nearest_rotation(affine)
    stretch = affine @ np.swapaxes(rotation, 1, 2)
    size = np.cbrt(np.maximum(np.abs(np.linalg.det(affine)), 1e-12))[:, None, None]
    person = np.median(stretch / size, axis=0)
    rotation = nearest_rotation(np.linalg.solve(person, affine))
    aligned = (points - centre) @ np.swapaxes(rotation, 1, 2) @ np.linalg.inv(person) / size + middle
    aligned[..., 1] *= -1.0
    return aligned, rotation


def pose_of(rotation: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll in degrees [T, 3] of rotations [T, 3, 3] (row vectors: head @ rotation = picture)."""
    forward = -rotation[:, 2]  # the head looks along its negative z
    yaw = np.arctan2(forward[:, 0], -forward[:, 2])
    pitch = np.arcsin(np.clip(-forward[:, 1], -1.0, 1.0))
    roll = np.arctan2(rotation[:, 0, 1], rotation[:, 0, 0])
    return np.asarray(np.degrees(np.stack([yaw, pitch, roll], axis=1)))


def measures(face: np.ndarray) -> np.ndarray:
    """The columns of `MEASURES` [T, 17] of aligned meshes [T, 478, 3]."""
    x, y = face[..., 0], face[..., 1]
    base = -HEAD_MODEL[RIGID.index(_NOSE_BASE), 1]

    def height(places: tuple[int, ...]) -> np.ndarray:
        return np.asarray(y[:, places].mean(axis=1))

    lips = (y[:, _UPPER_INNER] + y[:, _LOWER_INNER]) / 2
    eyes = height(_EYES_OUTER + _EYES_INNER)
    lower_lids = height(_LOWER_LIDS[0] + _LOWER_LIDS[1])
    brow_inner = height(_BROWS_INNER)
    return np.stack(
        [
            height(_CORNERS) - base,
            y[:, _CORNERS[0]] - y[:, _CORNERS[1]],
            height(_CORNERS) - lips,
            np.hypot(x[:, _CORNERS[0]] - x[:, _CORNERS[1]], y[:, _CORNERS[0]] - y[:, _CORNERS[1]]),
            y[:, _UPPER_INNER] - y[:, _LOWER_INNER],
            (y[:, _UPPER_INNER] - y[:, _UPPER_OUTER]) + (y[:, _LOWER_OUTER] - y[:, _LOWER_INNER]),
            y[:, _UPPER_OUTER] - base,
            base - y[:, _CHIN],
            height(_NOSE_WINGS) - brow_inner,
            height(_CHEEKS),
            brow_inner,
            height(_BROWS_OUTER),
            x[:, _BROWS_INNER[0]] - x[:, _BROWS_INNER[1]],
            height(_UPPER_LIDS[0] + _UPPER_LIDS[1]) - lower_lids,
            lower_lids - eyes,
            x[:, _IRISES].mean(axis=1) - x[:, _EYES_OUTER + _EYES_INNER].mean(axis=1),
            height(_IRISES) - eyes,
        ],
        axis=1,
    )


def speeds(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The absolute rate of change per second [T, D] of values [T, D] at times [T] (central differences); zeros for a single frame."""
    if len(times) < 2:
        return np.zeros_like(values)
    return np.asarray(np.abs(np.gradient(values, np.maximum.accumulate(times + np.arange(len(times)) * 1e-6), axis=0)))


def express(points: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The columns of `COLUMNS` [T, D] float32 of one person's meshes.

    Args:
        points: [T, 478, 3], in pixels, of the frames that show the face.
        times: [T], seconds.
    """
    face, rotation = align(points)
    pose, found = pose_of(rotation), measures(face)
    landmarks = face[:, list(LANDMARKS.values()), :2].reshape(len(face), -1)
    parts = [
        pose,
        speeds(pose, times),
        found,
        found - np.median(found, axis=0),
        speeds(found, times),
        landmarks,
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)
