"""One clip becomes one utterance, or a skip with its reason."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lexicons.lexicon import Lexicon
from lexicons.sources import load_lexicon
from preprocessing import audio, masking, media
from preprocessing.corpora.clip import Clip
from preprocessing.corpora.face_pictures import read_pictures
from preprocessing.given_text import split_words
from preprocessing.schema import FeatureInfo, Utterance
from preprocessing.transcription import SAMPLE_RATE, Transcript, WhisperSettings, open_transcriber
from preprocessing.transcription.speech_activity import Speech, find_speech
from preprocessing.vision.mesh import FaceMeshExtractor, mesh_info
from preprocessing.vision.openface import NoOpenFaceError, OpenFace, openface_info
from preprocessing.vision.track import VisionTrack
from preprocessing.word_alignment import align_track, aligned_info, mean_over_words, spans_of
from skesl_mug.memory import peak_memory_mb

REASONS = {
    "no_openface": "there is no readable csv file of OpenFace for the clip (with --vision openface)",
    "no_word_times": "its words have no times (with --align words)",
    "nationality": "the speaker is of another nationality than --nationality names",
    "nationality_unknown": "the corpus's table does not say of which nationality the speaker is",
    "unreadable": "the file cannot be decoded",
    "too_short": "shorter than --min-seconds",
    "too_long": "longer than --max-seconds",
    "no_transcript": "the corpus brings no transcript of it, and --asr.model is none",
    "no_sound": "the file has no sound track, or a silent one",
    "no_speech": "nobody speaks, or no word was recognised",
    "language": "another language than --asr.language is spoken",
    "no_speech_probability": "the recogniser believes that nobody speaks, and is unsure of its words (--asr.no-speech-probability)",
    "log_probability": "the recogniser is unsure of its words (--asr.log-probability)",
    "compression_ratio": "the recognised text repeats itself, as Whisper does where it invents (--asr.compression-ratio)",
    "repeated_phrase": "the same words again and again, as Whisper writes where it invents (--asr.repeated-phrases)",
    "no_face": "no sampled frame shows a face (with --skip-without-face)",
    "crashed": "the process that worked on it died, alone with it too",
    "failed": "a fault of this program on this clip; the detail names it",
}
"""The reasons for which a clip is skipped."""

LEAST_SPEECH = 0.1  # seconds
MOST_WAITING = 200_000_000  # bytes of pictures and sound that wait for speech recognition: a batch ends early where its clips are large


@dataclass(kw_only=True)
class PipelineSettings:
    """All that one clip's result depends on, beside the clip. Goes to the worker processes."""

    whisper: WhisperSettings | None
    batch: int = 1
    align: bool = True
    audio: str = "librosa33"
    vision: str = "mesh"
    vision_fps: float = 6.0
    faces: str = "first"
    openface: str | None = None
    align_features: bool = False
    lexicon: str = "vader"
    lexicon_scale: float = 3.0
    mask_context: bool = False
    skip_without_face: bool = False
    min_seconds: float = 0.5
    max_seconds: float = 60.0
    seed: int = 1
    quiet: bool = True


@dataclass
class Skip:
    """A clip that gave no utterance: one of `REASONS`, and what was found."""

    reason: str
    detail: str = ""


@dataclass
class Outcome:
    """What became of a clip, with the seconds each stage took and the peak memory of the process so far."""

    clip_id: str
    result: Utterance | Skip
    seconds: dict[str, float] = field(default_factory=dict)
    media_seconds: float = 0.0
    process: int = 0
    peak_memory_mb: float = 0.0


