"""Packets that are missing from files whose timestamps do not show it: pages of Ogg, frames of MP3 and AAC."""

import re
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO

import av

from preprocessing.timeline import seconds_of

TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")  # of MP3 and AAC files
TAG = 16
ADTS = re.compile(rb"\xff[\xf0\xf1\xf8\xf9]")
LEAST = 0.25  # seconds: shorter estimates are worse than none, as FFmpeg makes frames of some of the damaged bytes
MP3_FRAME = 3000  # bytes: a larger packet has more than a frame


@dataclass
class Scan:
    """What the packets of a file show: its length, how often its timestamps restart, the times of its key frames, how far apart its
    streams are stored. Times in seconds."""

    seconds: float
    jumps: int
    keys: list[float]
    apart: float


def start_of(stream: "av.stream.Stream | None", origin: float | None) -> float:
    """Seconds of the recording at which a stream starts; infinite if that is not known."""
    if stream is None or stream.start_time is None or stream.time_base is None:
        return float("inf")
    return seconds_of(stream.start_time, stream.time_base) - (origin or 0.0)


class CountedFrames:
    """The frames of an MP3 or AAC file, which FFmpeg counts: the length of what it passed over is estimated from their mean bit rate."""

    def __init__(self, path: Path, format_name: str):
        self._is_mp3 = format_name == "mp3"
        self._gaps = [] if self._is_mp3 else adts_gaps(path)
        self._bytes, self._seconds = 0, 0.0  # of the frames so far
        self._large = 0  # bytes of a packet that has more than a frame
        self._shift = 0.0  # seconds

    @property
    def rest(self) -> float:
        """Seconds that the end of the file had, as far as it is not in any frame."""
        return self._length(self._large + sum(length for _, length in self._gaps))

    def place(self, packet: "av.Packet[Any]") -> bool:
        """Move the timestamps of a packet behind what was passed over; whether there was anything directly before it."""
        lost, self._large = self._large, 0
        while self._gaps and self._gaps[0][0] <= (packet.pos or 0):
            lost += self._gaps.pop(0)[1]
        self._shift += self._length(lost) if self._length(lost) > LEAST else 0.0
        assert packet.time_base is not None
        if self._is_mp3 and packet.size > MP3_FRAME:
            self._large = 0 if any(tag in bytes(packet) for tag in TAGS) else packet.size
        else:
            self._bytes, self._seconds = self._bytes + packet.size, self._seconds + seconds_of(packet.duration or 0, packet.time_base)
        if self._shift and packet.pts is not None:
            packet.pts = packet.dts = packet.pts + round(self._shift / packet.time_base)
        return lost > 0

    def _length(self, count: int) -> float:
        return count * self._seconds / self._bytes if self._bytes else 0.0


class OggPages:
    """The pages of an Ogg file, of which FFmpeg leaves out damaged ones."""

    def __init__(self, path: Path):
        self._path = path
        self._page: int | None = None
        self._follows_loss, self._shift = False, 0

    def place(self, packet: "av.Packet[Any]") -> bool:
        """Whether a page is missing before that of a packet; its timestamps are corrected."""
        if packet.pos is not None and packet.pos != self._page:
            self._follows_loss = self._page is not None and packet.pos > pages_end(self._path, self._page)
            self._shift = self._missing(packet) if self._follows_loss else 0
            self._page = packet.pos
        if self._shift and packet.pts is not None:
            packet.pts = packet.dts = packet.pts + self._shift
        return self._follows_loss

    def _missing(self, packet: "av.Packet[Any]") -> int:
        """Ticks by which FFmpeg places the FLAC packets of a page too early; it counts those of other codecs back from its end."""
        if packet.stream.codec_context is None or packet.stream.codec_context.name != "flac" or packet.pts is None or packet.pos is None:
            return 0
        granule, packets = page_content(self._path, packet.pos)
        return max(0, granule - packets * (packet.duration or 0) - packet.pts)


def pages_end(path: Path, start: int) -> int:
    """Where the Ogg page at a byte ends, together with those after it in which no packet ends."""
    with path.open("rb") as file:
        place = start
        while (page := _page(file, place)) is not None and (place == start or all(size == 255 for size in page[1])):
            place += 27 + len(page[1]) + sum(page[1])
    return place


def page_content(path: Path, start: int) -> tuple[int, int]:
    """The granule of the Ogg page at a byte (the time at its end), and the number of packets that start and end in it, or end the page."""
    with path.open("rb") as file:
        page = _page(file, start)
    if page is None:
        return 0, 0
    header, sizes = page
    return int.from_bytes(header[6:14], "little", signed=True), sum(size < 255 for size in sizes) - (header[5] & 1)


def _page(file: BinaryIO, start: int) -> tuple[bytes, bytes] | None:
    """The header and the sizes of the segments of an Ogg page; None if there is none."""
    file.seek(start)
    header = file.read(27)
    return (header, file.read(header[26])) if len(header) == 27 and header.startswith(b"OggS") else None


def adts_gaps(path: Path) -> list[tuple[int, int]]:
    """The stretches of an AAC file that are neither frames nor tags: the bytes of all frames before each, and its length."""
    gaps: list[tuple[int, int]] = []
    place = passed = 0
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        while place < len(data):
            if _is_adts(data, place):
                place += _adts_length(data, place)
                continue
            following = next((found.start() for found in ADTS.finditer(data, place + 1) if _is_adts(data, found.start())), len(data))
            if not data[place : place + TAG].startswith(TAGS):
                gaps.append((place - passed, following - place))
            passed += following - place
            place = following
    return gaps


def _is_adts(data: mmap, place: int) -> bool:
    """Whether a frame starts at a byte, and another one, a tag or the end of the file follows it."""
    following = place + _adts_length(data, place)
    if following == place:
        return False
    return following == len(data) or _adts_length(data, following) > 0 or data[following : following + TAG].startswith(TAGS)


def _adts_length(data: mmap, place: int) -> int:
    """The length of the AAC frame at a byte, with its header; 0 if there is none."""
    head = data[place : place + 7]
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return 0
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length > 7 else 0
