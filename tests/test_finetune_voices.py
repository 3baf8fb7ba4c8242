"""Prediction on recordings with one person per channel, and on those with several sound tracks."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from clip_factory import silence, tone, voice, write_tracks
from synthetic_model import make_model, processor

from finetune.prediction.outputs import as_csv, as_json, as_webvtt, draw_timeline, table
from finetune.prediction.predictions import RecordingPrediction, UtterancePrediction
from finetune.prediction.reading import read_recording
from finetune.prediction.recipe import read_clips, split_with, write_clips
from finetune.prediction.sentiment_model import SentimentModel
from finetune.web_page.view import chart, headline, transcript
from preprocessing.layouts import Clip
from preprocessing.pipeline import ClipResult, PipelineSettings, Skip
from skesl_mug.errors import UserError

FIRST, ANSWER, LAST = "The food was wonderful.", "I never liked the hotel.", "The table is under the window."


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SentimentModel:
    loaded = SentimentModel.from_pretrained(make_model(tmp_path_factory.mktemp("model")))
    loaded.__dict__["processor"] = processor()
    return loaded


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A call: left, right, left."""
    first, answer, last = voice(FIRST), voice(ANSWER), voice(LAST)
    pause = silence(0.5)
    left = np.concatenate([first, pause, 0 * answer, pause, last])
    right = np.concatenate([0 * first, pause, answer, pause, 0 * last])
    return write_tracks(tmp_path_factory.mktemp("calls") / "call.wav", [np.stack([left, right])])


def test_the_speakers_of_a_call_in_the_order_of_time(model: SentimentModel, call: Path) -> None:
    recording = model.predict_recording(call, channels="split")
    assert [row.speaker for row in recording.utterances] == ["left", "right", "left"]
    assert [word in row.text for word, row in zip(("food", "hotel", "window"), recording.utterances, strict=True)] == [True] * 3
    starts = [row.start for row in recording.utterances]
    assert starts == sorted(starts)
    assert recording.speakers == ["left", "right"]
    entries = json.loads(json.dumps(as_json(recording)))
    assert [row["speaker"] for row in entries["utterances"]] == ["left", "right", "left"]
    assert set(entries["mean_score_by_speaker"]) == {"left", "right"}
    assert [row["speaker"] for row in csv.DictReader(io.StringIO(as_csv(recording)))] == ["left", "right", "left"]
    assert "<v right>right: " in as_webvtt(recording)
    assert "left: The food" in table(recording, 140)
    one = model.predict_recording(call, channels="right")
    assert [row.speaker for row in one.utterances] == [""]
    assert "hotel" in one.utterances[0].text


def test_whole_files_with_a_speaker_per_channel(model: SentimentModel, call: Path) -> None:
    rows = model.predict(call, segments="whole", channels="split")
    assert [row.speaker for row in rows] == ["left", "right"]
    (mixed,) = model.predict(call, segments="whole")  # the choice does not outlast its recording
    assert "hotel" in mixed.text


def test_whole_files_without_what_leaks_into_a_channel(tmp_path: Path) -> None:
    """The clip of a channel says so, and the settings that other recordings share stay what they are."""
    heard = []

    class Listener:
        settings = PipelineSettings(whisper=None)

        def process(self, clip: Clip) -> ClipResult:
            heard.append((clip.channel, self.settings.audio_track, self.settings.channels))
            return ClipResult(clip.id, Skip("no_speech"))

    path, listener = write_tracks(tmp_path / "a.wav", [np.stack([tone(1.0), tone(1.0, 330)])]), Listener()
    for channels in ("split", "right"):
        list(read_recording(listener, path, lambda *_: None, lambda _: None, segments="whole", audio_track="1", channels=channels))
    assert heard == [("left", "1", "left"), ("right", "1", "right"), (None, "1", "right")]
    assert listener.settings == PipelineSettings(whisper=None)


@pytest.mark.parametrize("gain", [1.0, -0.5])
def test_the_same_sound_on_both_channels_is_one_voice(model: SentimentModel, tmp_path: Path, gain: float) -> None:
    spoken = voice(FIRST)
    recording = model.predict_recording(write_tracks(tmp_path / "a.wav", [np.stack([spoken, gain * spoken])]), channels="split")
    assert [row.speaker for row in recording.utterances] == [""]
    assert [(gap.reason, gap.speaker, gap.detail) for gap in recording.skipped] == [("same_channel", "right", "(right is a copy of left)")]


def test_a_silent_channel_has_no_utterances(model: SentimentModel, tmp_path: Path) -> None:
    spoken = voice(FIRST)
    recording = model.predict_recording(write_tracks(tmp_path / "a.wav", [np.stack([0 * spoken, spoken])]), channels="split")
    assert [row.speaker for row in recording.utterances] == ["right"]
    assert [(gap.reason, gap.detail) for gap in recording.skipped] == [("no_sound", "in the channel left")]
    mono = model.predict_recording(write_tracks(tmp_path / "b.wav", [spoken]), channels="split")
    assert [row.speaker for row in mono.utterances] == [""]
    assert mono.notes == ["its sound is mono: one voice"]


def test_sound_tracks(model: SentimentModel, tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "a.mkv", [tone(1.0), voice(ANSWER), voice(FIRST)], ["fre", "ger", "eng"])
    recording = model.predict_recording(path)
    assert "hotel" in recording.utterances[0].text
    assert as_json(recording)["recording_notes"] == ["sound track 2 (ger); the file has 1 (fre), 2 (ger), 3 (eng)"]
    assert "note: sound track 2" in table(recording)
    assert "food" in model.predict(path, audio_track="en")[0].text
    with pytest.raises(UserError, match=r"a\.mkv: --audio-track 4: the file has 3 sound tracks: .*; choose one of them"):
        model.predict(path, audio_track="4")
    with pytest.raises(UserError, match="--channels stereo: use mix, left, right, split"):
        model.predict(path, channels="stereo")  # type: ignore[arg-type]


def test_speakers_in_charts_and_on_the_page() -> None:
    rows = [
        UtterancePrediction("x", 0.0, 2.0, "good <b>", "en", 1.0, "positive", used=["text"], speaker=name) for name in ("left", "right")
    ]
    recording = RecordingPrediction("x", 4.0, rows, notes=["its sound is odd"])
    assert draw_timeline(recording, (-3.0, 3.0)).startswith(b"\x89PNG")
    html = transcript(recording)
    assert html.count('<b class="speaker">') == 2
    assert "its sound is odd" in headline(recording, [])
    assert "right +1.0" in headline(recording, [])
    drawn = chart(recording, (-3.0, 3.0), RecordingPrediction("x", 4.0, rows[:1]))
    assert drawn.count("<svg") == 2
    assert drawn.count('class="was"') == 1  # the other speaker's utterance starts at the same time
    assert "&lt;b&gt;" in as_webvtt(recording)


def test_a_recording_of_the_training_data_is_recognised(tmp_path: Path) -> None:
    write_clips(tmp_path, {"train": ["day/call#left", "day/call#right"]})
    assert split_with(read_clips(tmp_path), Path("/x/day/call.wav")) == "train"
    assert split_with(read_clips(tmp_path), Path("/x/day/cal.wav")) is None
