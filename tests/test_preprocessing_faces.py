"""Action unit measures, and the choice between several faces."""

import cv2
import numpy as np
import pytest
import soxr
from clip_factory import SOUND_RATE, face, plain, write_clip

from preprocessing.vision import faces, geometry
from preprocessing.vision.mesh import FaceMeshExtractor, mesh_info

NAMES = list(geometry.FORMULAS)
GEOMETRY = [column["name"] for column in geometry.COLUMNS]


def test_columns_have_formulas():
    assert len(set(NAMES)) == 16
    assert mesh_info(6.0, units=True).width == 38 + 16
    assert mesh_info(6.0, units=True).extractor == "mesh-au"
    assert "nose_to_lip" in geometry.UNIT_COLUMNS[NAMES.index("AU17_chin_raiser")]["unit"]
    row = np.zeros((1, 38), np.float32)
    row[0, GEOMETRY.index("brow_inner_height_left")] = 1.0
    found = dict(zip(NAMES, geometry.action_units(row)[0], strict=True))
    assert found["AU01_inner_brow_raiser"] == pytest.approx(0.5)  # the mean of both sides
    assert found["AU04_brow_lowerer"] == pytest.approx(-0.25)


@pytest.mark.parametrize(
    ("moves", "unit"),
    [
        ({336: (0, -6), 107: (0, -6)}, "AU01_inner_brow_raiser"),
        ({300: (0, -6), 70: (0, -6)}, "AU02_outer_brow_raiser"),
        ({336: (-4, 5), 107: (4, 5)}, "AU04_brow_lowerer"),
        ({386: (0, -3), 385: (0, -3), 159: (0, -3), 158: (0, -3)}, "AU05_upper_lid_raiser"),
        ({280: (0, -5), 50: (0, -5)}, "AU06_cheek_raiser"),
        ({374: (0, -3), 380: (0, -3), 145: (0, -3), 153: (0, -3)}, "AU07_lid_tightener"),
        ({0: (0, -5)}, "AU10_upper_lip_raiser"),
        ({61: (-4, -6), 291: (4, -6)}, "AU12_lip_corner_puller"),
        ({61: (0, 6), 291: (0, 6)}, "AU15_lip_corner_depressor"),
        ({152: (0, -6)}, "AU17_chin_raiser"),
        ({61: (6, 0), 291: (-6, 0)}, "AU18_lip_puckerer"),
        ({61: (-6, 0), 291: (6, 0)}, "AU20_lip_stretcher"),
        ({14: (0, 6)}, "AU25_lips_part"),
        ({152: (0, 6)}, "AU26_jaw_drop"),
        ({386: (0, 3), 385: (0, 3), 159: (0, 3), 158: (0, 3)}, "AU43_eyes_closed"),
    ],
)
def test_an_action_unit_grows_with_its_movement(moves, unit):
    points = np.zeros((478, 3))
    points[:] = np.random.default_rng(0).normal(size=points.shape)
    points[list(geometry.RIGID_POINTS)] = np.array(list(geometry.RIGID_POINTS.values()))
    points = points * 80 + [128.0, 128.0, 0.0]
    for point, place in {
        61: (100, 190),
        291: (156, 190),
        13: (128, 186),
        14: (128, 194),
        0: (128, 180),
        17: (128, 200),
        152: (128, 230),
    }.items():
        points[point, :2] = place
        points[point, 2] = 0.0
    moved = points.copy()
    for point, shift in moves.items():
        moved[point, :2] += shift
    before, after = (geometry.action_units(geometry.measure(p[None], 256, 256))[0] for p in (points, moved))
    assert after[NAMES.index(unit)] > before[NAMES.index(unit)] + 0.005


def made_face(x: float, size: float, opening: float) -> np.ndarray:
    points = np.zeros((478, 3))
    points[33, :2], points[263, :2] = (x - size / 2, 100), (x + size / 2, 100)
    points[13, :2], points[14, :2] = (x, 150), (x, 150 + opening * size)
    return points


