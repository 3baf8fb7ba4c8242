"""The faces of the sample corpus: a portrait warped into expressions by linear combinations of smooth displacement fields."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import cv2
import numpy as np

from preprocessing.sample.portrait import (
    CHEEKS,
    CHIN,
    EYE_STEPS,
    EYES,
    FACE_OVAL,
    INNER_BROWS,
    JAWS,
    MIDDLE_BROWS,
    MOUTH_CORNERS,
    MOUTH_STEPS,
    NOSE_TIP,
    OUTER_BROWS,
    SIDE,
    Colouring,
    pose_pictures,
    recolour,
    to_portrait,
)

FRAME_SIDE = 256
FRAME_RATE = 12
MARGIN = (SIDE - FRAME_SIDE) / 2
FIELD_STEP = 2  # fields are kept at half resolution: they are smooth

EXPRESSION_FIELDS = ("corners_up", "corners_out", "brows_up", "inner_brows_up", "furrow", "cheeks_up")
IDENTITY_FIELDS = ("face_width", "jaw_width", "chin", "nose_width", "nose_length", "eye_size", "brow_height", "mouth_width", "mouth_height")
HEAD_FIELDS = ("shift_x", "shift_y", "roll", "turn", "nod")
HEAD_SPREAD = (2.5, 1.8, 3.0, 2.0, 1.5)  # pixels, but degrees for roll
NO_MAP = np.empty(0, np.float32)  # the second map of cv2.remap, unused with a map of pairs
SIDES = ((0, -1.0), (1, 1.0))  # index of a side in the landmarks, and its outward direction
NEUTRAL = {"corners_up": -3.4, "corners_out": -3.0}  # cancels the portrait's own smile


@dataclass(frozen=True)
class FaceTraits:
    """A person: shape (pixels by which each identity field moves the face), colours, framing, mirrored or not.

    `habit` is the resting position of mouth corners, brows and furrow in pixels: some look glum at rest, others surprised.
    """

    shape: tuple[float, ...]
    habit: tuple[float, float, float]
    colouring: Colouring
    zoom: float
    mirrored: bool


@dataclass(frozen=True)
class FaceExpression:
    """The peak expression of a clip: pixels by which each field of `EXPRESSION_FIELDS` moves the face, and mouth opening."""

    amounts: tuple[float, ...]
    opening: float


def draw_traits(rng: np.random.Generator) -> FaceTraits:
    """Draw a person: shape, resting expression, colours, framing."""
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

    Pleasure raises the cheeks (AU 6) and the mouth corners (AU 12) and slightly the brows (AU 1 and 2); displeasure lowers the corners
    (AU 15) and knits the brows (AU 4). Every amount is linear in the sentiment, with independent noise.
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
        expression: the peak expression.
        loudness: the sound's energy at each frame in [0, 1], which opens the mouth, [frames].
        seed: of head motion, blinks and the course of the expression.

    Returns:
        uint8 [frames, 256, 256, 3] RGB at `FRAME_RATE`.
    """
    rng = np.random.default_rng(seed)
    frames = len(loudness)
    expression_amounts, head_amounts = _expression_over_time(traits, expression, frames, rng), _head_over_time(frames, rng)
    mouths = np.clip(np.asarray(loudness) * expression.opening * (MOUTH_STEPS - 1), 0, MOUTH_STEPS - 1).round().astype(int)
    eyes = _blinks(frames, rng)
    pictures = np.empty((frames, FRAME_SIDE, FRAME_SIDE, 3), np.uint8)
    identity = _combine(np.asarray(traits.shape, np.float32), _portrait_fields("identity"))
    start = _framing(traits.zoom)
    for frame in range(frames):
        # From the frame back to the portrait: undo head motion, then the person's shape, then the expression, each looked up at the
        # position found so far, so that a smile is on the mouth of a face that has moved.
        places = start - _combine(head_amounts[frame], _head_fields())
        places = places - _look_up(identity, places)
        places = places - _look_up(_combine(expression_amounts[frame], _portrait_fields("expression")), places)
        places = cv2.resize(places, (FRAME_SIDE, FRAME_SIDE), interpolation=cv2.INTER_LINEAR)
        portrait = _portrait(traits.colouring, int(mouths[frame]), int(eyes[frame]))
        pictures[frame] = cv2.remap(portrait, places, NO_MAP, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(pictures[:, :, ::-1]) if traits.mirrored else pictures


def _combine(amounts: np.ndarray, fields: np.ndarray) -> np.ndarray:
    """The displacement by amounts [fields] of fields [fields, height, width, 2], in pixels, [height, width, 2]."""
    return np.asarray((amounts @ fields.reshape(len(fields), -1)).reshape(fields.shape[1:]))


def _look_up(field: np.ndarray, places: np.ndarray) -> np.ndarray:
    """A field of the portrait (at half resolution) at positions in the portrait, [height, width, 2]."""
    where = ((places - (FIELD_STEP - 1) / 2) / FIELD_STEP).astype(np.float32)
    return np.asarray(cv2.remap(field, where, NO_MAP, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def _expression_over_time(traits: FaceTraits, expression: FaceExpression, frames: int, rng: np.random.Generator) -> np.ndarray:
    """How far each expression field moves the face in each frame, pixels, float32 [frames, fields]."""
    course = 0.8 + 0.2 * np.sin(np.linspace(0.0, np.pi, frames))  # an expression grows and fades within the clip
    habit = dict(zip(("corners_up", "brows_up", "furrow"), traits.habit, strict=True))
    columns = [
        amount * course + 0.25 * _slow_noise(frames, rng) + NEUTRAL.get(name, 0.0) + habit.get(name, 0.0)
        for name, amount in zip(EXPRESSION_FIELDS, expression.amounts, strict=True)
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _head_over_time(frames: int, rng: np.random.Generator) -> np.ndarray:
    """How far each head field moves the head in each frame, float32 [frames, fields]."""
    columns = [spread * (0.7 * _slow_noise(frames, rng) + 0.7 * rng.normal()) for spread in HEAD_SPREAD]
    return np.stack(columns, axis=1).astype(np.float32)


def _blinks(frames: int, rng: np.random.Generator) -> np.ndarray:
    """The eye step of each frame: open, with a blink about every four seconds."""
    eyes = np.zeros(frames, int)
    for start in np.flatnonzero(rng.random(frames) < 1.0 / (4.0 * FRAME_RATE)):
        for offset, step in enumerate((EYE_STEPS // 2, EYE_STEPS - 1, EYE_STEPS // 2)):
            if start + offset < frames:
                eyes[start + offset] = step
    return eyes


def _slow_noise(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of standard deviation about 1, [frames], varying about once per second."""
    knots = rng.normal(0.0, 1.0, max(4, frames // FRAME_RATE + 3))
    smooth = cv2.resize(knots[None], (frames, 1), interpolation=cv2.INTER_CUBIC)[0]
    return np.asarray(smooth, np.float64)


@lru_cache(maxsize=64)
def _portrait(colouring: Colouring, mouth: int, eye: int) -> np.ndarray:
    return recolour(pose_pictures()[mouth, eye], colouring)


@cache
def _half_grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the centres of the 2 x 2 blocks of an image, float32 [side / 2, side / 2] each."""
    y, x = np.mgrid[0 : side // FIELD_STEP, 0 : side // FIELD_STEP].astype(np.float32) * FIELD_STEP + np.float32((FIELD_STEP - 1) / 2)
    return x, y


@lru_cache(maxsize=8)
def _framing(zoom: float) -> np.ndarray:
    """Positions in the portrait of the pixels of an unmoved frame, float32 [128, 128, 2]."""
    middle = (FRAME_SIDE - 1) / 2
    return (np.stack(_half_grid(FRAME_SIDE), axis=-1) - middle) / np.float32(zoom) + np.float32(middle + MARGIN)


@cache
def _portrait_fields(kind: str) -> np.ndarray:
    """How each field of a kind moves the portrait for one pixel of amount, float32 [fields, SIDE / 2, SIDE / 2, 2] (x, y)."""
    x, y = _half_grid(SIDE)
    names, fields = (EXPRESSION_FIELDS, _expression_fields(x, y)) if kind == "expression" else (IDENTITY_FIELDS, _identity_fields(x, y))
    return np.stack([fields[name] for name in names]).astype(np.float32)


def _expression_fields(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    corners, inner, middle, outer, cheeks = (
        to_portrait(points) for points in (MOUTH_CORNERS, INNER_BROWS, MIDDLE_BROWS, OUTER_BROWS, CHEEKS)
    )
    mouth = _beside(corners.mean(0), 0, 5)
    brows = [point[side] for side, _ in SIDES for point in (inner, middle, outer)]
    bend = _push(x, y, mouth, (13, 13), (0.0, 0.6))  # the middle of the lips moves opposite to the corners
    return {
        "corners_up": bend + _total(_push(x, y, _beside(corners[side], 2 * out, 1), (14, 15), (0.0, -1.0)) for side, out in SIDES),
        "corners_out": _total(_push(x, y, corners[side], (13, 13), (out, 0.0)) for side, out in SIDES),
        "brows_up": _total(_push(x, y, brow, (11, 8), (0.0, -0.7)) for brow in brows),
        "inner_brows_up": _total(_push(x, y, inner[side], (9, 8), (0.0, -1.0)) for side, _ in SIDES),
        "furrow": _total(_push(x, y, _beside(inner[side], 3 * out, -1), (11, 8), (-0.6 * out, 0.9)) for side, out in SIDES),
        "cheeks_up": _total(_push(x, y, _beside(cheeks[side], 0, -8), (16, 13), (0.0, -1.0)) for side, _ in SIDES),
    }


def _identity_fields(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    corners, eyes, jaws, cheeks = (to_portrait(p) for p in (MOUTH_CORNERS, EYES, JAWS, CHEEKS))
    brows = to_portrait(MIDDLE_BROWS)
    nose, chin = to_portrait((NOSE_TIP, CHIN))
    return {
        "face_width": _total(_push(x, y, _beside(cheeks[side], 8 * out, -10), (30, 50), (out, 0.0)) for side, out in SIDES),
        "jaw_width": _total(_push(x, y, jaws[side], (25, 28), (out, 0.0)) for side, out in SIDES),
        "chin": _push(x, y, chin, (40, 24), (0.0, 1.0)),
        "nose_width": _total(_push(x, y, _beside(nose, 10 * out, 0), (10, 12), (out, 0.0)) for side, out in SIDES),
        "nose_length": _push(x, y, nose, (18, 14), (0.0, 1.0)),
        "eye_size": _total(_swell(x, y, eyes[side], (18, 10)) for side, _ in SIDES),
        "brow_height": _total(_push(x, y, brows[side], (26, 9), (0.0, -1.0)) for side, _ in SIDES),
        "mouth_width": _total(_push(x, y, corners[side], (15, 15), (out, 0.0)) for side, out in SIDES),
        "mouth_height": _push(x, y, _beside(corners.mean(0), 0, 6), (40, 18), (0.0, 1.0)),
    }


def _total(fields: Iterable[np.ndarray]) -> np.ndarray:
    return np.asarray(np.sum(list(fields), axis=0))


def _beside(point: np.ndarray, dx: float, dy: float) -> np.ndarray:
    return point + np.array([dx, dy], np.float32)


@cache
def _head_fields() -> np.ndarray:
    """How `HEAD_FIELDS` move the frame, float32 [fields, 128, 128, 2].

    Shifts in pixels; `roll` in degrees around the neck; `turn` and `nod` in pixels of the nose relative to the face outline (parallax).
    """
    x, y = (grid + MARGIN for grid in _half_grid(FRAME_SIDE))
    oval = to_portrait(FACE_OVAL)
    centre = oval.mean(0)
    neck = np.array([centre[0], oval[:, 1].max()])
    nothing = np.zeros_like(x)
    window = np.exp(-((((x - centre[0]) / 110) ** 2 + ((y - centre[1] + 10) / 120) ** 2) ** 2))  # the head; the shoulders move little
    angle = np.float32(np.pi / 180.0)
    fields = {
        "shift_x": np.stack([window, nothing], -1),
        "shift_y": np.stack([nothing, window], -1),
        "roll": np.stack([-(y - neck[1]) * angle * window, (x - neck[0]) * angle * window], -1),
        "turn": _push(x, y, centre, (45, 60), (1.0, 0.0)),
        "nod": _push(x, y, centre, (45, 60), (0.0, 1.0)),
    }
    return np.stack([fields[name] for name in HEAD_FIELDS]).astype(np.float32)


def _push(x: np.ndarray, y: np.ndarray, centre: np.ndarray, spread: tuple[float, float], way: tuple[float, float]) -> np.ndarray:
    """A Gaussian displacement around a point: 1 pixel along `way` at its centre."""
    bump = np.exp(-(((x - centre[0]) / spread[0]) ** 2 + ((y - centre[1]) / spread[1]) ** 2) / 2)
    return np.stack([bump * way[0], bump * way[1]], axis=-1)


def _swell(x: np.ndarray, y: np.ndarray, centre: np.ndarray, spread: tuple[float, float]) -> np.ndarray:
    """A displacement away from a point, up to about 1 pixel."""
    dx, dy = (x - centre[0]) / spread[0], (y - centre[1]) / spread[1]
    bump = np.exp(-(dx**2 + dy**2) / 2) * 1.6
    return np.stack([bump * dx, bump * dy], axis=-1)


def _three(values: np.ndarray) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])
