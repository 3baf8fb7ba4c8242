"""Which sound of a recording is used: the track of the file, and of its channels a mono mix or one of them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import av
import av.error
import numpy as np
import soxr

from skesl_mug.errors import UserError
from skesl_mug.wording import counted

AUTO, MIX, SPLIT = "auto", "mix", "split"
LISTENED = 180.0  # seconds of each track in which speech is looked for
BLOCK = 15.0  # seconds that are listened to at a time
SPEECH = 1.0  # seconds of speech that make a track one with speech, or a tenth of a shorter track
WINDOW = 0.5  # seconds for which the mix is compared with its channels
CANCELLED = 0.25  # the sum of channels that are unrelated has 1 x the sum of their powers, of opposite ones 0, of equal ones 2 or more
DEAD = 1e-4  # power relative to the strongest channel (-40 dB): a channel below it only makes the mean quieter
QUIET = 1e-6  # power relative to the loudest window (-60 dB), and
AUDIBLE = 1e-8  # mean power (-80 dB of full scale): nothing is compared below them
FADE = 0.01  # seconds between the mean and a channel
COPY = 1e-3  # share of a channel's power that is not in a scaled copy of another one (-30 dB)
SILENCE_PEAK = 1e-3  # -60 dB of full scale, as in speech detection
NAMES = {"FL": "left", "FR": "right", "DL": "left", "DR": "right", "FC": "centre"}
LANGUAGES = (  # ISO 639-1, then 639-2/T and, where it differs, 639-2/B
    "aaaar ababk aeave afafr akaka amamh anarg arara asasm avava ayaym azaze babak bebel bgbul bibis bmbam bnben bobodtib brbre bsbos "
    "cacat ceche chcha cocos crcre cscescze cuchu cvchv cycymwel dadan dedeuger dvdiv dzdzo eeewe elellgre eneng eoepo esspa etest "
    "eueusbaq fafasper ffful fifin fjfij fofao frfrafre fyfry gagle gdgla glglg gngrn guguj gvglv hahau heheb hihin hohmo hrhrv hthat "
    "huhun hyhyearm hzher iaina idind ieile igibo iiiii ikipk ioido isislice itita iuiku jajpn jvjav kakatgeo kgkon kikik kjkua kkkaz "
    "klkal kmkhm knkan kokor krkau kskas kukur kvkom kwcor kykir lalat lbltz lglug lilim lnlin lolao ltlit lulub lvlav mgmlg mhmah "
    "mimrimao mkmkdmac mlmal mnmon mrmar msmsamay mtmlt mymyabur nanau nbnob ndnde nenep ngndo nlnlddut nnnno nonor nrnbl nvnav nynya "
    "ococi ojoji omorm orori ososs papan pipli plpol pspus ptpor quque rmroh rnrun roronrum rurus rwkin sasan scsrd sdsnd sesme sgsag "
    "sisin skslkslo slslv smsmo snsna sosom sqsqialb srsrp ssssw stsot susun svswe swswa tatam tetel tgtgk ththa titir tktuk tltgl "
    "tntsn toton trtur tstso tttat twtwi tytah uguig ukukr ururd uzuzb veven vivie vovol wawln wowol xhxho yiyid yoyor zazha zhzhochi "
    "zuzul"
)
TWO_LETTERS = {word[place : place + 3]: word[:2] for word in LANGUAGES.split() for place in range(2, len(word), 3)} | {"cmn": "zh"}


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
        apart: the other channels are decoded too (`--channels split`): a channel that is a copy of another one is refused.
    """

    track: str = AUTO
    channel: str = MIX
    apart: bool = False


def check_track(track: str, flag: str = "--audio-track") -> None:
    """Validate the option.

    Raises:
        UserError: it is not `auto`, a number from 1 or a language code.
    """
    code = track.replace("_", "-").partition("-")[0]
    if track.isascii() and ((track.isdigit() and int(track)) or (code.isalpha() and len(code) in (2, 3)) or track == AUTO):
        return
    raise UserError(f"{flag} {track}: use auto, the number of a sound track from 1, or a language code such as en")


def same_language(tag: str | None, wanted: str) -> bool:
    """Whether a stream's language tag means the language of a code, in ISO 639-1 or -2; regions (`pt-BR`) are ignored.

    >>> same_language("ger", "de"), same_language("zho", "chi"), same_language("en-US", "eng"), same_language("fra", "en")
    (True, True, True, False)
    """
    return tag is not None and _two_letters(tag) == _two_letters(wanted)


