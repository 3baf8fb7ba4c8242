"""Decoding: sound and frames in one pass, errors as skip reasons."""

import av
import numpy as np
import pytest
from clip_factory import FRAME_RATE, plain, tone, write_clip

from preprocessing.media import MediaError, decode, read_frame


def test_sound_and_sampled_frames(tmp_path):
    path = write_clip(tmp_path / "a.mp4", tone(2.0, 440.0), [plain(10 * n) for n in range(24)])
    clip = decode(path, frame_rate=6.0)
    assert clip.duration == pytest.approx(2.0, abs=0.1)
    assert clip.sound_rate == 22_050
    assert clip.frame_times == pytest.approx([n / 6 for n in range(12)], abs=0.01)
    # every second one of 12 frames per second: grey 0, 20, 40...
    assert [int(frame.mean()) for frame in clip.frames] == pytest.approx([20 * n for n in range(12)], abs=4)
    assert clip.frames[0].shape == (256, 256, 3)
    low = clip.sound_at(16_000)
    assert len(low) == pytest.approx(clip.duration * 16_000, abs=2)
    spectrum = np.abs(np.fft.rfft(low[4000:20000]))
    assert np.argmax(spectrum) * 16_000 / 16_000 == pytest.approx(440, abs=2)
    assert np.abs(low).max() == pytest.approx(0.3, abs=0.03)


def test_stereo_becomes_the_mean(tmp_path):
    path = tmp_path / "stereo.mkv"
    left, right = tone(1.0, 300.0), tone(1.0, 500.0)
    with av.open(str(path), "w") as container:
        track = container.add_stream("pcm_s16le", rate=22_050, layout="stereo")
        both = (np.stack([left, right], axis=1).reshape(1, -1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(both, format="s16", layout="stereo")
        frame.sample_rate = 22_050
        container.mux(track.encode(frame))
        container.mux(track.encode(None))
    assert decode(path).sound == pytest.approx((left + right) / 2, abs=1e-3)


def test_missing_streams(tmp_path):
    mute = decode(write_clip(tmp_path / "mute.mp4", None, plain(), seconds=1.0), 6.0)
    assert mute.sound is None
    assert len(mute.frames) == 6
    assert mute.duration == pytest.approx(1.0, abs=0.1)
    blind = decode(write_clip(tmp_path / "blind.mp4", tone(1.0), None), 6.0)
    assert blind.frames == []
    assert blind.sound is not None
    with pytest.raises(ValueError, match="no sound"):
        mute.sound_at(16_000)


def test_no_frames_are_decoded_at_rate_zero(tmp_path):
    assert decode(write_clip(tmp_path / "a.mp4", tone(1.0), plain())).frames == []


def test_large_frames_are_shrunk(tmp_path):
    clip = decode(write_clip(tmp_path / "large.mp4", tone(0.5), np.full((480, 1280, 3), 90, np.uint8)), 6.0)
    assert clip.frames[0].shape == (240, 640, 3)


@pytest.mark.parametrize("content", [b"", b"no video at all", bytes(5000)])
def test_files_that_are_not_videos(tmp_path, content):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(MediaError) as fault:
        decode(path, 6.0)
    assert fault.value.reason == "unreadable"
    assert str(path) not in str(fault.value)


def test_every_truncation_is_a_clip_or_unreadable(tmp_path):
    whole = write_clip(tmp_path / "a.mp4", tone(2.0), plain()).read_bytes()
    path = tmp_path / "cut.mp4"
    for tenth in range(10):
        path.write_bytes(whole[: len(whole) * tenth // 10])
        with pytest.raises(MediaError) as fault:
            decode(path, 6.0)
        assert fault.value.reason == "unreadable"


def test_a_truncated_matroska_file_is_reported(tmp_path):
    write_clip(tmp_path / "a.mkv", tone(4.0), plain())
    whole = (tmp_path / "a.mkv").read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole[: len(whole) // 4])
    with pytest.raises(MediaError, match=r"truncated|Invalid|End of file"):
        decode(path, 6.0)


def test_too_long_is_reported_before_decoding(tmp_path):
    path = write_clip(tmp_path / "a.mp4", tone(3.0), plain())
    with pytest.raises(MediaError) as fault:
        decode(path, 6.0, max_seconds=2.0)
    assert fault.value.reason == "too_long"


def test_a_folder_named_like_a_video(tmp_path):
    (tmp_path / "x.mp4").mkdir()
    with pytest.raises(MediaError):
        decode(tmp_path / "x.mp4")


def test_read_frame(tmp_path):
    path = write_clip(tmp_path / "a.mp4", tone(2.0), [plain(10 * n) for n in range(24)])
    for seconds, grey in ((0.0, 0), (0.5, 60), (1.04, 120), (99.0, 230)):
        assert read_frame(path, seconds).mean() == pytest.approx(grey, abs=5), seconds
    assert read_frame(path, 1.0).shape == (256, 256, 3)
    assert FRAME_RATE == 12
    with pytest.raises(MediaError):
        read_frame(write_clip(tmp_path / "blind.mp4", tone(1.0), None), 0.0)
