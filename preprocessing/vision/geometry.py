"""Measurements of a face from the 478 points of mediapipe's mesh: head pose, mouth, jaw, brows, eyes, gaze, and action units.

Lengths are measured in the head's own frame (rotated to face the camera) in units of the distance between the outer eye corners, so
they depend neither on the image size nor on the head pose. "Left" and "right" are the person's own. Heights grow upwards.
"""

import cv2
import numpy as np

# Points that no expression moves, [x right, y down, z away from the camera] in outer-eye-corner distances. Measured with the mesh on
# skimage.data.astronaut() (public domain), made symmetric, and rotated so that the Frankfurt plane (ear canal to lower eye rim) is level.
RIGID_POINTS: dict[int, tuple[float, float, float]] = {
    33: (-0.500, 0.000, 0.000),
    263: (0.500, 0.000, 0.000),
    133: (-0.189, 0.031, -0.055),
    362: (0.189, 0.031, -0.055),
    98: (-0.224, 0.450, -0.172),
    327: (0.224, 0.450, -0.172),
    127: (-0.757, 0.032, 0.540),
    356: (0.757, 0.032, 0.540),
    234: (-0.755, 0.179, 0.607),
    454: (0.755, 0.179, 0.607),
    116: (-0.695, 0.162, 0.153),
    345: (0.695, 0.162, 0.153),
    168: (0.000, -0.030, -0.251),
    6: (0.000, 0.056, -0.293),
    197: (0.000, 0.137, -0.342),
    4: (0.000, 0.391, -0.471),
    2: (0.000, 0.506, -0.257),
    10: (0.000, -0.531, -0.254),
}
RIGID = list(RIGID_POINTS)
HEAD_MODEL = np.array([RIGID_POINTS[point] for point in RIGID], np.float64)

# side -> outer and inner eye corner, two upper and two lower lid points, iris, inner, middle and outer brow, cheek
_SIDES = {
    "left": (263, 362, (386, 385), (374, 380), 473, 336, 334, 300, 280),
    "right": (33, 133, (159, 158), (145, 153), 468, 107, 105, 70, 50),
}
_EYES = "outer eye-corner distances"
COLUMNS: list[dict[str, str]] = [
    {"name": "head_yaw", "unit": "degrees, positive when the face turns to its own left"},
    {"name": "head_pitch", "unit": "degrees, positive when it looks up"},
    {"name": "head_roll", "unit": "degrees, positive when it tilts clockwise in the picture"},
    {"name": "head_x", "unit": "share of the picture's width, 0 in its middle, positive to the right"},
    {"name": "head_y", "unit": "share of the picture's height, 0 in its middle, positive upwards"},
    {"name": "head_size", "unit": "outer eye-corner distance as a share of the picture's width"},
    {"name": "mouth_width", "unit": _EYES},
    {"name": "mouth_opening", "unit": f"{_EYES}, between the inner lip rims"},
    {"name": "mouth_height", "unit": f"{_EYES}, between the outer lip rims"},
    {"name": "mouth_shift", "unit": f"{_EYES}, sideways from the nose, positive to the person's left"},
    {"name": "mouth_corner_height_left", "unit": f"{_EYES}, above the middle of the lips"},
    {"name": "mouth_corner_height_right", "unit": f"{_EYES}, above the middle of the lips"},
    {"name": "mouth_corner_to_eye_left", "unit": _EYES},
    {"name": "mouth_corner_to_eye_right", "unit": _EYES},
    {"name": "lip_curvature", "unit": "mean height of the corners over the mouth's width"},
    {"name": "upper_lip_thickness", "unit": _EYES},
    {"name": "lower_lip_thickness", "unit": _EYES},
    {"name": "nose_to_lip", "unit": _EYES},
    {"name": "nose_width", "unit": _EYES},
    {"name": "jaw_drop", "unit": f"{_EYES}, from the nose to the chin"},
    {"name": "jaw_shift", "unit": f"{_EYES}, sideways from the nose, positive to the person's left"},
    {"name": "brow_distance", "unit": f"{_EYES}, between the inner ends"},
    *(
        {"name": f"{measure}_{side}", "unit": unit}
        for side in _SIDES
        for measure, unit in (
            ("brow_inner_height", f"{_EYES}, above the inner eye corner"),
            ("brow_middle_height", f"{_EYES}, above the middle of the eye"),
            ("brow_outer_height", f"{_EYES}, above the outer eye corner"),
            ("cheek_height", f"{_EYES}, above the middle of the eye"),
            ("eye_openness", "gap between the lids over the eye's width"),
            ("lower_lid_height", "above the line of the eye corners, over the eye's width"),
            ("gaze_sideways", "iris from the middle of the eye, half eye widths, positive to the person's left"),
            ("gaze_height", "iris from the line of the eye corners, half eye widths"),
        )
    ),
]


# Facial action units (FACS; Ekman and Friesen 1978), approximated from the columns above: name -> weights of columns; a column name without
# a side means the mean of both sides. They are geometry, not FACS coding: no neutral face is subtracted. Each grows with its action unit.
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


def _unit_weights() -> np.ndarray:
    names = [column["name"] for column in COLUMNS]
    matrix = np.zeros((len(FORMULAS), len(names)), np.float32)
    for row, formula in enumerate(FORMULAS.values()):
        for name, weight in formula.items():
            places = [names.index(name)] if name in names else [names.index(f"{name}_{side}") for side in ("left", "right")]
            matrix[row, places] += weight / len(places)
    return matrix


