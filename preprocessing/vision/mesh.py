"""The face mesh of mediapipe 0.10.14, whose wheel carries its models (468 points of the face and 10 of the irises)."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

import numpy as np

from preprocessing.schema import FeatureInfo
from preprocessing.vision import action_units, geometry, speaker
from preprocessing.vision.track import VisionTrack, fill_gaps

BLANK = np.zeros((64, 64, 3), np.uint8)


class FaceMeshExtractor:
    """Face features of the frames of clips; every clip starts afresh, so its features do not depend on the clips before it.

    With `first` the face found in one frame is followed into the next: the mesh is laid where it was, and the search over the whole
    picture, a third of the work, is left out until the face is lost. Several faces are searched for in every frame.
    """

    def __init__(self, quiet: bool = True, units: bool = False, faces: str = "first"):
        """`units` adds the columns of `action_units.py`; `faces` is one of `FACES`."""
        self.units, self.faces = units, faces
        warnings.filterwarnings("ignore", message=r"SymbolDatabase\.GetPrototype")  # mediapipe's way with its protobuf
        os.environ.setdefault("GLOG_minloglevel", "3")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with silent_stderr(quiet):
            from mediapipe.python.solutions.face_mesh import FaceMesh

            cv2_threads()
            several = faces != "first"
            self._mesh = FaceMesh(static_image_mode=several, max_num_faces=speaker.MOST_FACES if several else 1, refine_landmarks=True)
            self._look(BLANK)  # starts the graph, which is what writes to stderr

    def meshes(self, frames: list[np.ndarray]) -> list[list[np.ndarray]]:
        """The meshes of the faces in each RGB picture of a clip, [478, 3] in pixels; an empty list where there is no face."""
        if self.faces != "first":
            return [self._look(frame) for frame in frames]
        self._look(BLANK)  # the face of the clip before is lost; to start the graph again would take three times as long
        found: list[list[np.ndarray]] = []
        for frame in frames:
            faces = self._look(frame)
            if not faces and found and found[-1]:
                faces = self._look(frame)  # it is no longer where it was: now the whole picture is searched
            found.append(faces)
        return found

    def _look(self, frame: np.ndarray) -> list[np.ndarray]:
        height, width = frame.shape[:2]
        faces = self._mesh.process(np.ascontiguousarray(frame)).multi_face_landmarks or []
        return [read_points(face.SerializeToString()) * (width, height, width) for face in faces]

    def extract(
        self, frames: list[np.ndarray], times: list[float], sound: np.ndarray | None = None, sound_rate: int = 0
    ) -> VisionTrack | None:
        """The features of a clip's frames (RGB [height, width, 3] uint8); None where no frame shows a face.

        `sound` ([samples] at `sound_rate` Hz) tells which of several faces speaks.
        """
        meshes = self.meshes(frames)
        if self.faces == "first":
            chosen = {number: faces[0] for number, faces in enumerate(meshes) if faces}
        else:
            tracks = speaker.link(meshes)
            if self.faces == "speaking" and sound is not None:
                face = speaker.speaking(tracks, np.asarray(times), sound, sound_rate)
            else:
                face = speaker.largest(tracks)
            chosen = face.points if face is not None else {}
        return self._track(chosen, frames, times)

    def _track(self, chosen: dict[int, np.ndarray], frames: list[np.ndarray], times: list[float]) -> VisionTrack | None:
        """The features of one face, its mesh given by frame number."""
        numbers = sorted(chosen)
        if not numbers:
            return None
        sizes = np.array([frames[number].shape[:2] for number in numbers], np.float64)
        measured = geometry.measure(np.stack([chosen[number] for number in numbers]), sizes[:, 1], sizes[:, 0])
        if self.units:
            measured = np.concatenate([measured, action_units.action_units(measured)], axis=1)
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
    """x, y and z [points, 3] float64 of mediapipe's landmark list as protobuf writes it; a tenth of the time of asking for each number.

    A landmark is 17 bytes: two of its own, then three times a tag and a 32-bit float.
    """
    table = np.frombuffer(message, np.uint8).reshape(-1, 17)[:, 2:].reshape(-1, 3, 5)
    return table[:, :, 1:].copy().view("<f4")[:, :, 0].astype(np.float64)


def cv2_threads() -> None:
    """One thread for OpenCV: there is one process a core already."""
    import cv2

    cv2.setNumThreads(1)


FACES = {
    "first": "the most certain one, followed while it is in view",
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
