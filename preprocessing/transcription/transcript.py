"""Transcripts: what a recognition engine returns, where speech is, when a text is doubtful, and times for the words of a given text."""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from lexicons.lexicon import bare_span
from preprocessing.schema import Word

if TYPE_CHECKING:
    from preprocessing.features import EncoderStates

SAMPLE_RATE = 16_000
FASTER_WHISPER, OPENAI_WHISPER = "faster-whisper", "openai-whisper"
LANGUAGE_PROBABILITY = 0.5  # from here on a detected language overrules the corpus's
SPEECH_MARGIN = 0.1  # seconds that speech may extend beyond what voice activity detection found
KEPT_SILENCE = 0.3  # seconds on either side of the speech
MIN_CUT = 1.0  # seconds of silence; cutting less saves nothing, and Whisper repeats itself if speech ends at the very edge
SILENCE_PEAK = 1e-3  # -60 dB of full scale: below it there is nothing to hear, whatever a model finds
EARLY_END = 1.0  # seconds of speech left after the last word: the text stopped early
SIMPLIFIED = "simplified"
NOT_SIMPLIFIED = "as recognised, because the package opencc is not installed (extra `chinese`)"


@dataclass
class SpokenWord:
    """A recognised word as the engine writes it (with spaces and punctuation), its times in seconds and its probability."""

    text: str
    start: float
    end: float
    probability: float


class Doubt(NamedTuple):
    """Why a text is not to be trusted: a skip's reason, and the measurement."""

    reason: str
    detail: str


@dataclass
class Transcript:
    """The text of a clip. `average_log_probability` is per token, `no_speech_probability` the engine's estimate.

    `doubt` says why the text is not to be trusted (None: it is). A clip in another language than requested has no text and the doubt
    `language`. `language_probability` is None if the language was not detected. `states` are those of the encoder (`keep_states`).
    """

    text: str
    words: list[Word]
    language: str
    average_log_probability: float
    no_speech_probability: float
    language_probability: float | None = None
    doubt: Doubt | None = None
    details: dict[str, Any] = field(default_factory=dict)
    states: "EncoderStates | None" = field(default=None, compare=False, repr=False)


@dataclass
class Speech:
    """Seconds of speech in a clip, the start of the first and the end of the last."""

    seconds: float
    start: float
    end: float


class Transcriber(Protocol):
    """A speech recognition engine with its model loaded. Sounds are [samples] float32 at 16,000 Hz.

    With `keep_states`, transcripts have the states of the encoder (in engines that can reuse them); `aligned_states` are those of the last
    call of `align_words`, None if it did not run the encoder.
    """

    keep_states: bool
    aligned_states: "EncoderStates | None"

    def transcribe_many(self, sounds: Sequence[np.ndarray], speeches: Sequence[Speech]) -> list[Transcript]:
        """Transcribe clips, ignoring silence before and after the speech."""
        ...

    def align_words(self, sound: np.ndarray, text: str, words: list[Word], language: str) -> list[Word]:
        """The words of a given text with the times at which they are spoken, or without times if these cannot be found."""
        ...

    def encoder_states(self, sound: np.ndarray, layer: str) -> "EncoderStates":
        """The states of the encoder for a clip, by a pass of its own; `layer` is `last`, a number from 1, or `all` (side by side)."""
        ...

    def describe(self) -> dict[str, Any]:
        """Engine, model, its sha256, compute type, language and settings, for `dataset.json`."""
        ...


@dataclass(frozen=True, kw_only=True)
class DoubtLimits:
    """When a text is doubtful. The first three values are Whisper's own (Radford et al. 2022, section 4.5).

    As there, a high no-speech probability counts only together with a low log probability.
    """

    no_speech_probability: float = 0.6
    log_probability: float = -1.0
    compression_ratio: float = 2.4
    repeated_phrases: bool = True


@dataclass(kw_only=True)
class WhisperSettings:
    """A model on disk (see `find_model`) and how to run it.

    `language` is the corpus's: with a multilingual model, clips detected as another one get no text but the doubt `language`; "auto"
    transcribes every clip in its detected language. `chinese` is "simplified" or "as-recognised".
    """

    model: str
    name: str
    engine: str = FASTER_WHISPER
    language: str = "en"
    device: str = "auto"
    compute_type: str = "auto"
    beam_size: int = 5
    chinese: str = "simplified"
    limits: DoubtLimits = field(default_factory=DoubtLimits)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def another_language(language: str, probability: float) -> Transcript:
    """The transcript of a clip that is not transcribed because of its language."""
    doubt = Doubt("language", f"{language}, probability {probability:.2f}")
    return Transcript("", [], language, 0.0, 0.0, probability, doubt)


def trim_to_speech(words: list[Word], speech: Speech | None) -> None:
    """Remove silence before the first and after the last speech from the word times: Whisper adds it to the outermost words."""
    if speech is None or not speech.seconds:
        return
    first, last = speech.start - SPEECH_MARGIN, speech.end + SPEECH_MARGIN
    for word in words:
        if word.start is not None and word.end is not None:
            word.start = min(max(word.start, first, 0.0), max(word.end, 0.0))
            word.end = max(min(word.end, last), word.start)


def join_words(spoken: list[SpokenWord]) -> tuple[str, list[Word]]:
    """The text of spoken words and the position of each in it, without surrounding punctuation.

    Pieces of punctuation alone stay in the text but are not words.
    """
    text = ""
    words: list[Word] = []
    for piece in spoken:
        written = piece.text if text else piece.text.lstrip()
        first, last = bare_span(written)
        if last > first:
            start = len(text) + first
            words.append(Word(written[first:last], start, len(text) + last, piece.start, piece.end, piece.probability))
        text += written
    return text.rstrip(), words


