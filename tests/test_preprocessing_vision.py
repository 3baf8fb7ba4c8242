"""Face features: geometry on synthetic points, the mesh on a face."""

import cv2
import numpy as np
import pytest
from clip_factory import face, plain
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.features import VisionTrack, fill_gaps
from preprocessing.vision import geometry
from preprocessing.vision.faces import read_points
from preprocessing.vision.geometry import COLUMNS, RIGID_POINTS, head_angles, head_rotation
from preprocessing.vision.mesh import FaceMeshExtractor, mesh_info

NAMES = [column["name"] for column in COLUMNS]


@pytest.fixture(scope="module")
def extractor():
    found = FaceMeshExtractor()
    yield found
    found.close()


@pytest.fixture(scope="module")
def points(extractor):
    return extractor.tracker.meshes([face()])[0][0]


def measure(points: np.ndarray, width: float, height: float) -> np.ndarray:
    return geometry.measure(points[None], width, height)[0]


def turned(points: np.ndarray, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """Rotate a mesh around its centre by degrees, with the signs of the columns."""
    turn = cv2.Rodrigues(np.radians([0.0, -yaw, 0.0]))[0] @ cv2.Rodrigues(np.radians([-pitch, 0.0, 0.0]))[0]
    turn = cv2.Rodrigues(np.radians([0.0, 0.0, roll]))[0] @ turn
    middle = points.mean(axis=0)
    return (points - middle) @ turn.T + middle


def test_columns_are_named_once_with_units():
    assert len(set(NAMES)) == len(NAMES) == 38
    assert all(column["unit"] for column in COLUMNS)
    assert mesh_info(6.0).width == 38
    assert mesh_info(6.0).rate_hz == 6.0


def test_a_real_face(points):
    assert points.shape == (478, 3)
    values = dict(zip(NAMES, measure(points, 256, 256), strict=True))
    # the astronaut faces the camera, upright, and smiles with an open mouth
    assert all(abs(values[name]) < 12 for name in ("head_yaw", "head_pitch", "head_roll"))
    assert 0.3 < values["mouth_width"] < 0.9
    assert values["mouth_corner_height_left"] > 0
    assert values["mouth_corner_height_right"] > 0
    assert values["mouth_opening"] > 0.02
    assert 0.1 < values["eye_openness_left"] < 0.6
    assert values["brow_middle_height_right"] > 0.1
    assert abs(values["gaze_sideways_left"]) < 0.5


@given(st.floats(-25, 25), st.floats(-20, 20), st.floats(-30, 30))
@settings(max_examples=25, deadline=None)
def test_the_rotation_of_the_head_model_is_found(yaw, pitch, roll):
    model = np.zeros((478, 3))
    model[list(RIGID_POINTS)] = np.array(list(RIGID_POINTS.values())) * 80
    seen = turned(model, yaw, pitch, roll) + np.array([300.0, 200.0, 0.0])
    centred = (seen - seen[list(RIGID_POINTS)].mean(axis=0)) @ head_rotation(seen)
    expected = model - model[list(RIGID_POINTS)].mean(axis=0)
    np.testing.assert_allclose(centred[list(RIGID_POINTS)], expected[list(RIGID_POINTS)], atol=1e-6)


def test_angles_follow_their_signs():
    model = np.array([RIGID_POINTS[point] for point in RIGID_POINTS])

    def seen_from(yaw: float, pitch: float, roll: float) -> tuple[float, float, float]:
        """Project the head, 6 units away, with a pinhole camera as wide as the image."""
        mesh = np.zeros((478, 3))
        turn = turned(np.vstack([model, -model.sum(axis=0, keepdims=True)]), yaw, pitch, roll)[:-1]
        mesh[list(RIGID_POINTS), :2] = turn[:, :2] / (turn[:, 2:] + 6.0) * 400 + 200
        return head_angles(mesh, 400, 400)

    assert seen_from(0, 0, 0) == pytest.approx((0, 0, 0), abs=0.1)
    assert seen_from(15, 0, 0) == pytest.approx((15, 0, 0), abs=0.1)
    assert seen_from(0, 10, 0) == pytest.approx((0, 10, 0), abs=0.1)
    assert seen_from(0, 0, 20) == pytest.approx((0, 0, 20), abs=0.1)


def test_lengths_do_not_depend_on_size_position_or_pose(points):
    own = slice(6, None)
    before = measure(points, 256, 256)[own]
    moved = measure(points * 2.5 + [40.0, -20.0, 0.0], 900, 900)[own]
    np.testing.assert_allclose(moved, before, atol=1e-4)
    turned_away = measure(turned(points, yaw=18, pitch=-9, roll=25), 256, 256)[own]
    np.testing.assert_allclose(turned_away, before, atol=1e-4)


@pytest.mark.parametrize(
    ("moves", "column"),
    [
        ({291: (0, -6, 0)}, "mouth_corner_height_left"),
        ({61: (0, -6, 0)}, "mouth_corner_height_right"),
        ({61: (0, -6, 0), 291: (0, -6, 0)}, "lip_curvature"),
        ({14: (0, 6, 0)}, "mouth_opening"),
        ({152: (0, 6, 0)}, "jaw_drop"),
        ({336: (6, 0, 0)}, "brow_distance"),
        ({336: (0, -6, 0)}, "brow_inner_height_left"),
        ({105: (0, -6, 0)}, "brow_middle_height_right"),
        ({386: (0, -3, 0), 385: (0, -3, 0)}, "eye_openness_left"),
        ({145: (0, -3, 0), 153: (0, -3, 0)}, "lower_lid_height_right"),
        ({473: (3, 0, 0)}, "gaze_sideways_left"),
        ({468: (0, -3, 0)}, "gaze_height_right"),
        ({50: (0, -5, 0)}, "cheek_height_right"),
    ],
)
def test_a_moved_point_raises_its_column(points, moves, column):
    """Moves are pixels on the 256-pixel image: x to the right (the person's left), y downwards."""
    moved = points.copy()
    for point, shift in moves.items():
        moved[point] += shift
    change = measure(moved, 256, 256) - measure(points, 256, 256)
    assert change[NAMES.index(column)] > 0.01
    assert np.abs(change[:3]).max() < 1e-6  # expression does not move the head


def test_frames_without_a_face_are_interpolated_and_marked(extractor):
    left = np.roll(face(), -20, axis=1)
    track = extractor.extract_frames([plain(), left, plain(), face(), plain()], [0.0, 0.2, 0.4, 0.6, 0.8])
    assert track.valid.tolist() == [False, True, False, True, False]
    assert track.face_rate == pytest.approx(0.4)
    np.testing.assert_allclose(track.values[2], (track.values[1] + track.values[3]) / 2, atol=1e-5)
    np.testing.assert_array_equal(track.values[0], track.values[1])
    np.testing.assert_array_equal(track.values[4], track.values[3])
    again = extractor.extract_frames([face()], [0.6])
    np.testing.assert_array_equal(again.values[0], track.values[3])  # without a face before it, the whole image is searched


def test_a_clip_does_not_depend_on_the_clips_before_it(extractor):
    clip = [np.roll(face(), shift, axis=1) for shift in (0, 6, 12, 18)]
    times = [0.0, 0.2, 0.4, 0.6]
    alone = extractor.extract_frames(clip, times)
    extractor.extract_frames([np.roll(face(), 40, axis=0), np.roll(face(), -30, axis=1)], times[:2])
    np.testing.assert_array_equal(extractor.extract_frames(clip, times).values, alone.values)
    extractor.extract_frames([plain()], [0.0])
    np.testing.assert_array_equal(extractor.extract_frames(clip, times).values, alone.values)
    fresh = FaceMeshExtractor()
    try:
        np.testing.assert_array_equal(fresh.extract_frames(clip, times).values, alone.values)
    finally:
        fresh.close()


def test_a_face_that_jumps_is_found_in_the_same_frame(extractor):
    left, right = (np.concatenate(halves, axis=1) for halves in ((face(), plain()), (plain(), face())))
    track = extractor.extract_frames([left, left, right, right, left], [0.0, 0.2, 0.4, 0.6, 0.8])
    assert track.valid.all()
    assert np.sign(track.values[:, NAMES.index("head_x")]).tolist() == [-1, -1, 1, 1, -1]


def test_tracking_a_face_changes_little(extractor):
    searched = FaceMeshExtractor(faces="largest")  # searches every frame
    clip = [np.roll(face(), 4 * step, axis=1) for step in range(6)]
    try:
        found = [extractor.extract_frames(clip, list(range(6))), searched.extract_frames(clip, list(range(6)))]
    finally:
        searched.close()
    np.testing.assert_allclose(found[0].values[:, 6:], found[1].values[:, 6:], atol=0.06)
    np.testing.assert_allclose(found[0].values[:, :3], found[1].values[:, :3], atol=4.0)  # degrees


def test_points_are_read_from_the_message(extractor):
    faces = extractor.tracker._mesh.process(face()).multi_face_landmarks
    expected = [(point.x, point.y, point.z) for point in faces[0].landmark]
    np.testing.assert_array_equal(read_points(faces[0].SerializeToString()), np.array(expected, np.float64))


def test_a_batch_of_faces_equals_each_face_alone(points):
    several = np.stack([points, turned(points, yaw=20), points * 2])
    together = geometry.measure(several, np.array([256, 256, 512]), np.array([256, 300, 512]))
    for place, size in enumerate([(256, 256), (256, 300), (512, 512)]):
        np.testing.assert_array_equal(together[place], measure(several[place], *size))


def test_no_face_at_all(extractor):
    assert extractor.extract_frames([plain(), plain(200)], [0.0, 0.2]) is None
    assert extractor.extract_frames([], []) is None
    assert VisionTrack(np.zeros((0, 38)), np.zeros(0), np.zeros(0, bool)).face_rate == 0.0


@given(st.lists(st.booleans(), min_size=1, max_size=12).filter(any), st.integers(0, 10**6))
def test_gaps_are_interpolated(valid, seed):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((len(valid), 3))
    mask = np.array(valid)
    filled = fill_gaps(np.where(mask[:, None], values, 0.0), np.arange(len(valid)) / 6, mask)
    np.testing.assert_allclose(filled[mask], values[mask])
    assert (filled.min(axis=0) >= values[mask].min(axis=0) - 1e-12).all()
    assert (filled.max(axis=0) <= values[mask].max(axis=0) + 1e-12).all()
