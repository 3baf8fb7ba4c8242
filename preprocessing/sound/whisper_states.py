"""The states of the recogniser's own encoder as audio features: it has run over the clip anyway."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from preprocessing.features import AudioExtractor, EncoderStates
from preprocessing.schema import FeatureInfo
from preprocessing.sound.rates import to_rate
from preprocessing.transcription.transcript import SAMPLE_RATE
from skesl_mug.errors import UserError

if TYPE_CHECKING:
    from preprocessing.pipeline import PipelineSettings
    from preprocessing.transcription.transcript import Transcriber

NAME = "whisper"
RATE_HZ = 10.0
IDENTITY = ("engine", "model_sha256")
"""What decides the states, of the description of the recogniser. The compute type, which changes them slightly, is not part of it."""


def open_whisper(settings: "PipelineSettings") -> AudioExtractor:
    """The extractor `whisper`, which has to be attached to the recogniser."""

    def unattached(sound: np.ndarray) -> np.ndarray:
        raise ValueError("the extractor `whisper` works with a recogniser only")

    return AudioExtractor(SAMPLE_RATE, unattached, FeatureInfo(NAME, RATE_HZ, []), attach=partial(attach, settings.audio_layer))


def attach(layer: str, transcriber: "Transcriber | None") -> AudioExtractor:
    """The extractor over a recogniser: states of its encoder, averaged to 10 frames per second.

    Silence before and after the speech, which recognition cuts off, repeats the nearest state. Where recognition did not encode the clip (a
    given transcript without alignment, a part of a longer recording, more than 30 s, openai-whisper), the encoder runs once more.

    Raises:
        UserError: there is no recogniser, or its encoder does not give this layer.
    """
    if transcriber is None:
        raise UserError("--audio whisper: needs the speech recogniser, but --asr.model is none; choose a model, or other audio features")
    width = transcriber.encoder_states(np.zeros(SAMPLE_RATE, np.float32), layer).values.shape[1]
    transcriber.keep_states = True

    def extract_states(sound: np.ndarray, states: EncoderStates | None) -> np.ndarray:
        return pooled(states or transcriber.encoder_states(sound, layer), len(sound) / SAMPLE_RATE)

    about = transcriber.describe()
    settings = {name: about.get(name) for name in IDENTITY} | {"layer": layer}
    columns = [{"name": f"state_{place}", "unit": "state of the encoder"} for place in range(width)]
    return AudioExtractor(
        SAMPLE_RATE, partial(extract_states, states=None), FeatureInfo(NAME, RATE_HZ, columns, {}, settings), extract_states=extract_states
    )


def pooled(states: EncoderStates, seconds: float) -> np.ndarray:
    """States over a clip of this length at 10 frames per second, [frames, D] float32; before and after them, the first and the last."""
    count = max(1, round(seconds * states.rate_hz))
    places = np.clip(np.arange(count) - round(states.start * states.rate_hz), 0, len(states.values) - 1)
    return to_rate(states.values[places], states.rate_hz, RATE_HZ, seconds)
