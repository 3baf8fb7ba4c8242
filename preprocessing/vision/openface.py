"""OpenFace's 709 columns (SKESL's original recipe), read from csv files of OpenFace 2 (Baltrusaitis et al. 2018) or made by its program.

OpenFace is not included: its licence permits academic use only, and users supply the files or the program.
"""

import csv
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from preprocessing.features import SkipError, VisionTrack, fill_gaps
from preprocessing.layouts import Clip
from preprocessing.media import Media
from preprocessing.schema import FeatureInfo
from skesl_mug.errors import UserError

if TYPE_CHECKING:
    from preprocessing.pipeline import PipelineSettings

_REGRESSED = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)
_CLASSIFIED = tuple(sorted((*_REGRESSED, 28)))
TIMEOUT = 3600.0  # seconds for the program on one video


def _columns() -> list[dict[str, str]]:
    gaze = [(f"gaze_{eye}_{axis}", "unit vector, camera frame") for eye in (0, 1) for axis in "xyz"]
    gaze += [(f"gaze_angle_{axis}", "radians") for axis in "xy"]
    eyes = [(f"eye_lmk_{axis}_{point}", "pixels") for axis in "xy" for point in range(56)]
    eyes += [(f"eye_lmk_{axis}_{point}", "mm, camera frame") for axis in "XYZ" for point in range(56)]
    pose = [(f"pose_T{axis}", "mm, camera frame") for axis in "xyz"] + [(f"pose_R{axis}", "radians") for axis in "xyz"]
    face = [(f"{axis}_{point}", "pixels") for axis in "xy" for point in range(68)]
    face += [(f"{axis}_{point}", "mm, camera frame") for axis in "XYZ" for point in range(68)]
    shape = [(f"p_{name}", "point distribution model") for name in ("scale", "rx", "ry", "rz", "tx", "ty", *range(34))]
    units = [(f"AU{unit:02d}_r", "intensity, 0 to 5") for unit in _REGRESSED] + [
        (f"AU{unit:02d}_c", "present, 0 or 1") for unit in _CLASSIFIED
    ]
    return [{"name": name, "unit": unit} for name, unit in (*gaze, *eyes, *pose, *face, *shape, *units)]


COLUMNS = _columns()
_NAMES = [column["name"] for column in COLUMNS]


class NoOpenFaceError(SkipError):
    """A clip has no csv file, or the file lacks columns."""

    def __init__(self, detail: str):
        super().__init__("no_openface", detail)


def open_openface(settings: "PipelineSettings") -> "OpenFace":
    """The extractor `openface`."""
    return OpenFace(settings.openface, settings.vision_fps)


class OpenFace:
    """OpenFace's features from csv files in a folder (or next to the videos), or by its program FeatureExtraction.

    Raises:
        UserError: `place` is neither a folder nor a program.
    """

    needs_frames = False

    def __init__(self, place: str | None, frame_rate: float):
        self.place, self.frame_rate, self.info = Path(place) if place is not None else None, frame_rate, openface_info(frame_rate)
        if self.place is not None and not self.place.exists():
            raise UserError(f"--openface {place}: does not exist; choose a folder of OpenFace csv files, or its program FeatureExtraction")

    def extract(self, clip: Clip, decoded: Media | None = None) -> VisionTrack | None:
        """See `VisionExtractor`.

        Raises:
            NoOpenFaceError: there is no csv file for the clip, or it is not OpenFace's.
        """
        if self.place is not None and self.place.is_file():
            with tempfile.TemporaryDirectory() as folder:
                table = self._run(clip, Path(folder))
                return read_track(table, self.frame_rate, clip.start, clip.end)
        return read_track(self._find(clip), self.frame_rate, clip.start, clip.end)

    def close(self) -> None:
        """Nothing to free."""

    def _find(self, clip: Clip) -> Path:
        folder = self.place
        places = [clip.path.with_suffix(".csv")]
        if folder is not None:
            places = [folder / f"{name}.csv" for name in (clip.file_id, clip.file_id.replace("/", "_"), clip.path.stem)]
        found = next((path for path in places if path.is_file()), None)
        if found is None:
            raise NoOpenFaceError(f"no {places[0].name} " + (f"in {folder}" if folder is not None else "next to the video"))
        return found

    def _run(self, clip: Clip, folder: Path) -> Path:
        command = [str(self.place), "-f", str(clip.path), "-out_dir", str(folder), "-of", "clip"]
        try:
            done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NoOpenFaceError(f"{Path(command[0]).name} could not be run ({error})") from error
        if done.returncode or not (folder / "clip.csv").is_file():
            raise NoOpenFaceError(f"{Path(command[0]).name} ended with status {done.returncode}")
        return folder / "clip.csv"


def read_track(path: Path, frame_rate: float, start: float = 0.0, end: float | None = None) -> VisionTrack | None:
    """The rows of an OpenFace csv file between `start` and `end` (seconds), thinned to a frame rate; `success` decides what is valid.

    With several faces, the one with the most successful rows is used.

    Raises:
        NoOpenFaceError: the file lacks one of OpenFace's columns, or contains other values than numbers.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            names = [name.strip() for name in next(reader, [])]
            place = {name: number for number, name in enumerate(names)}
            lacking = [name for name in ("timestamp", "success", *_NAMES) if name not in place]
            if lacking:
                raise NoOpenFaceError(f"{path.name} lacks {len(lacking)} of OpenFace's columns (first: {lacking[0]})")
            table = np.array([[float(cell) for cell in row] for row in reader if row], np.float64).reshape(-1, len(names))
    except (OSError, ValueError, UnicodeDecodeError, csv.Error) as error:
        raise NoOpenFaceError(f"{path.name} cannot be read ({error})") from error
    if "face_id" in place and len(table):
        faces = table[:, place["face_id"]]
        counts = {face: table[faces == face, place["success"]].sum() for face in np.unique(faces)}
        table = table[faces == max(counts, key=lambda face: counts[face])]
    times = table[:, place["timestamp"]] - start
    inside = (times >= -1e-3) & (times < (np.inf if end is None else end - start))
    kept = thin(times[inside], frame_rate)
    table, times = table[inside][kept], times[inside][kept].astype(np.float32)
    values = table[:, [place[name] for name in _NAMES]].astype(np.float32)
    valid = (table[:, place["success"]] > 0) & np.isfinite(values).all(axis=1)
    if not valid.any():
        return None
    return VisionTrack(fill_gaps(np.where(valid[:, None], values, 0.0), times, valid), times, valid)


def thin(times: np.ndarray, frame_rate: float) -> list[int]:
    """The positions of the first time at or after each multiple of 1/frame_rate seconds."""
    kept: list[int] = []
    for place, time in enumerate(times):
        if time + 1e-3 >= len(kept) / frame_rate:
            kept.append(place)
    return kept


def openface_info(frame_rate: float) -> FeatureInfo:
    """The entry of `dataset.json`."""
    settings = {"source": "csv files of OpenFace 2", "frames_without_face": "interpolated in time, vision_valid false"}
    return FeatureInfo("openface", frame_rate, [dict(column) for column in COLUMNS], {}, settings)
