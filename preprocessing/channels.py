"""The channels of a sound: a mono mix that loses nothing, one channel, and channels with the same sound."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import av
import numpy as np

from preprocessing.options import AUTO, MIX

WINDOW = 0.5  # seconds for which the mix is compared with its channels
CANCELLED = 0.25  # the sum of channels that are unrelated has 1 x the sum of their powers, of opposite ones 0, of equal ones 2 or more
WEAKENED = 0.5  # the same, from where on opposite channels with a delay are looked for
OPPOSITE = 0.9  # correlation, below minus this
DELAY = 1e-3  # seconds
DEAD = 1e-3  # power relative to the strongest channel (-30 dB), each in its loudest window: a channel below it only makes the mean quieter
QUIET = 1e-6  # power relative to the loudest window (-60 dB), and
AUDIBLE = 1e-8  # mean power (-80 dB of full scale): nothing is compared below them
FADE = 0.01  # seconds between the mean and a channel
LEAK = 10**-1.5  # power relative to another channel (-15 dB): below it, a channel only has what leaks into it
LEAK_WINDOW = 0.1  # seconds
LEAK_WINDOWS = 2  # windows after a voice in which its echo is expected
COPY = 0.1  # share of a channel's power in each half second that is not in a scaled copy of another one (-10 dB: lossy codecs)
STEADY = 2.0  # largest change of a copy's gain (6 dB)
PLANES = 8  # channels of planar sound that PyAV reads safely
SCALE = {"u8": 1 / 128, "s16": 1 / 32768, "s32": 1 / 2147483648}
NAMES = {"FL": "left", "FR": "right", "DL": "left", "DR": "right", "FC": "centre"}


class MediaError(Exception):
    """A file that cannot be used; `reason` is the skip's reason (`unreadable`, `too_long`, ...), `str()` its detail."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class SoundChoice:
    """Which sound of a file to decode.

    Attributes:
        track: `auto` (the first track that has speech), a number from 1, or a language (ISO 639-1 or -2).
        channel: `mix`, or the name of a channel (`left`, `right`, see `channel_names`).
        apart: the other channels are other voices (`--channels split`), whose leaks into this one are silenced (see `without_leaks`).
        refuse_copies: with `apart`, a channel with the same sound as another one is an error; otherwise it is silent.
    """

    track: str = AUTO
    channel: str = MIX
    apart: bool = False
    refuse_copies: bool = False


ANY = SoundChoice()


def samples_of(frame: "av.AudioFrame") -> np.ndarray:
    """The samples of a frame, [channels, n] float32, full scale 1.

    Raises:
        FFmpegError, ValueError: they cannot be converted.
    """
    if frame.format.is_planar and frame.layout.nb_channels > PLANES:  # of which PyAV reads arbitrary memory
        frame = av.AudioResampler(format="flt").resample(frame)[0]
    kind, raw = frame.format.name.removesuffix("p"), frame.to_ndarray()
    if not frame.format.is_planar:
        raw = raw.reshape(-1, frame.layout.nb_channels).T
    values = raw.astype(np.float32, copy=False)
    if kind == "u8":
        values -= 128
    return np.ascontiguousarray(values * np.float32(SCALE[kind]) if kind in SCALE else values)


def channel_names(layout: "av.AudioLayout") -> list[str]:
    """The names of a track's channels: `left`, `right`, `centre`, FFmpeg's names (`lfe`, `bl`) or, where it has none, numbers from 1.

    >>> channel_names(av.AudioLayout("stereo")), channel_names(av.AudioLayout("5.1"))
    (['left', 'right'], ['left', 'right', 'centre', 'lfe', 'bl', 'br'])
    """
    names = [NAMES.get(channel.name, channel.name.lower()) for channel in layout.channels]
    if len(names) == 1:
        return ["mono"]
    if len(set(names)) < len(names):  # a plain wav file does not say
        return ["left", "right"] if len(names) == 2 else [str(number + 1) for number in range(len(names))]
    return names


def one_sound(
    sound: np.ndarray, rate: int, names: Sequence[str], choice: SoundChoice, whole: Callable[[], np.ndarray] | None = None
) -> tuple[np.ndarray, str]:
    """The mono sound that a choice takes from the channels [C, N] float32, and a note if it could not be followed; `whole` as in `mix`.

    Raises:
        MediaError: there is no such channel (`no_sound`), or it is a copy that is refused (`same_channel`).
    """
    if choice.channel == MIX:
        return mix(sound, rate, whole), ""
    if len(sound) == 1:
        return sound[0], f"mono: there is no channel {choice.channel}"
    sides = {"left": 0, "right": 1}
    place = names.index(choice.channel) if choice.channel in names else sides.get(choice.channel, -1)
    if not 0 <= place < len(sound):
        raise MediaError("no_sound", f"there is no channel {choice.channel}; its channels are {', '.join(names)}")
    if not choice.apart:
        return np.ascontiguousarray(sound[place]), ""
    if (other := copies(grams(sound, rate)).get(place)) is None:
        return without_leaks(sound, rate, place), ""
    if choice.refuse_copies:
        raise MediaError("same_channel", f"the channel {choice.channel} is a copy of {names[other]}")
    return np.zeros_like(sound[place]), ""


