"""The face of a clip: the face mesh of mediapipe 0.10.14, whose wheel contains its models (468 points of the face, 10 of the irises)."""

import os
import sys
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from preprocessing.media import Media

if TYPE_CHECKING:
    from preprocessing.pipeline import PipelineSettings

BLANK = np.zeros((64, 64, 3), np.uint8)
MOST_FACES = 4
FACES = {
    "first": "the most certain one, followed while it is in view",
    "largest": "the largest through the clip",
    "speaking": "the one whose mouth moves with the sound's energy",
}
"""Choices of `--faces`, and how `dataset.json` describes them (predict reads them back)."""
SMALLEST_FACE = 8.0
"""Pixels between the outer eye corners below which `expression` and image encoders take a face as not seen: a face of about 20 pixels."""


@dataclass
class Face:
    """The chosen face of a clip in the frames that show it.

    `numbers` [n] are the frames' positions in the clip, `points` [n, 478, 3] the meshes in pixels, `sizes` [n, 2] the frames' height and
    width in pixels, `times` [n] seconds.
    """

    numbers: np.ndarray
    points: np.ndarray
    sizes: np.ndarray
    times: np.ndarray

    def eye_distance(self) -> np.ndarray:
        """Distance of the outer eye corners in pixels [n]."""
        return np.asarray(np.linalg.norm(self.points[:, _EYES[0]] - self.points[:, _EYES[1]], axis=-1))


class FaceTracker:
    """Finds the meshes of a clip's face. Each clip starts fresh, so its features do not depend on earlier clips.

    With `first` the face is tracked from frame to frame: the mesh is fitted where it was, and the full-image search (a third of the work)
    is skipped until the face is lost. With several faces, every frame is searched.
    """

    def __init__(self, quiet: bool = True, faces: str = "first"):
        """`faces` is one of `FACES`."""
        self.faces, self.users = faces, 1
        self.owner: PipelineSettings | None = None
        self._last: tuple[weakref.ref[Media], Face | None] | None = None
        warnings.filterwarnings("ignore", message=r"SymbolDatabase\.GetPrototype")  # mediapipe's use of protobuf
        os.environ.setdefault("GLOG_minloglevel", "3")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with silent_stderr(quiet):
            from mediapipe.python.solutions.face_mesh import FaceMesh

            cv2_threads()
            several = faces != "first"
            self._mesh = FaceMesh(static_image_mode=several, max_num_faces=MOST_FACES if several else 1, refine_landmarks=True)
            self._look(BLANK)  # starts the graph, which is what writes to stderr

    def meshes(self, frames: list[np.ndarray]) -> list[list[np.ndarray]]:
        """The face meshes in each RGB frame of a clip, [478, 3] in pixels; an empty list for a frame without a face."""
        if self.faces != "first":
            return [self._look(frame) for frame in frames]
        self._look(BLANK)  # forgets the previous clip's face; restarting the graph would take three times as long
        found: list[list[np.ndarray]] = []
        for frame in frames:
            faces = self._look(frame)
            if not faces and found and found[-1]:
                faces = self._look(frame)  # it moved away: now the whole image is searched
            found.append(faces)
        return found

    def _look(self, frame: np.ndarray) -> list[np.ndarray]:
        height, width = frame.shape[:2]
        faces = self._mesh.process(np.ascontiguousarray(frame)).multi_face_landmarks or []
        return [read_points(face.SerializeToString()) * (width, height, width) for face in faces]

    def face_in(self, decoded: Media) -> Face | None:
        """The face of a clip; searched once for all extractors that ask for it in turn. None if no frame shows one."""
        if self._last is None or self._last[0]() is not decoded:
            face = self.find(decoded.frames, decoded.frame_times, decoded.sound, decoded.sound_rate)
            self._last = (weakref.ref(decoded), face)
        return self._last[1]

    def find(self, frames: list[np.ndarray], times: list[float], sound: np.ndarray | None = None, sound_rate: int = 0) -> Face | None:
        """The face in frames (RGB [height, width, 3] uint8) at `times` (seconds); None if no frame shows one.

        `sound` ([samples] at `sound_rate` Hz) decides which of several faces speaks.
        """
        meshes = self.meshes(frames)
        if self.faces == "first":
            chosen = {number: faces[0] for number, faces in enumerate(meshes) if faces}
        else:
            tracks = link(meshes)
            if self.faces == "speaking" and sound is not None:
                face = speaking(tracks, np.asarray(times), sound, sound_rate)
            else:
                face = largest(tracks)
            chosen = face.points if face is not None else {}
        numbers = sorted(chosen)
        if not numbers:
            return None
        sizes = np.array([frames[number].shape[:2] for number in numbers], np.float64)
        return Face(np.array(numbers), np.stack([chosen[number] for number in numbers]), sizes, np.asarray(times, np.float64)[numbers])

    def close(self) -> None:
        """Free mediapipe's graph, once nobody uses it."""
        self.users -= 1
        if not self.users:
            self._mesh.close()


