"""One clip becomes one utterance, or a skip with its reason."""

import os
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lexicons.lexicon import Lexicon
from lexicons.sources import load_lexicon
from lexicons.words import word_spans
from preprocessing import masking, media
from preprocessing.blocks import AudioBlocks, open_blocks, open_vision
from preprocessing.channels import SoundChoice
from preprocessing.extensions import LAST_LAYER
from preprocessing.features import (
    EncoderStates,
    SkipError,
    VisionExtractor,
    VisionTrack,
    align_track,
    aligned_info,
    mean_over_words,
    spans_of,
)
from preprocessing.layouts import Clip
from preprocessing.options import AUTO, MIX
from preprocessing.schema import FeatureInfo, Utterance, Word
from preprocessing.timeline import Faults
from preprocessing.transcription import open_transcriber
from preprocessing.transcription.transcript import SAMPLE_RATE, Speech, Transcript, WhisperSettings, find_speech
from skesl_mug.memory import peak_memory_mb
from skesl_mug.registry import use_plugins

MIN_SPEECH = 0.1  # seconds
MAX_WAITING = 200_000_000  # bytes of decoded media waiting for speech recognition: limits the batch where clips are large


@dataclass(kw_only=True)
class PipelineSettings:
    """Everything besides the clip that its result depends on; sent to the worker processes."""

    whisper: WhisperSettings | None
    batch: int = 1
    align: bool = True
    audio: str | list[str] = "librosa33"
    audio_layer: str = LAST_LAYER
    vision: str | list[str] = "mesh"
    vision_fps: float = 6.0
    faces: str = "first"
    openface: str | None = None
    align_features: bool = False
    lexicon: str = "vader"
    lexicon_scale: float = 3.0
    mask_context: bool = False
    skip_without_face: bool = False
    audio_track: str = AUTO
    channels: str = MIX
    min_seconds: float = 0.5
    max_seconds: float = 60.0
    seed: int = 1
    quiet: bool = True
    plugins: list[str] = field(default_factory=list)


@dataclass
class Skip:
    """A clip without an utterance: one of `REASONS` (schema.py), and what was found."""

    reason: str
    detail: str = ""


@dataclass
class ClipResult:
    """The utterance of a clip or its skip, seconds per stage, notes for the user, peak memory of the process so far, the file's faults."""

    clip_id: str
    result: Utterance | Skip
    seconds: dict[str, float] = field(default_factory=dict)
    media_seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    process: int = 0
    peak_memory_mb: float = 0.0
    faults: Faults = field(default_factory=Faults)