def _two_letters(code: str) -> str:
    bare = code.strip().lower().replace("_", "-").partition("-")[0]
    return TWO_LETTERS.get(bare, bare)


def sound_tracks(container: "av.container.InputContainer") -> "list[av.AudioStream]":
    """The sound tracks of a file in order, without those that no decoder reads."""
    return [stream for stream in container.streams.audio if stream.codec_context is not None]


def choose_track(container: "av.container.InputContainer", path: Path, wanted: str = AUTO) -> "tuple[av.AudioStream | None, str]":
    """The sound track to use (None: the file has none), and a note if it is not the first.

    Raises:
        MediaError: the file has no such track (`no_track`).
    """
    tracks = sound_tracks(container)
    if not tracks:
        return None, ""
    if wanted == AUTO:
        place = 0 if len(tracks) == 1 else _first_with_speech(path, [stream.index for stream in tracks])
    elif wanted.isdigit():
        place = int(wanted) - 1
    elif len(tracks) == 1 and _language(tracks[0]) is None:
        place = 0  # it says nothing else
    else:
        place = next((number for number, stream in enumerate(tracks) if same_language(_language(stream), wanted)), -1)
    if not 0 <= place < len(tracks):
        raise MediaError("no_track", f"--audio-track {wanted}: the file has {counted(len(tracks), 'sound track')}: {_listed(tracks)}")
    return tracks[place], f"sound track {place + 1} of {_listed(tracks)}" if place else ""


def _language(stream: "av.AudioStream") -> str | None:
    tag = stream.metadata.get("language") or stream.language
    return None if tag in (None, "", "und") else tag


def _listed(tracks: "Sequence[av.AudioStream]") -> str:
    """`1 (eng), 2 (deu), 3 (no language)`."""
    return ", ".join(f"{number} ({_language(stream) or 'no language'})" for number, stream in enumerate(tracks, 1))


def _first_with_speech(path: Path, indices: Sequence[int]) -> int:
    """The place of the first track with speech in its first minutes, else of the first that is not silent, else 0."""
    state = path.stat()
    return _listen(path, state.st_mtime_ns, state.st_size, tuple(indices))


@lru_cache(maxsize=1024)  # a long recording is opened many times
def _listen(path: Path, changed: int, size: int, indices: tuple[int, ...]) -> int:
    audible = None
    for place, index in enumerate(indices):
        speaks, loud = _hear(path, index)
        if speaks:
            return place
        if loud and audible is None:
            audible = place
    return audible or 0


def _hear(path: Path, index: int) -> tuple[bool, bool]:
    """Whether a track has speech, and whether it is louder than silence, as far as it can be decoded."""
    from preprocessing.transcription.transcript import SAMPLE_RATE, speech_spans

    spoken = heard = peak = 0.0
    for sound, rate in sound_blocks(path, index, LISTENED):
        mono = mix(sound, rate)
        peak = max(peak, float(np.abs(mono).max(initial=0.0)))
        low = np.asarray(soxr.resample(mono, rate, SAMPLE_RATE, quality="LQ"), np.float32)
        spoken += sum(end - start for start, end in speech_spans(low))
        heard += len(mono) / rate
        if spoken >= SPEECH:
            break
    return spoken >= min(SPEECH, heard / 10) > 0.0, peak >= SILENCE_PEAK


def sound_blocks(path: Path, index: int, seconds: float = float("inf")) -> Iterator[tuple[np.ndarray, int]]:
    """A track in blocks of [channels, samples] float32 and their rate, up to where it cannot be decoded."""
    held: list[np.ndarray] = []
    rate, length, total = 0, 0, 0.0
    try:
        with av.open(str(path.absolute()), metadata_errors="ignore") as container:
            resampler = av.AudioResampler(format="fltp")
            for frame in container.decode(container.streams[index]):
                if not isinstance(frame, av.AudioFrame):
                    continue
                for part in resampler.resample(frame):
                    rate = part.rate
                    held.append(part.to_ndarray())
                    length += held[-1].shape[1]
                if length >= BLOCK * rate:
                    yield np.concatenate(held, axis=1), rate
                    total += length / rate
                    held, length = [], 0
                if total >= seconds:
                    return
    except (av.error.FFmpegError, OSError, ValueError):
        pass
    if held:
        yield np.concatenate(held, axis=1), rate


