"""Sound files of which packets are missing: where what follows is placed, and what is reported."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from odd_recordings import RATE, near, tone, write_recording
from test_preprocessing_clock import spans, write_sound

from preprocessing.media import decode, probe


@pytest.mark.parametrize("kind", ["ogg", "opus", "ts", "mp3", "aac"])
def test_a_destroyed_end_is_reported(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "ts":
        write_recording(path, (0.0, tone(20.0)), (0.0, 20.0))
    else:
        write_sound(path, tone(20.0))
    assert not decode(path).faults
    content = bytearray(path.read_bytes())
    at = len(content) * 7 // 10
    content[at:] = np.random.default_rng(0).integers(0, 256, len(content) - at, dtype=np.uint8).tobytes()
    path.write_bytes(content)
    clip = decode(path)
    assert 11.5 < clip.duration < 15.5
    (lost,) = clip.faults.lost
    assert lost[0] == pytest.approx(clip.duration, abs=1.5)
    assert lost[1] == pytest.approx(20.0, abs=2.5)


@pytest.mark.parametrize("kind", ["mp3", "aac", "ogg", "opus"])
def test_what_follows_destroyed_bytes_keeps_its_place(tmp_path: Path, kind: str) -> None:
    sound = tone(20.0)
    sound[14 * RATE : 16 * RATE] *= 0.01
    path = write_sound(tmp_path / f"a.{kind}", sound)
    content = bytearray(path.read_bytes())
    low, high = len(content) * 3 // 10, len(content) * 6 // 10
    content[low:high] = bytes(high - low)
    path.write_bytes(content)
    clip = decode(path)
    assert clip.duration == pytest.approx(20.0, abs=2.0)
    (lost,) = clip.faults.lost
    assert lost[1] - lost[0] == pytest.approx(6.0, abs=2.0)
    assert not clip.faults.holes
    assert near(spans(clip)[:3], [0.0, lost[0], lost[1]], 0.15)
    assert spans(clip)[3] == pytest.approx(14.0, abs=0.15 if kind in ("ogg", "opus") else 2.0)
    assert probe(path)[0] == pytest.approx(clip.duration, abs=0.5)


@pytest.mark.parametrize("kind", ["ogg", "opus"])
def test_a_pause_between_pages_is_a_hole(tmp_path: Path, kind: str) -> None:
    path = write_sound(tmp_path / f"a.{kind}", tone(6.0), pause=(3 * RATE, 3 * RATE))
    clip = decode(path)
    assert near(list(chain(*clip.faults.holes)), [3.1, 6.1], 0.15)
    assert not clip.faults.lost
    assert decode(path, start=3.5, end=7.5).duration == pytest.approx(4.0)


def test_flac_in_ogg_after_a_lost_page_is_not_early(tmp_path: Path) -> None:
    sound = np.concatenate([tone(10.0), np.zeros(RATE * 4, np.float32), tone(6.0)])
    sound += np.random.default_rng(0).standard_normal(len(sound)).astype(np.float32) * 0.005
    path = write_sound(tmp_path / "a.ogg", sound)
    content = bytearray(path.read_bytes())
    at = len(content) // 4
    content[at : at + 300] = bytes(300)
    path.write_bytes(content)
    whole, damaged_one = write_sound(tmp_path / "b.ogg", sound), decode(path)
    (lost,) = damaged_one.faults.lost
    first, last = sound[: round(lost[0] * RATE)], sound[round(lost[1] * RATE) :]
    assert damaged_one.sound is not None
    assert np.abs(damaged_one.sound[: len(first)] - first).max() < 1e-3
    assert np.abs(damaged_one.sound[-len(last) :] - last).max() < 1e-3
    assert len(damaged_one.sound) == len(decode(whole).sound)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["mp3", "aac"])
def test_tags_between_joined_files_are_no_loss(tmp_path: Path, kind: str) -> None:
    one = write_sound(tmp_path / f"a.{kind}", tone(3.0)).read_bytes()
    tag = b"ID3\x04\0\0" + bytes([0, 1, 0, 0]) + bytes(1 << 14)
    (tmp_path / f"b.{kind}").write_bytes(one + tag + one)
    clip = decode(tmp_path / f"b.{kind}")
    assert clip.duration == pytest.approx(6.0, abs=0.3)
    assert sum(high - low for low, high in clip.faults.lost) < 0.2


def test_a_refused_clip_records_what_is_lost(tmp_path: Path) -> None:
    from preprocessing.layouts import Clip
    from preprocessing.pipeline import ClipProcessor, PipelineSettings, Skip
    from preprocessing.records import ManifestRow

    path = write_recording(tmp_path / "a.mkv", (0.0, tone(10.0)), (0.0, 10.0))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 10])
    outcome = ClipProcessor(PipelineSettings(whisper=None, audio="none", vision="none")).process(Clip("a", path, "", "a", "words"))
    assert isinstance(outcome.result, Skip)
    row = ManifestRow("a", "a.mkv", "skipped")
    row.note_faults(outcome.faults)
    assert float(row.lost_seconds) > 6.0
    assert row.lost_at.endswith("-10.0 s")
