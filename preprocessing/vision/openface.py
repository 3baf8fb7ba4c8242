"""The 709 columns of SKESL's original recipe, from csv files that OpenFace 2 (Baltrusaitis et al. 2018) wrote, or by its program.

OpenFace is no part of this toolkit: its licence admits academic use alone, and its user brings the files or the program.
"""

import csv
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from preprocessing.corpora.clip import Clip
from preprocessing.schema import FeatureInfo
from preprocessing.vision.track import VisionTrack, fill_gaps
from skesl_mug.errors import UserError

_REGRESSED = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)
_CLASSIFIED = tuple(sorted((*_REGRESSED, 28)))
PATIENCE = 3600.0  # seconds for the program on one video


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


class NoOpenFaceError(Exception):
    """There is no csv file for a clip, or it lacks columns."""


class OpenFace:
    """OpenFace's features of clips, from csv files in a folder (or beside the videos), or by its program FeatureExtraction.

    Raises:
        UserError: `place` is neither a folder nor a program.
    """

    def __init__(self, place: str | None, frame_rate: float):
        self.place, self.frame_rate = Path(place) if place is not None else None, frame_rate
        if self.place is not None and not self.place.exists():
            raise UserError(f"--openface {place}: is not there; give a folder of OpenFace's csv files, or its program FeatureExtraction")

    def extract(self, clip: Clip) -> VisionTrack | None:
        """The features of a clip at the frame rate asked for; None where OpenFace found no face.

        Raises:
            NoOpenFaceError: there is no csv file for the clip, or it is not OpenFace's.
        """
        if self.place is not None and self.place.is_file():
            with tempfile.TemporaryDirectory() as folder:
                table = self._run(clip, Path(folder))
                return read_track(table, self.frame_rate, clip.start, clip.end)
        return read_track(self._find(clip), self.frame_rate, clip.start, clip.end)

    def _find(self, clip: Clip) -> Path:
        folder = self.place
        places = [clip.path.with_suffix(".csv")]
        if folder is not None:
            places = [folder / f"{name}.csv" for name in (clip.id, clip.id.replace("/", "_"), clip.path.stem)]
        found = next((path for path in places if path.is_file()), None)
        if found is None:
            raise NoOpenFaceError(f"no {places[0].name} " + (f"in {folder}" if folder is not None else "beside the video"))
        return found

    def _run(self, clip: Clip, folder: Path) -> Path:
        command = [str(self.place), "-f", str(clip.path), "-out_dir", str(folder), "-of", "clip"]
        try:
            done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NoOpenFaceError(f"{Path(command[0]).name} could not be run ({error})") from error
        if done.returncode or not (folder / "clip.csv").is_file():
            raise NoOpenFaceError(f"{Path(command[0]).name} ended with status {done.returncode}")
        return folder / "clip.csv"


def read_track(path: Path, frame_rate: float, start: float = 0.0, end: float | None = None) -> VisionTrack | None:
    """The rows of an OpenFace csv file between `start` and `end` (seconds), thinned to a frame rate; `success` says what is valid.

    Of several faces the one with the most successful rows is taken.

    Raises:
        NoOpenFaceError: the file lacks one of OpenFace's columns, or holds something else than numbers.
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
    """The places of the first time at or after each multiple of 1/frame_rate seconds."""
    kept: list[int] = []
    for place, time in enumerate(times):
        if time + 1e-3 >= len(kept) / frame_rate:
            kept.append(place)
    return kept


def openface_info(frame_rate: float) -> FeatureInfo:
    """How the columns are made: names, units, rate."""
    settings = {"source": "csv files of OpenFace 2", "frames_without_face": "interpolated in time, vision_valid false"}
    return FeatureInfo("openface", frame_rate, [dict(column) for column in COLUMNS], {}, settings)
