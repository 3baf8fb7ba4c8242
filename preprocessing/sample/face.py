"""The faces of the sample corpus: a portrait warped into expressions by a linear combination of smooth displacement fields."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import cv2
import numpy as np

from preprocessing.sample import landmarks
from preprocessing.sample.portrait import EYE_STEPS, MOUTH_STEPS, SIDE, Colouring, pose_pictures, recolour, to_portrait

FRAME_SIDE = 256
FRAME_RATE = 12
MARGIN = (SIDE - FRAME_SIDE) / 2
FIELD_STEP = 2  # fields are kept at half the resolution of a frame: they are smooth

EXPRESSION_FIELDS = ("corners_up", "corners_out", "brows_up", "inner_brows_up", "furrow", "cheeks_up")
IDENTITY_FIELDS = ("face_width", "jaw_width", "chin", "nose_width", "nose_length", "eye_size", "brow_height", "mouth_width", "mouth_height")
HEAD_FIELDS = ("shift_x", "shift_y", "roll", "turn", "nod")
FIELDS = (*EXPRESSION_FIELDS, *IDENTITY_FIELDS, *HEAD_FIELDS)
NEUTRAL = {"corners_up": -3.4, "corners_out": -3.0}  # takes the portrait's own smile away


@dataclass(frozen=True)
class FaceTraits:
    """What makes a person: shape (pixels by which each identity field moves the face), colours, framing, mirrored or not.

    `habit` are the person's own resting corners, brows and furrow in pixels: one looks glum at rest, another surprised.
    """

    shape: tuple[float, ...]
    habit: tuple[float, float, float]
    colouring: Colouring
    zoom: float
    mirrored: bool


@dataclass(frozen=True)
class FaceExpression:
    """The expression of one clip at its height: pixels by which each field of `EXPRESSION_FIELDS` moves the face, and mouth opening."""

    amounts: tuple[float, ...]
    opening: float


def draw_traits(rng: np.random.Generator) -> FaceTraits:
    """A person: shape, resting expression, colours, framing."""
    skin = np.array([1.0, 0.93, 0.88]) ** rng.uniform(-0.5, 2.5) * rng.uniform(0.72, 1.08)
    hair = np.asarray(HAIR_TINTS[int(rng.integers(len(HAIR_TINTS)))]) * rng.uniform(0.85, 1.15)
    upper = rng.uniform(40, 200) + rng.uniform(-25, 25, 3)
    return FaceTraits(
        shape=tuple(float(value) for value in np.clip(rng.normal(0.0, 1.0, len(IDENTITY_FIELDS)), -2, 2) * IDENTITY_SPREAD),
        habit=(float(rng.normal(0.0, 0.9)), float(rng.normal(0.0, 0.8)), float(rng.normal(0.0, 0.6))),
        colouring=Colouring(
            skin=_three(skin),
            hair=_three(hair),
            gamma=float(rng.uniform(0.85, 1.25)),
            background=(_three(upper), _three(upper * rng.uniform(0.5, 1.0))),
        ),
        zoom=float(rng.uniform(0.97, 1.12)),
        mirrored=bool(rng.random() < 0.5),
    )


HAIR_TINTS = ((1.0, 1.0, 1.0), (0.5, 0.42, 0.36), (0.28, 0.26, 0.28), (1.2, 0.8, 0.55), (0.75, 0.62, 0.5), (0.9, 0.92, 1.05))
IDENTITY_SPREAD = np.array([4.0, 3.5, 3.5, 2.0, 2.5, 1.2, 1.8, 2.2, 2.0])


def draw_expression(sentiment: float, rng: np.random.Generator) -> FaceExpression:
    """The expression of a sentiment in [-3, 3], as action units of the facial action coding system (Ekman and Friesen 1978).

    Pleasure raises the cheeks (AU 6) and the mouth's corners (AU 12) and lifts the brows a little (AU 1 and 2); displeasure lowers the
    corners (AU 15) and knits the brows (AU 4). Every part is linear in the sentiment, with noise of its own.
    """
    pleasure, displeasure = max(sentiment, 0.0), max(-sentiment, 0.0)
    amounts = (
        1.1 * pleasure - 1.5 * displeasure + rng.normal(0.0, 1.2),
        1.2 * pleasure - 0.6 * displeasure + rng.normal(0.0, 0.8),
        0.9 * pleasure - 0.7 * displeasure + rng.normal(0.0, 1.0),
        0.3 * displeasure + rng.normal(0.0, 0.9),
        1.1 * displeasure - 0.3 * pleasure + rng.normal(0.0, 0.8),
        0.8 * pleasure + rng.normal(0.0, 0.5),
    )
    return FaceExpression(tuple(float(amount) for amount in amounts), opening=float(np.clip(0.75 + rng.normal(0.0, 0.12), 0.4, 1.0)))


def render(traits: FaceTraits, expression: FaceExpression, loudness: Sequence[float] | np.ndarray, seed: int) -> np.ndarray:
    """Draw the frames of a clip.

    Args:
        traits: the person.
        expression: the expression at its height.
        loudness: the sound's energy at each frame in [0, 1], which opens the mouth, [frames].
        seed: of the head's motion, the blinks and the expression's course.

    Returns:
        uint8 [frames, 256, 256, 3] RGB at `FRAME_RATE`.
    """
    rng = np.random.default_rng(seed)
    frames = len(loudness)
    amounts = _amounts_over_time(traits, expression, frames, rng)
    mouths = np.clip(np.asarray(loudness) * expression.opening * (MOUTH_STEPS - 1), 0, MOUTH_STEPS - 1).round().astype(int)
    eyes = _blinks(frames, rng)
    pictures = np.empty((frames, FRAME_SIDE, FRAME_SIDE, 3), np.uint8)
    basis = displacement_fields()
    steps = FRAME_SIDE // FIELD_STEP
    start = _framing(traits.zoom)
    for frame in range(frames):
        field = (amounts[frame] @ basis).reshape(steps, steps, 2)
        places = start - cv2.resize(field, (FRAME_SIDE, FRAME_SIDE), interpolation=cv2.INTER_LINEAR)
        portrait = _portrait(traits.colouring, int(mouths[frame]), int(eyes[frame]))
        cv2.remap(portrait, places, None, cv2.INTER_LINEAR, dst=pictures[frame], borderMode=cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(pictures[:, :, ::-1]) if traits.mirrored else pictures


def _amounts_over_time(traits: FaceTraits, expression: FaceExpression, frames: int, rng: np.random.Generator) -> np.ndarray:
    """How far each field moves the face in each frame, pixels, float32 [frames, fields]."""
    amounts = dict.fromkeys(FIELDS, np.zeros(frames))
    course = 0.8 + 0.2 * np.sin(np.linspace(0.0, np.pi, frames))  # an expression grows and fades within the clip
    for name, amount in zip(EXPRESSION_FIELDS, expression.amounts, strict=True):
        amounts[name] = amount * course + 0.25 * _slow_noise(frames, rng) + NEUTRAL.get(name, 0.0)
    for name, amount in zip(("corners_up", "brows_up", "furrow"), traits.habit, strict=True):
        amounts[name] = amounts[name] + amount
    for name, amount in zip(IDENTITY_FIELDS, traits.shape, strict=True):
        amounts[name] = np.full(frames, amount)
    for name, spread in (("shift_x", 2.5), ("shift_y", 1.8), ("roll", 3.0), ("turn", 2.0), ("nod", 1.5)):
        amounts[name] = spread * (0.7 * _slow_noise(frames, rng) + 0.7 * rng.normal())
    return np.stack([amounts[name] for name in FIELDS], axis=1).astype(np.float32)


def _blinks(frames: int, rng: np.random.Generator) -> np.ndarray:
    """The eye step of each frame: open but for a blink every four seconds or so."""
    eyes = np.zeros(frames, int)
    for start in np.flatnonzero(rng.random(frames) < 1.0 / (4.0 * FRAME_RATE)):
        for offset, step in enumerate((EYE_STEPS // 2, EYE_STEPS - 1, EYE_STEPS // 2)):
            if start + offset < frames:
                eyes[start + offset] = step
    return eyes


def _slow_noise(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of standard deviation about 1, [frames], turning about once a second."""
    knots = rng.normal(0.0, 1.0, max(4, frames // FRAME_RATE + 3))
    smooth = cv2.resize(knots[None], (frames, 1), interpolation=cv2.INTER_CUBIC)[0]
    return np.asarray(smooth, np.float64)


@lru_cache(maxsize=64)
def _portrait(colouring: Colouring, mouth: int, eye: int) -> np.ndarray:
    return recolour(pose_pictures()[mouth, eye], colouring)


@lru_cache(maxsize=8)
def _framing(zoom: float) -> np.ndarray:
    """Where in the portrait each pixel of an unmoved frame lies, float32 [256, 256, 2]."""
    y, x = np.mgrid[0:FRAME_SIDE, 0:FRAME_SIDE].astype(np.float32)
    middle = (FRAME_SIDE - 1) / 2
    grid = np.stack([x, y], axis=-1)
    return (grid - middle) / np.float32(zoom) + np.float32(middle + MARGIN)


@cache
def displacement_fields() -> np.ndarray:
    """How each of `FIELDS` moves the picture for one pixel of amount, float32 [fields, steps * steps * 2] (x, y)."""
    steps = FRAME_SIDE // FIELD_STEP
    y, x = np.mgrid[0:steps, 0:steps].astype(np.float32) * FIELD_STEP + MARGIN
    fields = {**_expression_fields(x, y), **_identity_fields(x, y), **_head_fields(x, y)}
    return np.stack([fields[name].reshape(-1) for name in FIELDS]).astype(np.float32)


def _expression_fields(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    corners, inner, middle, outer, cheeks = (
        to_portrait(points)
        for points in (landmarks.MOUTH_CORNERS, landmarks.INNER_BROWS, landmarks.MIDDLE_BROWS, landmarks.OUTER_BROWS, landmarks.CHEEKS)
    )
    mouth = corners.mean(0) + (0, 5)
    sides = ((0, -1.0), (1, 1.0))  # the place of a side in the landmarks, and which way is outwards
    return {
        "corners_up": sum(_push(x, y, corners[side] + (outwards * 2, 1), (14, 15), (0.0, -1.0)) for side, outwards in sides)
        + _push(x, y, mouth, (13, 13), (0.0, 0.6)),  # against the middle of the lips, so that the mouth bends
        "corners_out": sum(_push(x, y, corners[side], (13, 13), (outwards, 0.0)) for side, outwards in sides),
        "brows_up": sum(_push(x, y, point[side], (11, 8), (0.0, -0.7)) for side, _ in sides for point in (inner, middle, outer)),
        "inner_brows_up": sum(_push(x, y, inner[side], (9, 8), (0.0, -1.0)) for side, _ in sides),
        "furrow": sum(_push(x, y, inner[side] - (outwards * -3, 1), (11, 8), (-0.6 * outwards, 0.9)) for side, outwards in sides),
        "cheeks_up": sum(_push(x, y, cheeks[side] - (0, 8), (16, 13), (0.0, -1.0)) for side, _ in sides),
    }


def _identity_fields(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    corners, eyes, jaws, cheeks = (to_portrait(p) for p in (landmarks.MOUTH_CORNERS, landmarks.EYES, landmarks.JAWS, landmarks.CHEEKS))
    brows = to_portrait(landmarks.MIDDLE_BROWS)
    nose, chin = to_portrait((landmarks.NOSE_TIP, landmarks.CHIN))
    mouth = corners.mean(0)
    sides = ((0, -1.0), (1, 1.0))
    return {
        "face_width": sum(_push(x, y, cheeks[side] + (outwards * 8, -10), (30, 50), (outwards, 0.0)) for side, outwards in sides),
        "jaw_width": sum(_push(x, y, jaws[side], (25, 28), (outwards, 0.0)) for side, outwards in sides),
        "chin": _push(x, y, chin, (40, 24), (0.0, 1.0)),
        "nose_width": sum(_push(x, y, nose + (outwards * 10, 0), (10, 12), (outwards, 0.0)) for side, outwards in sides),
        "nose_length": _push(x, y, nose, (18, 14), (0.0, 1.0)),
        "eye_size": sum(_swell(x, y, eyes[side], (18, 10)) for side, _ in sides),
        "brow_height": sum(_push(x, y, brows[side], (26, 9), (0.0, -1.0)) for side, _ in sides),
        "mouth_width": sum(_push(x, y, corners[side], (15, 15), (outwards, 0.0)) for side, outwards in sides),
        "mouth_height": _push(x, y, mouth + (0, 6), (40, 18), (0.0, 1.0)),
    }


def _head_fields(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Shifts in pixels; `roll` in degrees about the neck; `turn` and `nod` in pixels of the nose against the rim of the face (parallax)."""
    oval = to_portrait(landmarks.FACE_OVAL)
    centre = oval.mean(0)
    neck = np.array([centre[0], oval[:, 1].max()])
    nothing = np.zeros_like(x)
    window = np.exp(-((((x - centre[0]) / 110) ** 2 + ((y - centre[1] + 10) / 120) ** 2) ** 2))  # the head; the shoulders follow little
    angle = np.float32(np.pi / 180.0)
    return {
        "shift_x": np.stack([window, nothing], -1),
        "shift_y": np.stack([nothing, window], -1),
        "roll": np.stack([-(y - neck[1]) * angle * window, (x - neck[0]) * angle * window], -1),
        "turn": _push(x, y, centre, (45, 60), (1.0, 0.0)),
        "nod": _push(x, y, centre, (45, 60), (0.0, 1.0)),
    }


def _push(x: np.ndarray, y: np.ndarray, centre: np.ndarray, spread: tuple[float, float], way: tuple[float, float]) -> np.ndarray:
    """A Gaussian bump of displacement at a point: 1 pixel along `way` at its centre."""
    bump = np.exp(-(((x - centre[0]) / spread[0]) ** 2 + ((y - centre[1]) / spread[1]) ** 2) / 2)
    return np.stack([bump * way[0], bump * way[1]], axis=-1)


def _swell(x: np.ndarray, y: np.ndarray, centre: np.ndarray, spread: tuple[float, float]) -> np.ndarray:
    """A displacement away from a point, up to about 1 pixel."""
    dx, dy = (x - centre[0]) / spread[0], (y - centre[1]) / spread[1]
    bump = np.exp(-(dx**2 + dy**2) / 2) * 1.6
    return np.stack([bump * dx, bump * dy], axis=-1)


def _three(values: np.ndarray) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])
