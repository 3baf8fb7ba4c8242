"""Decoding media: a video's mono sound and its frames at a chosen rate in one pass, single frames, and folders of pictures."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import av
import av.error
import numpy as np
import soxr

from preprocessing import tracks
from preprocessing.layouts import Pictures

LONGEST_SIDE = 640  # pixels; larger frames are shrunk while decoding, which bounds memory and costs the face mesh nothing
AFTER = 0.5  # seconds decoded beyond the end of a stretch: packets of sound and video are not in one order
COMPLETE_SHARE = 0.5  # a file whose sound ends before this share of its stated duration counts as truncated
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
MediaError = tracks.MediaError


@dataclass
class Media:
    """A decoded clip.

    `sound` is [samples] float32 in -1..1 at `sound_rate` Hz, None if the file has no sound track; `frames` are RGB images
    [height, width, 3] uint8 at `frame_times` (seconds); `duration` is in seconds.
    """

    duration: float
    sound: np.ndarray | None
    sound_rate: int
    frames: list[np.ndarray] = field(default_factory=list)
    frame_times: list[float] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of the sound and the frames."""
        return (self.sound.nbytes if self.sound is not None else 0) + sum(frame.nbytes for frame in self.frames)

    def sound_at(self, rate: int) -> np.ndarray:
        """The sound resampled to `rate` Hz (soxr, high quality), [samples] float32.

        Raises:
            ValueError: the clip has no sound.
        """
        if self.sound is None:
            raise ValueError("the clip has no sound")
        if rate == self.sound_rate:
            return self.sound
        return np.asarray(soxr.resample(self.sound, self.sound_rate, rate, quality="HQ"))


def decode(path: Path, frame_rate: float = 0.0, max_seconds: float = float("inf"), start: float = 0.0, end: float | None = None) -> Media:
    """Decode a file in one pass over its packets, keeping `frame_rate` frames per second (0: none).

    With `start` and `end` (seconds) only that stretch is decoded, and times count from its start.

    Raises:
        MediaError: the file cannot be decoded, is truncated, or is longer than `max_seconds`.
    """
    try:
        if not path.is_file():  # opening a pipe would block
            raise MediaError("unreadable", _not_a_file(path))
        with av.open(str(path), metadata_errors="ignore") as container:
            return _decode(container, frame_rate, max_seconds, (start, end))
    except (av.error.FFmpegError, OSError, ValueError, EOFError) as error:
        raise MediaError("unreadable", _plain_message(error)) from error


def _not_a_file(path: Path) -> str:
    if path.is_symlink() and not path.exists():
        return "is a broken link"
    return "is a folder" if path.is_dir() else "is not a regular file" if path.exists() else "no such file"


def _plain_message(error: BaseException) -> str:
    """The error's message without the file name (which is in the manifest) and without the number."""
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


def _decode(
    container: "av.container.InputContainer", frame_rate: float, max_seconds: float, stretch: tuple[float, float | None] = (0.0, None)
) -> Media:
    sound_stream = next(iter(container.streams.audio), None)
    picture_stream = next((s for s in container.streams.video if not _is_cover(s)), None) if frame_rate > 0 else None
    start, end = stretch
    stated = _stated_seconds(container)
    if end is not None:
        stated = min(stated or end, end) - start
    if stated > max_seconds:
        raise MediaError("too_long", f"{stated:.1f} s")
    streams = [stream for stream in (sound_stream, picture_stream) if stream is not None]
    sampler = _FrameSampler(frame_rate, None if end is None else start, end)
    pieces: list[np.ndarray] = []
    heard_from: float | None = None
    if start > 0.0:
        container.seek(int(start * av.time_base), backward=True)
    to_float = av.AudioResampler(format="fltp")
    for stream in streams:
        stream.codec_context.thread_count = 1  # there is already one process per core
    running = {stream.index for stream in streams}
    for packet in container.demux(streams) if streams else ():
        for frame in packet.decode():
            if not isinstance(frame, (av.AudioFrame, av.VideoFrame)):
                continue
            if end is not None and frame.time is not None and frame.time > end + AFTER:
                running.discard(packet.stream_index)
                continue
            if end is None and frame.time is not None and frame.time > max_seconds + 1.0:
                raise MediaError("too_long", f"more than {max_seconds:g} s")
            if isinstance(frame, av.AudioFrame):
                heard_from = heard_from if heard_from is not None else (frame.time or 0.0)
                pieces.extend(_to_mono(part) for part in to_float.resample(frame))
            else:
                sampler.offer(frame)
        if streams and not running:
            break
    if pieces:
        pieces.extend(_to_mono(part) for part in to_float.resample(None))
    sound = np.ascontiguousarray(np.concatenate(pieces), np.float32) if pieces else None
    rate = sound_stream.rate if sound_stream is not None else 0
    if end is not None and sound is not None:
        first = max(0, round((start - (heard_from or 0.0)) * rate))
        sound = sound[first : first + round((end - start) * rate)]
    duration = len(sound) / rate if sound is not None else max(stated, sampler.last_time)
    expected = stated if end is not None else _stream_seconds(sound_stream, stated)
    if sound is not None and duration < COMPLETE_SHARE * expected:
        raise MediaError("unreadable", f"truncated: its sound ends at {duration:.1f} s of {expected:.1f} s")
    if sound is not None and not np.isfinite(sound).all():
        raise MediaError("unreadable", "its sound contains values that are not numbers")
    return Media(duration, sound, rate, sampler.frames, sampler.times)