def channel_names(layout: "av.AudioLayout") -> list[str]:
    """The names of a track's channels: `left`, `right`, `centre`, FFmpeg's names (`lfe`, `bl`) or, where it has none, numbers from 1.

    >>> channel_names(av.AudioLayout("stereo")), channel_names(av.AudioLayout("5.1"))
    (['left', 'right'], ['left', 'right', 'centre', 'lfe', 'bl', 'br'])
    """
    names = [NAMES.get(channel.name, channel.name.lower()) for channel in layout.channels]
    if len(names) == 1:
        return ["mono"]
    return names if len(set(names)) == len(names) else [str(number + 1) for number in range(len(names))]


def one_sound(sound: np.ndarray, rate: int, names: Sequence[str], choice: SoundChoice) -> tuple[np.ndarray, str]:
    """The mono sound that a choice takes from the channels [C, N] float32, and a note if it could not be followed.

    Raises:
        MediaError: with `apart`, another channel has the same sound (`same_channel`).
    """
    if choice.channel == MIX:
        return mix(sound, rate), ""
    if len(sound) == 1:
        return sound[0], f"mono: there is no channel {choice.channel}"
    sides = {"left": 0, "right": 1}
    place = names.index(choice.channel) if choice.channel in names else sides.get(choice.channel, -1)
    if not 0 <= place < len(sound):
        raise MediaError("no_sound", f"there is no channel {choice.channel}; its channels are {', '.join(names)}")
    if choice.apart and (other := copies(sound @ sound.T).get(place)) is not None:
        raise MediaError("same_channel", f"the channel {choice.channel} is a copy of {names[other]}")
    return np.ascontiguousarray(sound[place]), ""


def copies(gram: np.ndarray) -> dict[int, int]:
    """The channels that are scaled copies of another one (of either sign), each with that one: the louder or, if equal, the first.

    Args:
        gram: [C, C], the inner products of the channels.

    >>> copies(np.array([[4.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    {1: 0}
    """
    power = [float(value) for value in np.diag(gram)]
    found: dict[int, int] = {}
    kept: list[int] = []
    for place in sorted(range(len(power)), key=lambda place: (-round(10 * math.log10(max(power[place], 1e-30))), place)):
        if power[place] <= 0:
            continue
        same = [other for other in kept if gram[place, other] ** 2 >= (1 - COPY) * power[place] * power[other]]
        if same:
            found[place] = same[0]
        else:
            kept.append(place)
    return found


def mix(sound: np.ndarray, rate: int) -> np.ndarray:
    """The mono sound of channels [C, N] float32 as [N]: their mean, as in librosa, except where it loses what is in the channels.

    Channels that are 40 dB weaker than the strongest are left out, so that sound in one channel alone keeps its level. Where the channels
    cancel each other (in opposite phase: in half a second the sum has less than a quarter of the power that unrelated channels
    would give), the strongest channel is used in place of the mean, with a fade of 10 ms. Other sounds are exactly the mean.

    >>> wave = np.sin(np.arange(16000) / 10).astype(np.float32)
    >>> bool((mix(np.stack([wave, wave]), 16000) == wave).all()), bool((mix(np.stack([wave, -wave]), 16000) == wave).all())
    (True, True)
    """
    mean = np.asarray(sound.mean(axis=0))
    if len(sound) == 1 or not sound.shape[1]:
        return mean
    starts = np.arange(0, sound.shape[1], max(1, int(WINDOW * rate)))
    if len(starts) > 1 and sound.shape[1] - starts[-1] < WINDOW * rate / 2:
        starts = starts[:-1]  # a short rest belongs to the window before
    with np.errstate(over="ignore", invalid="ignore"):
        powers = np.stack([_window_powers(row, starts) for row in sound])
        totals = powers.sum(axis=1)
        if not np.isfinite(totals).all():
            return mean
        live = totals >= DEAD * totals.max()
        if not live.all():
            sound, powers = sound[live], powers[live]
            mean = np.asarray(sound.mean(axis=0))
        if len(sound) == 1:
            return mean
        source = _sources(powers, _window_powers(mean, starts) * len(sound) ** 2, np.diff([*starts, sound.shape[1]]))
    return mean if (source < 0).all() else _joined(sound, mean, source, starts, max(1, int(FADE * rate)))


def _window_powers(row: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The sum of squares of a sound [N] in each window."""
    squares: np.ndarray = np.square(row)
    return np.add.reduceat(squares, starts, dtype=np.float64)


def _sources(powers: np.ndarray, summed: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """For each window the channel to use, or -1 for the mean.

    Args:
        powers: of the channels, [C, W].
        summed: of the sum of the channels, [W].
        lengths: of the windows in samples, [W].
    """
    total = powers.sum(axis=0)
    loud = (total > QUIET * total.max()) & (total > AUDIBLE * lengths)
    cancelled = loud & (summed < CANCELLED * total)
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
