"""The face mesh of mediapipe 0.10.14, whose wheel carries its models (468 points of the face and 10 of the irises)."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

import numpy as np

from preprocessing.schema import FeatureInfo
from preprocessing.vision import geometry
from preprocessing.vision.track import VisionTrack, fill_gaps


class FaceMeshExtractor:
    """Face features of the frames of clips; each frame is looked at on its own, so a clip's features do not depend on its neighbours."""

    def __init__(self, quiet: bool = True):
        os.environ.setdefault("GLOG_minloglevel", "3")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with silent_stderr(quiet):
            from mediapipe.python.solutions.face_mesh import FaceMesh

            cv2_threads()
            self._mesh = FaceMesh(static_image_mode=True, max_num_faces=1, refine_landmarks=True)
            self._mesh.process(np.zeros((64, 64, 3), np.uint8))  # starts its graph, which is what writes to stderr

    def points(self, frame: np.ndarray) -> np.ndarray | None:
        """The mesh of the face in an RGB picture, [478, 3] in pixels; None where there is no face."""
        faces = self._mesh.process(np.ascontiguousarray(frame)).multi_face_landmarks
        if not faces:
            return None
        height, width = frame.shape[:2]
        return np.array([(point.x * width, point.y * height, point.z * width) for point in faces[0].landmark], np.float64)

    def extract(self, frames: list[np.ndarray], times: list[float]) -> VisionTrack | None:
        """The features of a clip's frames (RGB [height, width, 3] uint8); None where no frame shows a face."""
        values = np.zeros((len(frames), len(geometry.COLUMNS)), np.float32)
        valid = np.zeros(len(frames), np.bool_)
        for place, frame in enumerate(frames):
            points = self.points(frame)
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


def mesh_info(frame_rate: float) -> FeatureInfo:
    """How the columns are made: names, units, rate, versions."""
    return FeatureInfo(
        extractor="mesh",
        rate_hz=frame_rate,
        columns=[dict(column) for column in geometry.COLUMNS],
        versions={name: metadata.version(name) for name in ("mediapipe", "opencv-contrib-python")},
        settings={"faces": "the most certain one", "frames_without_face": "interpolated in time, vision_valid false"},
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
