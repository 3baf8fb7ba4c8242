"""Speech recognition: finding and opening Whisper models in two engines."""

from pathlib import Path

from preprocessing.transcription.embedded import EMBEDDED, EMBEDDED_MULTILINGUAL, embedded_model
from preprocessing.transcription.transcript import FASTER_WHISPER, OPENAI_WHISPER, Transcriber, WhisperSettings
from skesl_mug.errors import UserError


def open_transcriber(settings: WhisperSettings) -> Transcriber:
    """Load the model in its engine.

    Raises:
        UserError: it cannot be loaded, or does not support the settings.
    """
    if settings.engine == OPENAI_WHISPER:
        from preprocessing.transcription.whisper_openai import WhisperOpenAI

        return WhisperOpenAI(settings)
    from preprocessing.transcription.whisper_ct2 import WhisperCT2

    return WhisperCT2(settings)


def find_model(name: str, engine: str = FASTER_WHISPER) -> Path:
    """The folder (openai-whisper: the file) of a model that is embedded, given as a path, or by name (cached, else downloaded).

    Raises:
        UserError: it does not exist.
    """
    if engine == OPENAI_WHISPER:
        from preprocessing.transcription.whisper_openai import find_checkpoint

        return find_checkpoint(name)
    if name in (EMBEDDED, EMBEDDED_MULTILINGUAL):
        return embedded_model(name)
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "model.bin").is_file():
            raise UserError(f"--asr.model {name}: contains no CTranslate2 model (model.bin); convert one with ct2-transformers-converter")
        return folder
    import faster_whisper.utils

    try:
        return Path(faster_whisper.utils.download_model(name))
    except Exception as error:  # whatever the hub's client raises: unknown name, no network, no access
        raise UserError(
            f"--asr.model {name}: is not a folder, and no model of that name could be downloaded; "
            f"use {EMBEDDED}, {EMBEDDED_MULTILINGUAL} or a folder"
        ) from error
