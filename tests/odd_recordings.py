"""Recordings with odd timestamps or damage: a tone and a picture that brightens, each from any time on, with holes."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 48_000
FRAMES = 25  # per second
Pause = tuple[float, float]
"""The time of a pause in the timestamps, and its length (seconds)."""


def tone(seconds: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def write_recording(
    path: Path,
    sound: tuple[float, np.ndarray] | None,
    pictures: tuple[float, float] | None = None,
    pause: Pause | None = None,
    picture_pause: Pause | None = None,
    **options: str,
) -> Path:
    """Write `sound` (start, samples at 48 kHz) and `pictures` (start, seconds) with codecs that the container holds."""
    codec, kind = {"webm": ("libopus", "flt"), "avi": ("libmp3lame", "fltp"), "flac": ("flac", "s16")}.get(path.suffix[1:], ("aac", "fltp"))
    packets: list[av.Packet] = []
    with av.open(str(path), "w", options=options) as container:
        picture = (
            container.add_stream({"webm": "libvpx", "avi": "mpeg4"}.get(path.suffix[1:], "libx264"), rate=FRAMES) if pictures else None
        )
        track = container.add_stream(codec, rate=RATE, layout="mono") if sound is not None else None
        if picture is not None and pictures is not None:
            picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
            picture.codec_context.time_base = Fraction(1, FRAMES)
            count = round(pictures[1] * FRAMES)
            for number in range(count):
                frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 255 * number // count, np.uint8), format="rgb24")
                frame.pts, frame.time_base = round(FRAMES * _paused(pictures[0], number / FRAMES, picture_pause)), Fraction(1, FRAMES)
                packets += picture.encode(frame)
            packets += picture.encode(None)
        if track is not None and sound is not None:
            size = track.codec_context.frame_size or 1024
            for first in range(0, len(sound[1]), size):
                block = sound[1][None, first : first + size]
                block = (block * 32767).astype(np.int16) if kind == "s16" else np.ascontiguousarray(block)
                heard = av.AudioFrame.from_ndarray(block, format=kind, layout="mono")
                heard.sample_rate, heard.time_base = RATE, Fraction(1, RATE)
                heard.pts = round(RATE * _paused(sound[0], first / RATE, pause))
                packets += track.encode(heard)
            packets += track.encode(None)
        for packet in sorted(packets, key=lambda packet: float((packet.dts or 0) * packet.time_base)):
            container.mux(packet)
    return path


def _paused(start: float, seconds: float, pause: Pause | None) -> float:
    return start + seconds + (pause[1] if pause is not None and seconds >= pause[0] else 0.0)


def shifted(source: Path, target: Path, seconds: float) -> Path:
    """The same packets with later timestamps (an MPEG stream wraps them after 26.5 hours)."""
    options = {"mpegts_copyts": "1", "avoid_negative_ts": "disabled"}
    with av.open(str(source)) as before, av.open(str(target), "w", options=options) as after:
        streams = {stream.index: after.add_stream_from_template(stream) for stream in before.streams}
        for packet in before.demux():
            if packet.dts is not None:
                ticks = round(seconds / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts + ticks, packet.dts + ticks, streams[packet.stream_index]
                after.mux(packet)
    return target


def damaged(path: Path, target: Path, share: float = 0.5, count: int = 300, seed: int = 0) -> Path:
    """A copy with random bytes at a share of its length."""
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") if path.suffix == ".mp4" else 0
    at = start + int((len(content) - start) * share)
    content[at : at + count] = np.random.default_rng(seed).integers(0, 256, count, dtype=np.uint8).tobytes()
    target.write_bytes(content)
    return target


def loud(sound: np.ndarray, rate: int = RATE, gap: float = 0.15) -> list[tuple[float, float]]:
    """The spans (seconds) in which a sound is loud, without interruptions up to `gap`."""
    step = rate // 100
    level = np.abs(sound[: len(sound) // step * step]).reshape(-1, step).max(axis=1) > 0.1
    edges = np.flatnonzero(np.diff(np.concatenate([[0], level.astype(int), [0]]))) / 100
    spans: list[tuple[float, float]] = []
    for start, end in edges.reshape(-1, 2).tolist():
        if spans and start - spans[-1][1] <= gap:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans


def near(found: Sequence[float], expected: Sequence[float], within: float = 0.1) -> bool:
    """Whether times are equal up to the delay of a codec."""
    return len(found) == len(expected) and all(abs(one - other) <= within for one, other in zip(found, expected, strict=True))
