"""Expression columns: independent of place, size, roll and the proportions of the skull; each moves with its expression."""

import numpy as np
import pytest
from clip_factory import face, plain

from preprocessing.media import Media
from preprocessing.pipeline import PipelineSettings
from preprocessing.vision import expression
from preprocessing.vision.expression import COLUMNS, LANDMARKS, MEASURES, align, express, open_expression
from preprocessing.vision.faces import FaceTracker
from preprocessing.vision.geometry import head_rotation
from preprocessing.vision.mesh import open_mesh

NAMES = [column["name"] for column in COLUMNS]
TIMES = np.arange(5) / 6


@pytest.fixture(scope="module")
def mesh():
    tracker = FaceTracker()
    yield tracker.meshes([face()])[0][0]
    tracker.close()


@pytest.fixture
def clip(mesh):
    """A clip of five frames in which the lower lip drops, [5, 478, 3]."""
    return np.stack([moved(mesh, {14: (0, drop), 17: (0, drop), 152: (0, drop)}) for drop in (0, 2, 6, 2, 0)])


def moved(mesh: np.ndarray, moves: dict[int, tuple[float, float]]) -> np.ndarray:
    """A mesh with points moved by pixels (x right, y down)."""
    found = mesh.copy()
    for point, shift in moves.items():
        found[point, :2] += shift
    return found


def column(values: np.ndarray, name: str) -> np.ndarray:
    return values[:, NAMES.index(name)]


def test_columns_are_named_once_with_units(clip):
    assert len(set(NAMES)) == len(NAMES) == 87
    assert all(entry["unit"] for entry in COLUMNS)
    values = express(clip, TIMES)
    assert values.shape == (5, 87)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert np.abs(values).max() < 400  # on disk they are float16


def test_place_and_size_do_not_matter(clip):
    moved_away = clip * 2.5 + np.array([300.0, -40.0, 12.0])
    np.testing.assert_allclose(express(moved_away, TIMES), express(clip, TIMES), atol=1e-4)


def test_roll_moves_its_own_column_only(clip):
    angle = np.radians(20)
    turn = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])  # clockwise in the picture
    before, after = express(clip, TIMES), express(clip @ turn, TIMES)
    np.testing.assert_allclose(column(after, "head_roll") - column(before, "head_roll"), 20, atol=1.0)
    others = [place for place, name in enumerate(NAMES) if not name.startswith("head_")]
    np.testing.assert_allclose(after[:, others], before[:, others], atol=1e-4)


def test_the_proportions_of_the_skull_do_not_matter(clip):
    """A longer, narrower and flatter face with the same expression: the stretch is in the head's own axes."""
    turn = head_rotation(clip)
    longer = clip @ turn @ np.diag([0.9, 1.15, 0.95]) @ np.swapaxes(turn, 1, 2)
    others = [place for place, name in enumerate(NAMES) if not name.startswith("head_")]
    np.testing.assert_allclose(express(longer, TIMES)[:, others], express(clip, TIMES)[:, others], atol=2e-3)


@pytest.mark.parametrize(
    ("moves", "name"),
    [
        ({61: (0, -6), 291: (0, -6)}, "mouth_corner_lift"),
        ({291: (0, -6)}, "mouth_corner_asymmetry"),
        ({61: (0, -6), 291: (0, -6)}, "lip_curvature"),
        ({61: (-5, 0), 291: (5, 0)}, "mouth_width"),
        ({14: (0, 6)}, "mouth_opening"),
        ({0: (0, 4), 17: (0, -4)}, "lip_press"),
        ({0: (0, -4)}, "upper_lip_raise"),
        ({152: (0, 6)}, "jaw_drop"),
        ({129: (0, -4), 358: (0, -4)}, "nose_wrinkle"),
        ({50: (0, -5), 280: (0, -5)}, "cheek_raise"),
        ({107: (0, -6), 336: (0, -6)}, "brow_inner_height"),
        ({70: (0, -6), 300: (0, -6)}, "brow_outer_height"),
        ({107: (-4, 0), 336: (4, 0)}, "brow_distance"),
        ({159: (0, -3), 386: (0, -3)}, "eye_opening"),
        ({145: (0, -3), 153: (0, -3), 374: (0, -3), 380: (0, -3)}, "lower_lid_raise"),
        ({473: (3, 0), 468: (3, 0)}, "gaze_sideways"),
        ({473: (0, -3), 468: (0, -3)}, "gaze_height"),
    ],
)
def test_an_expression_in_the_last_frame_raises_its_columns(mesh, moves, name):
    clip = np.stack([mesh] * 4 + [moved(mesh, moves)])
    values = express(clip, TIMES)
    for kind in (name, f"{name}_change"):
        assert column(values, kind)[-1] - column(values, kind)[0] > 0.01
    assert column(values, f"{name}_change")[:4] == pytest.approx(0, abs=1e-6)  # the neutral face is the clip's median
    assert column(values, f"{name}_speed")[-1] > 0.1
    assert column(values, f"{name}_speed")[0] == pytest.approx(0, abs=1e-6)


