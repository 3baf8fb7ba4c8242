"""Sound tracks and channels: which track is used, a mono mix that loses nothing, and tags in any encoding."""

from pathlib import Path

import av
import numpy as np
import pytest
from clip_factory import SOUND_RATE, silence, tone, voice, write_tracks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from preprocessing import channels, tracks
from preprocessing.channels import MediaError, SoundChoice, channel_names, copies, grams, mix, one_sound
from preprocessing.layouts import Clip
from preprocessing.media import decode, probe
from preprocessing.options import checked_track
from preprocessing.tracks import choose_track, names_of, same_language, split_clips
from skesl_mug.errors import UserError

RATE = 8_000


def noise(seed: int, seconds: float = 1.0, level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(int(seconds * RATE))).astype(np.float32)


def power(sound: np.ndarray) -> float:
    return float(np.mean(np.square(sound, dtype=np.float64)))


def chosen(path: Path, wanted: str = "auto") -> tuple[int | None, str]:
    """The index of the stream that is chosen, and the note."""
    with av.open(str(path), metadata_errors="ignore") as container:
        stream, note = choose_track(container, path, wanted)
        return (None if stream is None else stream.index), note


# the mix


@pytest.mark.parametrize("count", [1, 2, 6])
def test_ordinary_sounds_are_exactly_the_mean(count: int) -> None:
    sound = np.stack([noise(seed, 2.3, 0.1 / (seed + 1)) for seed in range(count)])
    assert (mix(sound, RATE) == sound.mean(axis=0)).all()
    middle = sound + 2 * noise(9, 2.3)
    assert (mix(middle, RATE) == middle.mean(axis=0)).all()