def without_leaks(sound: np.ndarray, rate: int, place: int) -> np.ndarray:
    """One of the channels [C, N], silent where another one is 15 dB louder, or was up to 0.2 s before: what is heard there is that voice.

    >>> rng = np.random.default_rng(0)
    >>> voice = rng.standard_normal(16000).astype(np.float32) * np.repeat([1, 0], 8000).astype(np.float32)
    >>> other = 0.05 * voice + 0.5 * voice[::-1]
    >>> found = without_leaks(np.stack([voice, other]), 16000, 1)
    >>> bool(found[:5000].any()), bool((found[12000:] == other[12000:]).all())
    (False, True)
    """
    starts = np.arange(0, sound.shape[1], max(1, int(LEAK_WINDOW * rate)))
    powers = np.stack([_window_powers(row, starts) for row in sound])
    around = np.pad(powers, ((0, 0), (LEAK_WINDOWS, 1)))
    reach = np.max([around[:, back : back + len(starts)] for back in range(LEAK_WINDOWS + 2)], axis=0)
    heard = reach[place] >= LEAK * np.delete(reach, place, axis=0).max(axis=0)  # the start and end of a voice are heard too
    if heard.all():
        return np.ascontiguousarray(sound[place])
    gain = np.interp(np.arange(sound.shape[1]), starts + LEAK_WINDOW * rate / 2, heard.astype(np.float32))
    return np.asarray(sound[place] * gain, np.float32)


def grams(sound: np.ndarray, rate: int) -> np.ndarray:
    """The inner products of channels [C, N] in each half second, [W, C, C]."""
    length = max(1, int(WINDOW * rate))
    whole = np.pad(sound, ((0, 0), (0, -sound.shape[1] % length))).reshape(len(sound), -1, length).transpose(1, 0, 2)
    return np.asarray(whole @ whole.transpose(0, 2, 1), np.float64)


def copies(products: np.ndarray) -> dict[int, int]:
    """The channels that are scaled copies of another one (of either sign, with one gain) wherever either is loud, each with that one: the
    louder or, if equal, the first.

    Args:
        products: [W, C, C], see `grams`.

    >>> copies(np.array([[[4.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]]]))
    {1: 0}
    """
    powers = np.einsum("wcc->wc", products)
    total = powers.sum(axis=0)
    found: dict[int, int] = {}
    kept: list[int] = []
    for place in sorted(range(len(total)), key=lambda place: (-round(10 * math.log10(max(total[place], 1e-30))), place)):
        if total[place] <= 0:
            continue
        same = [other for other in kept if _same_sound(products[:, [place, other]][:, :, [place, other]])]
        if same:
            found[place] = same[0]
        else:
            kept.append(place)
    return found


def _same_sound(products: np.ndarray) -> bool:
    """Whether two channels [W, 2, 2] are the same with one gain wherever either is loud; the gain of a voice and of its leak differ."""
    powers, shared = np.einsum("wcc->wc", products), products[:, 0, 1]
    loud = (powers >= DEAD * powers.max(axis=0)).any(axis=1)
    if not (shared[loud] ** 2 > (1 - COPY) * powers[loud].prod(axis=1)).all():
        return False
    gains = shared[loud] / powers[loud, 1]
    return bool(np.abs(gains).max() <= STEADY * np.abs(gains).min() and (gains[0] * gains > 0).all())


def mix(sound: np.ndarray, rate: int, whole: Callable[[], np.ndarray] | None = None) -> np.ndarray:
    """The mono sound of channels [C, N] float32 as [N]: their mean, as in librosa, except where it loses what is in the channels.

    Channels that are never louder than 30 dB below the strongest are left out, so that sound in one channel alone keeps its level. Where
    the channels cancel each other (in opposite phase: in half a second their sum has less than a quarter of the power that unrelated
    channels would give, or less than that power and one of two is the other one inverted, up to 1 ms later), the strongest channel is
    used in place of the mean, with a fade of 10 ms. Other sounds are exactly the mean.

    Args:
        sound: the channels.
        rate: samples per second.
        whole: if this is a piece of a recording, gives the recording's `loudest`, so that all pieces leave out the same channels.

    >>> wave = np.sin(np.arange(16000) / 10).astype(np.float32)
    >>> bool((mix(np.stack([wave, wave]), 16000) == wave).all()), bool((mix(np.stack([wave, -wave]), 16000) == wave).all())
    (True, True)
    """
    mean = np.asarray(sound.mean(axis=0))
    if len(sound) == 1 or not sound.shape[1]:
        return mean
    starts = _starts(sound, rate)
    with np.errstate(over="ignore", invalid="ignore"):
        powers = np.stack([_window_powers(row, starts) for row in sound])
        if not np.isfinite(powers).all():
            return mean
        live = _live(powers.max(axis=1))
        if whole is not None and not live.all():
            live |= _live(whole())
        if not live.all():
            sound, powers = sound[live], powers[live]
            mean = np.asarray(sound.mean(axis=0))
        if len(sound) == 1:
            return mean
        summed = _window_powers(mean, starts) * len(sound) ** 2
        source = _sources(powers, summed, np.diff([*starts, sound.shape[1]]), lambda: _opposite(sound, starts, int(DELAY * rate)))
    return mean if (source < 0).all() else _joined(sound, mean, source, starts, max(1, int(FADE * rate)))


