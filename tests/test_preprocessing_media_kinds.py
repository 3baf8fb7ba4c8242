"""A file of every kind of recording, made here: its sound, its pictures upright, their times and its length are as they were written."""

import os
import struct
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import psutil
import pytest
from media_kinds import FPS, RATE, SOUNDS, TONE_FROM, VIDEOS, content, joined, picture, turned, write

from preprocessing import long_media
from preprocessing.media import Media, MediaError, decode, probe, read_frame
from preprocessing.pipeline import Skip
from preprocessing.segments import SegmentLimits
from preprocessing.tracks import sound_blocks, voices_of

PRIMING = 0.08  # seconds: encoders add up to 1,024 samples at the start, which some containers do not mark


def tones(media: Media) -> list[tuple[float, float, float]]:
    """The start, end and frequency of each tone."""
    assert media.sound is not None
    blocks = np.abs(media.sound[: len(media.sound) // 80 * 80].reshape(-1, 80)).max(axis=1) > 0.1
    edges = np.flatnonzero(np.diff(np.concatenate([[False], blocks, [False]]).astype(int)))
    found = []
    for first, last in zip(edges[::2] * 80, edges[1::2] * 80, strict=True):
        if last - first > media.sound_rate / 10:
            middle = media.sound[first:last]
            spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
            found.append((first / media.sound_rate, last / media.sound_rate, spectrum.argmax() * media.sound_rate / len(middle)))
    return found


def check_sound(media: Media) -> None:
    assert media.duration == pytest.approx(3.0, abs=0.1)
    (tone,) = tones(media)
    assert tone[2] == pytest.approx(440, abs=3)
    assert tone[:2] == pytest.approx((TONE_FROM, 3.0), abs=PRIMING)
    assert 0.2 < np.abs(media.sound).max() < 0.4
    assert not media.faults.lost


def number_of(image: np.ndarray) -> float:
    """Which picture it is, by its lower half; its upper half is white."""
    half = image.shape[0] // 2
    assert image[: half - 2].mean() > 220
    return float(image[half + 2 :].mean()) / 6


@pytest.mark.parametrize("name", SOUNDS)
def test_sound_files(tmp_path, name):
    path = tmp_path / name
    SOUNDS[name](path)
    media = decode(path, 5.0)
    check_sound(media)
    assert media.frames == []  # cover art is not a video
    assert probe(path) == (pytest.approx(3.0, abs=0.1), True)
    with pytest.raises(MediaError, match="has no video"):
        read_frame(path, 1.0)


@pytest.mark.parametrize("name", VIDEOS)
def test_videos(tmp_path, name):
    path = tmp_path / name
    VIDEOS[name](path)
    media = decode(path, 5.0)
    check_sound(media)
    assert len(media.frames) == pytest.approx(15, abs=1)
    assert np.diff(media.frame_times) == pytest.approx(1 / 5, abs=PRIMING)
    assert [number_of(frame) / FPS for frame in media.frames] == pytest.approx(media.frame_times, abs=0.13)
    assert probe(path) == (pytest.approx(3.0, abs=0.12), True)
    assert number_of(read_frame(path, 2.0)) == pytest.approx(20, abs=2)


def test_a_live_stream_states_no_length(tmp_path):
    path = tmp_path / "live.webm"
    VIDEOS["live.webm"](path)
    with av.open(str(path)) as container:
        assert container.duration is None


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
def test_variable_frame_rate(tmp_path, name):
    times = [0, 1, 2, 9, 10, 25, 26, 29]
    codecs = ("libvpx", "libopus") if name.endswith("webm") else ("libx264", "flac")
    path = write(tmp_path / name, *codecs, rate=48_000, times=times)
    media = decode(path, 10.0)
    assert media.frame_times == pytest.approx([time / FPS for time in times], abs=0.01)
    assert [number_of(frame) for frame in media.frames] == pytest.approx(range(8), abs=1.2)
    assert number_of(read_frame(path, 2.0)) == pytest.approx(4, abs=1.2)  # the one shown from 1.0 to 2.5 s


def test_pictures_are_turned_as_a_telephone_asks(tmp_path):
    path = turned(write(tmp_path / "a.mp4", size=(64, 48)))
    for image in (decode(path, 5.0).frames[0], read_frame(path, 0.5)):
        assert image.shape == (64, 48, 3)
        assert image[:, 30:].mean() > 200 > 100 > image[:, :20].mean()  # the upper half is at the right


def test_ten_bits_have_the_same_colours(tmp_path):
    VIDEOS["hevc10.mp4"](tmp_path / "a.mp4")
    image = decode(tmp_path / "a.mp4", 1.0).frames[1]
    assert np.abs(image.astype(int) - picture(10)).mean() < 8


def test_cover_art_beside_a_video_is_not_its_first_picture(tmp_path):
    path = write(tmp_path / "a.mp4", cover=True)
    assert number_of(read_frame(path, 2.0)) == pytest.approx(20, abs=2)
    assert len(decode(path, 5.0).frames) == pytest.approx(15, abs=1)


def test_pictures_only(tmp_path):
    path = write(tmp_path / "a.mp4", audio=None)
    media = decode(path, 5.0)
    assert media.sound is None
    assert media.duration == pytest.approx(3.0, abs=0.11)
    assert len(media.frames) == 15
    assert probe(path) == (pytest.approx(3.0, abs=0.11), False)


@pytest.mark.parametrize("codec", ["mjpeg", "png"])
def test_a_photograph_with_the_name_of_a_video(tmp_path, codec):
    write(tmp_path / "a.avi", codec, None, pixels="yuvj420p" if codec == "mjpeg" else "rgb24", times=[0])
    with av.open(str(tmp_path / "a.avi")) as container:
        (tmp_path / "a.mp4").write_bytes(bytes(next(container.demux())))
    media = decode(tmp_path / "a.mp4", 5.0)
    assert (media.sound, len(media.frames)) == (None, 1)
    assert media.duration < 0.5


@pytest.mark.parametrize(("name", "kind"), [("a.mkv", "a.wav"), ("a.wav", "a.mp4"), ("a.mp3", "a.flac"), ("a.ts", "a.mov")])
def test_the_content_counts_and_not_the_extension(tmp_path, name, kind):
    (SOUNDS | VIDEOS)[name](tmp_path / name)
    (tmp_path / name).rename(tmp_path / kind)
    check_sound(decode(tmp_path / kind, 5.0))


@pytest.mark.parametrize(
    "name", ["名 字 'q' \"dq\"\n.mp4", os.fsdecode(b"\xff\xfe.mp4"), "x" * 251 + ".mp4", "%d.mp4", "file:a.mp4", "-i.mp4"]
)
def test_names_of_any_kind(tmp_path, name):
    path = write(tmp_path / "a.mp4").rename(tmp_path / name)
    check_sound(decode(path, 5.0))
    assert number_of(read_frame(path, 2.0)) == pytest.approx(20, abs=2)
    assert probe(path)[1]


def test_relative_names_that_look_like_addresses(tmp_path, monkeypatch):
    """`file:a.mp4` and `img%d.png` mean something else to FFmpeg."""
    monkeypatch.chdir(tmp_path)
    for name in ("http:a.mp4", "pipe:0.mp4", "concat:a.mp4", "%03d.mp4", "-.mp4"):
        write(tmp_path / "a.mp4").rename(tmp_path / name)
        check_sound(decode(Path(name), 5.0))


def test_links_that_end_nowhere(tmp_path):
    (tmp_path / "a.mp4").symlink_to(tmp_path / "b.mp4")
    (tmp_path / "b.mp4").symlink_to(tmp_path / "a.mp4")
    for use in (decode, probe, lambda path: read_frame(path, 0.0)):
        with pytest.raises(MediaError, match="is a broken link"):
            use(tmp_path / "a.mp4")


def reader(frame_rate: float = 2.0) -> long_media.LongMedia:
    """A reader whose processor returns skips."""
    processed = SimpleNamespace(seconds={}, result=Skip("too_short"))
    stub: Any = SimpleNamespace(transcriber=object(), frame_rate=frame_rate, process_stretch=lambda clip, part, spoken: processed)
    return long_media.LongMedia(stub, SegmentLimits())


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts", "a.avi"])
def test_a_stream_without_content(tmp_path, name):
    """The header names a sound track, or pictures, of which the file has none."""
    kind = "mpegts" if name.endswith("ts") else None
    video = "mpeg4" if name.endswith("avi") else "libx264"
    silent = decode(write(tmp_path / name, video, sound=np.zeros((1, 0), np.float32), kind=kind), 5.0)
    assert silent.sound is None or not silent.sound.any()
    assert len(silent.frames) == pytest.approx(15, abs=1)
    assert silent.duration == pytest.approx(3.0, abs=0.15)
    assert [stretch.start for stretch in reader().read(tmp_path / name)] == [0.0]  # as a video without a sound track
    blind = decode(write(tmp_path / name, video, times=[], kind=kind), 5.0)
    assert blind.frames == []
    check_sound(blind)


CHANGES: dict[str, list[tuple[str, dict]]] = {
    "rate.mp3": [("a.mp3", {"audio": "libmp3lame"}), ("b.mp3", {"audio": "libmp3lame", "rate": 44_100})],
    "channels.mp3": [("a.mp3", {"audio": "libmp3lame"}), ("b.mp3", {"audio": "libmp3lame", "layout": "stereo"})],
    "both.aac": [("a.aac", {"kind": "adts"}), ("b.aac", {"kind": "adts", "rate": 44_100, "layout": "stereo"})],
    "down.aac": [("a.aac", {"kind": "adts", "rate": 44_100, "layout": "stereo"}), ("b.aac", {"kind": "adts", "rate": 22_050})],
    "chained.opus": [
        ("a.opus", {"audio": "libopus", "rate": 48_000}),
        ("b.opus", {"audio": "libopus", "rate": 48_000}),
    ],
    "chained.ogg": [("a.ogg", {"audio": "flac", "kind": "ogg"}), ("b.ogg", {"audio": "flac", "kind": "ogg"})],
}


@pytest.mark.parametrize("name", CHANGES)
def test_rate_and_channels_change_in_the_middle(tmp_path, name):
    parts = [write(tmp_path / part, None, **{"audio": "aac", **options}) for part, options in CHANGES[name]]
    media = decode(joined(tmp_path / name, parts))
    assert media.duration == pytest.approx(6.0, abs=0.25)
    first, second = tones(media)
    assert first == pytest.approx((1.0, 3.0, 440), rel=0.02, abs=0.13)
    assert second == pytest.approx((4.0, 6.0, 440), rel=0.02, abs=0.25)


def test_size_changes_in_the_middle(tmp_path):
    parts = [write(tmp_path / f"{number}.ts", kind="mpegts", size=size) for number, size in enumerate([(64, 64), (96, 48)])]
    media = decode(joined(tmp_path / "a.ts", parts), 5.0)
    assert [len(tones(media)), len({frame.shape for frame in media.frames})] == [2, 2]
    assert media.duration == pytest.approx(6.0, abs=0.3)
    (_, _, _), (start, _, pitch) = tones(media)
    assert (start, pitch) == (pytest.approx(4.0, abs=0.2), pytest.approx(440, abs=3))
    shown = [(number_of(frame), time) for frame, time in zip(media.frames, media.frame_times, strict=True) if frame.shape[1] == 96]
    assert [time - number / FPS for number, time in shown] == pytest.approx([3.1] * len(shown), abs=0.3)


@pytest.mark.parametrize("name", ["a.ts", "live.mkv", "a.mp3", "a.wav"])
def test_a_file_that_grows_while_it_is_read(tmp_path, name):
    path = tmp_path / name
    (SOUNDS | VIDEOS)[name](path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])

    def grow() -> None:
        with path.open("ab") as file:
            for place in range(len(whole) * 6 // 10, len(whole), 997):
                file.write(whole[place : place + 997])
                file.flush()
                time.sleep(0.001)

    writer = threading.Thread(target=grow)
    writer.start()
    lengths = []
    while writer.is_alive() or not lengths:
        media = decode(path, 5.0)
        assert 1.0 < media.duration < 3.1
        lengths.append(media.duration)
    writer.join()
    assert lengths == sorted(lengths)
    check_sound(decode(path, 5.0))


def test_three_hours_in_constant_memory(tmp_path, monkeypatch):
    """FLAC of silence with a tone at its end has 2 MB; three hours at 8 kHz are 346 MB of samples."""
    path, rate, hours = tmp_path / "long.flac", 8_000, 3
    silent = np.zeros((1, 600 * rate), np.int16)
    with av.open(str(path), "w") as out:
        track = out.add_stream("flac", rate=rate, layout="mono")
        for number in range(6 * hours):
            frame = av.AudioFrame.from_ndarray(silent, format="s16", layout="mono")
            frame.sample_rate, frame.pts = rate, number * silent.shape[1]
            out.mux(track.encode(frame))
        frame = av.AudioFrame.from_ndarray((content(rate) * 32767).astype(np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts = rate, hours * 3600 * rate
        out.mux(track.encode(frame))
        out.mux(track.encode(None))
    memory, heard = [], []

    def spans(sound: np.ndarray) -> list[tuple[float, float]]:
        memory.append(psutil.Process().memory_info().rss)
        heard.extend(np.flatnonzero(np.abs(sound) > 0.1)[:1] / 16_000)
        return []

    monkeypatch.setattr(long_media, "speech_spans", spans)
    recording = reader()
    assert list(recording.read(path)) == []
    assert recording.length == pytest.approx(hours * 3600 + 3, abs=0.1)
    assert len(memory) > 300
    assert len(heard) == 1
    assert max(memory) - memory[1] < 30e6
    end = decode(path, start=hours * 3600, end=hours * 3600 + 3.0)
    check_sound(end)


def test_a_stream_that_starts_after_the_header_was_read(tmp_path):
    """PyAV ended with an IndexError: it does not know the pictures that start after a minute."""
    path = write(tmp_path / "a.flv", "flv", "aac", sound=content(seconds=70), times=range(600, 630))
    raw = bytearray(path.read_bytes())
    raw[4] = 4  # the header names the sound alone
    path.write_bytes(raw)
    assert decode(path, 5.0).duration == pytest.approx(70, abs=0.1)


@pytest.mark.parametrize("audio", ["aac", None])
def test_pictures_of_a_far_future_end_the_recording(tmp_path, audio):
    """Timestamps of 30 years: reading went through them in pieces of half a minute."""
    path = write(tmp_path / "a.mkv", audio=audio, times=[*range(30), 10**10, 10**10 + 1])
    assert len(list(reader().read(path))) <= 3
    with pytest.raises(MediaError):
        decode(path, 5.0, 60.0)


def test_sound_that_cannot_be_decoded_at_all(tmp_path):
    """It was a clip without a sound track."""
    path = write(tmp_path / "a.mkv", "libx264", "flac")
    raw = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.audio):
            if packet.size:
                place = bytes(raw).index(bytes(packet))
                raw[place : place + packet.size] = b"\x00" * packet.size
    path.write_bytes(raw)
    for use in (decode, lambda path: list(reader().read(path))):
        with pytest.raises(MediaError, match="its sound cannot be decoded"):
            use(path)


def test_what_ffmpeg_gives_up_is_reported(tmp_path):
    """FFmpeg does not read a second Opus stream with another number of channels: half of the file was lost without a word."""
    parts = [write(tmp_path / f"{layout}.opus", None, "libopus", rate=48_000, layout=layout) for layout in ("mono", "stereo")]
    with pytest.raises(MediaError, match=r"truncated: its sound ends at 3.0 s of \d"):  # an estimate by bytes
        decode(joined(tmp_path / "a.opus", parts))
    recording = reader()
    list(recording.read(tmp_path / "a.opus"))
    assert recording.faults.lost == [(pytest.approx(3.0, abs=0.1), pytest.approx(7.0, abs=1.5))]


def test_tracks_are_compared_although_their_channels_change(tmp_path):
    """Its blocks of mono and stereo could not be joined: a ValueError."""
    parts = [
        write(tmp_path / f"{number}.aac", None, kind="adts", layout=layout, rate=rate)
        for number, (layout, rate) in enumerate([("stereo", RATE), ("mono", RATE), ("stereo", 44_100)])
    ]
    blocks = list(sound_blocks(joined(tmp_path / "a.aac", parts), 0))
    assert [(len(sound), rate) for sound, rate in blocks] == [(2, RATE), (1, RATE), (2, 44_100)]
    assert [sound.shape[1] / rate for sound, rate in blocks] == pytest.approx([3, 3, 3], abs=0.1)
    assert voices_of(tmp_path / "a.aac", "auto", "split").voices


@pytest.mark.parametrize("rate", [7, 2_000_000_000])
def test_a_header_with_a_sample_rate_of_no_sound(tmp_path, rate):
    """At 7 Hz a file of 3 s lasts for 2 hours: reading it took minutes."""
    path = write(tmp_path / "a.wav", None, "pcm_s16le")
    raw = bytearray(path.read_bytes())
    raw[24:32] = struct.pack("<II", rate, min(2 * rate, 2**32 - 1))
    path.write_bytes(raw)
    for use in (decode, lambda path: list(reader().read(path))):
        with pytest.raises(MediaError, match=f"its header states {rate:,} samples per second"):
            use(path)
