"""Decoding media: a video's mono sound and its frames at a chosen rate in one pass, single frames, and folders of pictures."""

import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import av
import numpy as np
import soxr

from preprocessing.channels import MediaError, SoundChoice, one_sound
from preprocessing.containers import media_errors
from preprocessing.layouts import Pictures
from preprocessing.recording import Picture, Recording, Sound, open_recording, scan
from preprocessing.timeline import Faults, total
from preprocessing.tracks import loudest_of

__all__ = ["Media", "MediaError", "Window", "decode", "probe", "read_frame", "read_pictures"]

LONGEST_SIDE = 640  # pixels; larger frames are shrunk while decoding, which bounds memory and costs the face mesh nothing
LEAD = 10.0  # seconds that one stream is decoded beyond the end of a stretch while the other one has not reached it
FARTHEST = 60.0  # seconds that sound and its pictures may be stored apart; memory grows with it
SLACK = 1e-3  # seconds: times of frames are rounded to milliseconds
MAX_SECONDS = 100_000.0  # a longer clip (of wrong timestamps) would not fit into memory
COMPLETE_SHARE = 0.5  # a clip of whose sound less than this is left cannot be used
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


class DamagedError(MediaError):
    """A clip of which too little is left; `faults` is what is missing."""

    def __init__(self, detail: str, faults: Faults):
        super().__init__("unreadable", detail)
        self.faults = faults


@dataclass
class Media:
    """A decoded clip.

    `sound` is [samples] float32 in -1..1 at `sound_rate` Hz, None if the file has no sound track, or no sound in the stretch; `frames` are
    RGB images [height, width, 3] uint8 at `frame_times` (seconds); `duration` is in seconds. `faults` is what is missing, in seconds of the
    recording; `notes` are on the choice of its sound.
    """

    duration: float
    sound: np.ndarray | None
    sound_rate: int
    frames: list[np.ndarray] = field(default_factory=list)
    frame_times: list[float] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)
    notes: list[str] = field(default_factory=list)

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


def decode(
    path: Path,
    frame_rate: float = 0.0,
    max_seconds: float = float("inf"),
    start: float = 0.0,
    end: float | None = None,
    choice: SoundChoice | None = None,
) -> Media:
    """Decode a file in one pass over its packets, keeping `frame_rate` frames per second (0: none).

    Times count from the recording's own start, that of its earliest stream; with `start` and `end` (seconds of the recording) only that
    stretch is decoded, and times count from its start. Sound that is missing within the clip is silence.

    Raises:
        MediaError: the file cannot be decoded, half of its sound or more is lost (`DamagedError`), or it is longer than `max_seconds`.
    """
    with open_recording(path, frame_rate > 0, choice) as recording:
        stated = recording.stated or 0.0
        if (stated if end is None else min(stated or end, end) - start) > max_seconds:
            raise MediaError("too_long", f"{stated if end is None else end - start:.1f} s")
        window = Window(recording, frame_rate, start, end)
        window.fill(max_seconds + 1.0 if end is None else end)
        if end is None and window.reached > max_seconds + 1.0:
            raise MediaError("too_long", f"more than {max_seconds:g} s")
        if recording.sound_stream is not None and not recording.rate and not recording.is_mute:
            raise MediaError("unreadable", "its sound cannot be decoded")
        until = window.end_before(end)
        if end is None and until - start > max_seconds + 1.0:  # by the timestamps of pictures without sound
            raise MediaError("too_long", f"{until - start:.1f} s")
        media = window.cut(start, until)
        if start > 0 and window.next_sound is None:  # the formats differ in whether any sound before the stretch was decoded
            media.sound, media.duration = None, max(0.0, until - start)
        _check_complete(media, start)
        return media


def _check_complete(media: "Media", start: float) -> None:
    """Raise `MediaError` unless most of the sound is left."""
    if not media.faults.lost:
        return
    lost, last = total(media.faults.lost), media.faults.lost[-1][1] - start
    expected = max(media.duration, last)
    if expected - lost < COMPLETE_SHARE * expected:
        if last > media.duration + 1e-3:
            raise DamagedError(f"truncated: its sound ends at {media.duration:.1f} s of {expected:.1f} s", media.faults)
        raise DamagedError(f"damaged: {lost:.1f} s of {expected:.1f} s of its sound cannot be decoded", media.faults)


