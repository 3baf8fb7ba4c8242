"""Whisper on CTranslate2 (faster-whisper), with short mel windows for short clips.

Whisper pads every clip to 30 s, which takes 4 to 5 times the work that a clip of 3 s needs. CTranslate2 accepts shorter windows: here
the window follows the clip, and if the resulting text is doubtful, longer windows are tried, finally the full one.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from preprocessing.extensions import LAST_LAYER
from preprocessing.features import EncoderStates
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
    times_of_words,
    trim_to_speech,
)
from skesl_mug.errors import UserError

WINDOWS = (500, 1000, 1500, 3000)  # mel frames of 10 ms; the last is Whisper's training window
HEADROOM = 60  # mel frames of silence after the clip: if speech ends at the very edge, words repeat
LOW_LOG_PROBABILITY = -0.7  # below it a longer window is tried
TOKENS_PER_SECOND = 12
ENCODED_TOGETHER = 4  # clips, on a CPU: with more, the encoder's states no longer fit the cache and it takes twice as long
MAX_TOKENS = 400  # of a given text: Whisper's decoder holds 448
STATES_HZ = 50.0  # states of the encoder per second


@dataclass
class _Clip:
    """A clip in progress: its log-mel features [mels, frames], the windows still to try, and the texts so far."""

    features: np.ndarray
    cut: float  # seconds of silence cut off before it
    speech: Speech
    windows: list[int]
    tries: list[Transcript] = field(default_factory=list)
    states: EncoderStates | None = None  # of the first window, which does not depend on the text

    @property
    def settled(self) -> bool:
        """Whether no longer window is needed: the last text is good, or equals the one before, and no speech is left out."""
        last = self.tries[-1]
        if not self.windows or (last.doubt is not None and last.doubt.reason == "language"):
            return True
        sure = last.doubt is None and last.average_log_probability >= LOW_LOG_PROBABILITY
        agrees = len(self.tries) > 1 and last.text == self.tries[-2].text
        return not last.details["stops_early"] and (sure or agrees)

    def best(self) -> Transcript:
        """The text to keep."""
        if self.tries[-1].doubt is not None and self.tries[-1].doubt.reason == "language":
            return self.tries[-1]
        found = max(self.tries, key=lambda found: (found.doubt is None, not found.details["stops_early"], found.average_log_probability))
        found.states = self.states
        return found


class WhisperCT2:
    """A Whisper model on CTranslate2, one thread.

    Raises:
        UserError: the model cannot be loaded, or is English-only and another language is requested.
    """

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
                settings.model, device=device, compute_type=kind, cpu_threads=1, num_workers=1, local_files_only=True
            )
        except Exception as error:  # RuntimeError, ValueError and more: not a model, a compute type the device lacks
            raise UserError(f"--asr.model {settings.name}: cannot be loaded on {device} as {kind} ({error})") from error
        self._model.hf_tokenizer.encode_special_tokens = True  # `<|endoftext|>` in a given transcript is text
        self.multilingual = bool(self._model.model.is_multilingual)
        if not self.multilingual and settings.language != "en":
            raise UserError(f"--asr.language {settings.language}: {settings.name} is English-only; use a multilingual --asr.model")
        if settings.language not in ("auto", *self._model.supported_languages):
            raise UserError(f"--asr.language {settings.language}: is not a language code of Whisper's; use a code such as en, or auto")

        @cache
        def tokenizer(language: str) -> Any:
            code = language if self.multilingual else "en"
            return Tokenizer(self._model.hf_tokenizer, self.multilingual, task="transcribe", language=code)

        self._tokenizer = tokenizer
        self._suppressed = get_suppressed_tokens(tokenizer("en"), [-1])
        self.keep_states = False
        self.aligned_states: EncoderStates | None = None
        self.device, self.compute_type = device, self._model.model.compute_type

    def describe(self) -> dict[str, Any]:
        """See `Transcriber`."""
        return {
            "engine": self.settings.engine,
            "model": self.settings.name,
            "model_sha256": sha256_of(Path(self.settings.model) / "model.bin"),
            "multilingual": self.multilingual,
            "compute_type": self.compute_type,
            "device": self.device,
            "language": self.settings.language,
            "language_detected": self.multilingual,
            "chinese": how_written(self.settings.chinese),
            "beam_size": self.settings.beam_size,
            "windows_mel_frames": list(WINDOWS),
            "limits": vars(self.settings.limits),
        }

    def transcribe(self, sound: np.ndarray, speech: Speech) -> Transcript:
        """Transcribe one clip, [samples] float32 at 16,000 Hz."""
        return self.transcribe_many([sound], [speech])[0]

    def transcribe_many(self, sounds: Sequence[np.ndarray], speeches: Sequence[Speech]) -> list[Transcript]:
        """See `Transcriber`. Clips that fit the same window form a batch: most of a decoding step is spent on reading the vocabulary's
        weights, which they share. The results do not depend on the batch."""
        clips: dict[int, _Clip] = {}
        found: dict[int, Transcript] = {}
        for number, (sound, speech) in enumerate(zip(sounds, speeches, strict=True)):
            heard, cut = cut_to_speech(sound, speech)
            frames = len(heard) * 100 // SAMPLE_RATE
            if frames > WINDOWS[-1]:
                found[number] = self._transcribe_long(heard, cut, speech)
            else:
                features = self._model.feature_extractor(np.asarray(heard, np.float32))[:, :frames]
                clips[number] = _Clip(features, cut, speech, windows_for(frames))
        todo = list(clips.values())
        while todo:
            groups: dict[int, list[_Clip]] = defaultdict(list)
            for clip in todo:
                groups[clip.windows.pop(0)].append(clip)
            for window, group in groups.items():
                self._try_window(group, window)
            todo = [clip for clip in todo if not clip.settled]
        found.update((number, clip.best()) for number, clip in clips.items())
        return [found[number] for number in range(len(sounds))]

    def _try_window(self, group: list[_Clip], window: int) -> None:
        """Transcribe clips in one window, which adds to their `tries`."""
        encoded = self._encode([clip.features for clip in group], window)
        if self.keep_states and any(clip.states is None for clip in group):
            for clip, states in zip(group, self._states_of(encoded, [clip.features for clip in group]), strict=True):
                clip.states = clip.states or EncoderStates(states, STATES_HZ, clip.cut)
        wanted = self.settings.language
        if not self.multilingual:
            self._generate(group, window, encoded, "en", [None] * len(group))
            return
        by_language: dict[str, list[tuple[_Clip, float]]] = defaultdict(list)
        for clip, guesses in zip(group, self._model.model.detect_language(encoded), strict=True):
            code, probability = guesses[0][0].strip("<|>"), float(guesses[0][1])
            if wanted not in ("auto", code) and probability >= LANGUAGE_PROBABILITY:
                clip.tries.append(another_language(code, probability))
            else:
                by_language[code if wanted == "auto" else wanted].append((clip, probability))
        for language, members in by_language.items():
            chosen = [clip for clip, _ in members]
            if len(chosen) < len(group):
                encoded = self._encode([clip.features for clip in chosen], window)
            self._generate(chosen, window, encoded, language, [probability for _, probability in members])

    def _encode(self, features: Sequence[np.ndarray], window: int) -> Any:
        # padded with 0 in the scaled log-mel domain, as faster-whisper does
        padded = np.zeros((len(features), features[0].shape[0], window), np.float32)
        for row, clip in zip(padded, features, strict=True):
            row[:, : clip.shape[1]] = clip[:, :window]
        if self.device != "cpu" or len(padded) <= ENCODED_TOGETHER:
            return self._model.encode(padded)
        import ctranslate2

        states = [
            np.asarray(self._model.encode(padded[start : start + ENCODED_TOGETHER])) for start in range(0, len(padded), ENCODED_TOGETHER)
        ]
        return ctranslate2.StorageView.from_array(np.concatenate(states))

    def _states_of(self, encoded: Any, features: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The encoder's output as arrays [frames, D] float32, without the padding."""
        if self.device != "cpu":
            import ctranslate2

            encoded = encoded.to_device(ctranslate2.Device.cpu).to(ctranslate2.DataType.float32)
        batch = np.asarray(encoded)
        lengths = [max(1, (clip.shape[1] + 1) // 2) for clip in features]
        return [np.array(row[:length], np.float32) for row, length in zip(batch, lengths, strict=True)]

    def encoder_states(self, sound: np.ndarray, layer: str) -> EncoderStates:
        """The states of the encoder's last layer for a clip, [samples] float32 at 16,000 Hz, by a pass of its own; 30 s at a time.

        Raises:
            UserError: another layer is requested.
        """
        if layer != LAST_LAYER:
            raise UserError(
                f"--audio-layer {layer}: faster-whisper's encoder gives its last layer only; use --asr.engine openai-whisper, or --audio "
                "hf:NAME_OR_DIR with a Whisper model of transformers"
            )
        heard, cut = cut_to_speech(sound, find_speech(sound))
        parts = []
        for start in range(0, max(len(heard), 1), WINDOWS[-1] * SAMPLE_RATE // 100):
            piece = np.asarray(heard[start : start + WINDOWS[-1] * SAMPLE_RATE // 100], np.float32)
            frames = max(2, len(piece) * 100 // SAMPLE_RATE)
            features = self._model.feature_extractor(np.pad(piece, (0, max(0, frames * SAMPLE_RATE // 100 - len(piece)))))[:, :frames]
            parts += self._states_of(self._encode([features], windows_for(frames)[0]), [features])
        return EncoderStates(np.concatenate(parts), STATES_HZ, cut)

    def _generate(self, group: list[_Clip], window: int, encoded: Any, language: str, sure: Sequence[float | None]) -> None:
        tokenizer = self._tokenizer(language)
        frames = [min(clip.features.shape[1], window) for clip in group]
        results = self._model.model.generate(
            encoded,
            [[*tokenizer.sot_sequence, tokenizer.no_timestamps]] * len(group),
            beam_size=self.settings.beam_size,
            max_length=min(self._model.max_length, 16 + max(frames) * TOKENS_PER_SECOND // 100),
            return_scores=True,
            return_no_speech_prob=True,
            suppress_blank=True,
            suppress_tokens=self._suppressed,
        )
        tokens = [[token for token in result.sequences_ids[0] if token < tokenizer.eot] for result in results]
        aligned = self._align(tokenizer, tokens, encoded, frames)
        for clip, result, spoken, probability in zip(group, results, aligned, sure, strict=True):
            details = {"window": window}
            scores = float(result.scores[0]), float(result.no_speech_prob)
            clip.tries.append(self._transcript(spoken, clip.cut, clip.speech, language, *scores, probability, details))

    def _transcript(
        self,
        spoken: list[SpokenWord],
        cut: float,
        speech: Speech,
        language: str,
        log_probability: float,
        no_speech_probability: float,
        sure: float | None,
        details: dict[str, Any],
    ) -> Transcript:
        for word in spoken:
            word.start, word.end = word.start + cut, word.end + cut
        if language in ("zh", "yue") and self.settings.chinese == SIMPLIFIED:
            spoken = simplify(spoken)
        text, words = join_words(spoken)
        trim_to_speech(words, speech)
        found = Transcript(text, words, language, log_probability, no_speech_probability, sure, details=details)
        found.doubt = find_doubt(found, self.settings.limits)
        found.details["stops_early"] = stops_early(found, speech)
        return found

    def _align(self, tokenizer: Any, tokens: list[list[int]], encoded: Any, frames: list[int]) -> list[list[SpokenWord]]:
        """The words of texts with their times, by the cross-attention of the given tokens."""
        from faster_whisper.transcribe import merge_punctuations

        if not any(tokens):
            return [[] for _ in tokens]
        stand_in = tokenizer.encode(" -")  # for an empty text in a batch; its words are discarded
        pieces = self._model.find_alignment(tokenizer, [row or stand_in for row in tokens], encoded, frames)
        found = []
        for row, alignment in zip(tokens, pieces, strict=True):
            merge_punctuations(alignment, "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、")
            found.append(
                [
                    SpokenWord(piece["word"], float(piece["start"]), float(piece["end"]), float(piece["probability"]))
                    for piece in alignment
                    if row and piece["word"]
                ]
            )
        return found

    def align_words(self, sound: np.ndarray, text: str, words: list[Word], language: str) -> list[Word]:
        """See `Transcriber`. Only for clips up to 30 s, and with an English-only model only for English; other words get no times."""
        self.aligned_states = None
        if not self.multilingual and language != "en":
            return words
        speech = find_speech(sound)
        sound, cut = cut_to_speech(sound, speech)
        frames = len(sound) * 100 // SAMPLE_RATE
        tokenizer = self._tokenizer(language)
        tokens = [token for token in tokenizer.encode(" " + text.strip()) if token < tokenizer.eot]
        if not tokens or len(tokens) > MAX_TOKENS or not 0 < frames <= WINDOWS[-1]:
            return words
        features = self._model.feature_extractor(np.asarray(sound, np.float32))[:, :frames]
        window = windows_for(frames)[0]
        encoded = self._encode([features], window)
        if self.keep_states:
            self.aligned_states = EncoderStates(self._states_of(encoded, [features])[0], STATES_HZ, cut)
        spoken = self._align(tokenizer, [tokens], encoded, [frames])[0]
        for piece in spoken:
            piece.start, piece.end = piece.start + cut, piece.end + cut
        timed = times_of_words(text, words, spoken)
        trim_to_speech(timed, speech)
        return timed

    def _transcribe_long(self, sound: np.ndarray, cut: float, speech: Speech) -> Transcript:
        """Clips longer than 30 s: faster-whisper's own loop over windows."""
        wanted = None if self.settings.language == "auto" else self.settings.language
        sure = None
        if self.multilingual:
            code, sure, _ = self._model.detect_language(sound)
            if wanted is not None and code != wanted and sure >= LANGUAGE_PROBABILITY:
                return another_language(code, sure)
            wanted = wanted or code
        segments, info = self._model.transcribe(
            sound, language=wanted, beam_size=self.settings.beam_size, word_timestamps=True, condition_on_previous_text=False
        )
        kept = list(segments)
        spoken = [SpokenWord(word.word, word.start, word.end, word.probability) for segment in kept for word in segment.words or ()]
        lengths = np.asarray([max(1, len(segment.tokens)) for segment in kept] or [1], float)
        log_probability = float(np.average([segment.avg_logprob for segment in kept] or [0.0], weights=lengths))
        silent = float(np.average([segment.no_speech_prob for segment in kept] or [1.0], weights=lengths))
        return self._transcript(spoken, cut, speech, info.language, log_probability, silent, sure, {"window": WINDOWS[-1]})


def windows_for(frames: int) -> list[int]:
    """The windows (mel frames) to try for a clip: the shortest that contains it, the next one, the full one."""
    windows = [window for window in WINDOWS if frames + HEADROOM <= window] or [WINDOWS[-1]]
    return list(dict.fromkeys((*windows[:2], WINDOWS[-1])))
