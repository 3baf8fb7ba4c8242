"""One clock for the streams of a recording: timestamps that restart or stray are put in order, packet by packet."""

from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av

from skesl_mug.wording import counted

Span = tuple[float, float]
"""Start and end in seconds of the recording."""

BACK = 0.5  # seconds: a larger step back or forward must be confirmed; smaller steps back are disorder
CONFIRMED = 2  # packets that must agree with the one after a step
BETWEEN = 4  # pictures that are stored between one and those shown before it
AHEAD = 10.0  # seconds that a packet of sound which confirms may follow later
PASSED = 2.0  # seconds: a larger step forward is also confirmed by another stream
REORDERED = 17  # pictures that may be stored between the decoding and the showing of one
UNKNOWN = 100.0  # seconds that the first pictures may be shown after their decoding
ROUNDING = 0.01  # seconds that a picture may be shown before its decoding
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
    """A stream: its run, the latest timestamp, the one that its next packet should have, and packets that await confirmation.

    `floor` is the latest timestamp before the last step forward: pictures that are stored in another order than shown lie above it.
    """

    pictures: bool
    run: int
    expected: float | None = None
    last: float = 0.0
    floor: float = 0.0
    step: float = 0.0
    moves: "deque[float]" = field(default_factory=lambda: deque(maxlen=5))
    held: "list[av.Packet[Any]]" = field(default_factory=list)

    @property
    def usual(self) -> float:
        """The distance between its packets: the second largest of the last ones, so that one hole does not count."""
        return sorted(self.moves)[-2] if len(self.moves) > 1 else 0.0

    @property
    def wide(self) -> float:
        """The largest step that needs no confirmation."""
        return max(BACK, 4 * self.usual) if self.pictures else BACK


