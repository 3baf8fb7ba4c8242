"""The still images of the sample corpus's faces: one portrait with several degrees of open mouth and closed eyes, recoloured.

The portrait is `skimage.data.astronaut()` (NASA, public domain). Its open smile is turned into a series from closed to open: below the
upper lip the image is shifted up or down, and the dark inside of the mouth is drawn between the lips.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

SCALE = 1.4  # portrait pixels per pixel of the source
LEFT, TOP, SOURCE_SIDE = 112.0, -8.0, 224.0  # the part of the source that the portrait shows
SIDE = int(SOURCE_SIDE * SCALE)  # 313: a margin around the 256 of a frame, for head motion
MOUTH_STEPS, EYE_STEPS = 10, 3
WIDEST_GAP = 17.0  # portrait pixels between the lips of the widest mouth
COLLAR = (  # outer edge of the suit's collar ring, portrait pixels
    (17, 313), (20, 290), (27, 263), (41, 241), (60, 226), (80, 220), (104, 221), (150, 250), (200, 252), (214, 262), (230, 277),
    (245, 296), (257, 313),
)  # fmt: skip
INSIDE = (45.0, 22.0, 24.0)  # RGB of the mouth's inside

# Points of the face in the source (x, y in its pixels), measured once with a face mesh. Preprocessing finds its own.
INNER_UPPER_LIP = (
    (203.9, 140.3), (206.4, 140.6), (209.4, 141.0), (213.0, 141.7), (217.6, 142.6), (223.4, 143.4),
    (229.4, 142.9), (234.4, 142.3), (238.3, 141.7), (241.6, 141.4), (244.1, 141.3),
)  # fmt: skip
INNER_LOWER_LIP = (
    (203.9, 140.3), (207.1, 143.7), (209.5, 146.0), (213.1, 148.1), (217.6, 149.8), (223.1, 150.6),
    (228.8, 150.2), (233.6, 148.8), (237.6, 146.8), (240.5, 144.6), (244.1, 141.3),
)  # fmt: skip
LEFT_UPPER_LID = (
    (195.2, 100.7), (196.1, 100.0), (197.2, 99.2), (199.3, 98.3), (202.7, 97.8), (206.3, 98.3), (209.7, 99.9), (212.1, 102.1),
    (213.3, 103.5),
)  # fmt: skip
LEFT_LOWER_LID = (
    (195.2, 100.7), (196.4, 102.0), (197.8, 102.9), (199.9, 103.8), (203.3, 104.3), (206.7, 104.3), (210.0, 103.9), (212.2, 103.8),
    (213.3, 103.5),
)  # fmt: skip
RIGHT_UPPER_LID = (
    (236.7, 104.9), (238.0, 103.7), (240.9, 101.6), (244.5, 100.1), (248.3, 99.9), (251.9, 100.7), (253.9, 102.0), (255.0, 103.1),
    (255.7, 104.0),
)  # fmt: skip
RIGHT_LOWER_LID = (
    (236.7, 104.9), (237.7, 105.2), (239.9, 105.5), (243.2, 106.1), (246.6, 106.5), (250.1, 106.5), (252.5, 106.0), (254.2, 105.2),
    (255.7, 104.0),
)  # fmt: skip
FACE_OVAL = (
    (226.1, 69.8), (238.9, 70.7), (249.6, 72.9), (259.3, 77.0), (265.3, 82.9), (268.8, 90.0), (270.7, 97.4), (271.4, 106.8),
    (270.9, 115.9), (270.0, 125.2), (268.4, 135.3), (265.4, 145.9), (260.9, 154.4), (255.8, 160.8), (249.2, 166.6), (243.5, 170.9),
    (237.5, 174.7), (230.5, 177.2), (221.7, 177.7), (213.0, 176.3), (206.4, 173.1), (200.9, 168.7), (195.9, 163.8), (190.1, 157.3),
    (185.8, 150.4), (182.4, 141.4), (180.3, 130.5), (179.4, 120.3), (179.2, 111.0), (179.2, 101.9), (180.3, 92.7), (182.4, 85.4),
    (186.2, 78.8), (192.6, 73.6), (202.5, 70.5), (213.3, 69.4),
)  # fmt: skip
MOUTH_CORNERS = ((202.4, 139.7), (245.7, 140.8))
INNER_BROWS = ((213.5, 89.5), (237.5, 91.2))
MIDDLE_BROWS = ((202.0, 87.2), (249.0, 90.3))
OUTER_BROWS = ((190.5, 88.5), (260.5, 93.5))
EYES = ((204.3, 101.2), (246.2, 103.3))
NOSE_TIP = (222.9, 129.8)
CHIN = (222.1, 177.3)
JAWS = ((185.0, 150.0), (265.0, 146.0))
CHEEKS = ((192.0, 125.0), (257.0, 127.0))


@dataclass(frozen=True)
class Colouring:
    """The colours of a speaker: factors on RGB of skin and clothes, a tint of the hair, gamma, two background colours (RGB)."""

    skin: tuple[float, float, float]
    hair: tuple[float, float, float]
    gamma: float
    background: tuple[tuple[float, float, float], tuple[float, float, float]]


def to_portrait(points: Sequence[tuple[float, float]]) -> np.ndarray:
    """Source pixels to portrait pixels, [N, 2]."""
    return (np.asarray(points, np.float32) - (LEFT, TOP)) * SCALE


@cache
def pose_pictures() -> np.ndarray:
    """The portrait for every mouth and eye step, uint8 [MOUTH_STEPS, EYE_STEPS, SIDE, SIDE, 3] RGB: closed to open, open to closed."""
    import skimage.data

    source = np.pad(skimage.data.astronaut(), ((16, 0), (0, 0), (0, 0)), mode="reflect")
    place = np.array([[1 / SCALE, 0, LEFT], [0, 1 / SCALE, TOP + 16]], np.float32)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    portrait = cv2.warpAffine(source, place, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    pictures = np.empty((MOUTH_STEPS, EYE_STEPS, SIDE, SIDE, 3), np.uint8)
    for eye in range(EYE_STEPS):
        eyed = _close_eyes(portrait, eye / (EYE_STEPS - 1))
        for mouth in range(MOUTH_STEPS):
            pictures[mouth, eye] = _set_mouth(eyed, WIDEST_GAP * mouth / (MOUTH_STEPS - 1))
    return pictures


def _set_mouth(picture: np.ndarray, gap: float) -> np.ndarray:
    """The image with lips `gap` pixels apart in the middle: 0 is closed."""
    x, y = _grid()
    upper = _curve(INNER_UPPER_LIP)
    lower = _curve(INNER_LOWER_LIP)
    own_gap = np.maximum(lower - upper, 0.0)
    corners = to_portrait(MOUTH_CORNERS)[:, 0]
    across = np.clip((x[0] - corners[0]) / (corners[1] - corners[0]), 0.0, 1.0)
    new_gap = gap * np.sin(np.pi * across) ** 0.6
    # The lower lip moves by the difference of the gaps; the motion fades out towards the sides of the mouth and below the chin.
    move = new_gap - own_gap
    edge = upper + new_gap
    below = np.clip((y - edge) / 75.0, 0.0, 1.0)
    fade = 0.5 + 0.5 * np.cos(np.pi * below)
    shifted = cv2.remap(picture, x, (y - move * fade).astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = _smooth_step(y - upper) * _smooth_step(edge - y) * (new_gap > 0.5)
    depth = np.clip((y - upper) / np.maximum(new_gap, 1.0), 0.0, 1.0)[..., None]
    teeth = np.clip(1.0 - np.abs(y - upper - 3.0) / 3.5, 0.0, 1.0)[..., None] * np.clip((new_gap - 6.0) / 10.0, 0.0, 0.75)[None, :, None]
    dark = np.asarray(INSIDE) * (0.8 + 0.8 * depth)
    cavity = dark * (1.0 - teeth) + np.asarray((215.0, 205.0, 195.0)) * teeth
    upper_part = (y < upper)[..., None]
    result = np.where(upper_part, picture, shifted).astype(np.float32)
    result += (cavity - result) * inside[..., None]
    line = np.exp(-(((y - upper) / 1.2) ** 2)) * np.sin(np.pi * across) ** 0.3 * (0.55 if gap < 2.0 else 0.25)  # shadow between the lips
    result *= (1.0 - line * ((across > 0) & (across < 1)))[..., None]
    return np.clip(result, 0, 255).astype(np.uint8)


def _close_eyes(picture: np.ndarray, share: float) -> np.ndarray:
    """The image with the upper lids lowered by a share of the eyes' opening: 0 is open, 1 is closed."""
    if share == 0.0:
        return picture
    x, y = _grid()
    result = picture
    for upper_lid, lower_lid in (
        (LEFT_UPPER_LID, LEFT_LOWER_LID),
        (RIGHT_UPPER_LID, RIGHT_LOWER_LID),
    ):
        upper, lower = _curve(upper_lid), _curve(lower_lid)
        move = share * np.maximum(lower - upper, 0.0)
        above = np.clip((lower - y) / 22.0, 0.0, 1.0)
        fade = 0.5 + 0.5 * np.cos(np.pi * above)
        lowered = cv2.remap(result, x, (y - move * fade).astype(np.float32), cv2.INTER_LINEAR)
        result = np.where((y <= lower)[..., None], lowered, result)
    return result


