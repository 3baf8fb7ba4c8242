"""Features of the face mesh: the extractors `mesh` and `mesh-au`, and the base of all that measure a face."""

from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np

from preprocessing.features import VisionTrack, fill_gaps
from preprocessing.layouts import Clip
from preprocessing.media import Media
from preprocessing.schema import FeatureInfo
from preprocessing.vision.faces import FACES, Face, FaceTracker, tracker_of
from preprocessing.vision.geometry import COLUMNS, UNIT_COLUMNS, action_units, measure

if TYPE_CHECKING:
    from preprocessing.pipeline import PipelineSettings


def open_mesh(settings: "PipelineSettings") -> "FaceMeshExtractor":
    """The extractor `mesh`."""
    return FaceMeshExtractor(settings.quiet, False, settings.faces, settings.vision_fps, tracker_of(settings))


def open_mesh_au(settings: "PipelineSettings") -> "FaceMeshExtractor":
    """The extractor `mesh-au`."""
    return FaceMeshExtractor(settings.quiet, True, settings.faces, settings.vision_fps, tracker_of(settings))


class FaceExtractor:
    """Base of the extractors that measure the face of the mesh: a vision extractor whose `values` are defined by its subclasses."""

    needs_frames = True

    def __init__(self, tracker: FaceTracker, info: FeatureInfo):
        self.tracker, self.info = tracker, info

    def values(self, face: Face, frames: list[np.ndarray]) -> np.ndarray:
        """The columns [n, D] of a face seen in n of the clip's `frames`; a row that is not finite counts as a frame without a face."""
        raise NotImplementedError

    def extract(self, clip: Clip, decoded: Media) -> VisionTrack | None:
        """See `VisionExtractor`."""
        return self._track(self.tracker.face_in(decoded), decoded.frames, decoded.frame_times)

    def extract_frames(
        self, frames: list[np.ndarray], times: list[float], sound: np.ndarray | None = None, sound_rate: int = 0
    ) -> VisionTrack | None:
        """The features of frames; the arguments are those of `FaceTracker.find`. None if no frame shows a face."""
        return self._track(self.tracker.find(frames, times, sound, sound_rate), frames, times)

    def _track(self, face: Face | None, frames: list[np.ndarray], times: list[float]) -> VisionTrack | None:
        if face is None:
            return None
        measured = self.values(face, frames)
        valid = np.zeros(len(frames), np.bool_)
        valid[face.numbers] = np.isfinite(measured).all(axis=1)
        if not valid.any():
            return None
        values = np.zeros((len(frames), measured.shape[1]), np.float32)
        values[valid] = measured[valid[face.numbers]]
        seconds = np.asarray(times, np.float32)
        return VisionTrack(fill_gaps(values, seconds, valid), seconds, valid)

    def close(self) -> None:
        """Free the models."""
        self.tracker.close()


class FaceMeshExtractor(FaceExtractor):
    """Named measures of the mesh (geometry.py)."""

    def __init__(
        self, quiet: bool = True, units: bool = False, faces: str = "first", frame_rate: float = 6.0, tracker: FaceTracker | None = None
    ):
        """`units` adds the action unit columns; `faces` is one of `FACES`."""
        super().__init__(tracker or FaceTracker(quiet, faces), mesh_info(frame_rate, units, faces))
        self.units = units

    def values(self, face: Face, frames: list[np.ndarray]) -> np.ndarray:
        """See `FaceExtractor`."""
        measured = measure(face.points, face.sizes[:, 1], face.sizes[:, 0])
        return np.concatenate([measured, action_units(measured)], axis=1) if self.units else measured


def mesh_info(frame_rate: float, units: bool = False, faces: str = "first") -> FeatureInfo:
    """The entry of `dataset.json`."""
    return FeatureInfo(
        extractor="mesh-au" if units else "mesh",
        rate_hz=frame_rate,
        columns=[dict(column) for column in (*COLUMNS, *(UNIT_COLUMNS if units else ()))],
        versions={name: metadata.version(name) for name in ("mediapipe", "opencv-contrib-python")},
        settings={"faces": FACES[faces], "frames_without_face": "interpolated in time, vision_valid false"},
    )
