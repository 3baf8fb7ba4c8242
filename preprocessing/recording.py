"""An open recording: packets decoded past damage, as sound and pictures on one clock that starts with the earliest stream."""

from bisect import bisect
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import soxr

from preprocessing.channels import MediaError, SoundChoice, channel_names, samples_of
from preprocessing.containers import blocks_between, empty_sounds, find_header, media_errors, not_a_file, wave_seconds
from preprocessing.packets import CountedFrames, OggPages, Scan, pages_end, start_of
from preprocessing.timeline import JOINED, Clock, Faults, add_span, seconds_of
from preprocessing.tracks import choose_track

START_TOLERANCE = 0.02  # seconds that the sound may start after the pictures without silence before it: less than a video frame
JITTER = 0.1  # seconds between timestamps and samples that are rounding or drift, no hole (FFmpeg's limit for hard compensation)
PREROLL = 0.25  # seconds decoded before a stretch: decoders need some packets to settle
SETTLE = 8  # packets of sound that a decoder needs before a hole that the stretch starts in
CUT = 0.5  # seconds that may be missing at the end of a file, compared with its header
PASSED = 200  # bytes between two packets of a Matroska file: more than its headers need
UNREAD = 0.05  # share of a file that is given up and reported
MILLISECOND = Fraction(1, 1000)
FAR = 2**40  # milliseconds: later times are those of a damaged cluster, and a packet cannot hold them
OPEN = ("ogg", "mpegts")  # formats with nothing after the last packet
OPEN_REST = 4096  # bytes after it that are headers and filling
FAILURES = 1000  # errors of the demuxer in succession after which a file is given up
CHECKED = ("flac", "mp3", "aac")  # formats without pauses: what is missing was dropped by a check
EXACT = ("mov", "matroska", "avi", "wav", "w64", "flac", "asf", "flv", "caf", "aiff")  # formats whose header states the length
STREAMED = ("mpegts", "mpeg")
KEY_MARGIN = 1.0  # seconds that a search by timestamps is aimed before a key frame
RATES = (1_000, 1_000_000)  # Hz: sample rates outside are those of a damaged header, and seconds of sound become hours
COUNTED = ("aac", "ac3", "eac3", "dts", "mp3")  # formats without timestamps: FFmpeg counts them at the first sample rate
INDEXED = ("mov", "wav", "w64", "flac", "caf", "aiff")  # formats whose timestamps cannot restart


@dataclass
class Sound:
    """Samples [channels, n] float32, the first of which is number `first` of the recording."""

    first: int
    samples: np.ndarray


@dataclass
class Picture:
    """A decoded video frame and its time in the recording (seconds)."""

    time: float
    frame: "av.VideoFrame"


@contextmanager
def open_recording(path: Path, pictures: bool = True, choice: SoundChoice | None = None) -> Iterator["Recording"]:
    """Open a file.

    Args:
        path: the file.
        pictures: whether to decode its pictures.
        choice: the sound to decode.

    Raises:
        MediaError: it cannot be opened, or does not have the chosen sound.
    """
    with media_errors():
        if not path.is_file():  # opening a pipe would block
            raise MediaError("unreadable", not_a_file(path))
        container = av.open(str(path.absolute()), metadata_errors="ignore")  # `http:a.mp4` alone would be an address
    with container:
        yield Recording(path, container, pictures, choice or SoundChoice())


