"""Feature frames at another rate: frame k of every sequence is centred at k / rate seconds."""

import numpy as np


def to_rate(values: np.ndarray, rate_hz: float, wanted_hz: float, seconds: float) -> np.ndarray:
    """Features of a clip at another frame rate, [round(seconds * wanted_hz) or at least 1, D] float32.

    To a lower rate: the mean of the frames nearest to each new one. To a higher rate, or where there is none: linear interpolation.

    Args:
        values: [T, D] at `rate_hz` frames per second, T at least 1.
        seconds: length of the clip.
    """
    count = max(1, round(seconds * wanted_hz))
    at = np.arange(count) / wanted_hz
    if wanted_hz >= rate_hz:
        return _interpolated(values, rate_hz, at)
    owners = np.floor(np.arange(len(values)) * (wanted_hz / rate_hz) + 0.5).astype(int)
    used = owners < count
    owners, sums = owners[used], np.zeros((count, values.shape[1]))
    filled, first = np.unique(owners, return_index=True)  # in order: `owners` never falls
    sums[filled] = np.add.reduceat(values[used], first, axis=0)
    frames = np.bincount(owners, minlength=count)
    means = sums / np.maximum(frames, 1)[:, None]
    if (frames == 0).any():
        means[frames == 0] = _interpolated(values, rate_hz, at[frames == 0])
    return np.asarray(means, np.float32)


def _interpolated(values: np.ndarray, rate_hz: float, at: np.ndarray) -> np.ndarray:
    """The features at times `at` [N] in seconds, [N, D]; before the first and after the last frame theirs."""
    places = np.clip(at * rate_hz, 0.0, len(values) - 1.0)
    low = np.floor(places).astype(int)
    share = (places - low)[:, None]
    return np.asarray(values[low] * (1.0 - share) + values[np.minimum(low + 1, len(values) - 1)] * share, np.float32)
