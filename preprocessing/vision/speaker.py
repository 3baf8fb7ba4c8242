"""Of several faces in a clip, the one whose features are kept: the largest, or the one that speaks."""

from dataclasses import dataclass, field

import numpy as np

MOST_FACES = 4
LONGEST_STEP = 1.0  # a face moves by no more than its own size between two frames
_EYES, _LIPS = (33, 263), (13, 14)  # outer eye corners; inner rims of the lips


@dataclass
class FaceTrack:
    """One face through a clip: frame number -> its mesh [478, 3] in pixels."""

    points: dict[int, np.ndarray] = field(default_factory=dict)

    def size(self) -> float:
        """Distance of the outer eye corners summed over the frames, pixels: large and long in view wins."""
        return float(sum(_eye_distance(points) for points in self.points.values()))


def _eye_distance(points: np.ndarray) -> float:
    return float(np.linalg.norm(points[_EYES[0]] - points[_EYES[1]])) or 1.0


def link(frames: list[list[np.ndarray]]) -> list[FaceTrack]:
    """Faces of successive frames joined into tracks: each goes to the nearest track seen last within one face size."""
    tracks: list[FaceTrack] = []
    for number, faces in enumerate(frames):
        taken: set[int] = set()
        for points in faces:
            centre, reach = points[list(_EYES)].mean(axis=0)[:2], 2 * _eye_distance(points) * LONGEST_STEP
            gaps = {}
            for place, track in enumerate(tracks):
                if place not in taken:
                    last = track.points[max(track.points)]
                    gaps[place] = float(np.linalg.norm(last[list(_EYES)].mean(axis=0)[:2] - centre))
            nearest = min(gaps, key=lambda place: gaps[place], default=None)
            if nearest is None or gaps[nearest] > reach:
                tracks.append(FaceTrack())
                nearest = len(tracks) - 1
            tracks[nearest].points[number] = points
            taken.add(nearest)
    return tracks


def largest(tracks: list[FaceTrack]) -> FaceTrack | None:
    """The track of the largest face; None without tracks."""
    return max(tracks, key=FaceTrack.size, default=None)


def speaking(tracks: list[FaceTrack], times: np.ndarray, sound: np.ndarray, rate: int) -> FaceTrack | None:
    """The track whose mouth moves most as the sound's energy does (Pearson); the largest where none can be judged.

    Args:
        tracks: of the clip.
        times: [frames] of the pictures, seconds.
        sound: [samples] float32.
        rate: of the sound, Hz.
    """
    judged = [(agreement(track, times, sound, rate), track) for track in tracks]
    able = [(value, track) for value, track in judged if value is not None]
    if len(able) < 2:
        return largest(tracks)
    return max(able, key=lambda pair: pair[0])[1]


def agreement(track: FaceTrack, times: np.ndarray, sound: np.ndarray, rate: int) -> float | None:
    """Correlation of a mouth's movement between successive frames with the sound's loudness between them; None below four steps."""
    moves, loudness = [], []
    for before, after in zip(sorted(track.points), sorted(track.points)[1:], strict=False):
        if after != before + 1:
            continue
        piece = sound[int(times[before] * rate) : int(times[after] * rate)]
        if len(piece):
            moves.append(abs(_opening(track.points[after]) - _opening(track.points[before])))
            loudness.append(float(np.sqrt(np.mean(np.square(piece, dtype=np.float64)))))
    if len(moves) < 4 or np.std(moves) == 0 or np.std(loudness) == 0:
        return None
    return float(np.corrcoef(moves, loudness)[0, 1])


def _opening(points: np.ndarray) -> float:
    """Distance of the inner lip rims in distances of the outer eye corners."""
    return float(np.linalg.norm(points[_LIPS[0]] - points[_LIPS[1]])) / _eye_distance(points)