def test_tracks_and_the_speaking_one():
    rng = np.random.default_rng(3)
    rate, count = 1000, 24
    times = np.arange(count) / 6
    loud = rng.uniform(0, 1, count)
    sound = np.concatenate([np.full(int(rate / 6) + 1, level) for level in loud])[: int(times[-1] * rate) + 1].astype(np.float32)
    talk, opening = 0.0, []
    for place in range(count):
        talk = talk + (loud[place - 1] if place % 2 else -loud[place - 1]) * 0.2 if place else 0.0
        opening.append(talk)
    frames = [[made_face(300 + place, 80, 0.1 * rng.uniform()), made_face(100 - place, 40, abs(opening[place]))] for place in range(count)]
    frames[5] = frames[5][::-1]  # the order of detection does not matter
    tracks = faces.link(frames)
    assert [len(track.points) for track in tracks] == [count, count]
    assert faces.largest(tracks) is tracks[0]
    assert faces.speaking(tracks, times, sound, rate) is tracks[1]
    assert faces.speaking(tracks[:1], times, sound, rate) is tracks[0]
    assert faces.speaking(tracks, times, np.zeros_like(sound), rate) is tracks[0]  # silence: the largest
    assert faces.largest([]) is None


def test_the_largest_of_two_faces():
    picture = plain(90).repeat(2, axis=1)
    picture[:, :256] = face()
    picture[28:228, 284:484] = cv2.resize(face(), (200, 200))
    extractor = FaceMeshExtractor(units=True, faces="largest")
    try:
        meshes = extractor.tracker.meshes([picture])[0]
        track = extractor.extract_frames([picture] * 2, [0.0, 0.2])
        swapped = extractor.extract_frames([picture[:, ::-1]] * 2, [0.0, 0.2])
    finally:
        extractor.close()
    if len(meshes) < 2:
        pytest.skip("the mesh found only one face in the image")
    assert track.values.shape == (2, 54)
    assert track.values[0, GEOMETRY.index("head_x")] < 0 < swapped.values[0, GEOMETRY.index("head_x")]


def test_the_speaking_one_of_two_faces(tmp_path):
    """Two synthetic people side by side, both mouths moving; the smaller one's follows the sound."""
    pytest.importorskip("hibari", reason="the extra `demo` (hibari-tts) is not installed")
    from preprocessing import media
    from preprocessing.sample import clip as sample_clip
    from preprocessing.sample import face as sample_face
    from preprocessing.sample import voice as sample_voice

    rng = np.random.default_rng(4)
    sound = sample_voice.speak(
        "I have to say that this film was wonderful.", sample_voice.draw_traits(rng), sample_voice.draw_expression(0.0, rng), 1
    )
    loudness = sample_clip.frame_loudness(sound)
    talking, other = (
        sample_face.render(sample_face.draw_traits(rng), sample_face.draw_expression(0.0, rng), moving, 1)
        for moving in (loudness, np.roll(loudness, len(loudness) // 2))
    )
    frames = []
    for small, large in zip(talking, other, strict=True):
        picture = np.full((256, 512, 3), 90, np.uint8)
        picture[28:228, 28:228], picture[:, 256:] = cv2.resize(small, (200, 200)), large
        frames.append(picture)
    path = write_clip(tmp_path / "two.mp4", soxr.resample(sound, sample_voice.SAMPLE_RATE, SOUND_RATE), frames)
    decoded = media.decode(path, 6.0)
    sides = {}
    for choice in ("largest", "speaking"):
        extractor = FaceMeshExtractor(faces=choice)
        try:
            track = extractor.extract_frames(decoded.frames, decoded.frame_times, decoded.sound, decoded.sound_rate)
        finally:
            extractor.close()
        sides[choice] = float(np.median(track.values[track.valid, GEOMETRY.index("head_x")]))
    assert sides["speaking"] < 0 < sides["largest"]
