"""One clip becomes one utterance, or a skip with its reason."""

import os
import resource
import sys
import time
from collections.abc import Iterator
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
from preprocessing.transcription.protocol import Transcript
from preprocessing.transcription.speech_activity import Speech, find_speech
from preprocessing.transcription.whisper_ct2 import WhisperCT2, WhisperSettings
from preprocessing.vision.mesh import FaceMeshExtractor, mesh_info
from preprocessing.vision.track import VisionTrack

REASONS = {
    "nationality": "the speaker is of another nationality than --nationality names",
    "nationality_unknown": "the corpus's table does not say of which nationality the speaker is",
    "unreadable": "the file cannot be decoded",
    "too_short": "shorter than --min-seconds",
    "too_long": "longer than --max-seconds",
    "no_sound": "the file has no sound track, or a silent one",
    "no_speech": "nobody speaks, or no word was recognised",
    "doubtful_text": "the recognised text repeats itself, as Whisper does where it invents",
    "no_face": "no sampled frame shows a face (with --skip-without-face)",
    "crashed": "the process that worked on it died, alone with it too",
    "failed": "a fault of this program on this clip; the detail names it",
}
"""The reasons for which a clip is skipped."""

LEAST_SPEECH = 0.1  # seconds


@dataclass(kw_only=True)
class PipelineSettings:
    """All that one clip's result depends on, beside the clip. Goes to the worker processes."""

    whisper: WhisperSettings
    audio: str = "librosa33"
    vision: str = "mesh"
    vision_fps: float = 6.0
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


class Stopwatch:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the `with` block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


class ClipProcessor:
    """The models, loaded once, and the way of a clip through them.

    Raises:
        UserError: the recognition model or the lexicon cannot be loaded.
    """

    def __init__(self, settings: PipelineSettings):
        self.settings = settings
        self.lexicon: Lexicon = load_lexicon(settings.lexicon, settings.lexicon_scale)
        self.transcriber = WhisperCT2(settings.whisper)
        self._sound = audio.open_extractor(settings.audio)
        self._mesh = FaceMeshExtractor(settings.quiet) if settings.vision == "mesh" else None

    def describe(self) -> dict[str, Any]:
        """The parts of `dataset.json` that say how the features were made."""
        return {
            "asr": self.transcriber.describe(),
            "lexicon": self.lexicon.describe(),
            "audio": self.audio_info(),
            "vision": self.vision_info(),
        }

    def audio_info(self) -> FeatureInfo | None:
        """How the audio columns are made, None without them."""
        return self._sound.info() if self._sound is not None else None

    def vision_info(self) -> FeatureInfo | None:
        """How the vision columns are made, None without them."""
        return mesh_info(self.settings.vision_fps) if self.settings.vision == "mesh" else None

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
        watch = Stopwatch()
        seconds = 0.0
        result: Utterance | Skip
        if clip.filtered is not None:
            return Outcome(clip.id, Skip(*clip.filtered), process=os.getpid(), peak_memory_mb=memory_peak_mb())
        try:
            with watch.stage("decode"):
                decoded = self._decode(clip)
            seconds = decoded.duration
            result = self._utterance(clip, decoded, watch)
        except SkipError as skipped:
            result = skipped.skip
        except Exception as error:  # one clip must not end a job of a million; the skip is counted and names the fault
            result = Skip("failed", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        return Outcome(clip.id, result, watch.seconds, seconds, os.getpid(), memory_peak_mb())

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

    def _utterance(self, clip: Clip, decoded: media.Media, watch: Stopwatch) -> Utterance:
        found = self._given(clip.transcript, clip, decoded, watch) if clip.transcript is not None else self._transcribe(decoded, watch)
        with watch.stage("masking"):
            rng = masking.generator_for(clip.id, self.settings.seed)
            masks = masking.find_masks(found.words, self.lexicon, rng, found.language, found.text, self.settings.mask_context)
        track = self._look(decoded, watch)
        with watch.stage("audio"):
            heard = self._hear(decoded)
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
            face_rate=(track.face_rate if track is not None else 0.0) if self._mesh is not None else None,
            split=clip.split,
            **clip.labels,
        )

    def _hear(self, decoded: media.Media) -> np.ndarray | None:
        if self._sound is None or decoded.sound is None:
            return None
        return self._sound.extract(decoded.sound_at(self._sound.sample_rate))

    def _given(self, text: str, clip: Clip, decoded: media.Media, watch: Stopwatch) -> Transcript:
        """The corpus's own transcript as one of speech recognition, its words without times."""
        language = clip.language or self.settings.whisper.language
        words = split_words(text, language)
        if not words:
            raise SkipError("no_speech", "the corpus's transcript holds no word")
        return Transcript(text, words, language, 0.0, 0.0)

    def _transcribe(self, decoded: media.Media, watch: Stopwatch) -> Transcript:
        sound = decoded.sound_at(16_000)
        with watch.stage("speech_detection"):
            speech: Speech = find_speech(sound)
        if speech.seconds < LEAST_SPEECH:
            raise SkipError("no_speech", f"{speech.seconds:.2f} s of speech found")
        with watch.stage("asr"):
            found = self.transcriber.transcribe(sound, speech)
        if not found.words:
            raise SkipError("no_speech", "no word was recognised")
        if found.doubt is not None and not found.doubt.startswith("stops"):
            reason = "no_speech" if found.doubt.startswith("no speech") else "doubtful_text"
            raise SkipError(reason, f"{found.doubt}: {found.text[:120]}")
        return found

    def _look(self, decoded: media.Media, watch: Stopwatch) -> VisionTrack | None:
        if self._mesh is None:
            return None
        with watch.stage("vision"):
            track = self._mesh.extract(decoded.frames, decoded.frame_times)
        if track is None and self.settings.skip_without_face:
            raise SkipError("no_face", f"none in {len(decoded.frames)} frames")
        return track


def memory_peak_mb() -> float:
    """Peak resident memory of this process so far, in megabytes."""
    unit = 1024.0 * 1024.0 if sys.platform == "darwin" else 1024.0  # macOS counts in bytes, Linux in kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
