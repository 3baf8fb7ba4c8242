"""Single timestamps that are wrong, and pictures far apart: files that are made here, with known times."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from odd_recordings import FRAMES, near, tone, write_recording

from preprocessing.media import Media, decode

LENGTH = 6.0


def stray(path: Path, target: Path, kind: str, number: int, seconds: float) -> Path:
    """A copy of a Matroska file, one block of which has another time: 2 bytes, followed by one of flags and the packet."""
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux() if packet.size and packet.stream.type == kind][number]
        assert packet.pos is not None
        at = content.index(bytes(packet)[:16], packet.pos) - 3
    time = int.from_bytes(content[at : at + 2], "big", signed=True) + round(seconds * 1000)
    content[at : at + 2] = time.to_bytes(2, "big", signed=True)
    target.write_bytes(content)
    return target


def rising(clip: Media) -> bool:
    """Whether each picture is where its brightness says."""
    return near(clip.frame_times, [float(frame.mean()) / 255 * LENGTH for frame in clip.frames], 0.25)


def silent(clip: Media) -> float:
    """The longest stretch without the tone (seconds)."""
    assert clip.sound is not None
    heard = np.flatnonzero(np.abs(clip.sound) > 0.05)
    return float(np.diff(heard, prepend=0).max() / clip.sound_rate)


@pytest.mark.parametrize("kind", ["audio", "video"])
def test_one_wrong_timestamp_moves_nothing_after_it(tmp_path: Path, kind: str) -> None:
    """The rest of the stream was late by a step of up to 10 s, or of less than 10 s back."""
    path = write_recording(tmp_path / "a.mkv", (0.0, tone(LENGTH)), (0.0, LENGTH))
    for number, seconds in ((100, 5.0), (100, -2.0), (100, 0.9), (100, 15.0), *(((0, 5.0), (0, 15.0)) if kind == "audio" else ())):
        clip = decode(stray(path, tmp_path / "b.mkv", kind, number, seconds), 6.0)
        assert clip.duration == pytest.approx(LENGTH, abs=0.1), (number, seconds)
        assert silent(clip) < 0.1, (number, seconds)
        assert rising(clip), (number, seconds)
        assert len(clip.frames) >= LENGTH * 6 - 1
        assert not clip.faults.holes
        assert len(clip.faults.jumps) == 1


def write_slides(path: Path, apart: float, reordered: int, sound: bool = True, count: int = 8) -> Path:
    """Pictures `apart` seconds apart, with a number of B-frames, and sound."""
    packets: list[av.Packet] = []
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=FRAMES)
        picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
        picture.codec_context.time_base, picture.codec_context.max_b_frames = Fraction(1, 1000), reordered
        track = container.add_stream("aac", rate=8000, layout="mono") if sound else None
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 255 * number // count, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(number * apart * 1000), Fraction(1, 1000)
            packets += picture.encode(frame)
        packets += picture.encode(None)
        for first in range(0, round(count * apart * 8000) if track is not None else 0, 1024):
            heard = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            heard.sample_rate, heard.pts, heard.time_base = 8000, first, Fraction(1, 8000)
            packets += track.encode(heard)
        packets += track.encode(None) if track is not None else []
        for packet in sorted(packets, key=lambda packet: float((packet.dts or 0) * packet.time_base)):
            container.mux(packet)
    return path


@pytest.mark.parametrize("kind", ["mkv", "mp4", "ts"])
@pytest.mark.parametrize(("apart", "reordered"), [(1.0, 0), (6.0, 3), (12.0, 0), (12.0, 3)])
@pytest.mark.parametrize("sound", [True, False])
def test_pictures_far_apart_keep_their_times(tmp_path: Path, kind: str, apart: float, reordered: int, sound: bool) -> None:
    """Most of them were dropped, as timestamps that restart or that lie too far ahead of their decoding."""
    clip = decode(write_slides(tmp_path / f"a.{kind}", apart, reordered, sound), 2.0)
    assert near(clip.frame_times, [number * apart for number in range(8)], 0.15)
    assert not clip.faults


def test_a_pause_of_reordered_pictures_is_no_restart(tmp_path: Path) -> None:
    for at in (1.0, 1.04, 1.08, 1.12, 1.16):  # the first picture behind it may be stored before the last ones in front of it
        path = write_recording(tmp_path / "a.mkv", (0.0, tone(20.0)), (0.0, LENGTH), picture_pause=(at, 12.0))
        clip = decode(path, 25.0)
        shown = np.arange(round(LENGTH * FRAMES)) / FRAMES
        assert near(clip.frame_times, list(np.where(shown >= at, shown + 12.0, shown)), 0.03)
        assert not clip.faults


def test_recordings_of_pictures_far_apart_that_were_joined_follow_on(tmp_path: Path) -> None:
    one = write_slides(tmp_path / "one.ts", 12.0, 0)
    (tmp_path / "both.ts").write_bytes(one.read_bytes() * 2)
    clip = decode(tmp_path / "both.ts", 2.0)
    assert near(clip.frame_times[:8], [12.0 * number for number in range(8)], 0.3)
    assert near(clip.frame_times[8:], [96.0 + 12.0 * number for number in range(8)], 0.5)
    assert near(clip.faults.jumps, [96.0], 0.5)


def test_gaps_close_to_each_other_are_counted_exactly(tmp_path: Path) -> None:
    """Losses less than a second apart counted as one, with the sound between: a twelfth lost made a recording unreadable."""
    path = write_recording(tmp_path / "a.mp4", (0.0, tone(LENGTH)))
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        for packet in [packet for packet in container.demux() if packet.size][10::12]:
            assert packet.pos is not None
            noise = np.random.default_rng(packet.pos).integers(0, 256, packet.size, dtype=np.uint8)
            content[packet.pos : packet.pos + packet.size] = noise.tobytes()
    path.write_bytes(content)
    clip = decode(path)
    assert len(clip.faults.lost) > 10
    assert sum(end - start for start, end in clip.faults.lost) < 1.5
    assert " 0.2-" in clip.faults.notes()[0]
    assert clip.faults.notes()[0].count("-") == 1


def test_a_part_that_was_joined_may_have_other_streams(tmp_path: Path) -> None:
    """The pictures of a third part took the place of the sound of the first: KeyError."""
    sound = write_recording(tmp_path / "one.webm", (0.0, tone(2.0))).read_bytes()
    other = write_recording(tmp_path / "two.webm", (0.0, tone(2.0)), (0.0, 2.0)).read_bytes()
    (tmp_path / "both.webm").write_bytes(sound + sound + other)
    assert decode(tmp_path / "both.webm", 6.0).duration >= 3.9


def test_a_rescued_cluster_with_an_impossible_time_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged time of 8 bytes ended decoding: OverflowError."""
    from preprocessing import recording
    from preprocessing.containers import Block

    monkeypatch.setattr(recording, "blocks_between", lambda *_, **__: [Block(1, 2**63, b"x"), Block(1, 40, b"y")])
    with recording.open_recording(write_recording(tmp_path / "a.mkv", (0.0, tone(1.0)))) as opened:
        assert [packet.pts for packet in opened._rescued(opened._streams, 0, 0)] == [40]
