"""The sample corpus end to end: files, determinism, errors, and whether its cues can be measured independently."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from preprocessing.sample import face, portrait, voice
from preprocessing.sample.clip import frame_loudness, make_clip
from preprocessing.sample.plan import plan_corpus
from preprocessing.sample_corpus import SampleOptions, clip_path, main
from skesl_mug.errors import UserError

for needed in ("hibari", "skimage"):
    pytest.importorskip(needed, reason="the demo extra is not installed")

SCRIPT = Path(__file__).parents[1] / "preprocessing" / "sample_corpus.py"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "corpus"
    main(SampleOptions(output=folder, clips=6, seed=3, workers=1))
    return folder


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def decode(path: Path) -> tuple[list[np.ndarray], np.ndarray, float, int]:
    with av.open(str(path)) as container:
        picture, sound = container.streams.video[0], container.streams.audio[0]
        frames, samples = [], []
        for item in container.decode(picture, sound):
            (frames if isinstance(item, av.VideoFrame) else samples).append(
                item.to_ndarray(format="rgb24") if isinstance(item, av.VideoFrame) else item.to_ndarray()
            )
        return frames, np.concatenate(samples, axis=1)[0], float(picture.average_rate), sound.rate


def test_every_clip_is_a_readable_file_with_video_and_sound(corpus: Path) -> None:
    plans = plan_corpus(6, 3)
    assert len(list(corpus.rglob("*.mp4"))) == 6
    for plan in plans:
        frames, sound, rate, sample_rate = decode(clip_path(corpus, plan))
        assert frames[0].shape == (256, 256, 3)
        assert rate == 12
        assert sample_rate == 24_000
        assert 2.9 <= len(sound) / sample_rate <= 4.4
        assert len(frames) / rate == pytest.approx(len(sound) / sample_rate, abs=0.2)
        assert 0.005 < float(np.sqrt(np.mean(sound**2))) < 0.4
        assert np.abs(frames[0].astype(int) - frames[len(frames) // 2]).max() > 40  # it moves


def test_the_tables_describe_the_files(corpus: Path) -> None:
    labels, truth = read_csv(corpus / "labelled/labels.csv"), read_csv(corpus / "truth.csv")
    info = json.loads((corpus / "corpus.json").read_text())
    assert info["synthetic"] is True
    assert info["finished"] is True
    assert info["label_range"] == [-3, 3]
    assert list(labels[0]) == ["clip", "video_id", "speaker", "split", "label", "label_T", "label_A", "label_V"]
    assert {row["split"] for row in labels} == {"train", "valid", "test"}
    roots = {"labelled": corpus / "labelled", "unlabelled": corpus / "unlabelled/mp4"}
    assert len(truth) == 6
    for row in truth:
        assert (roots[row["corpus"]] / f"{row['clip']}.mp4").is_file()
        assert row["true_text"].endswith(".")
    assert {row["clip"] for row in labels} == {row["clip"] for row in truth if row["corpus"] == "labelled"}
    by_clip = {row["clip"]: row for row in truth}
    for row in labels:
        assert row["clip"].split("/")[0] == row["video_id"]
        assert all(row[name] == by_clip[row["clip"]][name] for name in ("label", "label_T", "label_A", "label_V", "speaker"))


def test_the_same_seed_makes_the_same_clip_and_another_seed_another() -> None:
    plan = plan_corpus(6, 3)[2]
    sound, frames = make_clip(plan, 3)
    again_sound, again_frames = make_clip(plan, 3)
    assert np.array_equal(sound, again_sound)
    assert np.array_equal(frames, again_frames)
    other_sound, other_frames = make_clip(plan_corpus(6, 4)[2], 4)
    assert len(sound) != len(other_sound) or not np.allclose(sound, other_sound)
    assert np.abs(frames[0].astype(int) - other_frames[0]).mean() > 3


def test_running_it_again_does_nothing_and_completes_what_is_missing(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    some = sorted(corpus.rglob("*.mp4"))[0]
    before = some.read_bytes()
    times = {path: path.stat().st_mtime_ns for path in corpus.rglob("*.mp4")}
    main(SampleOptions(output=corpus, clips=6, seed=3, workers=1))
    assert "nothing to do" in capsys.readouterr().out
    info = json.loads((corpus / "corpus.json").read_text())
    (corpus / "corpus.json").write_text(json.dumps({**info, "finished": False}))  # what an interrupted run leaves
    some.unlink()
    main(SampleOptions(output=corpus, clips=6, seed=3, workers=1))
    assert "1 made now" in capsys.readouterr().out
    frames, sound, _, _ = decode(some)
    some.with_suffix(".before").write_bytes(before)
    old_frames, old_sound, _, _ = decode(some.with_suffix(".before"))
    some.with_suffix(".before").unlink()
    assert np.array_equal(frames, old_frames)
    assert np.array_equal(sound, old_sound)
    assert all(path.stat().st_mtime_ns == when for path, when in times.items() if path != some)


def test_a_folder_with_other_content_is_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--overwrite"):
        main(SampleOptions(output=corpus, clips=6, seed=4))
    with pytest.raises(UserError, match="--overwrite"):
        main(SampleOptions(output=corpus, clips=7, seed=3))
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="has other files"):
        main(SampleOptions(output=tmp_path, clips=6, overwrite=True))
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    (tmp_path / "corpus.json").write_text('{"name": "another"}')
    with pytest.raises(UserError, match="another corpus"):
        main(SampleOptions(output=tmp_path, clips=6, overwrite=True))
    with pytest.raises(UserError, match="is a file"):
        main(SampleOptions(output=tmp_path / "thesis.txt", clips=6))


@pytest.mark.parametrize("options", [{"clips": 5}, {"clips": 10**6}, {"seed": -1}, {"workers": 0}])
def test_options_out_of_range_name_their_flag(options: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(options))}"):
        SampleOptions(output=tmp_path, **options)


def test_the_command_uses_processes_and_has_an_exit_status(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--output", str(tmp_path / "out"), "--clips", "6", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "6 clips of synthetic data" in done.stdout
    assert len(list((tmp_path / "out").rglob("*.mp4"))) == 6
    refused = subprocess.run([*command, "--seed", "2"], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "--overwrite" in refused.stderr


def neutral_voice() -> tuple[voice.VoiceTraits, voice.VoiceExpression]:
    traits = voice.VoiceTraits(pitch=1.0, formants=1.0, rate=1.0, level_db=0.0, tilt_db=0.0)
    return traits, voice.VoiceExpression(pitch=0.0, movement=0.3, slope=0.0, rate=1.0, level_db=0.0, tilt_db=0.0, dynamics_db=0.3)


def median_pitch(sound: np.ndarray) -> float:
    import librosa

    pitches = librosa.yin(sound, fmin=70, fmax=500, sr=voice.SAMPLE_RATE, frame_length=1024)
    loud = librosa.feature.rms(y=sound, frame_length=1024, hop_length=256)[0][: len(pitches)]
    return float(np.median(pitches[: len(loud)][loud > np.percentile(loud, 60)]))


def test_pitch_and_level_of_the_voice_are_as_requested() -> None:
    from dataclasses import replace

    traits, expression = neutral_voice()
    text = "We arrived in July and went through the garden to the room."
    plain = voice.speak(text, traits, expression, 1)
    low = voice.speak(text, replace(traits, pitch=0.75), expression, 1)
    loud = voice.speak(text, traits, replace(expression, level_db=6.0), 1)
    assert median_pitch(low) / median_pitch(plain) == pytest.approx(0.75, rel=0.06)
    assert 20 * np.log10(np.std(loud) / np.std(plain)) == pytest.approx(6.0, abs=0.3)
    assert np.abs(loud).max() < 1.0


def test_formants_move_and_pitch_does_not() -> None:
    import librosa
    from scipy.ndimage import gaussian_filter1d

    traits, expression = neutral_voice()
    plain = voice.speak("My mother told me about the music and the story.", traits, expression, 2)
    shaped = voice.shape_spectrum(plain, 0.85, 0.0)
    assert median_pitch(shaped) == pytest.approx(median_pitch(plain), rel=0.03)
    before, after = (gaussian_filter1d(np.log(np.abs(librosa.stft(sound, n_fft=1024)) + 1e-4).mean(1), 4) for sound in (plain, shaped))
    bins = np.arange(15, 200)  # 350 to 4,700 Hz: the formants
    moved = [np.corrcoef(after[bins], np.interp(bins / factor, np.arange(len(before)), before))[0, 1] for factor in (0.85, 1.0, 1.15)]
    assert moved[0] > 0.98
    assert moved[0] > moved[1] > moved[2]


@pytest.mark.parametrize("seed", range(3))
def test_the_mean_cues_of_a_sentiment_rise_with_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    voices = [[voice.draw_expression(sentiment, rng) for _ in range(200)] for sentiment in (-3, 0, 3)]
    faces = [[face.draw_expression(sentiment, rng).amounts[0] for _ in range(200)] for sentiment in (-3, 0, 3)]
    for name in ("pitch", "movement", "rate", "level_db", "tilt_db"):
        assert np.all(np.diff([np.mean([getattr(one, name) for one in group]) for group in voices]) > 0), name
    assert np.all(np.diff([np.mean(group) for group in faces]) > 1)


def still_face(corners: float) -> np.ndarray:
    traits = face.draw_traits(np.random.default_rng(1))
    amounts = (corners, *[0.0] * (len(face.EXPRESSION_FIELDS) - 1))
    return face.render(traits, face.FaceExpression(amounts, opening=0.5), np.zeros(6), seed=4)


def test_the_corners_of_the_mouth_follow_the_expression_for_a_face_mesh_too() -> None:
    """Mediapipe, which is not used to draw the face, measures that the corners rise relative to the middle of the lips."""
    mediapipe = pytest.importorskip("mediapipe")

    def corner_height(frames: np.ndarray) -> float:
        with mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True, max_num_faces=1) as mesh:
            points = mesh.process(np.ascontiguousarray(frames[3])).multi_face_landmarks[0].landmark
        return (points[13].y + points[14].y - points[61].y - points[291].y) * 128  # pixels

    heights = [corner_height(still_face(corners)) for corners in (-4.0, 0.0, 4.0)]
    assert heights[0] + 1 < heights[1] < heights[2] - 1


def test_the_mouth_opens_with_the_sound_and_nothing_else_moves() -> None:
    pictures = portrait.pose_pictures()
    assert pictures.shape == (portrait.MOUTH_STEPS, portrait.EYE_STEPS, portrait.SIDE, portrait.SIDE, 3)
    change = np.abs(pictures[-1, 0].astype(int) - pictures[0, 0]).sum(-1)
    assert change[:170].max() == 0  # nothing above the mouth
    assert change[190:230, 120:180].mean() > 20
    tone = np.concatenate([np.zeros(12_000), 0.3 * np.sin(np.arange(12_000))]).astype(np.float32)
    loudness = frame_loudness(tone)
    assert loudness.shape == (12,)
    assert loudness[:6].max() < 0.01
    assert loudness[6:].min() > 0.9
    assert np.array_equal(frame_loudness(np.zeros(4000, np.float32)), np.zeros(2))
