"""One clock for the streams of a recording: timestamps that restart or stray are put in order, packet by packet."""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av

from skesl_mug.wording import counted

Span = tuple[float, float]
"""Start and end in seconds of the recording."""

BACK = 0.5  # seconds: timestamps that go back further restart; smaller steps back are disorder
AHEAD = 10.0  # seconds: a larger step forward must be confirmed by the next packet
NEAR = 10.0  # seconds: streams whose timestamps restart within this distance restarted together
TOUCHING = 0.001  # seconds: spans closer than this are one
JOINED = 1.0  # seconds: spans closer than this are listed as one, and stored as one for pictures, which are decoded in another order
SEEN = 0.05  # seconds: less reads as 0.0 s
SHOWN = 3  # spans that are listed in a sentence


@dataclass
class Faults:
    """What is missing from a recording; nothing is for an ordinary one. Times are seconds of the recording.

    `holes` are spans that its timestamps leave without sound, `jumps` the times at which timestamps restart, `lost` the spans of sound and
    `lost_pictures` those of pictures that are damaged or cut off.
    """

    holes: list[Span] = field(default_factory=list)
    jumps: list[float] = field(default_factory=list)
    lost: list[Span] = field(default_factory=list)
    lost_pictures: list[Span] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.holes or self.jumps or self.lost or self.lost_pictures)

    def within(self, start: float, end: float) -> "Faults":
        """Those between two times."""

        def clipped(spans: list[Span]) -> list[Span]:
            return [(max(low, start), min(high, end)) for low, high in spans if low < end and high > start]

        return Faults(clipped(self.holes), [at for at in self.jumps if start <= at < end], clipped(self.lost), clipped(self.lost_pictures))

    def as_dict(self) -> dict[str, Any]:
        """The faults that occur, for JSON; times rounded to milliseconds."""
        spans = {"holes": self.holes, "lost": self.lost, "lost_pictures": self.lost_pictures}
        found: dict[str, Any] = {name: [[round(low, 3), round(high, 3)] for low, high in value] for name, value in spans.items() if value}
        return found | ({"jumps": [round(at, 3) for at in self.jumps]} if self.jumps else {})

    def notes(self) -> list[str]:
        """One sentence per kind of fault that is long enough to state."""
        notes = []
        if total(self.lost) >= SEEN:
            notes.append(f"{total(self.lost):.1f} s of sound lost to damage, at {places(self.lost)}")
        if total(self.lost_pictures) >= SEEN:
            notes.append(f"{total(self.lost_pictures):.1f} s of pictures lost to damage, at {places(self.lost_pictures)}")
        if total(self.holes) >= SEEN:
            holes = counted(len(self.holes), "gap")
            notes.append(f"{holes} of {total(self.holes):.1f} s in the sound, kept as silence, at {places(self.holes)}")
        if self.jumps:
            shown = ", ".join(f"{at:.1f}" for at in self.jumps[:SHOWN]) + (" ..." if len(self.jumps) > SHOWN else "")
            often = counted(len(self.jumps), "time") if len(self.jumps) > 1 else "once"
            notes.append(f"timestamps restart {often}, at {shown} s; the parts are put one after the other")
        return notes


def total(spans: list[Span]) -> float:
    """Seconds of all spans."""
    return sum(end - start for start, end in spans)


def places(spans: list[Span], shown: int = SHOWN) -> str:
    """`2.8-4.9 s, 7.0-7.1 s ...`; spans that are close together are one, and short ones are left out beside longer ones."""
    listed: list[Span] = []
    for span in spans:
        add_span(listed, *span, JOINED)
    spans = [span for span in listed if span[1] - span[0] >= SEEN] or listed
    return ", ".join(f"{start:.1f}-{end:.1f} s" for start, end in spans[:shown]) + (" ..." if len(spans) > shown else "")


def add_span(spans: list[Span], start: float, end: float, near: float = TOUCHING) -> None:
    """Append a span, or extend the last one if they overlap or are at most `near` seconds apart."""
    if end <= start:
        return
    if spans and start <= spans[-1][1] + near and end >= spans[-1][0] - near:
        spans[-1] = (min(start, spans[-1][0]), max(end, spans[-1][1]))
    else:
        spans.append((start, end))


def seconds_of(ticks: int, time_base: Fraction) -> float:
    """Ticks of a time base in seconds; a product of fractions would take longer than decoding a packet of sound."""
    return ticks * time_base.numerator / time_base.denominator


