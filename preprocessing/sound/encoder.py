"""States of a pretrained audio encoder of `transformers` (wav2vec2, HuBERT, WavLM, data2vec-audio, Whisper, ...) as audio features."""

import hashlib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from preprocessing.features import AudioExtractor, layer_number
from preprocessing.schema import FeatureInfo
from preprocessing.sound.rates import to_rate
from skesl_mug.console import quiet_libraries
from skesl_mug.errors import UserError

if TYPE_CHECKING:
    from preprocessing.pipeline import PipelineSettings

RATE_HZ = 10.0
LONGEST = 30.0  # seconds that are encoded at once: attention takes memory quadratic in time
SHORTEST = 0.1  # seconds: shorter sounds are padded with silence, else the convolutions leave no frame
BATCH = 8
SPEECH_INPUTS = ("input_values", "input_features")


def open_encoder(name: str, settings: "PipelineSettings") -> AudioExtractor:
    """The extractor `hf:NAME_OR_DIR`.

    Raises:
        UserError: the model cannot be loaded, does not encode sound, or lacks the layer of `settings.audio_layer`.
    """
    encoder = SpeechEncoder(name, settings.audio_layer)
    return AudioExtractor(
        encoder.sample_rate, encoder, encoder.info(), extract_many=encoder.encode_many if encoder.works_in_batches else None
    )


class SpeechEncoder:
    """An encoder with its weights: [samples] float32 to states [frames, D] float32, averaged to 10 frames per second.

    The sample rate and the normalisation of the sound are those of the model's feature extractor. Of a speech recogniser or a sequence-to-
    sequence model only the encoder is used.

    Raises:
        UserError: see `open_encoder`.
    """

    def __init__(self, name: str, layer: str):
        quiet_libraries()
        import torch

        self.name, self.layer = name, layer
        self._prepare, model = _load(name)
        encoder = model.get_encoder() if getattr(model.config, "is_encoder_decoder", False) else model
        self._input = str(getattr(encoder, "main_input_name", ""))
        if self._input not in SPEECH_INPUTS or not hasattr(self._prepare, "sampling_rate"):
            raise UserError(
                f"--audio hf:{name}: {type(model).__name__} does not encode sound; choose a model such as facebook/wav2vec2-base"
            )
        self.sample_rate = int(self._prepare.sampling_rate)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = encoder.to(self.device).requires_grad_(False)
        self._window = float(getattr(self._prepare, "chunk_length", 0) or 0)  # seconds, of models with a fixed input length
        self._digest = _digest(encoder)
        count = int(model.config.num_hidden_layers)
        self._number = layer_number(layer, count, name)
        self._last = self._number == count
        try:
            probe = self._encode([np.zeros(10 * self.sample_rate, np.float32)])[0]
            self._frames_hz, self.width = _frame_rate(probe, 10.0), probe.shape[1]
        except (ValueError, RuntimeError, TypeError) as error:
            raise UserError(f"--audio hf:{name}: {type(model).__name__} cannot be run on sound ({error}); choose another model") from error

        self.works_in_batches = self.device != "cpu" and self.ignores_padding()

    def ignores_padding(self) -> bool:
        """Whether the states of a clip do not depend on the others in its batch. It is tried out: those of wav2vec2-base (normalised
        over time) and data2vec-audio (stacked convolutions) do, in spite of the attention mask."""
        random = np.random.default_rng(0)
        long, short = (0.1 * random.standard_normal(int(seconds * self.sample_rate)).astype(np.float32) for seconds in (2.0, 1.0))
        alone, beside = self._encode([short])[0], self._encode([long, short])[1]
        return alone.shape == beside.shape and bool(np.abs(alone - beside).max() < 1e-2 * np.abs(alone).max())

    def info(self) -> FeatureInfo:
        """The entry of `dataset.json`."""
        settings = {"sample_rate": self.sample_rate, "layer": self.layer, "weights_sha256": self._digest, "encoder_hz": self._frames_hz}
        columns = [{"name": f"state_{place}", "unit": "state of the encoder"} for place in range(self.width)]
        return FeatureInfo(f"hf:{self.name}", RATE_HZ, columns, {"transformers": metadata.version("transformers")}, settings)

    def __call__(self, sound: np.ndarray) -> np.ndarray:
        """The features of one clip."""
        return self.encode_many([sound])[0]

    def encode_many(self, sounds: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The features of several clips, each independent of the others."""
        step = int((self._window or LONGEST) * self.sample_rate)
        pieces = [
            (number, sound[start : start + step]) for number, sound in enumerate(sounds) for start in range(0, max(len(sound), 1), step)
        ]
        found: list[list[np.ndarray]] = [[] for _ in sounds]
        together = BATCH if self.works_in_batches else 1
        for start in range(0, len(pieces), together):
            batch = pieces[start : start + together]
            shortest = int(SHORTEST * self.sample_rate)
            states = self._encode([np.pad(piece, (0, max(0, shortest - len(piece)))) for _, piece in batch])
            for (number, piece), values in zip(batch, states, strict=True):
                found[number].append(to_rate(values, self._frames_hz, RATE_HZ, len(piece) / self.sample_rate))
        return [np.concatenate(parts) for parts in found]

    def _encode(self, sounds: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The states of the layer for sounds of at most one window, each [frames, D] float32 without padding."""
        import torch

        given: dict[str, Any] = {"sampling_rate": self.sample_rate, "return_tensors": "pt"}
        if self._window:
            given |= {"padding": "max_length", "truncation": True}
        elif len(sounds) > 1:
            given |= {"padding": True, "return_attention_mask": True}
        inputs = {
            name: value.to(self.device) for name, value in self._prepare([np.asarray(s, np.float32) for s in sounds], **given).items()
        }
        with torch.inference_mode():
            result = self._model(**inputs, output_hidden_states=not self._last)
        states = result.last_hidden_state if self._last else result.hidden_states[self._number]
        longest, frames = max(map(len, sounds)), states.shape[1]
        if self._window:
            longest = int(self._window * self.sample_rate)
        lengths = [min(frames, max(1, round(frames * len(sound) / longest))) for sound in sounds]
        return [row[:length].float().cpu().numpy() for row, length in zip(states, lengths, strict=True)]


def _load(name: str) -> tuple[Any, Any]:
    """The feature extractor and the model of a hub name or folder."""
    from transformers import AutoFeatureExtractor, AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        prepare = AutoFeatureExtractor.from_pretrained(name)
        model = AutoModel.from_pretrained(name)
    except Exception as error:  # OSError, ValueError, KeyError, ImportError: not there, not a model, a damaged file
        if not Path(name).is_dir():
            raise UserError(
                f"--audio hf:{name}: is not a folder, and no audio encoder of that name could be loaded from the hub; check the name and "
                "the network, or use a folder"
            ) from error
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"--audio hf:{name}: cannot be loaded as an audio encoder ({reason}); choose another folder") from error
    return prepare, model.eval()


def _digest(model: Any) -> str:
    """SHA-256 of the weights, independent of where they are stored."""
    import torch

    digest = hashlib.sha256()
    for key, tensor in model.state_dict().items():
        digest.update(key.encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().reshape(-1)))
    return digest.hexdigest()


def _frame_rate(states: np.ndarray, seconds: float) -> float:
    """Frames per second of an encoder from its states of a sound, to a whole number: convolutions lose a frame at the edges."""
    return float(round(len(states) / seconds)) if len(states) >= seconds else len(states) / seconds