class Recording:
    """Decodes a sound and a picture stream in one pass (see `open_recording`).

    `rate` (Hz) and `channels` (names) of the sound are known once some of it is decoded; `faults` grows while decoding. `sound_end` and
    `end` are the seconds reached by the sound and by all streams. `track_note` reports a sound track that is not the first.
    """

    def __init__(self, path: Path, container: "av.container.InputContainer", pictures: bool, choice: SoundChoice):
        self.path, self.choice, self._container = path, choice, container
        self.sound_stream, self.track_note = choose_track(container, path, choice.track)
        shown = [stream for stream in container.streams.video if not is_cover(stream) and stream.codec_context is not None]
        self.picture_stream = shown[0] if shown and pictures else None
        self._streams = [*container.streams.audio, *shown]
        self.has_pictures = bool(shown)
        for stream in (self.sound_stream, self.picture_stream):
            if stream is not None:
                stream.codec_context.thread_count = 1  # there is already one process per core
        self.faults = Faults()
        starts = [seconds_of(s.start_time, s.time_base) for s in self._streams if s.start_time is not None and s.time_base is not None]
        self._format = container.format.name.split(",")[0]
        self._clock = Clock(min(starts, default=None), self.faults, presented=self._format == "matroska")
        self.rate = 0
        self.channels: list[str] = []
        self._next: int | None = None
        self._start, self._step, self._shown = 0.0, 0.0, 0.0
        self._failed = {"audio": False, "video": False}  # whether something was lost since the last decoded frame
        self._seeked = self._changed = False
        self._unread = 0.0  # seconds
        self.keys: list[float] = []
        self.apart = 0.0  # seconds by which one stream is stored behind another
        self._silent = empty_sounds(path) if self._format == "avi" else {}
        self._frames = CountedFrames(path, self._format) if self._format in ("aac", "mp3") else None
        self._pages = OggPages(path) if self._format == "ogg" else None

    @property
    def stated(self) -> float | None:
        """The length in seconds that the header states; None if it states none, or FFmpeg only estimates it."""
        if self._format == "wav":
            with media_errors():
                return wave_seconds(self.path)
        duration = self._container.duration
        if not duration or self._format not in EXACT:
            return None
        return duration / av.time_base - (max(0.0, self._clock.origin or 0.0) if self._format == "matroska" else 0.0)

    @property
    def is_mute(self) -> bool:
        """Whether the packets read so far have no sound, although the file has a sound track."""
        return self.sound_stream is not None and not self.rate and not self._failed["audio"]

    @property
    def sound_end(self) -> float:
        """Seconds at which the decoded sound ends."""
        return (self._next or 0) / self.rate if self.rate else 0.0

    @property
    def end(self) -> float:
        """Seconds at which the packets read so far end."""
        return self._clock.end

    def parts(self, start: float = 0.0) -> Iterator[Sound | Picture]:
        """Decode from `start` seconds (or a little before) to the end."""
        self._start, needed = start, self._seek(start - PREROLL)
        passed: deque[av.Packet[Any]] = deque(maxlen=SETTLE)
        chosen = {stream.index: stream.type for stream in (self.sound_stream, self.picture_stream) if stream is not None}
        for packet in self._packets():
            kind = chosen.get(packet.stream_index)
            for placed in self._placed(packet):
                if kind in needed and (time := self._decoding_time(placed)) is not None and time < needed[kind]:
                    self._seeked = True  # the file cannot be entered at a time, but its packets need not be decoded
                    passed += [placed] if kind == "audio" else []
                elif kind is not None:
                    while passed and kind == "audio":
                        yield from self._decoded(passed.popleft(), kind)
                    yield from self._decoded(placed, kind)
        self._finish()

    def _since_start(self, stamped: "av.Packet[Any] | av.AudioFrame | av.VideoFrame") -> float:
        """The presentation time of something that has one, in seconds of the recording."""
        stamp, time_base = stamped.pts, stamped.time_base  # each access makes a fraction
        assert stamp is not None
        assert time_base is not None
        return seconds_of(stamp, time_base) - (self._clock.origin or 0.0)

    def _decoding_time(self, packet: "av.Packet[Any]") -> float | None:
        """The decoding time of a packet in seconds of the recording, else its presentation time."""
        stamp = packet.pts if packet.dts is None else packet.dts
        return None if stamp is None or packet.time_base is None else seconds_of(stamp, packet.time_base) - (self._clock.origin or 0.0)

    def _seek(self, seconds: float) -> dict[str, float]:
        """Go to a time, or a little before it. Where the timestamps of the file do not lead there: from when on to decode each kind."""
        if seconds <= 0:
            return {}
        if self._format in COUNTED:
            return {"audio": seconds - KEY_MARGIN}
        if self._silent or self._format not in INDEXED:
            found = scan(self.path)
            if found.jumps or self._silent:
                return {
                    "audio": seconds - KEY_MARGIN,
                    "video": max((key for key in found.keys if key <= seconds - KEY_MARGIN), default=0.0),
                }
            seconds -= found.apart if found.apart > KEY_MARGIN else 0.0
            if self._format in STREAMED and self.picture_stream is not None:  # they know no key frames
                seconds = max((key for key in found.keys if key <= seconds), default=0.0) - KEY_MARGIN
        if seconds > 0:
            self._clock.origin = self._clock.origin or 0.0
            self._container.seek(int((seconds + (self._clock.origin or 0.0)) * av.time_base), backward=True)
            self._seeked = self._clock.entered = True
        return {}

    def _placed(self, packet: "av.Packet[Any]") -> "list[av.Packet[Any]]":
        """The packets to decode now; an empty one ends its stream."""
        if packet.stream_index in self._silent and packet.pos is not None and packet.pts is not None:
            packet.pts = packet.dts = packet.pts + bisect(self._silent[packet.stream_index], packet.pos)
        if packet.size and self._frames is not None and self._frames.place(packet):
            self._failed["audio"] = True
        return self._clock.place(packet) if packet.size else [*self._clock.release(packet.stream_index), packet]

    def read_through(self) -> None:
        """Read all packets without decoding them: `end`, `keys`, `apart` and the jumps among `faults` are known afterwards."""
        picture = self.picture_stream.index if self.picture_stream is not None else None
        reached: dict[int, float] = {}
        for placed in chain.from_iterable(map(self._placed, self._packets())):
            if (time := self._decoding_time(placed)) is not None:
                reached[placed.stream_index] = time
                self.apart = max(self.apart, max(reached.values()) - time)
                if placed.stream_index == picture and placed.is_keyframe:
                    self.keys.append(time)

    def _packets(self) -> "Iterator[av.Packet[Any]]":
        """The packets of all streams; the demuxer resumes after an error."""
        size, (failures, last) = self.path.stat().st_size, (yield from self._demuxed(self._container, self._streams, 0))
        while self._format == "matroska" and (start := find_header(self.path, last)) is not None:  # FFmpeg stops before the third
            address = f"subfile,,start,{start},end,0,,:{self.path.absolute()}"
            last = start + 1
            with suppress(av.error.FFmpegError, ValueError), av.open(address, metadata_errors="ignore") as container:
                kinds = {stream.index: stream.type for stream in self._streams}
                streams = [stream for stream in container.streams if kinds.get(stream.index) == stream.type]
                failures, read = yield from self._demuxed(container, streams, start)
                last = max(last, read)
        last = pages_end(self.path, last) if self._format == "ogg" and last else last
        is_cut = failures or (self._format in OPEN and size - last > OPEN_REST)
        if is_cut and 0 < last < (1 - UNREAD) * size:  # the length of the rest is an estimate
            self._unread = self.end * (size - last) / last
        elif self._frames is not None:
            self._unread = self._frames.rest if self._frames.rest > CUT else 0.0

    def _demuxed(
        self, container: "av.container.InputContainer", streams: "Sequence[av.stream.Stream]", offset: int
    ) -> "Generator[av.Packet[Any], None, tuple[int, int]]":
        """The packets of a container that starts at a byte of the file; returns the errors at its end, and the byte of the last packet."""
        failures, last, read = 0, 0, None
        while streams and failures < FAILURES:
            try:
                for packet in container.demux(streams):
                    if packet.size:
                        failures, last = 0, max(last, (packet.pos or 0) + (packet.size if self._format == "mpegts" else 0))
                    if packet.size and self._pages is not None and self._pages.place(packet):
                        self._failed = dict.fromkeys(self._failed, True)
                    if packet.size and self._format == "matroska" and packet.pos is not None and packet.pts is not None:
                        passed = packet.pos - read > PASSED if read is not None else False
                        if passed and self._since_start(packet) - self.end > JITTER:  # the demuxer searched for the next cluster
                            yield from self._rescued(streams, offset + (read or 0), offset + packet.pos)
                        read = packet.pos + packet.size
                    elif not packet.size and read is not None and self.stated is not None and self.stated - self.end > CUT:
                        end = find_header(self.path, offset + read) or self.path.stat().st_size
                        yield from self._rescued(streams, offset + read, end)  # before the decoders are flushed
                        read = None
                    yield packet
                break
            except IndexError:  # PyAV at the end of a file some of whose streams are not in its header
                break
            except (av.error.FFmpegError, ValueError):
                failures += 1
                self._failed = dict.fromkeys(self._failed, True)
        return failures, offset + last

    def _rescued(self, streams: "Sequence[av.stream.Stream]", start: int, end: int) -> "Iterator[av.Packet[Any]]":
        """The packets that the demuxer passed over between two bytes of a Matroska file."""
        self._failed = dict.fromkeys(self._failed, True)
        for block in blocks_between(self.path, start, end, tracks=len(self._container.streams)):
            stream = next((stream for stream in streams if stream.index == block.track - 1), None)
            if stream is not None and stream.time_base == MILLISECOND and abs(block.time) < FAR:
                packet: av.Packet[Any] = av.Packet(block.content)
                packet.stream, packet.time_base, packet.pts = stream, stream.time_base, block.time
                yield packet

    def _decoded(self, packet: "av.Packet[Any]", kind: str) -> Iterator[Sound | Picture]:
        if packet.is_corrupt:
            self._failed[kind] = True
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, ValueError):
            if packet.size:
                self._lose(packet, kind)
            return
        for frame in frames:
            if isinstance(frame, av.AudioFrame):
                try:
                    sound = self._sound(frame)
                except (av.error.FFmpegError, ValueError):
                    self._failed[kind] = True
                    continue
                if sound is not None:
                    yield sound
            elif isinstance(frame, av.VideoFrame):
                yield self._picture(frame)

    def _lose(self, packet: "av.Packet[Any]", kind: str) -> None:
        """Note a packet that cannot be decoded; lost sound shows at the next frame, pictures are delayed and come in another order."""
        if kind == "audio":
            self._failed[kind] = True
        elif packet.pts is not None and packet.time_base is not None:
            time = self._since_start(packet)
            length = seconds_of(packet.duration or 0, packet.time_base) or self._step
            add_span(self.faults.lost_pictures, time, time + length, JOINED)

    def _sound(self, frame: "av.AudioFrame") -> Sound | None:
        """The samples of a frame in their place; None if all of them are earlier than what is already there."""
        samples = samples_of(frame)
        if not self.rate:
            if not RATES[0] <= frame.sample_rate <= RATES[1]:
                raise MediaError("unreadable", f"its header states {frame.sample_rate:,} samples per second")
            self.rate, self.channels = frame.sample_rate, channel_names(frame.layout)
        samples = self._alike(samples, frame.sample_rate)
        failed, self._failed["audio"] = self._failed["audio"], False
        self._changed = self._changed or (frame.sample_rate != self.rate and self._format in COUNTED)
        if frame.pts is not None and frame.time_base is not None and not self._changed:
            at = round(self._since_start(frame) * self.rate)
            if self._next is None:
                self._next = at if self._seeked or abs(at) > START_TOLERANCE * self.rate else 0
                if failed and not self._seeked:
                    add_span(self.faults.lost, 0.0, self.sound_end)
                elif self._seeked and start_of(self.sound_stream, self._clock.origin) + JITTER < self._start < at / self.rate - JITTER:
                    add_span(self.faults.lost if failed else self.faults.holes, self._start, at / self.rate)
            gap = at - self._next
            if gap > (START_TOLERANCE if failed else JITTER) * self.rate:
                damaged = failed or self._format in CHECKED
                add_span(self.faults.lost if damaged else self.faults.holes, self.sound_end, at / self.rate)
                self._next = at
            elif gap < -JITTER * self.rate:
                samples = samples[:, -gap:]
        first = self._next or 0
        if not np.isfinite(samples).all():
            samples = np.nan_to_num(samples, copy=True, nan=0.0, posinf=0.0, neginf=0.0)
            add_span(self.faults.lost, first / self.rate, (first + samples.shape[1]) / self.rate)
        self._next = first + samples.shape[1]
        if first < 0:
            samples, first = samples[:, -first:], 0
        return Sound(first, samples) if samples.size else None

    def _alike(self, samples: np.ndarray, rate: int) -> np.ndarray:
        """Samples with the rate and the number of channels of the first ones, should a stream change them."""
        if len(samples) != len(self.channels):
            samples = np.repeat(samples.mean(axis=0, keepdims=True), len(self.channels), axis=0)
        if rate != self.rate:
            samples = np.asarray(soxr.resample(samples.T, rate, self.rate, quality="HQ"), np.float32).T
        return samples

    def _picture(self, frame: "av.VideoFrame") -> Picture:
        before = self._shown
        if frame.pts is not None and frame.time_base is not None:
            time = self._since_start(frame)
        else:
            time = before + (self._step or 1 / 25)
        if self._failed["video"] and not self._seeked and time - before > CUT:
            add_span(self.faults.lost_pictures, before + self._step, time, JOINED)
            self._failed["video"] = False
        elif 0 < time - before < 1:
            self._step = time - before
        self._shown = max(before, time)
        return Picture(time, frame)

    def _finish(self) -> None:
        """Note what is missing at the end."""
        stream, stated = self.sound_stream, self.stated
        if self.is_mute:
            stream = None
        if stated is None and self._unread:
            first = self.sound_end if self._frames is not None else self.end  # some of what follows its frames was read as frames
            spans = self.faults.lost if stream is not None else self.faults.lost_pictures
            add_span(spans, first, max(self.end, first + self._unread))
        elif stated is None and stream is not None and self._failed["audio"] and self.end - self.sound_end > CUT:
            add_span(self.faults.lost, self.sound_end, self.end)
        if stated is None:
            return
        expected, reached = stated, self.end
        if stream is not None and stream.duration is not None and stream.time_base is not None and self._format != "wav":
            start = (stream.start_time or 0) * stream.time_base - (self._clock.origin or 0.0)
            expected, reached = float(start + stream.duration * stream.time_base), self.sound_end
        if expected - reached > CUT:
            add_span(self.faults.lost if stream is not None else self.faults.lost_pictures, reached, expected)
        elif self._failed["audio"] and self.end - self.sound_end > START_TOLERANCE:
            add_span(self.faults.lost, self.sound_end, min(self.end, expected))


def is_cover(stream: "av.VideoStream") -> bool:
    """Whether a stream is a cover picture."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def scan(path: Path) -> Scan:
    """Read the packets of a file once; the result is kept.

    Raises:
        MediaError: it cannot be opened.
    """
    with media_errors():
        about = path.stat()
    return _scan(path, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=64)
def _scan(path: Path, size: int, changed: int) -> Scan:
    with open_recording(path) as recording, media_errors():
        recording.read_through()
        return Scan(recording.end, len(recording.faults.jumps), recording.keys, recording.apart)