@dataclass
class _Run:
    """Packets between two restarts: `shift` seconds turn their timestamps into the recording's time."""

    shift: float
    first: float
    last: float


@dataclass
class _Track:
    """A stream: the index of its run, the timestamp that its next packet should have, and a packet that awaits confirmation."""

    run: int = 0
    expected: float | None = None
    last: float = 0.0
    step: float = 0.0
    held: "av.Packet[Any] | None" = None


class Clock:
    """Rewrites the timestamps of packets so that they count on one clock that never restarts.

    Timestamps that go back start a new run, which follows on from the latest time; the other streams join the same run, so that they
    remain synchronous. A timestamp far off that the next packet of the stream does not confirm is removed. Steps forward are kept.
    """

    def __init__(self, origin: float | None, faults: Faults, presented: bool = False):
        self.origin, self._faults, self._presented = origin, faults, presented
        self._tracks: dict[int, _Track] = {}
        self._runs: list[_Run] = []
        self.end = 0.0

    def place(self, packet: "av.Packet[Any]") -> "list[av.Packet[Any]]":
        """The packets of the stream that can now be decoded, in order; none while a timestamp awaits confirmation."""
        track = self._tracks.setdefault(packet.stream_index, _Track())
        time = self._time(packet)
        if time is None:
            return [*self.release(packet.stream_index), packet]
        if track.held is None:
            if self._follows(track, time):
                return [self._accept(track, packet, time)]
            track.held = packet
            return []
        held, since = track.held, self._time(track.held)
        assert since is not None
        if -BACK <= time - since <= AHEAD:  # confirmed
            track.held = None
            self._jump(track, since)
            return [self._accept(track, held, since), self._accept(track, packet, time)]
        placed = self.release(packet.stream_index)
        return placed + self.place(packet)

    def release(self, index: int) -> "list[av.Packet[Any]]":
        """The packet of a stream that still awaits confirmation, without its timestamp."""
        track = self._tracks.get(index)
        if track is None or track.held is None:
            return []
        held, track.held = track.held, None
        held.pts = held.dts = None
        track.expected = None if track.expected is None else track.expected + track.step
        self._faults.jumps.append(self.end)
        return [held]

    def _follows(self, track: _Track, time: float) -> bool:
        return track.expected is None or (time - track.last >= -BACK and time - track.expected <= AHEAD)

    def _accept(self, track: _Track, packet: "av.Packet[Any]", time: float) -> "av.Packet[Any]":
        if not self._runs:
            self.origin = time if self.origin is None else self.origin
            self._runs.append(_Run(0.0, time, time))
        if track.expected is None:
            track.run = len(self._runs) - 1
        assert packet.time_base is not None
        length = seconds_of(packet.duration or 0, packet.time_base)
        track.step = length or (time - track.last if track.expected is not None and 0 < time - track.last < 1 else track.step)
        track.last, track.expected = time, time + track.step
        run = self._runs[track.run]
        run.last = max(run.last, track.expected)
        shown = seconds_of(packet.pts, packet.time_base) if packet.pts is not None else time
        if not 0 <= shown - time <= AHEAD:
            packet.pts, shown = packet.dts, time
        self.end = max(self.end, shown + track.step + run.shift - (self.origin or 0.0))
        if run.shift:
            ticks = round(run.shift / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks
        return packet

    def _jump(self, track: _Track, time: float) -> None:
        """Continue a stream at a timestamp that does not follow the last one."""
        assert track.expected is not None
        if time > track.expected:
            return  # a hole
        reached = track.expected + self._runs[track.run].shift
        for number in range(track.run + 1, len(self._runs)):
            run = self._runs[number]
            if run.first - NEAR <= time <= run.last + NEAR:
                run.shift = max(run.shift, reached - time)  # never over what was already placed
                track.run = number
                return
        latest = max(reached, self.end + (self.origin or 0.0))
        self._runs.append(_Run(latest - time, time, time))
        self._faults.jumps.append(latest - (self.origin or 0.0))
        track.run = len(self._runs) - 1

    def _time(self, packet: "av.Packet[Any]") -> float | None:
        """The decoding time of a packet in seconds; its presentation time if it has none, or if the format has none (`presented`)."""
        stamp = packet.pts if packet.dts is None or (self._presented and packet.pts is not None) else packet.dts
        return None if stamp is None or packet.time_base is None else seconds_of(stamp, packet.time_base)
