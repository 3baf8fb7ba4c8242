"""Feature extractors: what the pipeline expects of one, how plugins are wrapped as one, and how features are aligned to words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from preprocessing.schema import FeatureInfo, Word
from skesl_mug.errors import UserError
from skesl_mug.registry import definition_name, fingerprint, plugin_errors, plugin_failure

if TYPE_CHECKING:
    from preprocessing.extensions import Columns
    from preprocessing.layouts import Clip
    from preprocessing.media import Media
    from preprocessing.pipeline import PipelineSettings
    from preprocessing.transcription.transcript import Transcriber


@dataclass
class VisionTrack:
    """Features of the frames of a clip: `values` [T, D] float32, `times` [T] in seconds, `valid` [T] bool (was there a face).

    Invalid rows are interpolated linearly between the frames around them (or copied from the nearest frame at either end).
    """

    values: np.ndarray
    times: np.ndarray
    valid: np.ndarray

    @property
    def face_rate(self) -> float:
        """Share of the frames with a face."""
        return float(self.valid.mean()) if len(self.valid) else 0.0


def fill_gaps(values: np.ndarray, times: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """`values` [T, D] with invalid rows interpolated in time; at least one row has to be valid."""
    if valid.all():
        return values
    known = times[valid]
    return np.stack([np.interp(times, known, column[valid]) for column in values.T], axis=1).astype(values.dtype)


class SkipError(Exception):
    """Ends the work on a clip, which becomes a skip with this reason and detail."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(detail)
        self.reason = reason


def layer_number(layer: str, count: int, model: str) -> int:
    """The number from 1 of a layer of an encoder with `count` layers, given as `last` or as a number.

    Raises:
        UserError: the encoder has fewer layers.
    """
    number = count if layer == "last" else int(layer)
    if number > count:
        raise UserError(f"--audio-layer {layer}: the encoder of {model} has {count} layers; use 1 to {count}, or last")
    return number


@dataclass
class EncoderStates:
    """States of a recogniser's encoder: `values` [T, D] float32 at `rate_hz`, the first of them `start` seconds into the clip."""

    values: np.ndarray
    rate_hz: float
    start: float


@dataclass(frozen=True)
class AudioExtractor:
    """Audio features: `extract` maps [samples] float32 at `sample_rate` Hz to [frames, columns] float32, frame k at k / rate_hz seconds.

    Attributes:
        extract_many: the same for several clips at once, where that is faster.
        attach: for features that the recogniser computes: called with it (None if there is none), returns the extractor to use.
        extract_states: used in place of `extract`, with the states of the recogniser's encoder if it has run over the clip.
    """

    sample_rate: int
    extract: Callable[[np.ndarray], np.ndarray]
    info: FeatureInfo
    warm_up: Callable[[], object] = field(default=lambda: None)
    extract_many: Callable[[Sequence[np.ndarray]], list[np.ndarray]] | None = None
    attach: "Callable[[Transcriber | None], AudioExtractor] | None" = None
    extract_states: Callable[[np.ndarray, EncoderStates | None], np.ndarray] | None = None


class VisionExtractor(Protocol):
    """Vision features. `needs_frames`: whether the clip's frames have to be decoded. `extract` may raise `SkipError`."""

    info: FeatureInfo
    needs_frames: bool

    def extract(self, clip: "Clip", decoded: "Media") -> VisionTrack | None:
        """The features of a clip; None if no frame shows a face."""
        ...

    def close(self) -> None:
        """Free the models."""
        ...


SOURCE = "source_sha256"
"""Key of a plugin's fingerprint (`skesl_mug.registry.fingerprint`) in the description of what it makes."""


def plugin_module(settings: Mapping[str, Any]) -> str | None:
    """The module of the plugin that made features with these settings; None for the toolkit's own."""
    name = settings.get("plugin")
    return None if name is None else str(name).partition(".<locals>")[0].rpartition(".")[0].replace("__mp_main__", "__main__")


RATE_TOLERANCE = 0.2
ROW_TOLERANCE = 2