UNIT_WEIGHTS = _unit_weights()
UNIT_COLUMNS = [
    {"name": name, "unit": "unitless: " + " ".join(f"{weight:+g} {column}" for column, weight in formula.items())}
    for name, formula in FORMULAS.items()
]


def action_units(values: np.ndarray) -> np.ndarray:
    """The 16 action unit measures [T, 16] of geometry columns [T, 38]."""
    return np.asarray(values @ UNIT_WEIGHTS.T)


def head_rotation(points: np.ndarray) -> np.ndarray:
    """Rotations [..., 3, 3] from the head model to meshes [..., 478, 3] (pixels): Kabsch's least squares on the rigid points."""
    rigid = points[..., RIGID, :]
    seen = rigid - rigid.mean(axis=-2, keepdims=True)
    model = HEAD_MODEL - HEAD_MODEL.mean(axis=0)
    return np.swapaxes(nearest_rotation(model.T @ seen), -1, -2)


def nearest_rotation(matrices: np.ndarray) -> np.ndarray:
    """The rotations [..., 3, 3] nearest to matrices [..., 3, 3] in the sense of least squares."""
    left, _, right = np.linalg.svd(matrices)
    right[..., -1, :] *= np.sign(np.linalg.det(left @ right))[..., None]  # a rotation, never a reflection
    return np.asarray(left @ right)


def head_angles(points: np.ndarray, width: float, height: float) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees by solvePnP on the rigid points, for a pinhole camera whose focal length is the image width."""
    camera = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]], np.float64)
    seen = np.ascontiguousarray(points[RIGID, :2], np.float64)
    found, turn, _ = cv2.solvePnP(HEAD_MODEL, seen, camera, None, flags=cv2.SOLVEPNP_SQPNP)
    rotation = cv2.Rodrigues(turn)[0] if found else head_rotation(points)
    pitch, yaw, roll = cv2.RQDecomp3x3(rotation)[0]
    return -float(yaw) + 0.0, -float(pitch) + 0.0, float(roll)


def measure(points: np.ndarray, width: np.ndarray | float, height: np.ndarray | float) -> np.ndarray:
    """The columns of `COLUMNS` for T faces, [T, 38] float32.

    Args:
        points: [T, 478, 3], x, y and z of the meshes in pixels (z on the scale of x, growing away from the camera).
        width: image width or widths [T], pixels.
        height: image height or heights [T], pixels.
    """
    width, height = (np.broadcast_to(np.asarray(side, np.float64), len(points)) for side in (width, height))
    centre = points[:, [33, 263]].mean(axis=1)
    head = (points - centre[:, None]) @ head_rotation(points)
    scale = _distance(head[:, 263], head[:, 33])
    scale = np.where(scale > 0, scale, 1.0)
    head = head / scale[:, None, None]
    head[..., 1] *= -1.0  # heights grow upwards
    x, y = head[..., 0], head[..., 1]
    mouth_width = _distance(head[:, 291], head[:, 61])
    lips = (y[:, 13] + y[:, 14]) / 2
    corners = y[:, 291] - lips, y[:, 61] - lips
    angles = np.array([head_angles(*face) for face in zip(points, width, height, strict=True)]).reshape(-1, 3)
    columns = [
        *angles.T,
        centre[:, 0] / width - 0.5,
        0.5 - centre[:, 1] / height,
        scale / width,
        mouth_width,
        y[:, 13] - y[:, 14],
        y[:, 0] - y[:, 17],
        (x[:, 61] + x[:, 291]) / 2 - x[:, 2],
        *corners,
        _distance(head[:, 291], head[:, 263]),
        _distance(head[:, 61], head[:, 33]),
        sum(corners) / 2 / np.maximum(mouth_width, 1e-3),
        y[:, 0] - y[:, 13],
        y[:, 14] - y[:, 17],
        y[:, 2] - y[:, 0],
        _distance(head[:, 327], head[:, 98]),
        y[:, 2] - y[:, 152],
        x[:, 152] - x[:, 2],
        _distance(head[:, 336], head[:, 107]),
    ]
    for side in _SIDES:
        columns.extend(_measure_side(head, side))
    return np.stack(columns, axis=1).astype(np.float32)


def _distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(one - other, axis=-1))


def _measure_side(head: np.ndarray, side: str) -> list[np.ndarray]:
    outer, inner, upper, lower, iris, brow_inner, brow_middle, brow_outer, cheek = _SIDES[side]
    x, y = head[..., 0], head[..., 1]
    middle = (head[:, outer] + head[:, inner]) / 2
    eye_width = np.maximum(_distance(head[:, outer], head[:, inner]), 1e-3)
    upper_lid, lower_lid = y[:, upper].mean(axis=1), y[:, lower].mean(axis=1)
    return [
        y[:, brow_inner] - y[:, inner],
        y[:, brow_middle] - middle[:, 1],
        y[:, brow_outer] - y[:, outer],
        y[:, cheek] - middle[:, 1],
        (upper_lid - lower_lid) / eye_width,
        (lower_lid - middle[:, 1]) / eye_width,
        2 * (x[:, iris] - middle[:, 0]) / eye_width,
        2 * (y[:, iris] - middle[:, 1]) / eye_width,
    ]