class Clock:
    """Rewrites the timestamps of packets so that they count on one clock that never restarts.

    A timestamp that is more than `BACK` off is kept only if the next packets of the stream agree with it, or for a step forward if another
    stream is that far too; otherwise it is removed. Timestamps that go back start a new run, which follows on from the latest time; the
    other streams join the same run, so that they remain synchronous. Steps forward are kept.
    """

    def __init__(self, origin: float | None, faults: Faults, presented: bool = False):
        self.origin, self._faults, self._presented = origin, faults, presented
        self.entered = False  # whether the file is read from a later time on: the first timestamps are far from the origin
        self._tracks: dict[int, _Track] = {}
        self._runs: list[_Run] = []
        self.end = 0.0

    def place(self, packet: "av.Packet[Any]") -> "list[av.Packet[Any]]":
        """The packets of the stream that can now be decoded, in order; none while a timestamp awaits confirmation."""
        track = self._tracks.setdefault(packet.stream_index, _Track(packet.stream.type == "video", max(0, len(self._runs) - 1)))
        time = self._time(packet)
        if time is None:
            return [*self.release(packet.stream_index), packet]
        if not track.held:
            track.held.append(packet)
            return self._confirm(track) if self._follows(track, time, packet) else []
        since, before, due = self._time(track.held[0]), self._time(track.held[-1]), self._due(track)
        assert since is not None
        assert before is not None
        ahead = track.pictures and since > due
        if self._fits(track, time, before):
            if ahead and self._presented and track.expected is not None and len(track.held) <= BETWEEN:
                track.held.append(packet)  # perhaps one that is shown before the pause, and stored after the first picture behind it
                return []
            return self._strip(track, time) + self.place(packet)
        apart = max(AHEAD, 4 * track.usual, 2 * (since - due) if ahead else 0.0) if track.pictures else AHEAD
        if -track.wide <= time - before <= apart:
            track.held.append(packet)
            return self._confirm(track) if len(track.held) > CONFIRMED else []
        if ahead and (track.expected is not None or time > since):
            return self._confirm(track) + self.place(packet)  # pictures far apart, in another order than shown
        return self._strip(track, time) + self.place(packet)

    def release(self, index: int) -> "list[av.Packet[Any]]":
        """The packets of a stream that still await confirmation, at its end."""
        track = self._tracks.get(index)
        if track is None or not track.held:
            return []
        since = self._time(track.held[0])
        assert since is not None
        kept = len(track.held) > 1 or track.expected is None or (track.pictures and since > self._due(track))
        return self._confirm(track) if kept else self._strip(track, None)

    def _due(self, track: _Track) -> float:
        """The timestamp that the next packet of a stream should have; of its first one, that which the recording has reached."""
        if track.expected is not None:
            return track.expected
        return (self.origin or 0.0) + self.end - (self._runs[track.run].shift if self._runs else 0.0)

    def _low(self, track: _Track) -> float:
        """The earliest timestamp that is no restart."""
        return (track.floor if self._presented and track.pictures else track.last) - BACK

    def _fits(self, track: _Track, time: float, before: float) -> bool:
        """Whether a timestamp follows those before the packets that await confirmation, the last of which is at `before`."""
        if track.expected is None:
            return abs(time - before) > BACK + track.step and self._starts(track, time)
        return self._low(track) <= time <= track.expected + len(track.held) * track.step + track.wide

    def _starts(self, track: _Track, time: float) -> bool:
        """Whether the first timestamp of a stream is one that the recording has reached."""
        first = (self.origin or 0.0) if track.run == 0 else self._runs[track.run].first
        return first - BACK <= time <= self._due(track) + BACK

    def _follows(self, track: _Track, time: float, packet: "av.Packet[Any]") -> bool:
        """Whether the timestamp of a packet can be accepted at once."""
        if track.expected is None:
            base = packet.time_base
            shown = seconds_of(packet.pts, base) if packet.pts is not None and base is not None else time
            return self.entered or self.origin is None or self._starts(track, shown)
        if time < self._low(track):
            return self._joined(track, time) is not None
        step = time - track.expected
        if step <= track.wide:
            return True
        others = [
            other.floor + self._runs[other.run].shift
            for other in self._tracks.values()
            if other is not track and other.expected is not None
        ]
        return step > PASSED and max(others, default=0.0) - self._runs[track.run].shift > track.expected + step / 2

    def _joined(self, track: _Track, time: float) -> int | None:
        """The later run, begun by another stream, to which a timestamp belongs."""
        for number, run in enumerate(self._runs):
            if number > track.run and run.first - NEAR <= time <= run.last + NEAR:
                return number
        return None

    def _confirm(self, track: _Track) -> "list[av.Packet[Any]]":
        """Accept the packets that await confirmation."""
        held, track.held = track.held, []
        times = [time for time in map(self._time, held) if time is not None]
        if track.expected is not None and times[0] < self._low(track):
            self._jump(track, times[0])
        return [self._accept(track, packet, time) for packet, time in zip(held, times, strict=True)]

    def _strip(self, track: _Track, time: float | None) -> "list[av.Packet[Any]]":
        """The packets that await confirmation, without their timestamps; those before the first good one, `time`, lead up to it."""
        held, track.held = track.held, []
        times = [self._time(packet) or 0.0 for packet in held]
        wrong = next((place for place in range(1, len(held)) if self._fits(track, times[place], times[place - 1])), len(held))
        for place, packet in enumerate(held[:wrong]):
            packet.pts = packet.dts = None
            if track.expected is None and time is not None and packet.time_base is not None and packet.duration:
                packet.pts = packet.dts = round(time / packet.time_base) - packet.duration * (len(held) - place)
        if track.expected is not None:
            track.expected += track.step * wrong
        self._faults.jumps.append(self.end)
        return held[:wrong] + [placed for packet in held[wrong:] for placed in self.place(packet)]

    def _accept(self, track: _Track, packet: "av.Packet[Any]", time: float) -> "av.Packet[Any]":
        if not self._runs:
            self.origin = time if self.origin is None else self.origin
            self._runs.append(_Run(0.0, time, time))
        if track.expected is None:
            track.run, track.last = len(self._runs) - 1, time
        else:
            track.moves.append(abs(time - track.last))
        base = packet.time_base
        assert base is not None
        length = seconds_of(packet.duration or 0, base)
        track.step = length or (time - track.last if 0 < time - track.last < 1 else track.step)
        if track.expected is None or time > track.last or not self._presented:
            track.floor, track.last, track.expected = track.last, time, time + track.step
        run = self._runs[track.run]
        run.last = max(run.last, time + track.step)
        shown = seconds_of(packet.pts, base) if packet.pts is not None else time
        delay = max(AHEAD, REORDERED * max(track.moves)) if len(track.moves) > CONFIRMED else UNKNOWN
        if not -ROUNDING <= shown - time <= delay:
            packet.pts, shown = packet.dts, time
        self.end = max(self.end, shown + track.step + run.shift - (self.origin or 0.0))
        if run.shift:
            ticks = round(run.shift / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks
        return packet

    def _jump(self, track: _Track, time: float) -> None:
        """Continue a stream at a timestamp that goes back."""
        assert track.expected is not None
        reached = track.expected + self._runs[track.run].shift
        number = self._joined(track, time)
        if number is not None:
            run = self._runs[number]
            run.shift = max(run.shift, reached - time)  # never over what was already placed
        else:
            latest = max(reached, self.end + (self.origin or 0.0))
            self._runs.append(_Run(latest - time, time, time))
            self._faults.jumps.append(latest - (self.origin or 0.0))
            number = len(self._runs) - 1
        track.run, track.last = number, time

    def _time(self, packet: "av.Packet[Any]") -> float | None:
        """The decoding time of a packet in seconds; its presentation time if it has none, or if the format has none (`presented`)."""
        stamp = packet.pts if packet.dts is None or (self._presented and packet.pts is not None) else packet.dts
        base = packet.time_base  # each access makes a fraction
        return None if stamp is None or base is None else seconds_of(stamp, base)