class SkipError(Exception):
    """Ends the work on a clip; `skip` says why."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(detail)
        self.skip = Skip(reason, detail)


@dataclass
class Work:
    """A clip on its way through the stages, with the seconds that each took."""

    clip: Clip
    decoded: media.Media | None = None
    sound: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    speech: Speech = field(default_factory=lambda: Speech(0.0, 0.0, 0.0))
    transcript: Transcript | None = None
    result: Utterance | Skip | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    media_seconds: float = 0.0

    @property
    def bytes_held(self) -> int:
        """Of the decoded pictures and sound."""
        return self.decoded.size if self.decoded is not None else 0

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
        """Make a skip of whatever the block raises: one clip must not end a job of a million."""
        try:
            yield
        except SkipError as skipped:
            self.result = skipped.skip
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """End with a fault of this program, which the skip names."""
        self.result = Skip("failed", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")

    def outcome(self) -> "Outcome":
        """What became of the clip."""
        assert self.result is not None
        return Outcome(self.clip.id, self.result, self.seconds, self.media_seconds, os.getpid(), peak_memory_mb())


def checked(found: Transcript | None) -> Transcript:
    """A transcript that may be kept; else `SkipError` with its doubt."""
    if found is None:
        raise SkipError("failed", "no transcript")
    if found.doubt is not None and (found.words or found.doubt.reason == "language"):
        raise SkipError(found.doubt.reason, found.doubt.detail + (f": {found.text[:120]}" if found.text else ""))
    if not found.words:
        raise SkipError("no_speech", "no word was recognised")
    return found


class ClipProcessor:
    """The models, loaded once, and the way of a clip through them.

    Raises:
        UserError: the recognition model or the lexicon cannot be loaded.
    """

    def __init__(self, settings: PipelineSettings):
        self.settings = settings
        self.lexicon: Lexicon = load_lexicon(settings.lexicon, settings.lexicon_scale)
        self.transcriber = open_transcriber(settings.whisper) if settings.whisper is not None else None
        self._sound = audio.open_extractor(settings.audio)
        units = settings.vision == "mesh-au"
        self._mesh = FaceMeshExtractor(settings.quiet, units, settings.faces) if settings.vision.startswith("mesh") else None
        self._openface = OpenFace(settings.openface, settings.vision_fps) if settings.vision == "openface" else None

    def describe(self) -> dict[str, Any]:
        """The parts of `dataset.json` that say how the features were made."""
        return {
            "asr": self.transcriber.describe() if self.transcriber is not None else None,
            "lexicon": self.lexicon.describe(),
            "audio": self.audio_info(),
            "vision": self.vision_info(),
        }

    def audio_info(self) -> FeatureInfo | None:
        """How the audio columns are made, None without them."""
        info = self._sound.info() if self._sound is not None else None
        return aligned_info(info) if self.settings.align_features else info

    def vision_info(self) -> FeatureInfo | None:
        """How the vision columns are made, None without them."""
        rate, info = self.settings.vision_fps, None
        if self._mesh is not None:
            info = mesh_info(rate, self._mesh.units, self._mesh.faces)
        elif self._openface is not None:
            info = openface_info(rate)
        return aligned_info(info) if self.settings.align_features else info

    def warm_up(self) -> None:
        """Load what libraries load at their first call, so that no clip's time holds it."""
        if self._sound is not None:
            self._sound.warm_up()

    def close(self) -> None:
        """Free the models."""
        if self._mesh is not None:
            self._mesh.close()
        del self.transcriber

    def process(self, clip: Clip) -> Outcome:
        """Take one clip all the way; whatever happens to it, the outcome says so and nothing is raised (but by Ctrl-C)."""
        return self.process_many([clip])[0]

    def process_many(self, clips: Sequence[Clip]) -> list[Outcome]:
        """Take clips all the way, speech recognition in one call (`process` for each of them otherwise)."""
        outcomes: list[Outcome] = []
        waiting: list[Work] = []
        for clip in clips:
            waiting.append(Work(clip))
            with waiting[-1].guarded():
                self._prepare(waiting[-1])
            if sum(work.bytes_held for work in waiting) > MOST_WAITING:
                outcomes += self._complete(waiting)
                waiting = []
        return outcomes + self._complete(waiting)

    def _complete(self, works: Sequence["Work"]) -> list[Outcome]:
        """Recognise the speech of prepared clips in one call, then do the rest of each."""
        self._recognise([work for work in works if work.result is None and work.clip.transcript is None])
        for work in works:
            if work.result is None:
                with work.guarded():
                    work.result = self._utterance(work)
            work.decoded = None
        return [work.outcome() for work in works]

    def _prepare(self, work: "Work") -> None:
        """Decode, and find where somebody speaks."""
        clip = work.clip
        if clip.filtered is not None:
            raise SkipError(*clip.filtered)
        with work.stage("decode"):
            work.decoded = self._decode(clip)
        work.media_seconds = work.decoded.duration
        if clip.transcript is not None:
            return
        if self.transcriber is None:
            raise SkipError("no_transcript", "the corpus brings none, and --asr.model is none")
        work.sound = work.decoded.sound_at(SAMPLE_RATE)
        with work.stage("speech_detection"):
            work.speech = find_speech(work.sound)
        if work.speech.seconds < LEAST_SPEECH:
            raise SkipError("no_speech", f"{work.speech.seconds:.2f} s of speech found")

    def _recognise(self, works: Sequence["Work"]) -> None:
        """Transcribe the clips in one call; where that fails, each alone, so that one clip's fault is its own."""
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

    def _decode(self, clip: Clip) -> media.Media:
        rate = self.settings.vision_fps if self._mesh is not None else 0.0
        if clip.end is not None and clip.end <= clip.start:
            raise SkipError("too_short", f"the corpus gives it the times {clip.start:g} to {clip.end:g} s")
        try:
            decoded = media.decode(clip.path, rate, self.settings.max_seconds, clip.start, clip.end)
            if decoded.sound is None and clip.sound is not None:
                heard = media.decode(clip.sound, 0.0, self.settings.max_seconds)
                decoded.sound, decoded.sound_rate, decoded.duration = heard.sound, heard.sound_rate, heard.duration
            if clip.pictures is not None and not decoded.frames and rate:
                decoded.frames, decoded.frame_times = read_pictures(clip.pictures, decoded.duration)
        except media.MediaError as error:
            raise SkipError(error.reason, str(error)) from error
        silent = decoded.sound is None or float(np.abs(decoded.sound).max(initial=0.0)) == 0.0
        if silent and clip.transcript is not None:
            decoded.sound = None  # its words are known: an utterance whose sound is absent
        elif silent:
            raise SkipError("no_sound", "no sound track" if decoded.sound is None else "its sound is all zeros")
        if decoded.duration < self.settings.min_seconds:
            raise SkipError("too_short", f"{decoded.duration:.2f} s")
        if decoded.duration > self.settings.max_seconds:
            raise SkipError("too_long", f"{decoded.duration:.1f} s")
        return decoded

    def _utterance(self, work: "Work") -> Utterance:
        clip = work.clip
        found = self._given(clip.transcript, work) if clip.transcript is not None else checked(work.transcript)
        return self._describe(work, found)

    def describe_stretch(self, clip: Clip, decoded: media.Media, transcript: Transcript) -> Outcome:
        """The utterance of a stretch of a longer file that is decoded and transcribed already; without words its text is empty."""
        work = Work(clip, decoded, media_seconds=decoded.duration)
        with work.guarded():
            work.result = self._describe(work, transcript)
        return work.outcome()

    def _describe(self, work: "Work", found: Transcript) -> Utterance:
        clip, decoded, watch = work.clip, work.decoded, work
        assert decoded is not None
        with watch.stage("masking"):
            rng = masking.generator_for(clip.id, self.settings.seed)
            masks = masking.find_masks(found.words, self.lexicon, rng, found.language, found.text, self.settings.mask_context)
        spans = spans_of(found.words) if self.settings.align_features else None
        if self.settings.align_features and (spans is None or not len(spans)):
            raise SkipError("no_word_times", f"{len(found.words)} words")
        track = self._look(work)
        face_rate = track.face_rate if track is not None else 0.0
        if track is not None and spans is not None:
            track = align_track(track, spans)
        with watch.stage("audio"):
            heard = self._hear(decoded, spans)
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
            audio=heard,
            vision=track.values if track is not None else None,
            vision_times=track.times if track is not None else None,
            vision_valid=track.valid if track is not None else None,
            face_rate=face_rate if self.settings.vision != "none" else None,
            split=clip.split,
            **clip.labels,
        )

    def _hear(self, decoded: media.Media, spans: np.ndarray | None = None) -> np.ndarray | None:
        if self._sound is None or decoded.sound is None:
            return None
        heard = self._sound.extract(decoded.sound_at(self._sound.sample_rate))
        if spans is None:
            return heard
        rate = self._sound.info().rate_hz
        return mean_over_words(heard, np.arange(len(heard)) / rate, spans)

    def _given(self, text: str, work: "Work") -> Transcript:
        """The corpus's own transcript as one of speech recognition; its words have times where they can be aligned to the sound."""
        spoken = self.settings.whisper.language if self.settings.whisper is not None else "en"
        language = work.clip.language or spoken
        words = split_words(text, language)
        if not words:
            raise SkipError("no_speech", "the corpus's transcript holds no word")
        if self.settings.align and self.transcriber is not None and work.decoded is not None and work.decoded.sound is not None:
            with work.stage("alignment"):
                words = self.transcriber.align_words(work.decoded.sound_at(SAMPLE_RATE), text, words, language)
        return Transcript(text, words, language, 0.0, 0.0)

    def _look(self, work: "Work") -> VisionTrack | None:
        if self.settings.vision == "none" or work.decoded is None:
            return None
        track = None
        with work.stage("vision"):
            if self._mesh is not None:
                decoded = work.decoded
                track = self._mesh.extract(decoded.frames, decoded.frame_times, decoded.sound, decoded.sound_rate)
            elif self._openface is not None:
                try:
                    track = self._openface.extract(work.clip)
                except NoOpenFaceError as error:
                    raise SkipError("no_openface", str(error)) from error
        if track is None and self.settings.skip_without_face:
            raise SkipError("no_face", f"none in {len(work.decoded.frames)} frames" if self._mesh is not None else "none by OpenFace")
        return track