def _curve(points: Sequence[tuple[float, float]]) -> np.ndarray:
    """The height of a curve through points at every column of the portrait, [SIDE]; flat outside of them."""
    places = to_portrait(points)
    return np.asarray(np.interp(np.arange(SIDE), places[:, 0], places[:, 1]).astype(np.float32))


@cache
def _grid() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    return x, y


def _smooth_step(distance: np.ndarray) -> np.ndarray:
    return np.clip(distance + 0.5, 0.0, 1.0)


@cache
def masks() -> tuple[np.ndarray, np.ndarray]:
    """Where the person is and where the hair is, two float32 [SIDE, SIDE, 1] in [0, 1], soft at the edges."""
    picture = pose_pictures()[0, 0]
    x, y = _grid()
    oval = to_portrait(FACE_OVAL)
    centre = oval.mean(0)
    guess = np.full((SIDE, SIDE), cv2.GC_BGD, np.uint8)
    head = ((x - centre[0] + 2) / 112.0) ** 2 + ((y - centre[1] + 26) / 125.0) ** 2 < 1.0
    guess[head] = cv2.GC_PR_FGD
    shoulders = y > oval[:, 1].max() - 14
    guess[shoulders] = cv2.GC_PR_FGD
    cv2.fillPoly(guess, [oval.astype(np.int32)], cv2.GC_FGD)
    cv2.fillPoly(guess, [np.asarray(COLLAR, np.int32)], cv2.GC_FGD)
    cv2.setRNGSeed(1)
    cv2.grabCut(picture, guess, (0, 0, SIDE, SIDE), np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    person = ((guess == cv2.GC_FGD) | (guess == cv2.GC_PR_FGD)).astype(np.float32)
    face = np.zeros((SIDE, SIDE), np.float32)
    cv2.fillPoly(face, [oval.astype(np.int32)], 1.0)
    brows = to_portrait((*INNER_BROWS, *OUTER_BROWS))[:, 1].min()
    fringe = (y < brows - 2) & (picture.max(2) < 185)  # the forehead is brighter than the hair over it
    hair = person * np.maximum(1.0 - face, fringe) * (y < oval[:, 1].max() - 50)
    person = cv2.erode(_largest_part(person), np.ones((3, 3), np.uint8))  # without the rim, which contains the old background
    return cv2.GaussianBlur(person, (0, 0), 1.5)[..., None], cv2.GaussianBlur(hair, (0, 0), 2.0)[..., None]


def _largest_part(mask: np.ndarray) -> np.ndarray:
    _, parts, numbers, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    return np.asarray((parts == 1 + int(np.argmax(numbers[1:, cv2.CC_STAT_AREA]))).astype(np.float32))


def recolour(picture: np.ndarray, colouring: Colouring) -> np.ndarray:
    """The portrait in a speaker's colours in front of the speaker's background, uint8 [SIDE, SIDE, 3] RGB."""
    person, hair = masks()
    tint = np.asarray(colouring.skin, np.float32) * (1.0 - hair) + np.asarray(colouring.hair, np.float32) * hair
    curve = (np.linspace(0.0, 1.0, 256) ** colouring.gamma * 255.0).astype(np.float32)
    painted = np.minimum(curve[picture] * tint, 255.0)
    share = np.linspace(0.0, 1.0, SIDE, dtype=np.float32)[:, None, None]
    upper, lower = (np.asarray(colour, np.float32) for colour in colouring.background)
    behind = upper * (1.0 - share) + lower * share
    return np.asarray((painted * person + behind * (1.0 - person)).astype(np.uint8))
