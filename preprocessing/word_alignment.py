"""Word-aligned features: one row a word, as the field's `aligned_50` files have them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from preprocessing.schema import FeatureInfo, Word
from preprocessing.vision.track import VisionTrack


def spans_of(words: Sequence[Word]) -> np.ndarray | None:
    """Start and end of each word in seconds, [words, 2]; None where a word has no times."""
    if any(word.start is None or word.end is None for word in words):
        return None
    return np.array([(word.start, word.end) for word in words], np.float64).reshape(-1, 2)


def mean_over_words(values: np.ndarray, times: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """The mean of the frames within each word, [words, D]; of a word that no frame falls into, the frame nearest to its middle.

    Args:
        values: [T, D].
        times: [T], seconds.
        spans: [words, 2], start and end in seconds.
    """
    return np.stack([values[places].mean(axis=0) for places in _frames_of(times, spans)]).astype(values.dtype)


def align_track(track: VisionTrack, spans: np.ndarray) -> VisionTrack:
    """A vision track by words: means over the frames with a face, at the words' middles; a word without such a frame is not valid."""
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
    """The description of features once they are aligned: no fixed rate, one row a word."""
    if info is None:
        return None
    return replace(
        info, rate_hz=0.0, settings={**info.settings, "aligned": "words: mean over the frames of each", "frame_rate": info.rate_hz}
    )