_shared: weakref.WeakSet[FaceTracker] = weakref.WeakSet()


def tracker_of(settings: "PipelineSettings") -> FaceTracker:
    """The tracker of all extractors that are opened with these settings: the mesh is fitted once per clip. Each user closes it."""
    for tracker in _shared:
        if tracker.owner is settings and tracker.users:
            tracker.users += 1
            return tracker
    tracker = FaceTracker(settings.quiet, settings.faces)
    tracker.owner = settings
    _shared.add(tracker)
    return tracker


def read_points(message: bytes) -> np.ndarray:
    """x, y and z [points, 3] float64 of mediapipe's serialised landmark list; ten times faster than reading each number.

    A landmark takes 17 bytes: a header of two, then three times a tag and a 32-bit float.
    """
    table = np.frombuffer(message, np.uint8).reshape(-1, 17)[:, 2:].reshape(-1, 3, 5)
    return table[:, :, 1:].copy().view("<f4")[:, :, 0].astype(np.float64)


def cv2_threads() -> None:
    """One thread for OpenCV: there is already one process per core."""
    import cv2

    cv2.setNumThreads(1)


@contextmanager
def silent_stderr(quiet: bool = True) -> Iterator[None]:
    """Discard what C++ code writes to file descriptor 2: mediapipe logs there before its log level can be set."""
    if not quiet:
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


LONGEST_STEP = 1.0  # a face moves at most its own size between two frames
_EYES, _LIPS = (33, 263), (13, 14)  # outer eye corners; inner rims of the lips


@dataclass
class FaceTrack:
    """One face through a clip: frame number -> its mesh [478, 3] in pixels."""

    points: dict[int, np.ndarray] = field(default_factory=dict)

    def size(self) -> float:
        """Distance of the outer eye corners summed over the frames, pixels: favours faces that are large and long in view."""
        return float(sum(_eye_distance(points) for points in self.points.values()))


def _eye_distance(points: np.ndarray) -> float:
    return float(np.linalg.norm(points[_EYES[0]] - points[_EYES[1]])) or 1.0


def link(frames: list[list[np.ndarray]]) -> list[FaceTrack]:
    """Join the faces of successive frames into tracks: each joins the nearest track last seen within one face size."""
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
    """The track whose mouth movement correlates most (Pearson) with the sound's energy; the largest if fewer than two can be judged.

    Args:
        tracks: of the clip.
        times: [frames], seconds.
        sound: [samples] float32.
        rate: of the sound, Hz.
    """
    judged = [(agreement(track, times, sound, rate), track) for track in tracks]
    able = [(value, track) for value, track in judged if value is not None]
    if len(able) < 2:
        return largest(tracks)
    return max(able, key=lambda pair: pair[0])[1]


def agreement(track: FaceTrack, times: np.ndarray, sound: np.ndarray, rate: int) -> float | None:
    """Correlation of mouth movement between successive frames with the loudness between them; None with fewer than four steps."""
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
    """Distance of the inner lip rims over that of the outer eye corners."""
    return float(np.linalg.norm(points[_LIPS[0]] - points[_LIPS[1]])) / _eye_distance(points)
