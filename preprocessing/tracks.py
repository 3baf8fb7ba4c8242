"""The sound track of a file that is used, and files whose channels are separate voices."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import av
import av.error
import numpy as np
import soxr

from preprocessing.channels import MediaError, SoundChoice, channel_names, copies, grams, loudest, mix, samples_of
from preprocessing.layouts import Clip
from preprocessing.options import AUTO, SPLIT, Channels
from skesl_mug.errors import UserError
from skesl_mug.wording import counted

LISTENED = 180.0  # seconds of each track in which speech is looked for
BLOCK = 15.0  # seconds that are listened to at a time
SPEECH = 1.0  # seconds of speech that make a track one with speech, or a tenth of a shorter track
SILENCE_PEAK = 1e-3  # -60 dB of full scale, as in speech detection
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
TWO_LETTERS = {word[place : place + 3]: word[:2] for word in LANGUAGES.split() for place in range(2, len(word), 3)}
GROUPS = {  # languages that are also known under the code of a group
    single: singles[:2]
    for singles in [
        *("ar arb arz apc ary", "az azj azb", "et ekk", "fa pes prs", "lv lvs", "mg plt", "mn khk", "ms zsm", "ne npi", "no nb nn"),
        *("or ory", "sq als", "sw swh", "uz uzn", "yi ydd", "zh cmn yue wuu nan hak hsn"),
    ]
    for single in singles.split()[1:]
}


def same_language(tag: str | None, wanted: str) -> bool:
    """Whether a stream's language tag means the language of a code, in ISO 639-1, -2 or -3, or one is among the languages of the other.

    Regions (`pt-BR`) are ignored.

    >>> same_language("ger", "de"), same_language("zho", "chi"), same_language("en-US", "eng"), same_language("fra", "en")
    (True, True, True, False)
    """
    if tag is None:
        return False
    found, code = _two_letters(tag), _two_letters(wanted)
    return found == code or GROUPS.get(found) == code or GROUPS.get(code) == found


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
    return tracks[place], _other_track(tracks, place) if place else ""


def _other_track(tracks: "Sequence[av.AudioStream]", place: int) -> str:
    return f"sound track {place + 1} ({_language(tracks[place]) or 'no language'}); the file has {_listed(tracks)}"


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
    """A track in blocks of [channels, samples] float32 and their rate, without what cannot be decoded; a block ends where these change."""
    held: list[np.ndarray] = []
    rate, length, total = 0, 0, 0.0
    with (
        suppress(av.error.FFmpegError, OSError, ValueError, IndexError),
        av.open(str(path.absolute()), metadata_errors="ignore") as container,
    ):
        for packet in container.demux(container.streams[index]):
            for frame in _frames(packet):
                samples = samples_of(frame)
                if held and (frame.sample_rate != rate or len(samples) != len(held[0])):  # the sound changes
                    yield np.concatenate(held, axis=1), rate
                    total += length / rate
                    held, length = [], 0
                rate = frame.sample_rate
                held.append(samples)
                length += samples.shape[1]
            if length >= BLOCK * rate > 0:
                yield np.concatenate(held, axis=1), rate
                total += length / rate
                held, length = [], 0
            if total >= seconds:
                return
    if held:
        yield np.concatenate(held, axis=1), rate


def loudest_of(path: Path, index: int, count: int) -> np.ndarray:
    """The power of each of the channels of a track in its loudest half second, [count]; of what can be decoded."""
    state = path.stat()
    return _loudest_again(path, index, count, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1024)
def _loudest_again(path: Path, index: int, count: int, changed: int, size: int) -> np.ndarray:
    found = np.zeros(count)
    for sound, rate in sound_blocks(path, index):
        found = np.maximum(found, loudest(sound if len(sound) == count else sound.mean(axis=0, keepdims=True), rate))
    return found


def _frames(packet: "av.Packet[Any]") -> "list[av.AudioFrame]":
    try:
        frames: list[Any] = packet.decode()
        return [frame for frame in frames if isinstance(frame, av.AudioFrame)]
    except (av.error.FFmpegError, ValueError):
        return []


def split_clips(clips: Sequence[Clip], track: str) -> tuple[list[Clip], list[str]]:
    """Each clip whose file has several channels as one clip per channel, and notes for the user.

    Clip `a` becomes `a#left` and `a#right`, of the speakers `SPEAKER#left` and `SPEAKER#right` and with the labels of `a`. Clips with a
    transcript remain whole, because it does not say which channel has which words.

    Raises:
        UserError: another clip has such an id.
    """
    taken, divided = {clip.id for clip in clips}, 0
    result: list[Clip] = []
    for clip in clips:
        names = names_of(clip.path, track) or (names_of(clip.sound, track) if clip.sound is not None else ())
        if clip.transcript is not None or clip.channel is not None or len(names) < 2:
            result.append(clip)
            continue
        divided += 1
        for name in names:
            part = replace(clip, id=f"{clip.id}#{name}", speaker=f"{clip.speaker}#{name}", channel=name)
            if part.id in taken:
                raise UserError(f"--channels split: the name {part.id} is already that of a clip; rename its file")
            result.append(part)
    written = sum(clip.transcript is not None and clip.channel is None for clip in clips)
    single = sum(clip.channel is None for clip in result) - written
    labelled = any(clip.labels for clip in result if clip.channel is not None)
    found = []
    if divided:
        found.append(
            f"{counted(divided, 'clip')} of several channels, each an utterance of its own{' with the labels of its clip' * labelled}"
        )
    if single:
        found.append(f"{single if divided else counted(single, 'clip')} of one channel")
    notes = [f"--channels split: {'; '.join(found)}"] if found else []
    if written:
        notes.append(
            f"--channels split: {counted(written, 'clip')} with a transcript not split (--transcripts asr recognises each channel)"
        )
    return result, notes


def _look(path: Path, track: str) -> tuple[tuple[str, ...], str, int]:
    """The names of the channels of a file's sound, the note on its track, and its index; no names without sound that can be opened."""
    try:
        state = path.stat()
    except OSError:
        return (), "", 0
    return _look_again(path, track, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4096)  # corpora have many clips in one file
