"""Face features by the face mesh of mediapipe 0.10.14, whose wheel contains its models (468 points of the face, 10 of the irises)."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np

from preprocessing.features import VisionTrack, fill_gaps
from preprocessing.layouts import Clip
from preprocessing.media import Media
from preprocessing.schema import FeatureInfo
from preprocessing.vision.geometry import COLUMNS, UNIT_COLUMNS, action_units, measure

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


def open_mesh(settings: "PipelineSettings") -> "FaceMeshExtractor":
    """The extractor `mesh`."""
    return FaceMeshExtractor(settings.quiet, False, settings.faces, settings.vision_fps)


def open_mesh_au(settings: "PipelineSettings") -> "FaceMeshExtractor":
    """The extractor `mesh-au`."""
    return FaceMeshExtractor(settings.quiet, True, settings.faces, settings.vision_fps)


class FaceMeshExtractor:
    """Face features of clips. Each clip starts fresh, so its features do not depend on earlier clips.

    With `first` the face is tracked from frame to frame: the mesh is fitted where it was, and the full-image search (a third of the work)
    is skipped until the face is lost. With several faces, every frame is searched.
    """

    needs_frames = True

    def __init__(self, quiet: bool = True, units: bool = False, faces: str = "first", frame_rate: float = 6.0):
        """`units` adds the action unit columns; `faces` is one of `FACES`."""
        self.units, self.faces, self.info = units, faces, mesh_info(frame_rate, units, faces)
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

    def extract(self, clip: Clip, decoded: Media) -> VisionTrack | None:
        """See `VisionExtractor`."""
        return self.extract_frames(decoded.frames, decoded.frame_times, decoded.sound, decoded.sound_rate)

    def extract_frames(
        self, frames: list[np.ndarray], times: list[float], sound: np.ndarray | None = None, sound_rate: int = 0
    ) -> VisionTrack | None:
        """The features of frames (RGB [height, width, 3] uint8) at `times` (seconds); None if no frame shows a face.

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
        return self._track(chosen, frames, times)

    def _track(self, chosen: dict[int, np.ndarray], frames: list[np.ndarray], times: list[float]) -> VisionTrack | None:
        """The features of one face, given as frame number -> mesh."""
        numbers = sorted(chosen)
        if not numbers:
            return None
        sizes = np.array([frames[number].shape[:2] for number in numbers], np.float64)
        measured = measure(np.stack([chosen[number] for number in numbers]), sizes[:, 1], sizes[:, 0])
        if self.units:
            measured = np.concatenate([measured, action_units(measured)], axis=1)
        valid = np.zeros(len(frames), np.bool_)
        valid[numbers] = np.isfinite(measured).all(axis=1)
        if not valid.any():
            return None
        values = np.zeros((len(frames), measured.shape[1]), np.float32)
        values[valid] = measured[valid[numbers]]
        seconds = np.asarray(times, np.float32)
        return VisionTrack(fill_gaps(values, seconds, valid), seconds, valid)

    def close(self) -> None:
        """Free mediapipe's graph."""
        self._mesh.close()


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


def mesh_info(frame_rate: float, units: bool = False, faces: str = "first") -> FeatureInfo:
    """The entry of `dataset.json`."""
    return FeatureInfo(
        extractor="mesh-au" if units else "mesh",
        rate_hz=frame_rate,
        columns=[dict(column) for column in (*COLUMNS, *(UNIT_COLUMNS if units else ()))],
        versions={name: metadata.version(name) for name in ("mediapipe", "opencv-contrib-python")},
        settings={"faces": FACES[faces], "frames_without_face": "interpolated in time, vision_valid false"},
    )


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
