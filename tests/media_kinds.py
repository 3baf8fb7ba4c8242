"""A small file of every kind of recording, with the same content: a tone from 1 s to 3 s, and pictures whose upper half is white."""

import io
import struct
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

RATE = 16_000
FPS = 10
SECONDS = 3.0
TONE_FROM = 1.0


def content(rate: int = RATE, seconds: float = SECONDS, tone_from: float = TONE_FROM, channels: int = 1) -> np.ndarray:
    """[channels, samples]: silence, then 440 Hz."""
    times = np.arange(int(seconds * rate)) / rate
    wave = np.where(times >= tone_from, 0.3 * np.sin(2 * np.pi * 440 * times), 0.0).astype(np.float32)
    return np.repeat(wave[None], channels, axis=0)


def picture(number: int, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    """RGB [height, width, 3]: a white upper half; the lower half brightens by 6 per frame."""
    image = np.full((size[1], size[0], 3), min(200, 6 * number), np.uint8)
    image[: size[1] // 2] = 235
    return image


def write(
    target: Path | io.RawIOBase,
    video: str | None = "libx264",
    audio: str | None = "aac",
    *,
    kind: str | None = None,
    sound: np.ndarray | None = None,
    rate: int = RATE,
    layout: str = "mono",
    size: tuple[int, int] = (64, 64),
    pixels: str = "yuv420p",
    times: Sequence[int] | None = None,
    cover: bool = False,
    **options: str,
) -> Any:
    """Write a file with a video and a sound codec; `times` are those of the pictures in 1/FPS seconds, `options` the container's."""
    wave = content(rate, channels=av.AudioLayout(layout).nb_channels) if sound is None else sound
    place: Any = str(target) if isinstance(target, Path) else target
    with av.open(place, "w", format=kind, options=options) as out:
        packets: list[av.Packet] = []
        if video is not None:
            stream: Any = out.add_stream(video, rate=FPS)
            stream.width, stream.height, stream.pix_fmt = *size, pixels
            stream.codec_context.time_base = Fraction(1, FPS)
            stream.bit_rate = 2_000_000
            if video in ("libx264", "libx265"):
                stream.options = {"preset": "ultrafast", **({"x265-params": "log-level=none"} if video == "libx265" else {})}
        track: Any = None
        if audio is not None:
            track = out.add_stream(audio, rate=rate, layout=layout)
            if audio == "wmav2":
                track.bit_rate = 64_000
        if cover:
            art: Any = out.add_stream("mjpeg", rate=1)
            art.width, art.height, art.pix_fmt = 64, 64, "yuvj420p"
            art.disposition = av.stream.Disposition.attached_pic
            packets += art.encode(av.VideoFrame.from_ndarray(picture(0), format="rgb24"))
        if video is not None:
            for number, time in enumerate(range(int(SECONDS * FPS)) if times is None else times):
                frame = av.VideoFrame.from_ndarray(picture(number, size), format="rgb24")
                frame.pts, frame.time_base = time, Fraction(1, FPS)
                packets += stream.encode(frame)
            packets += stream.encode(None)
        if track is not None:
            planar = next(form for form in track.codec_context.codec.audio_formats or [av.AudioFormat("fltp")])
            for start in range(0, wave.shape[1], 4096):
                packets += track.encode(_frame(wave[:, start : start + 4096], planar.name, layout, rate, start))
            packets += track.encode(None)
        for packet in sorted(packets, key=lambda packet: float((packet.dts or 0) * packet.time_base)):
            out.mux(packet)
    return target


def _frame(samples: np.ndarray, kind: str, layout: str, rate: int, start: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples, np.float32), format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
    (converted,) = av.AudioResampler(format=kind, layout=layout, rate=rate).resample(frame)
    return converted


class Pipe(io.RawIOBase):
    """What a muxer sees that writes to a pipe: it cannot go back to write the length."""

    def __init__(self) -> None:
        self.content = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.content += bytes(data)
        return len(data)


def to_pipe(path: Path, *codecs: str | None, kind: str, **options: str) -> Path:
    pipe = Pipe()
    write(pipe, *codecs, kind=kind, **options)
    path.write_bytes(pipe.content)
    return path


def turned(path: Path) -> Path:
    """Write the display matrix of telephones into an mp4: its pictures are to be shown turned by 90 degrees clockwise."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    matrix = [0, 1 << 16, 0, -(1 << 16) & 0xFFFFFFFF, 0, 0, 64 << 16, 0, 1 << 30]
    data[place : place + 36] = struct.pack(">9I", *matrix)
    path.write_bytes(data)
    return path


def joined(path: Path, parts: Iterable[Path]) -> Path:
    """The bytes of files one after the other, as `cat` joins them."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


SOUNDS: dict[str, Callable[[Path], Any]] = {
    "a.wav": lambda path: write(path, None, "pcm_s16le"),
    "float.wav": lambda path: write(path, None, "pcm_f32le"),
    "telephone.wav": lambda path: write(path, None, "pcm_mulaw", rate=8_000),
    "alaw.wav": lambda path: write(path, None, "pcm_alaw", rate=8_000),
    "a.mp3": lambda path: write(path, None, "libmp3lame"),
    "a.m4a": lambda path: write(path, None, "aac", kind="ipod"),
    "alac.m4a": lambda path: write(path, None, "alac", kind="ipod"),
    "a.flac": lambda path: write(path, None, "flac"),
    "a.ogg": lambda path: write(path, None, "flac"),
    "a.opus": lambda path: write(path, None, "libopus", rate=48_000),
    "a.aac": lambda path: write(path, None, "aac", kind="adts"),
    "a.wma": lambda path: write(path, None, "wmav2", rate=22_050, kind="asf"),
    "a.webm": lambda path: write(path, None, "libopus", rate=48_000),
    "a.amr": lambda path: write(path, None, "libopencore_amrnb", rate=8_000, kind="amr"),
    "a.aiff": lambda path: write(path, None, "pcm_s16be"),
    "a.au": lambda path: write(path, None, "pcm_s16be"),
    "a.caf": lambda path: write(path, None, "pcm_s16le"),
    "a.mka": lambda path: write(path, None, "flac"),
    "a.wv": lambda path: write(path, None, "wavpack"),
    "a.mp2": lambda path: write(path, None, "mp2"),
    "a.ac3": lambda path: write(path, None, "ac3", rate=48_000),
    "surround.m4a": lambda path: write(path, None, "aac", rate=48_000, layout="5.1", kind="ipod"),
    "surround.flac": lambda path: write(path, None, "flac", layout="5.1"),
    "cover.m4a": lambda path: write(path, None, "aac", kind="mp4", cover=True),
    "cover.mp3": lambda path: write(path, None, "libmp3lame", cover=True),
}
VIDEOS: dict[str, Callable[[Path], Any]] = {
    "a.mp4": write,
    "fragmented.mp4": lambda path: write(path, movflags="frag_keyframe+empty_moov"),
    "faststart.mp4": lambda path: write(path, movflags="faststart"),
    "a.mov": lambda path: write(path, "mpeg4", "pcm_s16le"),
    "a.mkv": lambda path: write(path, "libx264", "flac"),
    "a.webm": lambda path: write(path, "libvpx", "libopus", rate=48_000),
    "live.webm": lambda path: to_pipe(path, "libvpx", "libopus", kind="webm", live="1"),
    "live.mkv": lambda path: to_pipe(path, "libx264", "aac", kind="matroska"),
    "a.avi": lambda path: write(path, "mpeg4", "libmp3lame"),
    "a.ts": lambda path: write(path, "libx264", "aac", kind="mpegts"),
    "a.m2ts": lambda path: write(path, "mpeg2video", "mp2", kind="mpegts"),
    "a.mpg": lambda path: write(path, "mpeg2video", "mp2", kind="mpeg"),
    "a.flv": lambda path: write(path, "flv", "aac"),
    "a.wmv": lambda path: write(path, "wmv2", "wmav2", rate=22_050, kind="asf"),
    "a.3gp": lambda path: write(path, "mpeg4", "libopencore_amrnb", rate=8_000, kind="3gp"),
    "hevc10.mp4": lambda path: write(path, "libx265", "aac", pixels="yuv420p10le"),
    "full.mkv": lambda path: write(path, "libx264", "pcm_f32le", pixels="yuv444p"),
    "odd.mkv": lambda path: write(path, "ffv1", "flac", size=(63, 49), pixels="bgr0"),
}