def cut_to_speech(sound: np.ndarray, speech: Speech) -> tuple[np.ndarray, float]:
    """The sound from `KEPT_SILENCE` seconds before the first speech to as long after the last, and the seconds cut off before it.

    If less than `MIN_CUT` seconds would be cut, the sound is left as it is.
    """
    if not speech.seconds:
        return sound, 0.0
    first = max(0, int((speech.start - KEPT_SILENCE) * SAMPLE_RATE))
    last = min(len(sound), int((speech.end + KEPT_SILENCE) * SAMPLE_RATE))
    if len(sound) - (last - first) < MIN_CUT * SAMPLE_RATE:
        return sound, 0.0
    return sound[first:last], first / SAMPLE_RATE


def find_speech(sound: np.ndarray) -> Speech:
    """Measure the speech in a clip ([samples] float32 at 16,000 Hz); all zeros if there is none."""
    spans = speech_spans(sound)
    if not spans:
        return Speech(0.0, 0.0, 0.0)
    return Speech(sum(end - start for start, end in spans), spans[0][0], spans[-1][1])


def speech_spans(sound: np.ndarray) -> list[tuple[float, float]]:
    """Start and end (seconds) of each stretch of speech, by the Silero model in faster-whisper; pauses below 0.3 s are included.

    Args:
        sound: [samples] float32 at 16,000 Hz.
    """
    if len(sound) == 0 or float(np.abs(sound).max()) < SILENCE_PEAK:
        return []
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    spans = get_speech_timestamps(sound, VadOptions(min_silence_duration_ms=300, speech_pad_ms=0))
    return [(span["start"] / SAMPLE_RATE, span["end"] / SAMPLE_RATE) for span in spans]


def find_doubt(found: Transcript, limits: DoubtLimits) -> Doubt | None:
    """The first doubt about a text, as a skip's reason with the measurement; None if there is none."""
    unsure = found.average_log_probability < limits.log_probability
    if unsure and found.no_speech_probability > limits.no_speech_probability:
        return Doubt("no_speech_probability", f"{found.no_speech_probability:.2f}, log probability {found.average_log_probability:.2f}")
    if compression_ratio(found.text) > limits.compression_ratio:
        return Doubt("compression_ratio", f"{compression_ratio(found.text):.1f}")
    if limits.repeated_phrases and repeats_phrase([word.text.casefold() for word in found.words]):
        return Doubt("repeated_phrase", "the same words are repeated immediately")
    if unsure:
        return Doubt("log_probability", f"{found.average_log_probability:.2f}")
    return None


def compression_ratio(text: str) -> float:
    """The length of a text in bytes over its length compressed by zlib; high if it repeats itself."""
    written = text.encode()
    return len(written) / len(zlib.compress(written)) if written else 0.0


def stops_early(found: Transcript, speech: Speech | None) -> bool:
    """Whether speech continues for more than a second after the last word, by voice activity detection."""
    ends = [word.end for word in found.words if word.end is not None]
    return bool(speech is not None and ends and speech.end - max(ends) > EARLY_END)


def repeats_phrase(words: Sequence[str], shortest: int = 3) -> bool:
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


@lru_cache(maxsize=1)
def _converter() -> Any:
    try:
        from opencc import OpenCC
    except ImportError:
        return None
    return OpenCC("t2s")


def how_written(wanted: str) -> str:
    """The entry of `dataset.json` about Chinese characters: `wanted`, or why it could not be done."""
    return wanted if wanted != SIMPLIFIED or _converter() is not None else NOT_SIMPLIFIED


def simplify(spoken: list[SpokenWord]) -> list[SpokenWord]:
    """Spoken words with traditional Chinese characters simplified by OpenCC; times and probabilities are unchanged.

    The text is converted in one piece, because some characters depend on their neighbours; if that changes its length, word by word.
    Without OpenCC the words are returned as they are.
    """
    if _converter() is None:
        return spoken
    texts = [word.text for word in spoken]
    joined = str(_converter().convert("".join(texts)))
    if len(joined) == sum(map(len, texts)):
        place = 0
        for number, text in enumerate(texts):
            texts[number] = joined[place : place + len(text)]
            place += len(text)
    else:
        texts = [str(_converter().convert(text)) for text in texts]
    return [SpokenWord(text, word.start, word.end, word.probability) for text, word in zip(texts, spoken, strict=True)]


def times_of_words(text: str, words: Sequence[Word], spoken: Sequence[SpokenWord]) -> list[Word]:
    """The words with the times of the force-aligned pieces that overlap them; their probability is the mean of those pieces'.

    The pieces are the same text, tokenised in the recogniser's way. They are matched character by character, ignoring spaces; after the
    first mismatch words have no times.
    """
    places = [place for place, character in enumerate(text) if not character.isspace()]
    covered: list[tuple[int, int, SpokenWord]] = []
    count = 0
    for piece in spoken:
        letters = "".join(piece.text.split())
        found = "".join(text[place] for place in places[count : count + len(letters)])
        if found != letters:
            break
        if letters:
            covered.append((places[count], places[count + len(letters) - 1] + 1, piece))
        count += len(letters)
    return [_timed(word, [piece for start, end, piece in covered if start < word.end_char and word.start_char < end]) for word in words]


def _timed(word: Word, pieces: list[SpokenWord]) -> Word:
    if not pieces:
        return word
    probability = sum(piece.probability for piece in pieces) / len(pieces)
    return replace(word, start=pieces[0].start, end=pieces[-1].end, probability=probability)