def _to_mono(frame: "av.AudioFrame") -> np.ndarray:
    """The mean of the channels, like librosa: FFmpeg's own mixing weighs them by 0.7 and can exceed -1..1."""
    return np.asarray(frame.to_ndarray().mean(axis=0))


def _is_cover(stream: "av.VideoStream") -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _stated_seconds(container: "av.container.InputContainer") -> float:
    return container.duration / av.time_base if container.duration else 0.0


def _stream_seconds(stream: "av.AudioStream | None", otherwise: float) -> float:
    if stream is None or stream.duration is None or stream.time_base is None:
        return otherwise
    return float(stream.duration * stream.time_base)


class _FrameSampler:
    """Keeps the first frame at or after each multiple of 1/rate seconds, counted from the first frame or from `start`."""

    def __init__(self, rate: float, start: float | None = None, end: float | None = None):
        self.rate = rate
        self._end = float("inf") if end is None else end - (start or 0.0)
        self.frames: list[np.ndarray] = []
        self.times: list[float] = []
        self.last_time = 0.0
        self._first: float | None = start
        self._count = 0

    def offer(self, frame: "av.VideoFrame") -> None:
        time = frame.time if frame.time is not None else self._count / 25.0
        self._count += 1
        if self._first is None:
            self._first = time
        time -= self._first
        if not -1e-3 <= time < self._end:
            return
        self.last_time = max(self.last_time, time)
        if time + 1e-3 >= len(self.times) / self.rate:
            self.frames.append(_to_rgb(frame))
            self.times.append(time)


def _to_rgb(frame: "av.VideoFrame") -> np.ndarray:
    """The frame as it should be shown: shrunk, and rotated if the file says so (telephones store upright videos sideways)."""
    image = _shrunk(frame)
    turns = round(frame.rotation / 90) % 4  # quarter turns anticlockwise
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _shrunk(frame: "av.VideoFrame") -> np.ndarray:
    shrink = LONGEST_SIDE / max(frame.width, frame.height)
    if shrink >= 1.0:
        return frame.to_ndarray(format="rgb24")
    width, height = max(2, round(frame.width * shrink)), max(2, round(frame.height * shrink))
    return frame.reformat(width=width, height=height, format="rgb24").to_ndarray()


def read_frame(path: Path, seconds: float) -> np.ndarray:
    """The frame at a time of a video, RGB [height, width, 3] uint8; the last one if the video is shorter.

    Raises:
        MediaError: the file cannot be decoded or has no video.
    """
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            if not container.streams.video:
                raise MediaError("unreadable", "has no video")
            stream = container.streams.video[0]
            container.seek(max(0, int(seconds * av.time_base)), backward=True)
            shown = None
            for frame in container.decode(stream):
                if shown is not None and frame.time is not None and frame.time > seconds + 1e-3:
                    break
                shown = frame
            if shown is None:
                raise MediaError("unreadable", "has no video")
            return _to_rgb(shown)
    except (av.error.FFmpegError, OSError, EOFError) as error:
        raise MediaError("unreadable", _plain_message(error)) from error


def probe(path: Path) -> tuple[float, bool]:
    """The length of a file in seconds (from its packets if the header does not say), and whether it has a sound track.

    Raises:
        MediaError: the file cannot be opened, or contains neither sound nor video.
    """
    if not path.is_file():
        raise MediaError("unreadable", _not_a_file(path))
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            if not container.streams.audio and not container.streams.video:
                raise MediaError("unreadable", "contains neither sound nor video")
            has_sound = bool(container.streams.audio)
            if container.duration:
                return container.duration / av.time_base, has_sound
            ends = [
                float((packet.pts + (packet.duration or 0)) * packet.time_base)
                for packet in container.demux()
                if packet.pts is not None and packet.time_base is not None
            ]
            return max(ends, default=0.0), has_sound
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise MediaError("unreadable", _plain_message(error)) from error


def read_pictures(pictures: Pictures, duration: float) -> tuple[list[np.ndarray], list[float]]:
    """The RGB images [height, width, 3] of a clip and their times in it (seconds). Unreadable files are left out.

    The number in a file's name is that of its video frame, at `pictures.rate` per second; the clip starts at the first frame of its
    track, or at the lowest number if the folder belongs to the clip alone.
    """
    import cv2

    numbered = sorted(
        (int(digits[-1]), path)
        for path in pictures.folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and (digits := re.findall(r"\d+", path.stem))
    )
    if pictures.track is not None:
        span = _frame_span(pictures.track)
        numbered = [(number, path) for number, path in numbered if span is not None and span[0] <= number <= span[1]]
    else:
        span = (numbered[0][0], numbered[-1][0]) if numbered else None
    frames, times = [], []
    for number, path in numbered:
        seconds = (number - span[0]) / pictures.rate if span is not None else 0.0
        image = cv2.imread(str(path))
        if image is not None and seconds <= duration + 1.0:
            frames.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
            times.append(seconds)
    return frames, times


def _frame_span(track: Path) -> tuple[int, int] | None:
    """First and last frame number in VoxCeleb's text file of a clip (the rows below `FRAME X Y W H`); None if it has none."""
    text = track.read_text(encoding="utf-8", errors="replace")
    _, _, table = text.partition("FRAME")
    numbers = [int(line.split()[0]) for line in table.splitlines()[1:] if line.strip() and line.split()[0].isdigit()]
    return (numbers[0], numbers[-1]) if numbers else None
