"""Face pictures that lie as image files beside sound files (VoxCeleb1), read as the frames of a clip."""

import re
from pathlib import Path

import cv2
import numpy as np

from preprocessing.corpora.clip import Pictures

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


def read_pictures(pictures: Pictures, duration: float) -> tuple[list[np.ndarray], list[float]]:
    """The RGB pictures [height, width, 3] of a clip and their times in it (seconds). Unreadable files are left out.

    The number in a file's name is that of its video frame, `pictures.rate` of which make a second; the clip begins at the first frame
    of its track, or at the lowest number where the folder is the clip's own.
    """
    numbered = sorted(
        (int(digits[-1]), path)
        for path in pictures.folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and (digits := re.findall(r"\d+", path.stem))
    )
    if pictures.track is not None:
        span = frame_span(pictures.track)
        numbered = [(number, path) for number, path in numbered if span is not None and span[0] <= number <= span[1]]
    else:
        span = (numbered[0][0], numbered[-1][0]) if numbered else None
    frames, times = [], []
    for number, path in numbered:
        seconds = (number - span[0]) / pictures.rate if span is not None else 0.0
        image = cv2.imread(str(path))
        if image is not None and seconds <= duration + 1.0:
            frames.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
            times.append(seconds)
    return frames, times


def frame_span(track: Path) -> tuple[int, int] | None:
    """First and last frame number of VoxCeleb's text file of a clip (the rows below `FRAME X Y W H`); None where it has none."""
    text = track.read_text(encoding="utf-8", errors="replace")
    _, _, table = text.partition("FRAME")
    numbers = [int(line.split()[0]) for line in table.splitlines()[1:] if line.strip() and line.split()[0].isdigit()]
    return (numbers[0], numbers[-1]) if numbers else None