@dataclass(frozen=True)
class _Plugin:
    """A registered function or class, and what its columns are called."""

    name: str
    maker: Callable[..., Any]
    columns: "Columns"

    def __post_init__(self) -> None:
        object.__setattr__(self, "__qualname__", self.maker.__qualname__)  # the registry recognises a second import by it

    def open(self) -> Callable[..., Any]:
        """The function, or an instance of the class.

        Raises:
            UserError: the class cannot be instantiated.
        """
        with plugin_errors(self.maker):
            return self.maker() if isinstance(self.maker, type) else self.maker

    def call(self, features: Callable[..., Any], *arguments: Any) -> Any:
        """What `features` (see `open`) returns.

        Raises:
            SkipError: it raises an exception, which costs the clip but not the job.
        """
        try:
            return features(*arguments)
        except SkipError:
            raise
        except Exception as error:
            raise SkipError("failed", plugin_failure(self.maker, error)) from error

    def info(self, rate_hz: float) -> FeatureInfo:
        """The entry of `dataset.json`."""
        units = self.columns if isinstance(self.columns, Mapping) else dict.fromkeys(self.columns, "")
        columns = [{"name": name, "unit": unit} for name, unit in units.items()]
        source = fingerprint(self.maker)
        settings = {"plugin": definition_name(self.maker)} | ({} if source is None else {SOURCE: source})
        return FeatureInfo(self.name, rate_hz, columns, {}, settings)

    def checked(self, values: Any, frames: int | None = None) -> np.ndarray:
        """The result of the plugin as float32.

        Raises:
            ValueError: its shape is not [frames, columns].
        """
        array = np.asarray(values, np.float32)
        if array.ndim != 2 or array.shape[1] != len(self.columns) or frames not in (None, len(array)):
            rows = "frames" if frames is None else frames
            raise ValueError(f"{self.name} returned an array of shape {array.shape}; expected [{rows}, {len(self.columns)}]")
        return array


@dataclass(frozen=True)
class AudioPlugin(_Plugin):
    """Factory of a plugin's audio extractor."""

    rate_hz: float
    sample_rate: int

    def __call__(self, settings: "PipelineSettings") -> AudioExtractor:
        """Open the extractor."""
        features = self.open()

        def extract(sound: np.ndarray) -> np.ndarray:
            values = self.checked(self.call(features, sound))
            seconds = len(sound) / self.sample_rate
            expected = self.rate_hz * seconds
            if abs(len(values) - expected) > max(ROW_TOLERANCE, RATE_TOLERANCE * expected):
                raise ValueError(
                    f"{self.name} returned {len(values)} rows for {seconds:.2f} s of sound; with rate_hz={self.rate_hz:g} about "
                    f"{expected:.0f} are expected"
                )
            if not np.isfinite(values).all():
                raise ValueError(f"{self.name} returned values that are not finite")
            return values

        return AudioExtractor(self.sample_rate, extract, self.info(self.rate_hz))


@dataclass(frozen=True)
class VisionPlugin(_Plugin):
    """Factory of a plugin's vision extractor."""

    def __call__(self, settings: "PipelineSettings") -> VisionExtractor:
        """Open the extractor."""
        return _PluginVision(self, settings.vision_fps)


class _PluginVision:
    needs_frames = True

    def __init__(self, plugin: VisionPlugin, rate_hz: float):
        self._plugin, self._features, self.info = plugin, plugin.open(), plugin.info(rate_hz)

    def extract(self, clip: "Clip", decoded: "Media") -> VisionTrack | None:
        if not decoded.frames:
            return None
        values = self._plugin.checked(self._plugin.call(self._features, decoded.frames, decoded.frame_times), len(decoded.frames))
        valid = np.isfinite(values).all(axis=1)
        if not valid.any():
            return None
        times = np.asarray(decoded.frame_times, np.float32)
        return VisionTrack(fill_gaps(np.where(valid[:, None], values, 0.0), times, valid), times, valid)

    def close(self) -> None:
        close = getattr(self._features, "close", None)
        if close is not None:
            close()


def spans_of(words: Sequence[Word]) -> np.ndarray | None:
    """Start and end of each word in seconds, [words, 2]; None if a word has no times."""
    if any(word.start is None or word.end is None for word in words):
        return None
    return np.array([(word.start, word.end) for word in words], np.float64).reshape(-1, 2)


def mean_over_words(values: np.ndarray, times: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """The mean of the frames within each word, [words, D]; for a word without frames, the frame nearest to its middle.

    Args:
        values: [T, D].
        times: [T], seconds.
        spans: [words, 2], start and end in seconds.
    """
    return np.stack([values[places].mean(axis=0) for places in _frames_of(times, spans)]).astype(values.dtype)


def align_track(track: VisionTrack, spans: np.ndarray) -> VisionTrack:
    """A vision track with one row per word: the mean over its frames with a face, timed at its middle; invalid without such a frame."""
    rows, valid = [], []
    for places in _frames_of(track.times, spans):
        seen = places[track.valid[places]]
        rows.append(track.values[seen if len(seen) else places].mean(axis=0))
        valid.append(len(seen) > 0)
    return VisionTrack(np.stack(rows).astype(np.float32), spans.mean(axis=1).astype(np.float32), np.array(valid, np.bool_))


def _frames_of(times: np.ndarray, spans: np.ndarray) -> list[np.ndarray]:
    found = []
    for start, end in spans:
        inside = np.nonzero((times >= start) & (times < end))[0]
        found.append(inside if len(inside) else np.array([int(np.abs(times - (start + end) / 2).argmin())]))
    return found


def aligned_info(info: FeatureInfo | None) -> FeatureInfo | None:
    """The description of features once they are aligned: one row per word instead of a fixed rate."""
    if info is None:
        return None
    return replace(
        info, rate_hz=0.0, settings={**info.settings, "aligned": "words: mean over the frames of each", "frame_rate": info.rate_hz}
    )
