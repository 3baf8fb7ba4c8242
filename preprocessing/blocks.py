"""Several extractors of a modality as one: each is a named block of columns, all at the frame rate of the slowest."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from preprocessing.extensions import AUDIO_FEATURES, VISION_FEATURES, block_names
from preprocessing.features import AudioExtractor, EncoderStates, VisionExtractor, VisionTrack
from preprocessing.schema import FeatureInfo
from preprocessing.sound.rates import to_rate

if TYPE_CHECKING:
    from preprocessing.layouts import Clip
    from preprocessing.media import Media
    from preprocessing.pipeline import PipelineSettings
    from preprocessing.transcription.transcript import Transcriber

BLOCKS = "blocks"
"""Key in the settings of joined features: the description of each block, in the order of its columns."""


def open_blocks(settings: "PipelineSettings", transcriber: "Transcriber | None") -> "AudioBlocks | None":
    """The extractors of `settings.audio` with their models loaded; None for `none`.

    Raises:
        UserError: an extractor's package or model is missing, or it needs a recogniser that is not there.
    """
    names = block_names(settings.audio, AUDIO_FEATURES)
    extractors: list[AudioExtractor] = []
    for name in names:
        extractor = AUDIO_FEATURES.get(name)(settings)
        extractors.append(extractor.attach(transcriber) if extractor.attach is not None else extractor)
    return AudioBlocks(extractors) if extractors else None


def open_vision(settings: "PipelineSettings") -> VisionExtractor | None:
    """The extractors of `settings.vision` with their models loaded; None for `none`.

    Raises:
        UserError: an extractor's package or model is missing.
    """
    extractors = [VISION_FEATURES.get(name)(settings) for name in block_names(settings.vision, VISION_FEATURES)]
    return VisionBlocks(extractors) if len(extractors) > 1 else extractors[0] if extractors else None


class AudioBlocks:
    """One or more extractors, called with the decoded clip."""

    def __init__(self, extractors: Sequence[AudioExtractor]):
        self._extractors = list(extractors)
        self.info = joined_info([extractor.info for extractor in self._extractors])
        self._ahead: dict[tuple[int, int], np.ndarray] = {}

    def warm_up(self) -> None:
        """Load what the extractors load at their first call."""
        for extractor in self._extractors:
            extractor.warm_up()

    def compute_ahead(self, clips: "Sequence[Media]") -> None:
        """Run the extractors that work on batches (models on a GPU) on these clips now; `extract` takes the results. If that fails, it
        tries each clip alone, so that only the faulty one is skipped."""
        self._ahead.clear()
        heard = [clip for clip in clips if clip.sound is not None]
        for number, extractor in enumerate(self._extractors):
            if extractor.extract_many is not None and heard:
                with suppress(Exception):
                    found = extractor.extract_many([clip.sound_at(extractor.sample_rate) for clip in heard])
                    self._ahead.update({(number, id(clip)): values for clip, values in zip(heard, found, strict=True)})

    def extract(self, clip: "Media", states: EncoderStates | None = None) -> np.ndarray:
        """The columns of all blocks, [frames, columns] float32.

        Args:
            clip: with sound.
            states: what the recogniser's encoder made of it, if it has run.
        """
        values = [self._values(number, clip, states) for number in range(len(self._extractors))]
        if len(values) == 1:
            return values[0]
        rates = [extractor.info.rate_hz for extractor in self._extractors]
        seconds = len(clip.sound) / clip.sound_rate if clip.sound is not None else 0.0
        parts = [to_rate(part, rate, self.info.rate_hz, seconds) for part, rate in zip(values, rates, strict=True)]
        return np.concatenate(parts, axis=1)

    def _values(self, number: int, clip: "Media", states: EncoderStates | None) -> np.ndarray:
        extractor = self._extractors[number]
        ready = self._ahead.pop((number, id(clip)), None)
        if ready is not None:
            return ready
        sound = clip.sound_at(extractor.sample_rate)
        return extractor.extract(sound) if extractor.extract_states is None else extractor.extract_states(sound, states)


class VisionBlocks:
    """Several vision extractors: a frame is valid if each of them sees a face in it. The times are those of the first."""

    def __init__(self, extractors: Sequence[VisionExtractor]):
        self._extractors = list(extractors)
        self.info = joined_info([extractor.info for extractor in self._extractors])
        self.needs_frames = any(extractor.needs_frames for extractor in self._extractors)

    def extract(self, clip: "Clip", decoded: "Media") -> VisionTrack | None:
        """The columns of all blocks; None if one of them sees no face."""
        found = [extractor.extract(clip, decoded) for extractor in self._extractors]
        seen = [track for track in found if track is not None]
        if len(seen) < len(found):
            return None
        tracks = [at_times(track, seen[0].times) for track in seen]
        valid = np.logical_and.reduce([track.valid for track in tracks])
        return VisionTrack(np.concatenate([track.values for track in tracks], axis=1), tracks[0].times, valid) if valid.any() else None

    def close(self) -> None:
        """Free the models."""
        for extractor in self._extractors:
            extractor.close()


def at_times(track: VisionTrack, times: np.ndarray) -> VisionTrack:
    """A track at other times [T] in seconds: values interpolated, valid where the nearest frame is."""
    if np.array_equal(track.times, times):
        return track
    values = np.stack([np.interp(times, track.times, column) for column in track.values.T], axis=1).astype(np.float32)
    nearest = np.abs(times[:, None] - track.times).argmin(axis=1)
    return VisionTrack(values, times, track.valid[nearest])


def joined_info(infos: Sequence[FeatureInfo]) -> FeatureInfo:
    """The entry of `dataset.json` for several blocks; that of one is its own."""
    if len(infos) == 1:
        return infos[0]
    columns = [{**column, "name": f"{short_name(info.extractor)}/{column['name']}"} for info in infos for column in info.columns]
    blocks = [{name: value for name, value in asdict(info).items() if name != "columns"} | {"width": info.width} for info in infos]
    versions = {name: version for info in infos for name, version in info.versions.items()}
    rate = min(info.rate_hz for info in infos)
    return FeatureInfo("+".join(info.extractor for info in infos), rate, columns, versions, {BLOCKS: blocks})


def short_name(extractor: str) -> str:
    """An extractor's name in column names: of a model, its folder's name instead of the path."""
    kind, _, model = extractor.partition(":")
    return f"{kind}:{Path(model).name}" if model else extractor


def blocks_of(info: FeatureInfo | None) -> list[FeatureInfo]:
    """The description of each block of joined features; other features are one block, None is no block."""
    if info is None:
        return []
    blocks: list[Mapping[str, Any]] = info.settings.get(BLOCKS) or []
    found, first = [], 0
    for block in blocks:
        columns = info.columns[first : first + block["width"]]
        first += block["width"]
        names = [{**column, "name": column["name"].removeprefix(f"{short_name(block['extractor'])}/")} for column in columns]
        found.append(FeatureInfo(block["extractor"], block["rate_hz"], names, block["versions"], block["settings"]))
    return found or [info]


def identity(info: FeatureInfo) -> list[list[str]]:
    """What decides the meaning of the columns: per block its extractor, and the layer and the weights of an encoder."""
    keys = ("layer", "weights_sha256", "model_sha256")
    return [[block.extractor, *(str(block.settings[key]) for key in keys if key in block.settings)] for block in blocks_of(info)]


def places_of(info: FeatureInfo | None, extractor: str) -> dict[str, int]:
    """Where the columns of a block lie in a row of features, by name; empty if it is not there."""
    first = 0
    for block in blocks_of(info):
        if block.extractor == extractor:
            return {column["name"]: first + place for place, column in enumerate(block.columns)}
        first += block.width
    return {}
