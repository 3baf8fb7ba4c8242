"""The face mesh of mediapipe 0.10.14, whose wheel carries its models (468 points of the face and 10 of the irises)."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata

import numpy as np

from preprocessing.schema import FeatureInfo
from preprocessing.vision import action_units, geometry, speaker
from preprocessing.vision.track import VisionTrack, fill_gaps


class FaceMeshExtractor:
    """Face features of the frames of clips; each frame is looked at on its own, so a clip's features do not depend on its neighbours."""

    def __init__(self, quiet: bool = True, units: bool = False, faces: str = "first"):
        """`units` adds the columns of `action_units.py`; `faces` is `first` (the most certain one), `largest` or `speaking`."""
        self.units, self.faces = units, faces
        os.environ.setdefault("GLOG_minloglevel", "3")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with silent_stderr(quiet):
            from mediapipe.python.solutions.face_mesh import FaceMesh

            cv2_threads()
            self._mesh = FaceMesh(
                static_image_mode=True, max_num_faces=1 if faces == "first" else speaker.MOST_FACES, refine_landmarks=True
            )
            self._mesh.process(np.zeros((64, 64, 3), np.uint8))  # starts its graph, which is what writes to stderr

    def points(self, frame: np.ndarray) -> np.ndarray | None:
        """The mesh of the face in an RGB picture, [478, 3] in pixels; None where there is no face."""
        return next(iter(self.all_points(frame)), None)

    def all_points(self, frame: np.ndarray) -> list[np.ndarray]:
        """The meshes of all faces in an RGB picture."""
        height, width = frame.shape[:2]
        faces = self._mesh.process(np.ascontiguousarray(frame)).multi_face_landmarks or []
        return [np.array([(point.x * width, point.y * height, point.z * width) for point in face.landmark], np.float64) for face in faces]

    def extract(
        self, frames: list[np.ndarray], times: list[float], sound: np.ndarray | None = None, sound_rate: int = 0
    ) -> VisionTrack | None:
        """The features of a clip's frames (RGB [height, width, 3] uint8); None where no frame shows a face.

        `sound` ([samples] at `sound_rate` Hz) tells which of several faces speaks.
        """
        track = self._extract(frames, times, self._chosen(frames, times, sound, sound_rate))
        if track is not None and self.units:
            track.values = np.concatenate([track.values, action_units.action_units(track.values)], axis=1)
        return track

    def _chosen(
        self, frames: list[np.ndarray], times: list[float], sound: np.ndarray | None, sound_rate: int
    ) -> Callable[[int], np.ndarray | None]:
        """The mesh to take in each frame, by its number."""
        if self.faces == "first":
            return lambda number: self.points(frames[number])
        tracks = speaker.link([self.all_points(frame) for frame in frames])
        if self.faces == "speaking" and sound is not None:
            found = speaker.speaking(tracks, np.asarray(times), sound, sound_rate)
        else:
            found = speaker.largest(tracks)
        return lambda number: found.points.get(number) if found is not None else None

    def _extract(self, frames: list[np.ndarray], times: list[float], points_of: Callable[[int], np.ndarray | None]) -> VisionTrack | None:
        values = np.zeros((len(frames), len(geometry.COLUMNS)), np.float32)
        valid = np.zeros(len(frames), np.bool_)
        for place, frame in enumerate(frames):
            points = points_of(place)
            if points is not None:
                row = geometry.measure(points, frame.shape[1], frame.shape[0])
                valid[place] = bool(np.isfinite(row).all())
                values[place] = np.where(valid[place], row, 0.0)
        if not valid.any():
            return None
        seconds = np.asarray(times, np.float32)
        return VisionTrack(fill_gaps(values, seconds, valid), seconds, valid)

    def close(self) -> None:
        """Free mediapipe's graph."""
        self._mesh.close()


def cv2_threads() -> None:
    """One thread for OpenCV: there is one process a core already."""
    import cv2

    cv2.setNumThreads(1)


FACES = {
    "first": "the most certain one",
    "largest": "the largest through the clip",
    "speaking": "the one whose mouth moves with the sound's energy",
}


def mesh_info(frame_rate: float, units: bool = False, faces: str = "first") -> FeatureInfo:
    """How the columns are made: names, units, rate, versions."""
    return FeatureInfo(
        extractor="mesh-au" if units else "mesh",
        rate_hz=frame_rate,
        columns=[dict(column) for column in (*geometry.COLUMNS, *(action_units.COLUMNS if units else ()))],
        versions={name: metadata.version(name) for name in ("mediapipe", "opencv-contrib-python")},
        settings={"faces": FACES[faces], "frames_without_face": "interpolated in time, vision_valid false"},
    )


@contextmanager
def silent_stderr(quiet: bool = True) -> Iterator[None]:
    """Send what C++ code writes to file descriptor 2 to nowhere for a while; mediapipe logs there before its log level can be set."""
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