class Window:
    """The decoded part of a recording from `start` seconds on (frames only up to `end`), which moves forward: `fill`, `cut`, `forget`."""

    def __init__(self, recording: Recording, frame_rate: float, start: float = 0.0, end: float | None = None):
        self._recording, self._parts, self._start, self._end = recording, recording.parts(start), start, end
        self._sounds: list[Sound] = []
        self._sampler = _FrameSampler(frame_rate, start, end)
        streams = {"sound": recording.sound_stream, "pictures": recording.picture_stream}
        self._reached = {name: start for name, stream in streams.items() if stream is not None}
        self._arrived: dict[str, float] = {}
        self._apart = 0.0  # seconds by which one stream was stored behind the other
        self.exhausted = False
        self._notes = [recording.track_note] if recording.track_note else []

    @property
    def reached(self) -> float:
        """The latest time of the sound and the pictures decoded so far (seconds)."""
        return max(self._reached.values(), default=0.0)

    @property
    def lead(self) -> float:
        """Seconds for which one stream is decoded beyond the other one."""
        return LEAD + min(self._apart, FARTHEST)

    @property
    def next_sound(self) -> float | None:
        """The start of the first sound that is kept (seconds)."""
        return self._sounds[0].first / self._recording.rate if self._sounds else None

    @property
    def next_picture(self) -> float | None:
        """The time of the first frame that is kept (seconds)."""
        return self._sampler.times[0] if self._sampler.times else None

    def end_before(self, limit: float | None) -> float:
        """Where the recording ends, as far as is known: with its sound, if there is any, else with its pictures; at most `limit`."""
        if limit is not None and not self.exhausted:
            return limit
        end = self._recording.sound_end if self._sounds else self._recording.end
        return end if limit is None else min(limit, end)

    def fill(self, end: float) -> None:
        """Decode until everything before `end` seconds is here, or the file ends."""
        while not self.exhausted and self._is_short_of(end):
            with media_errors():
                part = next(self._parts, None)
            if part is None:
                self.exhausted = True
            elif isinstance(part, Sound):
                if part.first + part.samples.shape[1] > self._start * self._recording.rate:
                    self._sounds.append(part)
                self._reached["sound"] = self._recording.sound_end
                self._note_arrival("sound", self._recording.sound_end)
            else:
                self._reached["pictures"] = max(self._reached["pictures"], part.time)
                self._note_arrival("pictures", part.time)
                with media_errors():
                    self._sampler.offer(part)

    def _note_arrival(self, name: str, time: float) -> None:
        self._arrived[name] = time
        self._apart = max(self._apart, max(self._arrived.values()) - time)

    def _is_short_of(self, end: float) -> bool:
        reached = self._reached.values()
        return not reached or (min(reached) <= end and max(reached) <= end + self.lead)

    def cut(self, start: float, end: float) -> Media:
        """The clip between two times (seconds)."""
        rate, end = self._recording.rate, max(start, end)
        if end - start > MAX_SECONDS:
            raise MediaError("too_long", f"{end - start:.0f} s by its timestamps")
        sound = self._sound(round(start * rate), round((end - start) * rate)) if rate else None
        taken = [place for place, time in enumerate(self._sampler.times) if time >= start - SLACK]
        return Media(
            end - start if sound is None else len(sound) / rate,
            sound,
            rate,
            [self._sampler.frames[place] for place in taken],
            [self._sampler.times[place] - start for place in taken],
            self._recording.faults.within(start, end if not self.exhausted else float("inf") if self._end is None else self._end),
            self._notes,
        )

    def _sound(self, first: int, count: int) -> np.ndarray:
        """Samples `first` to `first + count` of the recording as one channel; silence where there are none."""
        mono = np.zeros(count, np.float32)
        recording = self._recording
        parts = [part for part in self._sounds if part.first < first + count and part.first + part.samples.shape[1] > first]
        if not parts or recording.sound_stream is None:
            return mono
        channels = np.concatenate([part.samples for part in parts], axis=1)
        is_whole = self.exhausted and first == 0 and len(parts) == len(self._sounds)
        whole = None if is_whole else partial(loudest_of, recording.path, recording.sound_stream.index, len(recording.channels))
        mixed, note = one_sound(channels, recording.rate, recording.channels, recording.choice, whole)
        if note and note not in self._notes:
            self._notes.append(note)
        place = 0
        for part in parts:
            length, at = part.samples.shape[1], part.first - first
            low, high = max(0, at), min(count, at + length)
            mono[low:high] = mixed[place + low - at : place + high - at]
            place += length
        return mono

    def forget(self, before: float) -> None:
        """Free what is earlier than `before` seconds."""
        rate = self._recording.rate
        self._sounds = [part for part in self._sounds if part.first + part.samples.shape[1] > before * rate]
        self._sampler.forget(before)


class _FrameSampler:
    """Keeps the first frame at or after each multiple of 1/rate seconds from `start` on."""

    def __init__(self, rate: float, start: float, end: float | None):
        self._rate, self._start, self._end = rate, start, float("inf") if end is None else end
        self._next = 0
        self.frames: list[np.ndarray] = []
        self.times: list[float] = []

    def offer(self, picture: Picture) -> None:
        """Keep a frame if it is due; frames must be offered in the order of their times."""
        time = picture.time - self._start
        if time + SLACK < self._next / self._rate or picture.time >= self._end:
            return
        self.frames.append(_to_rgb(picture.frame))
        self.times.append(picture.time)
        self._next = int((time + SLACK) * self._rate) + 1

    def forget(self, before: float) -> None:
        """Free frames before a time."""
        count = sum(time < before - SLACK for time in self.times)
        del self.frames[:count], self.times[:count]


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
    """The frame that is shown at a time of a recording, RGB [height, width, 3] uint8; the nearest one before or after its pictures.

    Raises:
        MediaError: the file cannot be decoded or has no video.
    """
    for start in (max(0.0, seconds), 0.0):  # again from the start if the file cannot be entered there
        with open_recording(path) as recording, media_errors():
            shown = None
            for part in recording.parts(start) if recording.picture_stream is not None else ():
                if isinstance(part, Sound):
                    continue
                if shown is not None and part.time > seconds + SLACK:
                    break
                shown = part.frame
            if shown is not None:
                return _to_rgb(shown)
    raise MediaError("unreadable", "has no video")


def probe(path: Path) -> tuple[float, bool]:
    """The length of a file in seconds (from its packets if its header does not state it), and whether it has a sound track.

    Raises:
        MediaError: the file cannot be opened, or contains neither sound nor video.
    """
    with open_recording(path) as recording:
        if recording.sound_stream is None and not recording.has_pictures:
            raise MediaError("unreadable", "contains neither sound nor video")
        stated, has_sound = recording.stated, recording.sound_stream is not None
    return stated or scan(path).seconds, has_sound


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