def test_every_measure_has_a_test():
    parameters = test_an_expression_in_the_last_frame_raises_its_columns.pytestmark[0].args[1]
    assert {name for _, name in parameters} == set(MEASURES)


def test_a_smile_of_another_person_moves_the_landmarks_alike(clip, mesh):
    wider = mesh * (1.1, 0.95, 1.0)
    shifts = []
    for own in (mesh, wider):
        smile = moved(own, {61: (-0.03 * np.ptp(own[:, 0]), -0.03 * np.ptp(own[:, 1]))})
        values = express(np.stack([own, own, smile]), TIMES[:3])
        shifts.append([column(values, f"mouth_corner_right_{axis}")[2] - column(values, f"mouth_corner_right_{axis}")[0] for axis in "xy"])
    np.testing.assert_allclose(shifts[0], shifts[1], atol=0.01)
    assert shifts[0][0] < 0 < shifts[0][1]  # to the person's right, and up
    assert set(LANDMARKS.values()) <= set(range(478))


def test_turning_the_head_moves_its_own_columns_first(mesh):
    """The mesh is three-dimensional: turned away by 15 degrees, the aligned face is the same."""
    angle = np.radians(15)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    clip = np.stack([mesh, mesh @ turn])
    aligned, rotation = align(clip)
    np.testing.assert_allclose(aligned[1], aligned[0], atol=1e-6)
    yaw = expression.pose_of(rotation)[:, 0]
    assert abs(yaw[1] - yaw[0]) == pytest.approx(15, abs=1.0)


def test_one_frame_has_no_speed_and_no_change(mesh):
    values = express(mesh[None], TIMES[:1])
    assert not values[:, [place for place, name in enumerate(NAMES) if name.endswith(("_speed", "_change"))]].any()


def test_speeds_follow_the_times_of_the_frames(clip):
    slow, fast = express(clip, TIMES), express(clip, TIMES / 2)
    assert column(fast, "jaw_drop_speed") == pytest.approx(2 * column(slow, "jaw_drop_speed"), rel=1e-3, abs=1e-6)
    assert np.isfinite(express(clip, np.zeros(5))).all()  # frames with one time stamp


def media(frames: list[np.ndarray]) -> Media:
    return Media(len(frames) / 6, None, 0, frames, [number / 6 for number in range(len(frames))])


def test_the_mesh_is_fitted_once_for_all_extractors_of_a_process(monkeypatch):
    settings = PipelineSettings(whisper=None)
    both = [open_mesh(settings), open_expression(settings)]
    assert both[0].tracker is both[1].tracker
    looked = []
    look = FaceTracker.meshes
    monkeypatch.setattr(FaceTracker, "meshes", lambda self, frames: looked.append(len(frames)) or look(self, frames))
    clips = [media([face(), plain(), face()]), media([face()])]
    for clip in clips:
        tracks = [extractor.extract(None, clip) for extractor in both]
        np.testing.assert_array_equal(tracks[0].valid, tracks[1].valid)
    assert looked == [3, 1]
    both[0].close()
    assert both[1].extract(None, media([face()])) is not None  # still open
    both[1].close()
    again = open_expression(settings)
    assert again.tracker is not both[0].tracker
    again.close()


def test_no_face_and_tiny_faces_are_not_seen():
    extractor = open_expression(PipelineSettings(whisper=None))
    assert extractor.extract(None, media([plain(), plain()])) is None
    seen = extractor.tracker.find([face()], [0.0])
    assert np.isfinite(extractor.values(seen, [])).all()
    seen.points *= 7.0 / seen.eye_distance()[0]
    assert np.isnan(extractor.values(seen, [])).all()
    extractor.close()


def test_a_face_that_leaves_the_picture_is_invalid_until_it_is_back():
    extractor = open_expression(PipelineSettings(whisper=None))
    leaving = [np.roll(face(), shift, axis=1) * (np.arange(256) >= shift)[None, :, None].astype(np.uint8) for shift in (60, 250)]
    frames = [face(), *leaving, face()]
    track = extractor.extract(None, media(frames))
    assert track.valid[0]
    assert not track.valid[2]
    assert track.valid[3]
    assert np.isfinite(track.values).all()
    extractor.close()
