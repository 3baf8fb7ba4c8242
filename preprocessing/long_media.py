"""A recording of any length as utterances, read in pieces of half a minute that are cut in pauses."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from preprocessing.channels import ANY, SoundChoice
from preprocessing.layouts import Clip
from preprocessing.media import Media, MediaError, Window
from preprocessing.pipeline import MIN_SPEECH, ClipProcessor, Skip
from preprocessing.recording import open_recording
from preprocessing.schema import Utterance, Word
from preprocessing.segments import SegmentLimits, cut_in_pause, group_spans, leaves_out_speech, split_words, stretches
from preprocessing.timeline import Faults
from preprocessing.transcription.transcript import SAMPLE_RATE, Speech, Transcript, speech_spans
from skesl_mug.errors import UserError
from skesl_mug.wording import printable

PIECE = 29.0  # seconds: Whisper's window less a little silence
GROUP = 12.0  # seconds of speech that are recognised together: with much more, small models omit sentences
STILL = 600.0  # seconds without a new picture that are still a video without sound, not a hole
NO_WORDS = Transcript("", [], "", 0.0, 0.0)

Passage = tuple[float, float, Transcript | Skip]
"""Start and end in a piece (seconds), and its transcript or why there is none."""


@dataclass
class Stretch:
    """A stretch of a recording (seconds), its utterance or why there is none, and its channel if each is read on its own."""

    start: float
    end: float
    result: Utterance | Skip
    speaker: str = ""


class LongMedia:
    """Reads recordings with the models of a processor, which needs a recogniser.

    `choice` is the sound to read, and `speaker` is recorded with its utterances. `seconds` is the time per stage over all recordings;
    `position`, `length` (seconds, as far as it is read) and `faults` are those of the current one.

    Raises:
        UserError: the processor has no recogniser.
    """

    def __init__(self, processor: ClipProcessor, limits: SegmentLimits, choice: SoundChoice = ANY, speaker: str = ""):
        if processor.transcriber is None:
            raise UserError("--asr-model: segmenting a recording into utterances needs speech recognition; choose a model")
        self.processor, self.limits, self.choice, self.speaker = processor, limits, choice, speaker
        self._transcriber = processor.transcriber
        self.seconds: dict[str, float] = {}
        self.position = self.length = 0.0
        self.faults = Faults()

    def read(self, path: Path) -> Iterator[Stretch]:
        """The utterances of a recording in order, and skips. A video without a sound track is divided into equal stretches.

        The file is decoded once, in order; `length` and `faults` are complete at the end.

        Raises:
            MediaError: the file cannot be read at all.
        """
        yield from self._read(path, hear=True)

    def _read(self, path: Path, hear: bool) -> Iterator[Stretch]:
        self.position = self.length = 0.0
        number = 0
        with open_recording(path, self.processor.frame_rate > 0, self.choice) as recording:
            has_sound, self.faults = hear and recording.sound_stream is not None, recording.faults
            if not has_sound and not recording.has_pictures:
                raise MediaError("unreadable", "contains neither sound nor video")
            window = Window(recording, self.processor.frame_rate)
            is_last = False
            while not is_last:
                start = self.position
                with self._stage("decode"):
                    window.fill(start + PIECE)
                    piece = window.cut(start, window.end_before(start + PIECE))
                is_last = window.exhausted and window.end_before(None) <= start + PIECE
                if piece.duration <= MIN_SPEECH:
                    break
                self.length = max(self.length, start + piece.duration)
                following = window.next_sound if has_sound else window.next_picture
                if following is None and window.exhausted and (has_sound or recording.picture_stream is not None):
                    break
                if following is not None and following >= start + (PIECE if has_sound else STILL):  # a hole is passed over, however long
                    used = following - start
                elif has_sound and following is None:
                    used = max(PIECE, window.reached - window.lead - start)  # the pictures are that far, so there is no sound before
                else:
                    passages, used = self._hear(piece, is_last) if has_sound else self._equal(piece)
                    for low, high, spoken in passages:
                        result = spoken if isinstance(spoken, Skip) else self._utterance(path, number, piece, spoken, start, low, high)
                        number += isinstance(result, Utterance)
                        yield Stretch(start + low, start + high, result, self.speaker)
                self.position = start + max(used, MIN_SPEECH)
                window.forget(self.position)
            if has_sound and not recording.rate and not recording.is_mute:
                raise MediaError("unreadable", "its sound cannot be decoded")
            is_mute = has_sound and recording.is_mute and recording.has_pictures
        if is_mute:  # its sound track is empty
            yield from self._read(path, hear=False)

    def _equal(self, piece: Media) -> tuple[list[Passage], float]:
        """A piece of a video without sound, in passages of equal length."""
        count = max(1, int(np.ceil(piece.duration / self.limits.longest)))
        edges = np.linspace(0.0, piece.duration, count + 1).tolist()
        return [(low, high, NO_WORDS) for low, high in pairwise(edges)], piece.duration

    def _hear(self, piece: Media, is_last: bool) -> tuple[list[Passage], float]:
        """The utterances of a piece, and the seconds of it that they cover: up to its widest pause, so that no word is cut."""
        if piece.sound is None:
            return [], PIECE
        sound = piece.sound_at(SAMPLE_RATE)
        used = length = len(sound) / SAMPLE_RATE
        with self._stage("speech_detection"):
            spans = speech_spans(sound)
        if not spans:
            return [], used
        cut = None if is_last else cut_in_pause(spans, length)
        used = length if cut is None else cut
        spans = [(start, min(end, used)) for start, end in spans if start < used]
        texts = self._transcribe(sound[: int(used * SAMPLE_RATE)], spans, GROUP)
        spoken = texts[-1][2]
        if cut is None and not is_last and isinstance(spoken, Transcript) and len(spoken.words) > 1:
            # speech continues: the last word may be incomplete, and is transcribed again with the next piece
            last = spoken.words[-1]
            used = _start_of(last)
            texts[-1] = (texts[-1][0], used, replace(spoken, text=spoken.text[: last.start_char].rstrip(), words=spoken.words[:-1]))
        passages: list[Passage] = []
        for low, high, found in texts:
            passages += [(low, high, found)] if isinstance(found, Skip) else self._split(found, low, high)
        return passages, used

    def _transcribe(self, sound: np.ndarray, spans: Sequence[tuple[float, float]], longest: float) -> list[Passage]:
        """The text of each group of stretches of speech, with word times in the piece; doubtful texts, and those that omit speech, are
        transcribed again stretch by stretch."""
        groups = group_spans(spans, longest)
        ends = [(before[-1][1] + after[0][0]) / 2 for before, after in pairwise(groups)]
        edges = [0.0, *ends, len(sound) / SAMPLE_RATE]
        pieces = []
        for group, (low, high) in zip(groups, pairwise(edges), strict=True):
            speech = Speech(sum(end - start for start, end in group), group[0][0] - low, group[-1][1] - low)
            pieces.append((sound[int(low * SAMPLE_RATE) : int(high * SAMPLE_RATE)], speech))
        with self._stage("asr"):
            found = self._transcriber.transcribe_many([heard for heard, _ in pieces], [speech for _, speech in pieces])
        passages: list[Passage] = []
        for group, text, (low, high) in zip(groups, found, pairwise(edges), strict=True):
            within = [(start - low, end - low) for start, end in group]
            if text.doubt is None and not leaves_out_speech(text.words, within):
                passages.append((low, high, _moved(text, low)))
            elif len(group) > 1:
                again = self._transcribe(sound[int(low * SAMPLE_RATE) : int(high * SAMPLE_RATE)], within, 0.0)
                for first, last, spoken in again:
                    passages.append((first + low, last + low, spoken if isinstance(spoken, Skip) else _moved(spoken, low)))
            elif text.doubt is not None:
                passages.append((low, high, Skip(text.doubt.reason, text.doubt.detail)))
        return passages

    def _split(self, found: Transcript, earliest: float, latest: float) -> list[Passage]:
        """The utterances in a text with word times in a piece, between `earliest` and `latest` seconds of it."""
        ranges = split_words(found.words, found.text, self.limits)
        passages: list[Passage] = []
        for (low, high), (first, last) in zip(stretches(found.words, ranges, (earliest, latest), self.limits.margin), ranges, strict=True):
            begin = found.words[first].start_char if first else 0
            stop = found.words[last].start_char if last < len(found.words) else len(found.text)
            text = found.text[begin:stop].rstrip()
            words = [
                replace(
                    word,
                    start_char=word.start_char - begin,
                    end_char=word.end_char - begin,
                    start=_start_of(word) - low,
                    end=_end_of(word) - low,
                )
                for word in found.words[first:last]
            ]
            passages.append((low, high, replace(found, text=text, words=words)))
        return passages

    def _utterance(
        self, path: Path, number: int, piece: Media, spoken: Transcript, offset: float, low: float, high: float
    ) -> Utterance | Skip:
        inside = [place for place, seconds in enumerate(piece.frame_times) if low <= seconds < high]
        sound = None
        if piece.sound is not None:
            sound = piece.sound[int(low * piece.sound_rate) : int(high * piece.sound_rate)]
        part = Media(
            high - low,
            sound,
            piece.sound_rate,
            [piece.frames[place] for place in inside],
            [piece.frame_times[place] - low for place in inside],
        )
        name = printable(path.stem)
        clip = Clip(f"{name}/{number:04d}", path, self.speaker, name, start=offset + low, end=offset + high)
        processed = self.processor.process_stretch(clip, part, spoken)
        for name, seconds in processed.seconds.items():
            self._add(name, seconds)
        result = processed.result
        if isinstance(result, Utterance) and not result.text and result.audio is None and result.vision is None:
            return Skip("no_face", "neither sound nor a face")
        return result

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._add(name, time.perf_counter() - began)

    def _add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds


def _moved(text: Transcript, seconds: float) -> Transcript:
    """A text with its word times shifted."""
    return replace(text, words=[replace(word, start=_start_of(word) + seconds, end=_end_of(word) + seconds) for word in text.words])


def _start_of(word: Word) -> float:
    assert word.start is not None
    return word.start


def _end_of(word: Word) -> float:
    assert word.end is not None
    return word.end
