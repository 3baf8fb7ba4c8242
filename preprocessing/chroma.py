"""librosa's `chroma_cqt`, faster: intermediate results are shared and filters cached; the values are librosa's (a test compares them).

A constant-Q transform is computed octave by octave, each on the sound at half the sample rate of the octave above. Relative to its own
rate every octave has the same filters, so one set serves all seven. It depends only on the clip's tuning, which librosa estimates in
hundredths of a bin, so about a hundred sets serve all clips.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import scipy.fft
import soxr

BINS = 36  # per octave
OCTAVES = 7
CHROMA_COUNT = 12
SPARSITY = 0.01  # share of a filter's magnitude that librosa discards
PEAK_SHARE = 0.1  # of a frame's maximum: quieter spectral peaks are not pitches
LOWEST, HIGHEST = 150.0, 4000.0  # Hz, the range of pitches
TUNING_STEP = 0.01


def chroma_cqt(sound: np.ndarray, magnitude: np.ndarray, rate: int, hop: int) -> np.ndarray:
    """`librosa.feature.chroma_cqt(y=sound, sr=rate, hop_length=hop)`, [12, frames].

    Equal within 1e-5 wherever there is sound; in digital silence both divide rounding errors by rounding errors.

    Args:
        sound: [samples] float32.
        magnitude: [1025, frames] of its short-time spectrum (Hann window of 2,048 samples, hop of 512), for the tuning.
        rate: Hz.
        hop: samples; a multiple of 2^6.
    """
    tuning = estimate_tuning(magnitude, rate)
    filters, width, lengths = octave_filters(round(tuning / TUNING_STEP), rate)
    responses = []
    for octave in range(OCTAVES):
        if octave:
            sound = _halve(sound)
        spectrum = _spectra(sound, width, hop >> octave)
        responses.append(np.abs(filters @ spectrum) * np.float32(2.0 ** (octave / 2)))
    frames = min(response.shape[1] for response in responses)
    octaves = np.stack([response[:, :frames] for response in reversed(responses)])
    octaves /= np.sqrt(lengths, dtype=np.float32).reshape(OCTAVES, BINS, 1)
    merged = _fold(octaves.sum(axis=0))
    largest = merged.max(axis=0)
    return merged / np.where(largest < np.finfo(np.float32).tiny, np.float32(1.0), largest)


def _fold(octave: np.ndarray) -> np.ndarray:
    """Sum 36 bins per octave, from C upwards, to 12 pitch classes of three bins each, with the pitch itself in the middle."""
    return np.asarray(np.roll(octave, 1, axis=0).reshape(CHROMA_COUNT, BINS // CHROMA_COUNT, -1).sum(axis=1))


def _halve(sound: np.ndarray) -> np.ndarray:
    """The sound at half its sample rate, with the same energy."""
    size = -(-len(sound) // 2)
    half = soxr.resample(sound, 2, 1, quality="soxr_hq")[:size]
    return np.pad(half, (0, size - len(half))) * np.float32(np.sqrt(2.0))


def _spectra(sound: np.ndarray, width: int, hop: int) -> np.ndarray:
    """Spectra [width / 2 + 1, frames] of unwindowed frames centred on each hop, zero-padded."""
    padded = np.pad(sound, width // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, width)[::hop]
    return np.asarray(scipy.fft.rfft(frames, axis=1).T)


@lru_cache(maxsize=128)
def octave_filters(tuning_steps: int, rate: int) -> tuple[Any, int, np.ndarray]:
    """The filters of one octave as a sparse matrix [36, width / 2 + 1], their width in samples, and the lengths [252] of all filters."""
    import librosa

    lowest = librosa.note_to_hz("C1") * 2.0 ** (tuning_steps * TUNING_STEP / BINS)
    pitches = lowest * 2.0 ** (np.arange(OCTAVES * BINS) / BINS)
    band = 2.0 ** (1.0 / BINS)
    alpha: Any = np.full(len(pitches), (band**2 - 1) / (band**2 + 1))  # relative band width of equally tempered bins
    lengths, _ = librosa.filters.wavelet_lengths(freqs=pitches, sr=rate, window="hann", filter_scale=1, gamma=0, alpha=alpha)
    top = slice(-BINS, None)
    basis, own = librosa.filters.wavelet(freqs=pitches[top], sr=rate, filter_scale=1, norm=1, pad_fft=True, gamma=0, alpha=alpha[top])
    width = basis.shape[1]
    basis = basis * (own[:, None] / width)
    spectra = scipy.fft.fft(basis, n=width, axis=1)[:, : width // 2 + 1]
    return librosa.util.sparsify_rows(spectra, quantile=SPARSITY, dtype=np.complex64), width, lengths


def estimate_tuning(magnitude: np.ndarray, rate: int) -> float:
    """`librosa.estimate_tuning` for 36 bins an octave: the most common deviation of spectral peaks from them, in bins, -0.5 to 0.5."""
    width = 2 * (len(magnitude) - 1)
    first, last = int(np.ceil(LOWEST * width / rate)), int(np.ceil(HIGHEST * width / rate))
    middle, below, above = magnitude[first:last], magnitude[first - 1 : last - 1], magnitude[first + 1 : last + 1]
    peaks = np.nonzero((middle > PEAK_SHARE * magnitude.max(axis=0)) & (middle > below) & (middle >= above))
    here, under, over = middle[peaks], below[peaks], above[peaks]
    bend = over + under - 2 * here  # the parabola through a peak and its neighbours
    slope = (over - under) / 2
    shift = np.where(np.abs(slope) >= np.abs(bend), np.float32(0.0), -slope / np.where(bend == 0, np.float32(1.0), bend))
    pitch = (((peaks[0] + first) + shift) * float(rate) / width).astype(np.float32)
    strength = here + np.float32(0.5) * slope * shift
    if not len(pitch):
        return 0.0
    pitch = pitch[strength >= np.median(strength)]
    deviation = np.mod(BINS * np.log2(pitch / (440.0 / 16)), 1.0)
    deviation[deviation >= 0.5] -= 1.0
    edges = np.linspace(-0.5, 0.5, round(1 / TUNING_STEP) + 1)
    return float(edges[np.argmax(np.histogram(deviation, edges)[0])])