def test_one_live_channel_keeps_its_level() -> None:
    wave = noise(1)
    assert (mix(np.stack([wave, np.zeros_like(wave)]), RATE) == wave).all()
    assert power(mix(np.stack([noise(2, level=1e-4), wave]), RATE)) == pytest.approx(power(wave), rel=0.01)
    centre = np.zeros((6, len(wave)), np.float32)
    centre[2] = wave
    assert (mix(centre, RATE) == wave).all()
    answer = np.zeros(20 * RATE, np.float32)
    answer[: RATE // 2] = noise(2, 0.5, 0.01)  # -20 dB for half a second, -36 dB of the whole
    short = np.stack([noise(1, 20.0), answer])
    assert (mix(short, RATE) == short.mean(axis=0)).all()
    quieter = np.stack([wave, 0.05 * noise(2)])  # -26 dB: somebody may speak there
    assert (mix(quieter, RATE) == quieter.mean(axis=0)).all()


@pytest.mark.parametrize("gain", [1.0, 0.7, 1.6])
def test_opposite_channels_do_not_cancel(gain: float) -> None:
    wave = noise(1, 3.0)
    assert power(mix(np.stack([wave, -gain * wave]), RATE)) >= 0.99 * power(wave)


@pytest.mark.parametrize("delay", [1, 2, 3])
def test_opposite_channels_with_a_delay_do_not_cancel(delay: int) -> None:
    """Of a sound with mostly low tones, most is lost; an ordinary one with a delay, or half opposite, is the mean."""
    white = noise(1, 3.0)
    wave = np.convolve(white, 0.8 ** np.arange(40))[: len(white)].astype(np.float32)
    late = np.roll(wave, delay)
    assert power(mix(np.stack([wave, -late]), RATE)) > 0.95 * power(wave)
    for other in (late, -0.5 * wave + 0.87 * np.roll(wave, 5000), -0.7 * wave + 0.71 * np.roll(wave, 5000)):
        ordinary = np.stack([wave, other.astype(np.float32)])
        assert (mix(ordinary, RATE) == ordinary.mean(axis=0)).all()


def test_opposite_phase_in_a_part_of_a_file() -> None:
    """Channels of opposite phase between 2 and 4 s of 6: there the sound is one channel, elsewhere the mean."""
    wave = noise(1, 6.0)
    sign = np.ones_like(wave)
    sign[2 * RATE : 4 * RATE] = -1
    found = mix(np.stack([wave, sign * wave]), RATE)
    assert (np.abs(found) == np.abs(wave)).mean() > 0.99
    for start in range(0, len(wave), RATE // 2):
        assert power(found[start : start + RATE // 2]) > 0.9 * power(wave[start : start + RATE // 2])


def test_quiet_speech_of_opposite_phase_after_a_loud_sound() -> None:
    loud, quiet = noise(1, 1.0, 0.5), noise(2, 1.0, 0.003)
    both = np.stack([np.concatenate([loud, quiet]), np.concatenate([loud, -quiet])])
    assert power(mix(both, RATE)[-RATE // 2 :]) > 0.9 * power(quiet)


def test_silence_nothing_and_values_that_are_not_numbers() -> None:
    assert mix(np.zeros((2, 0), np.float32), RATE).shape == (0,)
    assert not mix(np.zeros((2, 100), np.float32), RATE).any()
    wave = noise(1)
    wave[5] = np.nan
    assert np.isnan(mix(np.stack([np.zeros_like(wave), wave]), RATE)).any()


unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
sounds = arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 300)),
    elements=st.floats(-1, 1, width=32).filter(lambda value: value == 0 or abs(value) > 0.01),
)


@unhurried
@given(sounds)
def test_the_mix_never_loses_most_of_the_sound(sound: np.ndarray) -> None:
    """Its power is at least that which the rule allows, it lies within the channels, and twice the sound has twice the mix."""
    rate = 100  # windows of 50 samples, fades of one
    found = mix(sound, rate)
    assert found.shape == sound.shape[1:]
    assert found.dtype == np.float32
    assert (found <= sound.max(axis=0) + 1e-6).all()
    assert (found >= sound.min(axis=0) - 1e-6).all()
    assert (mix(2 * sound, rate) == 2 * found).all()
    total = sum(power(row) for row in sound)
    if sound.shape[1] < 75 and total > 2e-8:  # one window
        assert power(found) >= 0.99 * channels.CANCELLED * total / len(sound) ** 2


@unhurried
@given(arrays(np.float32, st.integers(1, 300), elements=st.floats(-1, 1, width=32)), st.integers(1, 6))
def test_equal_channels_are_one(wave: np.ndarray, count: int) -> None:
    assert mix(np.stack([wave] * count), 100) == pytest.approx(wave, rel=1e-6, abs=1e-12)


# channels


def test_one_channel_of_several() -> None:
    sound = np.stack([noise(1), noise(2)])
    names = channel_names(av.AudioLayout("stereo"))
    assert (one_sound(sound, RATE, names, SoundChoice(channel="right"))[0] == sound[1]).all()
    mono, note = one_sound(sound[:1], RATE, ["mono"], SoundChoice(channel="right"))
    assert (mono == sound[0]).all()
    assert note == "mono: there is no channel right"
    assert (one_sound(sound, RATE, ["1", "2"], SoundChoice(channel="left"))[0] == sound[0]).all()
    with pytest.raises(MediaError, match="no channel centre; its channels are left, right"):
        one_sound(sound, RATE, names, SoundChoice(channel="centre"))
    assert channel_names(av.AudioLayout("4 channels")) == ["1", "2", "3", "4"]
    assert channel_names(av.AudioLayout("2 channels")) == ["left", "right"]
    assert channel_names(av.AudioLayout("mono")) == ["mono"]


@pytest.mark.parametrize("gain", [1.0, -1.0, 0.5])
def test_a_copy_of_a_channel_is_not_another_voice(gain: float) -> None:
    wave = noise(1)
    sound = np.stack([wave, gain * wave + noise(2, level=1e-4)])
    choice = SoundChoice(channel="right", apart=True, refuse_copies=True)
    with pytest.raises(MediaError, match="right is a copy of left") as found:
        one_sound(sound, RATE, ["left", "right"], choice)
    assert found.value.reason == "same_channel"
    assert (one_sound(sound, RATE, ["left", "right"], SoundChoice(channel="left", apart=True))[0] == sound[0]).all()
    assert not one_sound(sound, RATE, ["left", "right"], SoundChoice(channel="right", apart=True))[0].any()
    other = np.stack([wave, noise(2)])
    assert (one_sound(other, RATE, ["left", "right"], choice)[0] == other[1]).all()
    turns = np.stack([np.concatenate([wave, 0 * wave]), np.concatenate([0 * wave, wave])])
    assert copies(grams(turns, RATE)) == {}
    silent = np.stack([np.zeros_like(wave), wave])
    assert copies(grams(silent, RATE)) == {}


def test_copies_after_a_lossy_codec_and_one_word_of_another_voice() -> None:
    wave = noise(1, 20.0)
    coded = np.stack([wave + noise(2, 20.0, 0.02), wave + noise(3, 20.0, 0.02)])  # -14 dB
    assert copies(grams(coded, RATE)) == {1: 0}
    word = 0.1 * wave  # leaks with -20 dB, except for a word
    word[5 * RATE : 5 * RATE + RATE // 2] += noise(4, 0.5)
    assert copies(grams(np.stack([wave, word]), RATE)) == {}


@pytest.mark.parametrize("decibels", [14, 30])
def test_two_voices_that_leak_into_each_other_without_delay_are_no_copies(decibels: int) -> None:
    left, right = noise(1, 6.0), noise(2, 6.0)
    left[2 * RATE : 4 * RATE] = right[: 2 * RATE] = right[4 * RATE :] = 0
    gain = 10 ** (-decibels / 20)
    for sign in (1, -1):
        assert copies(grams(np.stack([left + gain * right, right + sign * gain * left]), RATE)) == {}
    one = np.stack([left, gain * left])
    assert copies(grams(one, RATE)) == {1: 0}
    one[1, : 3 * RATE] *= -1
    assert copies(grams(one, RATE)) == {}


@pytest.mark.parametrize("decibels", [18, 30, 40])
def test_a_voice_that_leaks_into_the_other_channel_is_heard_once(decibels: int) -> None:
    """Each speaks for two seconds, then both; the other channel has an echo of 50 ms."""
    left, right = noise(1, 6.0), noise(2, 6.0)
    left[2 * RATE : 4 * RATE] = right[: 2 * RATE] = 0
    gain, late = 10 ** (-decibels / 20), RATE // 20
    both = np.stack([left + gain * np.pad(right, (late, 0))[:-late], right + gain * np.pad(left, (late, 0))[:-late]])
    found = channels.without_leaks(both, RATE, 1)
    assert not found[: int(1.8 * RATE)].any()
    assert (found[int(2.4 * RATE) :] == both[1, int(2.4 * RATE) :]).all()
    assert power(found[2 * RATE : int(2.4 * RATE)]) > 0.8 * power(right[2 * RATE : int(2.4 * RATE)])
    whole = channels.without_leaks(both, RATE, 0)
    assert not whole[int(2.3 * RATE) : int(3.8 * RATE)].any()


@unhurried
@given(sounds.filter(lambda sound: len(sound) > 1), st.integers(0, 3))
def test_the_loudest_channel_is_never_silenced(sound: np.ndarray, place: int) -> None:
    """A channel that is as loud as every other one stays what it is; another one is at most quieter. Nothing is invented."""
    place %= len(sound)
    found = channels.without_leaks(sound, 100, place)
    assert found.shape == sound[place].shape
    assert found.dtype == np.float32
    assert (np.abs(found) <= np.abs(sound[place])).all()
    assert (channels.without_leaks(np.stack([sound[place], 0.3 * sound[place]]), 100, 0) == sound[place]).all()
    same = copies(grams(sound, 100))
    assert all(other not in same for other in same.values())  # what is copied is kept


def test_channels_without_samples() -> None:
    nothing = np.zeros((2, 0), np.float32)
    for choice in (SoundChoice(), SoundChoice(channel="left"), SoundChoice(channel="right", apart=True, refuse_copies=True)):
        assert one_sound(nothing, RATE, ["left", "right"], choice)[0].shape == (0,)


def test_the_end_of_a_word_is_not_taken_for_the_leak_that_it_leaves() -> None:
    wave = noise(1, 1.0) * np.repeat([1.0, 0.03], RATE // 2).astype(np.float32)
    assert (channels.without_leaks(np.stack([wave, 0.3 * wave]), RATE, 0) == wave).all()


# tracks


def test_languages_in_both_standards() -> None:
    for tag, wanted in (("eng", "en"), ("EN", "eng"), ("zho", "zh"), ("chi", "zh"), ("chi", "zho"), ("ger", "deu"), ("pt-BR", "por")):
        assert same_language(tag, wanted), (tag, wanted)
    assert not same_language(None, "en")
    assert not same_language("eng", "de")
    assert same_language("yue", "yue")  # no code of two letters
    for tag, wanted in (
        ("nob", "no"),
        ("nb", "nor"),
        ("nno", "no"),
        ("nor", "nb"),
        ("yue", "zh"),
        ("cmn", "chi"),
        ("zho", "cmn"),
        ("pes", "fa"),
    ):
        assert same_language(tag, wanted), (tag, wanted)
    assert not same_language("nno", "nb")
    assert not same_language("yue", "cmn")


@pytest.mark.parametrize("track", ["0", "-1", "", "english", "1.5", "e1", "²"])
def test_a_track_that_is_neither_number_nor_language(track: str) -> None:
    with pytest.raises(UserError, match="the number of a sound track from 1, or a language code"):
        checked_track(track)


def test_tracks_by_number_and_language(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "a.mkv", [tone(0.5), tone(0.5, 440), tone(0.5, 660)], ["eng", "ger", None])
    for track in ("auto", "1", "en", "eng"):
        checked_track(track)
        assert chosen(path, track) == (0, "")
    for track in ("2", "de", "deu"):
        assert chosen(path, track) == (1, "sound track 2 (ger); the file has 1 (eng), 2 (ger), 3 (no language)")
    for track in ("4", "fr"):
        with pytest.raises(MediaError, match=f"--audio-track {track}: the file has 3 sound tracks: 1 \\(eng\\), 2 \\(ger\\)") as found:
            chosen(path, track)
        assert found.value.reason == "no_track"


def test_splitting_says_only_what_there_is(tmp_path: Path) -> None:
    clip = Clip("a", write_tracks(tmp_path / "a.wav", [tone(0.5)]), "s", "a")
    assert split_clips([clip], "auto") == ([clip], ["--channels split: 1 clip of one channel"])
    assert split_clips([], "auto") == ([], [])


def test_the_only_track_is_used_if_it_states_no_language(tmp_path: Path) -> None:
    assert chosen(write_tracks(tmp_path / "a.wav", [tone(0.5)]), "en") == (0, "")
    with pytest.raises(MediaError, match="has 1 sound track: 1"):
        chosen(write_tracks(tmp_path / "a.mkv", [tone(0.5)], ["fre"]), "en")


def test_auto_takes_the_first_track_with_speech(tmp_path: Path) -> None:
    spoken = voice("The food was wonderful.")
    quiet = silence(len(spoken) / SOUND_RATE)
    assert chosen(write_tracks(tmp_path / "a.mkv", [quiet, tone(2.0), np.stack([spoken, -spoken]), spoken]))[0] == 2
    assert chosen(write_tracks(tmp_path / "b.mkv", [quiet, tone(2.0), quiet]))[0] == 1  # nobody speaks: the first that is not silent
    assert chosen(write_tracks(tmp_path / "c.mkv", [quiet, quiet])) == (0, "")
    assert chosen(write_tracks(tmp_path / "d.mkv", [spoken, spoken])) == (0, "")


def test_one_track_is_not_listened_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracks, "sound_blocks", None)
    assert chosen(write_tracks(tmp_path / "a.wav", [silence(0.5)])) == (0, "")


# whole files


def test_files_whose_sound_was_lost(tmp_path: Path) -> None:
    """A second track, opposite phase, and one live channel."""
    wave = tone(1.0)
    silent_first = decode(write_tracks(tmp_path / "a.mkv", [silence(1.0), wave]))
    assert power(silent_first.sound) == pytest.approx(power(wave), rel=0.01)
    assert silent_first.notes == ["sound track 2 (no language); the file has 1 (no language), 2 (no language)"]
    for other in (-wave, silence(1.0)):
        heard = decode(write_tracks(tmp_path / "b.wav", [np.stack([wave, other])]))
        assert power(heard.sound) == pytest.approx(power(wave), rel=0.01)
        assert heard.notes == []


def test_all_pieces_of_a_recording_leave_out_the_same_channels(tmp_path: Path) -> None:
    """A voice in the centre; the front has one quiet second; the rest is silent."""
    wave, second = noise(1, 8.0 * SOUND_RATE / RATE), slice(4 * SOUND_RATE, 5 * SOUND_RATE)
    sound = np.zeros((6, len(wave)), np.float32)
    sound[2] = wave
    sound[:2, second] = 0.2 * wave[second][::-1]
    path = write_tracks(tmp_path / "a.wav", [sound], layout="5.1")
    levels = [power(decode(path, start=low, end=high).sound) for low, high in ((0, 2), (3.5, 5.5), (6, 8), (0, None))]
    assert levels == pytest.approx([power(wave) / 9] * 4, rel=0.1)
    left = np.stack([wave, 0 * wave])
    path = write_tracks(tmp_path / "b.wav", [left])
    assert power(decode(path, start=1, end=2).sound) == pytest.approx(power(wave), rel=0.1)


def tagged(path: Path, title: bytes, artist: bytes) -> Path:
    """A file with a title and an artist in another encoding than UTF-8."""
    marks = {"title": "A" * len(title), "artist": "B" * len(artist)}
    mp3 = path.suffix == ".mp3"
    with av.open(str(path), "w", options={"id3v2_version": "0"} if mp3 else {}) as container:
        container.metadata.update(marks)
        stream = container.add_stream("libmp3lame" if mp3 else "pcm_s16le", rate=SOUND_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray((tone(1.0)[None] * 32767).astype(np.int16), format="s16", layout="mono")
        frame.sample_rate = SOUND_RATE
        for part in av.AudioResampler(format="fltp" if mp3 else "s16", frame_size=1152 if mp3 else 0).resample(frame):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    content = path.read_bytes()
    if mp3:  # ID3v1 has no encoding
        content += b"TAG" + title.ljust(30, b"\0") + artist.ljust(30, b"\0") + bytes(65)
    else:
        assert content.count(b"A" * len(title)) == content.count(b"B" * len(artist)) == 1
        content = content.replace(b"A" * len(title), title).replace(b"B" * len(artist), artist)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".mkv"])
@pytest.mark.parametrize("encoding", ["gbk", "latin-1"])
def test_tags_that_are_not_utf_8(tmp_path: Path, suffix: str, encoding: str) -> None:
    title, artist = ("我们的歌曲", "张学友与朋友") if encoding == "gbk" else ("Café près", "Zoë Müller")
    path = tagged(tmp_path / f"a{suffix}", title.encode(encoding), artist.encode(encoding))
    with pytest.raises(UnicodeDecodeError), av.open(str(path)):
        pass
    assert power(decode(path).sound) == pytest.approx(power(tone(1.0)), rel=0.2)
    assert probe(path)[1]
    assert names_of(path, "auto") == ("mono",)


def test_sound_that_changes_from_mono_to_stereo(tmp_path: Path) -> None:
    """Streams of raw AAC joined end to end: every part is listened to."""
    from broken_media import write_sound

    one, two = tmp_path / "one.aac", tmp_path / "two.aac"
    write_sound(one, tone(1.0)[None], SOUND_RATE, "mono")
    write_sound(two, np.stack([tone(1.0)] * 2), SOUND_RATE, "stereo")
    joined = tmp_path / "joined.aac"
    joined.write_bytes(one.read_bytes() + two.read_bytes())
    widths = [len(sound) for sound, _ in tracks.sound_blocks(joined, 0)]
    assert widths == [1, 2]
    assert len(tracks.voices_of(joined, "auto", "split").voices) == 1