@dataclass
class Work:
    """A clip on its way through the stages."""

    clip: Clip
    decoded: media.Media | None = None
    sound: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    speech: Speech = field(default_factory=lambda: Speech(0.0, 0.0, 0.0))
    transcript: Transcript | None = None
    result: Utterance | Skip | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    media_seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    quiet: bool = True
    faults: Faults = field(default_factory=Faults)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the `with` block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Turn any exception in the block into a skip: one clip must not end a job of a million."""
        try:
            yield
        except SkipError as skipped:
            self.result = Skip(skipped.reason, str(skipped))
            if skipped.__cause__ is not None and skipped.reason == "failed" and not self.quiet:
                traceback.print_exception(skipped.__cause__)
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """End as a skip that names an internal error, whose traceback is printed with --debug."""
        if not self.quiet:
            traceback.print_exception(error)
        self.result = Skip("failed", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")

    def finished(self) -> ClipResult:
        """The result of the clip."""
        assert self.result is not None
        process = (os.getpid(), peak_memory_mb())
        return ClipResult(self.clip.id, self.result, self.seconds, self.media_seconds, self.notes, *process, self.faults)


def checked(found: Transcript | None) -> Transcript:
    """The transcript if it is usable; else raises `SkipError` with the doubt about it."""
    if found is None:
        raise SkipError("failed", "no transcript")
    if found.doubt is not None and (found.words or found.doubt.reason == "language"):
        raise SkipError(found.doubt.reason, found.doubt.detail + (f": {found.text[:120]}" if found.text else ""))
    if not found.words:
        raise SkipError("no_speech", "no word was recognised")
    return found


def split_words(text: str, language: str) -> list[Word]:
    """The words of a text with their positions in it, without times. Chinese is segmented by jieba.

    Raises:
        UserError: the text is Chinese and jieba is not installed.
    """
    return [Word(text[start:end], start, end) for start, end in word_spans(text, language)]


class ClipProcessor:
    """The models, loaded once, and the steps that take a clip through them.

    Raises:
        UserError: the recognition model, the lexicon, a plugin or an extractor's package cannot be loaded.
    """

    def __init__(self, settings: PipelineSettings):
        use_plugins(settings.plugins)
        self.settings = settings
        self.lexicon: Lexicon = load_lexicon(settings.lexicon, settings.lexicon_scale)
        self.transcriber = open_transcriber(settings.whisper) if settings.whisper is not None else None
        self._audio: AudioBlocks | None = open_blocks(settings, self.transcriber)
        self._vision: VisionExtractor | None = open_vision(settings)

    @property
    def frame_rate(self) -> float:
        """Video frames per second to decode; 0 if no extractor needs them."""
        return self.settings.vision_fps if self._vision is not None and self._vision.needs_frames else 0.0

    def describe(self) -> dict[str, Any]:
        """The entries of `dataset.json` about how the features are made."""
        return {
            "asr": self.transcriber.describe() if self.transcriber is not None else None,
            "lexicon": self.lexicon.describe(),
            "audio": self.audio_info(),
            "vision": self.vision_info(),
        }

    def audio_info(self) -> FeatureInfo | None:
        """How the audio columns are made; None without them."""
        info = self._audio.info if self._audio is not None else None
        return aligned_info(info) if self.settings.align_features else info

    def vision_info(self) -> FeatureInfo | None:
        """How the vision columns are made; None without them."""
        info = self._vision.info if self._vision is not None else None
        return aligned_info(info) if self.settings.align_features else info

    def warm_up(self) -> None:
        """Load what libraries load at their first call, so that no clip's time includes it."""
        if self._audio is not None:
            self._audio.warm_up()

    def close(self) -> None:
        """Free the models."""
        if self._vision is not None:
            self._vision.close()
        del self.transcriber

    def process(self, clip: Clip) -> ClipResult:
        """Process one clip. Nothing is raised (except by Ctrl-C): whatever happens is in the result."""
        return self.process_many([clip])[0]

    def process_many(self, clips: Sequence[Clip]) -> list[ClipResult]:
        """Process clips, with speech recognition batched."""
        results: list[ClipResult] = []
        waiting: list[Work] = []
        for clip in clips:
            waiting.append(Work(clip, quiet=self.settings.quiet))
            with waiting[-1].guarded():
                self._prepare(waiting[-1])
            if sum(work.decoded.size for work in waiting if work.decoded is not None) > MAX_WAITING:
                results += self._complete(waiting)
                waiting = []
        return results + self._complete(waiting)

    def _complete(self, works: Sequence[Work]) -> list[ClipResult]:
        """Recognise the speech of prepared clips in one call, then finish each."""
        self._recognise([work for work in works if work.result is None and work.clip.transcript is None])
        if self._audio is not None:
            self._audio.compute_ahead([work.decoded for work in works if work.result is None and work.decoded is not None])
        for work in works:
            if work.result is None:
                with work.guarded():
                    work.result = self._utterance(work)
            work.decoded = None
        return [work.finished() for work in works]

    def _prepare(self, work: Work) -> None:
        """Decode, and find the speech."""
        clip = work.clip
        if clip.filtered is not None:
            raise SkipError(*clip.filtered)
        with work.stage("decode"):
            decoded = work.decoded = self._decode(work)
        work.media_seconds, work.faults, work.notes = decoded.duration, decoded.faults, [*decoded.notes, *decoded.faults.notes()]
        if clip.transcript is not None:
            return
        if self.transcriber is None:
            raise SkipError("no_transcript", "the corpus has none, and --asr.model is none")
        work.sound = work.decoded.sound_at(SAMPLE_RATE)
        with work.stage("speech_detection"):
            work.speech = find_speech(work.sound)
        if work.speech.seconds < MIN_SPEECH:
            raise SkipError("no_speech", f"{work.speech.seconds:.2f} s of speech found")

    def _recognise(self, works: Sequence[Work]) -> None:
        """Transcribe the clips in one call; if that fails, each alone, so that only the faulty one is skipped."""
        if not works or self.transcriber is None:
            return
        start = time.perf_counter()
        try:
            found = self.transcriber.transcribe_many([work.sound for work in works], [work.speech for work in works])
        except Exception as error:
            if len(works) == 1:
                works[0].fail(error)
            else:
                for work in works:
                    self._recognise([work])
            return
        share = (time.perf_counter() - start) / len(works)
        for work, transcript in zip(works, found, strict=True):
            work.seconds["asr"] = share
            work.transcript = transcript

    def _decode(self, work: Work) -> media.Media:
        clip, rate = work.clip, self.frame_rate
        if clip.end is not None and clip.end <= clip.start:
            raise SkipError("too_short", f"the corpus gives its times as {clip.start:g} to {clip.end:g} s")
        try:
            choice = SoundChoice(self.settings.audio_track, clip.channel or self.settings.channels, clip.channel is not None, True)
            decoded = media.decode(clip.path, rate, self.settings.max_seconds, clip.start, clip.end, choice)
            if decoded.sound is None and clip.sound is not None:
                heard = media.decode(clip.sound, 0.0, self.settings.max_seconds, choice=choice)
                decoded.sound, decoded.sound_rate, decoded.duration = heard.sound, heard.sound_rate, heard.duration
                decoded.notes = heard.notes
            if clip.pictures is not None and not decoded.frames and rate:
                decoded.frames, decoded.frame_times = media.read_pictures(clip.pictures, decoded.duration)
        except media.MediaError as error:
            work.faults = error.faults if isinstance(error, media.DamagedError) else work.faults
            raise SkipError(error.reason, str(error)) from error
        silent = decoded.sound is None or float(np.abs(decoded.sound).max(initial=0.0)) == 0.0
        if silent and clip.transcript is not None:
            decoded.sound = None  # the words are known: an utterance without audio
        elif silent:
            raise SkipError("no_sound", "no sound track" if decoded.sound is None else "its sound is all zeros")
        if decoded.duration < self.settings.min_seconds:
            raise SkipError("too_short", f"{decoded.duration:.2f} s")
        if decoded.duration > self.settings.max_seconds:
            raise SkipError("too_long", f"{decoded.duration:.1f} s")
        return decoded

    def _utterance(self, work: Work) -> Utterance:
        given = work.clip.transcript
        return self._describe(work, self._given(given, work) if given is not None else checked(work.transcript))

    def process_stretch(self, clip: Clip, decoded: media.Media, transcript: Transcript) -> ClipResult:
        """The utterance of a stretch of a longer recording that is already decoded and transcribed; without words its text is empty."""
        work = Work(clip, decoded, media_seconds=decoded.duration, quiet=self.settings.quiet)
        with work.guarded():
            work.result = self._describe(work, replace(transcript, states=None))  # they would be those of a longer piece
        return work.finished()

    def _describe(self, work: Work, found: Transcript) -> Utterance:
        clip, decoded = work.clip, work.decoded
        assert decoded is not None
        with work.stage("masking"):
            rng = masking.generator_for(clip.id, self.settings.seed)
            masks = masking.find_masks(found.words, self.lexicon, rng, found.language, found.text, self.settings.mask_context)
        spans = spans_of(found.words) if self.settings.align_features else None
        if self.settings.align_features and (spans is None or not len(spans)):
            raise SkipError("no_word_times", f"{len(found.words)} words")
        track = self._see(work)
        face_rate = track.face_rate if track is not None else 0.0
        if track is not None and spans is not None:
            track = align_track(track, spans)
        with work.stage("audio"):
            audio = self._hear(decoded, found.states, spans)
        return Utterance(
            id=clip.id,
            video_id=clip.video_id,
            speaker=clip.speaker,
            start=clip.start,
            end=clip.start + decoded.duration,
            language=found.language,
            text=found.text,
            words=found.words,
            masks=masks,
            audio=audio,
            vision=track.values if track is not None else None,
            vision_times=track.times if track is not None else None,
            vision_valid=track.valid if track is not None else None,
            face_rate=face_rate if self._vision is not None else None,
            split=clip.split,
            **clip.labels,
        )

    def _hear(self, decoded: media.Media, states: EncoderStates | None, spans: np.ndarray | None) -> np.ndarray | None:
        if self._audio is None or decoded.sound is None:
            return None
        values = self._audio.extract(decoded, states)
        if spans is None:
            return values
        return mean_over_words(values, np.arange(len(values)) / self._audio.info.rate_hz, spans)

    def _given(self, text: str, work: Work) -> Transcript:
        """The corpus's own transcript; its words get times if they can be aligned to the sound."""
        spoken = self.settings.whisper.language if self.settings.whisper is not None else "en"
        language = work.clip.language or spoken
        words, states = split_words(text, language), None
        if not words:
            raise SkipError("no_speech", "the corpus's transcript has no words")
        if self.settings.align and self.transcriber is not None and work.decoded is not None and work.decoded.sound is not None:
            with work.stage("alignment"):
                words = self.transcriber.align_words(work.decoded.sound_at(SAMPLE_RATE), text, words, language)
                states = self.transcriber.aligned_states
        return Transcript(text, words, language, 0.0, 0.0, states=states)

    def _see(self, work: Work) -> VisionTrack | None:
        if self._vision is None or work.decoded is None:
            return None
        with work.stage("vision"):
            track = self._vision.extract(work.clip, work.decoded)
        if track is None and self.settings.skip_without_face:
            where = f"in {len(work.decoded.frames)} frames" if self._vision.needs_frames else f"by {self._vision.info.extractor}"
            raise SkipError("no_face", f"none {where}")
        return track
