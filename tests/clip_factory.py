"""Small videos for tests: a tone, a voice or silence, and a face (skimage's public-domain astronaut), a plain colour or nothing."""

from functools import lru_cache
from pathlib import Path

import av
import numpy as np

SOUND_RATE = 22_050
FRAME_RATE = 12


def tone(seconds: float, frequency: float = 220.0, level: float = 0.3) -> np.ndarray:
    times = np.arange(int(seconds * SOUND_RATE)) / SOUND_RATE
    return (level * np.sin(2 * np.pi * frequency * times)).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * SOUND_RATE), np.float32)


@lru_cache(maxsize=8)
def voice(text: str) -> np.ndarray:
    """A sentence spoken by the demo's synthesiser; the test is skipped if the extra `demo` is not installed."""
    import pytest
    import soxr

    hibari = pytest.importorskip("hibari", reason="the extra `demo` (hibari-tts) is not installed")
    spoken = np.asarray(hibari.Hibari()(text, seed=1), np.float32)
    quiet = np.zeros(hibari.SAMPLE_RATE // 4, np.float32)
    return soxr.resample(np.concatenate([quiet, spoken, quiet]), hibari.SAMPLE_RATE, SOUND_RATE).astype(np.float32)


@lru_cache(maxsize=1)
def face() -> np.ndarray:
    """A face, RGB [256, 256, 3]."""
    import cv2
    import pytest

    data = pytest.importorskip("skimage.data", reason="the extra `demo` (scikit-image) is not installed")
    return cv2.resize(np.ascontiguousarray(data.astronaut()[:260, 95:355]), (256, 256))


def plain(value: int = 90) -> np.ndarray:
    return np.full((256, 256, 3), value, np.uint8)


def write_clip(path: Path, sound: np.ndarray | None, frames: list[np.ndarray] | np.ndarray | None, seconds: float | None = None) -> Path:
    """Write an mp4 of a sound ([samples] at 22,050 Hz) and frames at 12 per second; a single frame is shown throughout."""
    path.parent.mkdir(parents=True, exist_ok=True)
    length = seconds if seconds is not None else (len(sound) / SOUND_RATE if sound is not None else 1.0)
    if isinstance(frames, np.ndarray):
        frames = [frames] * max(1, round(length * FRAME_RATE))
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=FRAME_RATE) if frames is not None else None
        track = container.add_stream("aac", rate=SOUND_RATE, layout="mono") if sound is not None else None
        if picture is not None and frames is not None:
            picture.height, picture.width = frames[0].shape[:2]
            picture.pix_fmt = "yuv420p"
            picture.options = {"preset": "ultrafast", "crf": "20"}
            for image in frames:
                container.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(picture.encode(None))
        if track is not None and sound is not None:
            for start in range(0, len(sound), 1024):
                block = av.AudioFrame.from_ndarray(sound[None, start : start + 1024], format="fltp", layout="mono")
                block.sample_rate, block.pts = SOUND_RATE, start
                container.mux(track.encode(block))
            container.mux(track.encode(None))
    return path


def write_tracks(path: Path, sounds: list[np.ndarray], languages: list[str | None] | None = None, layout: str = "") -> Path:
    """A file with one sound track of 16-bit PCM per sound [C, N] (or [N]) at 22,050 Hz."""
    with av.open(str(path), "w") as container:
        streams = []
        for place, sound in enumerate(sounds):
            wide = layout or ("mono" if sound.ndim == 1 else "stereo")
            streams.append(container.add_stream("pcm_s16le", rate=SOUND_RATE, layout=wide))
            if languages is not None and languages[place]:
                streams[-1].metadata["language"] = languages[place]
        for stream, sound in zip(streams, sounds, strict=True):
            whole = np.atleast_2d(sound)
            for start in range(0, whole.shape[1], 4096):
                block = (whole[:, start : start + 4096].T.reshape(1, -1) * 32767).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(block, format="s16", layout=stream.layout.name)
                frame.sample_rate, frame.pts = SOUND_RATE, start
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path