def _look_again(path: Path, track: str, changed: int, size: int) -> tuple[tuple[str, ...], str, int]:
    try:
        if path.is_file():
            with av.open(str(path.absolute()), metadata_errors="ignore") as container:
                stream, note = choose_track(container, path, track)
                if stream is not None:
                    return tuple(channel_names(stream.layout)), note, stream.index
    except (av.error.FFmpegError, OSError, ValueError, MediaError):
        pass
    return (), "", 0


def names_of(path: Path, track: str) -> tuple[str, ...]:
    """The names of the channels of a file's sound; empty if it has none or cannot be opened."""
    return _look(path, track)[0]


def track_note(path: Path, track: str) -> str:
    """Which sound track of a file is used, if that is not the first."""
    return _look(path, track)[1]


@dataclass(frozen=True)
class Voices:
    """The voices of a recording: each with its sound and its speaker's name (empty if it is the only one); and for the channels that are
    no voice, by name, a skip's reason and detail."""

    voices: list[tuple[SoundChoice, str]]
    others: dict[str, tuple[str, str]]


def voices_of(path: Path, track: str, channels: Channels) -> Voices:
    """The voices of a recording with `--channels`; for `split`, its sound is read once for channels that are silent or copies.

    Raises:
        UserError: there is no such choice.
    """
    if channels not in get_args(Channels):
        raise UserError(f"--channels {channels}: use {', '.join(get_args(Channels))}")
    if channels != SPLIT:
        return Voices([(SoundChoice(track, channels), "")], {})
    names = names_of(path, track)
    if len(names) < 2:
        return Voices([(SoundChoice(track), "")], {})
    products, peaks = [np.zeros((0, len(names), len(names)))], np.full(len(names), np.nan)
    for sound, rate in sound_blocks(path, _look(path, track)[2]):
        if len(sound) == len(names):
            products.append(grams(sound, rate))
            peaks = np.fmax(peaks, np.abs(sound).max(axis=1, initial=0.0))
    same = copies(np.concatenate(products)) if len(products) > 1 else {}
    others = {names[place]: ("same_channel", f"({names[place]} is a copy of {names[other]})") for place, other in same.items()}
    others |= {name: ("no_sound", f"in the channel {name}") for name, peak in zip(names, peaks, strict=True) if peak < SILENCE_PEAK}
    kept = [name for name in names if name not in others]
    if len(kept) < 2 and (same or np.isnan(peaks).all()):
        return Voices([(SoundChoice(track), "")], others)  # one voice on several channels, or nothing that can be decoded
    return Voices([(SoundChoice(track, name, apart=True), name) for name in kept], others)