def loudest(sound: np.ndarray, rate: int) -> np.ndarray:
    """The power of each channel [C, N] in its loudest half second, [C]."""
    return np.array([np.nan_to_num(_window_powers(row, _starts(sound, rate)), posinf=0.0).max(initial=0.0) for row in sound])


def _live(power: np.ndarray) -> np.ndarray:
    return np.asarray(power >= DEAD * power.max())


def _starts(sound: np.ndarray, rate: int) -> np.ndarray:
    starts = np.arange(0, sound.shape[1], max(1, int(WINDOW * rate)))
    if len(starts) > 1 and sound.shape[1] - starts[-1] < WINDOW * rate / 2:
        starts = starts[:-1]  # a short rest belongs to the window before
    return starts


def _opposite(sound: np.ndarray, starts: np.ndarray, delay: int) -> np.ndarray:
    """For each window whether one of two channels is the other one inverted, and up to `delay` samples later."""
    found = np.zeros(len(starts), bool)
    for place, (left, right) in enumerate(zip(*(np.split(row, starts[1:]) for row in sound), strict=True) if len(sound) == 2 else ()):
        size = 1 << (len(left) + delay).bit_length()
        products = np.fft.irfft(np.fft.rfft(left, size) * np.fft.rfft(right, size).conj(), size)
        near = np.concatenate([products[: delay + 1], products[size - delay :]])
        low = -near.min() / max(1e-30, float(np.linalg.norm(left)) * float(np.linalg.norm(right)))
        found[place] = low > OPPOSITE and near.max() < -OPPOSITE * near.min()  # a tone is both inverted and not
    return found


def _window_powers(row: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The sum of squares of a sound [N] in each window."""
    return np.array([np.einsum("n,n", part, part) for part in np.split(row, starts[1:])[: len(starts)]], np.float64)


def _sources(powers: np.ndarray, summed: np.ndarray, lengths: np.ndarray, opposite: Callable[[], np.ndarray]) -> np.ndarray:
    """For each window the channel to use, or -1 for the mean.

    Args:
        powers: of the channels, [C, W].
        summed: of the sum of the channels, [W].
        lengths: of the windows in samples, [W].
        opposite: gives the windows in which one channel is the other one inverted, with a delay.
    """
    total = powers.sum(axis=0)
    loud = (total > QUIET * total.max()) & (total > AUDIBLE * lengths)
    cancelled = loud & (summed < CANCELLED * total)
    if (loud & ~cancelled & (summed < WEAKENED * total)).any():
        cancelled |= loud & (summed < total) & opposite()
    if not cancelled.any():
        return np.full(len(total), -1)
    main = int(powers[:, cancelled].sum(axis=1).argmax())
    strongest = np.where(powers[main] >= powers.max(axis=0) / 2, main, powers.argmax(axis=0))
    source = np.where(cancelled, strongest, -1)
    last = np.maximum.accumulate(np.where(loud, np.arange(len(total)), -1))  # quiet windows continue what precedes them
    first = int(np.argmax(loud))
    return np.asarray(source[np.where(last < 0, first, last)])


def _joined(sound: np.ndarray, mean: np.ndarray, source: np.ndarray, starts: np.ndarray, fade: int) -> np.ndarray:
    """The mean with channels in its place, and a fade from one to the other."""
    rows = np.vstack([sound, mean])  # -1 is the mean
    result = np.empty_like(mean)
    edges = [0, *(np.flatnonzero(np.diff(source)) + 1).tolist(), len(source)]
    for number, (low, high) in enumerate(pairwise(edges)):
        begin, end = int(starts[low]), int(starts[high]) if high < len(starts) else len(mean)
        result[begin:end] = rows[source[low], begin:end]
        if number:
            rise = np.linspace(0.0, 1.0, min(fade, end - begin), dtype=np.float32)
            part = slice(begin, begin + len(rise))
            result[part] = rise * rows[source[low], part] + (1 - rise) * rows[source[low - 1], part]
    return result
