"""OpenAI's own Whisper package (extra `whisper`), the second engine."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from preprocessing.features import EncoderStates, layer_number
from preprocessing.schema import Word
from preprocessing.transcription.transcript import (
    LANGUAGE_PROBABILITY,
    SAMPLE_RATE,
    SIMPLIFIED,
    Speech,
    SpokenWord,
    Transcript,
    WhisperSettings,
    another_language,
    cut_to_speech,
    find_doubt,
    find_speech,
    how_written,
    join_words,
    sha256_of,
    simplify,
    stops_early,
    trim_to_speech,
)
from skesl_mug.errors import UserError

LONGEST = 30.0  # seconds of Whisper's window
STATES_HZ = 50.0  # states of the encoder per second


def _package() -> Any:
    try:
        import whisper
    except ImportError as error:
        raise UserError(
            "--asr.engine openai-whisper: its package is not installed; `pip install openai-whisper`, or use faster-whisper"
        ) from error
    return whisper


def find_checkpoint(name: str) -> Path:
    """The checkpoint of a model given as a .pt file or by the package's name for it (cached, else downloaded).

    Raises:
        UserError: the package is not installed, or the model does not exist.
    """
    whisper = _package()
    if Path(name).is_file():
        return Path(name)
    if name not in whisper.available_models():
        raise UserError(
            f"--asr.model {name}: is neither a file nor a model of openai-whisper ({', '.join(whisper.available_models()[:6])}...)"
        )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whisper"
    try:
        return Path(whisper._download(whisper._MODELS[name], str(cache), False))
    except Exception as error:  # URLError, RuntimeError (wrong checksum), OSError
        raise UserError(f"--asr.model {name}: could not be downloaded ({error}); use a checkpoint file") from error


class WhisperOpenAI:
    """A Whisper model in PyTorch.

    Raises:
        UserError: the package is not installed, the file is not a checkpoint, or the model lacks the language.
    """

    def __init__(self, settings: WhisperSettings):
        self.settings = settings
        self._whisper = _package()
        import torch

        torch.set_num_threads(1)
        device = settings.device if settings.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self._model = self._whisper.load_model(settings.model, device=device)
        except Exception as error:  # UnpicklingError, KeyError, RuntimeError: not a checkpoint
            raise UserError(f"--asr.model {settings.name}: cannot be loaded on {device} ({error})") from error
        known = {path: name for name, path in self._names().items()}.get(Path(settings.model).name)
        if known is not None:  # load_model finds the alignment heads by name only
            with suppress(RuntimeError):  # another model under a known file name
                self._model.set_alignment_heads(self._whisper._ALIGNMENT_HEADS[known])
        self.multilingual = bool(self._model.is_multilingual)
        if not self.multilingual and settings.language != "en":
            raise UserError(f"--asr.language {settings.language}: {settings.name} is English-only; use a multilingual --asr.model")
        if settings.language not in ("auto", *self._whisper.tokenizer.LANGUAGES):
            raise UserError(f"--asr.language {settings.language}: is not a language code of Whisper's; use a code such as en, or auto")
        self.device = device
        self.keep_states = False  # `transcribe` does not hand out what its encoder computes
        self.aligned_states: EncoderStates | None = None

    def _names(self) -> dict[str, str]:
        return {name: Path(address).name for name, address in self._whisper._MODELS.items()}

    def describe(self) -> dict[str, Any]:
        """See `Transcriber`."""
        return {
            "engine": self.settings.engine,
            "model": self.settings.name,
            "model_sha256": sha256_of(Path(self.settings.model)),
            "multilingual": self.multilingual,
            "compute_type": "float16" if self.device == "cuda" else "float32",
            "device": self.device,
            "language": self.settings.language,
            "language_detected": self.multilingual,
            "chinese": how_written(self.settings.chinese),
            "beam_size": self.settings.beam_size,
            "limits": vars(self.settings.limits),
        }

    def transcribe_many(self, sounds: Sequence[np.ndarray], speeches: Sequence[Speech]) -> list[Transcript]:
        """See `Transcriber`; one clip after the other."""
        return [self.transcribe(sound, speech) for sound, speech in zip(sounds, speeches, strict=True)]

    def transcribe(self, sound: np.ndarray, speech: Speech) -> Transcript:
        """Transcribe one clip, [samples] float32 at 16,000 Hz."""
        heard, cut = cut_to_speech(sound, speech)
        language, sure = self._language(heard)
        if self.settings.language not in ("auto", language) and sure is not None and sure >= LANGUAGE_PROBABILITY:
            return another_language(language, sure)
        result = self._whisper.transcribe(
            self._model,
            np.asarray(heard, np.float32),
            language=language if self.settings.language == "auto" else self.settings.language,
            beam_size=self.settings.beam_size,
            temperature=0.0,
            word_timestamps=True,
            condition_on_previous_text=False,
            fp16=self.device == "cuda",
            verbose=None,
        )
        segments = result["segments"]
        spoken = [
            SpokenWord(word["word"], float(word["start"]) + cut, float(word["end"]) + cut, float(word["probability"]))
            for segment in segments
            for word in segment["words"]
        ]
        if result["language"] in ("zh", "yue") and self.settings.chinese == SIMPLIFIED:
            spoken = simplify(spoken)
        text, words = join_words(spoken)
        trim_to_speech(words, speech)
        lengths = np.asarray([max(1, len(segment["tokens"])) for segment in segments] or [1], float)
        log_probability = float(np.average([segment["avg_logprob"] for segment in segments] or [0.0], weights=lengths))
        silent = float(np.average([segment["no_speech_prob"] for segment in segments] or [1.0], weights=lengths))
        found = Transcript(text, words, result["language"], log_probability, silent, sure)
        found.doubt = find_doubt(found, self.settings.limits)
        found.details["stops_early"] = stops_early(found, speech)
        return found

    def encoder_states(self, sound: np.ndarray, layer: str) -> EncoderStates:
        """See `Transcriber`; the last layer is the one after the final LayerNorm.

        Raises:
            UserError: the encoder has fewer layers.
        """
        import torch

        encoder, taken = self._model.encoder, []
        number = layer_number(layer, len(encoder.blocks), f"--asr.model {self.settings.name}")
        heard, cut = cut_to_speech(sound, find_speech(sound))
        step = int(LONGEST * SAMPLE_RATE)
        hook = None
        if number < len(encoder.blocks):
            hook = encoder.blocks[number - 1].register_forward_hook(lambda module, inputs, output: taken.append(output))
        try:
            parts = []
            for start in range(0, max(len(heard), 1), step):
                piece = np.asarray(heard[start : start + step], np.float32)
                mel = self._whisper.log_mel_spectrogram(self._whisper.pad_or_trim(piece, step), self._model.dims.n_mels)
                with torch.inference_mode():
                    states = encoder(mel[None].to(self._model.device))
                states = taken.pop() if hook is not None else states
                parts.append(states[0, : max(1, round(len(piece) / SAMPLE_RATE * STATES_HZ))].float().cpu().numpy())
        finally:
            if hook is not None:
                hook.remove()
        return EncoderStates(np.concatenate(parts), STATES_HZ, cut)

    def _language(self, sound: np.ndarray) -> tuple[str, float | None]:
        if not self.multilingual:
            return "en", None
        window = self._whisper.pad_or_trim(np.asarray(sound, np.float32), int(LONGEST * SAMPLE_RATE))
        mel = self._whisper.log_mel_spectrogram(window, self._model.dims.n_mels).to(self._model.device)
        _, probabilities = self._model.detect_language(mel)
        best = max(probabilities, key=probabilities.get)
        return best, float(probabilities[best])

    def align_words(self, sound: np.ndarray, text: str, words: list[Word], language: str) -> list[Word]:
        """See `Transcriber`: not supported by this engine, words get no times."""
        return words
