"""Prosody, several audio extractors at once, and levels relative to the speaker."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
from clip_factory import plain, tone, write_clip

import skesl_mug as sm
from finetune.prediction.recipe import first_difference
from preprocessing.blocks import blocks_of, joined_info, open_blocks, places_of
from preprocessing.extensions import AUDIO_FEATURES, block_names
from preprocessing.media import Media
from preprocessing.pipeline import PipelineSettings
from preprocessing.preprocess import Options
from preprocessing.schema import FeatureInfo
from preprocessing.sound import prosody as columns
from preprocessing.sound.pitch import track_pitch
from preprocessing.sound.prosody import open_prosody, prosody, prosody_info
from preprocessing.sound.rates import to_rate
from skesl_mug.errors import UserError

RATE = 16_000
PLACE = {name: number for number, name in enumerate(columns.COLUMNS)}


def sine(hertz: float | np.ndarray, seconds: float = 1.0, level: float = 0.3) -> np.ndarray:
    steps = np.full(int(seconds * RATE), hertz) if np.ndim(hertz) == 0 else np.asarray(hertz)
    return (level * np.sin(2 * np.pi * np.cumsum(steps) / RATE)).astype(np.float32)


def vowel(hertz: np.ndarray, formants: tuple[float, ...], seed: int = 0) -> np.ndarray:
    """Pulses at a pitch of `hertz` [samples] through resonances, with noise 30 dB below."""
    phase = np.cumsum(hertz) / RATE
    sound = np.diff(np.floor(phase), prepend=0.0)
    for formant in formants:
        pole = np.exp(-np.pi * 80.0 / RATE) * np.exp(2j * np.pi * formant / RATE)
        sound = scipy.signal.lfilter([1.0], np.poly([pole, pole.conjugate()]).real, sound)
    sound = 0.2 * sound / np.abs(sound).max()
    return (sound + 0.03 * sound.std() * np.random.default_rng(seed).standard_normal(len(sound))).astype(np.float32)


@pytest.mark.parametrize("hertz", [65.0, 82.0, 110.0, 155.0, 220.0, 330.0, 480.0])
def test_the_pitch_of_a_tone(hertz):
    track = track_pitch(sine(hertz))
    assert track.voiced[5:-5].all()
    np.testing.assert_allclose(track.hertz[5:-5], hertz, rtol=1e-3)


def test_the_pitch_of_a_glide():
    hertz = 110.0 * 2.0 ** np.linspace(0.0, 1.5, 2 * RATE)
    track = track_pitch(sine(hertz))
    expected = hertz[np.minimum(np.arange(len(track.hertz)) * 160, len(hertz) - 1)]
    np.testing.assert_allclose(track.hertz[5:-5], expected[5:-5], rtol=5e-3)


@pytest.mark.parametrize("formants", [(300.0, 2300.0, 3000.0), (700.0, 1200.0, 2600.0), (320.0, 800.0, 2500.0)], ids=["i", "a", "u"])
@pytest.mark.parametrize("level", [85.0, 120.0, 210.0, 380.0])
def test_the_pitch_of_a_vowel_without_octave_errors(formants, level):
    hertz = level * 2.0 ** (0.12 * np.sin(2 * np.pi * 3.0 * np.arange(RATE) / RATE))  # up and down by 1.4 semitones
    track = track_pitch(vowel(hertz, formants))
    expected = hertz[np.minimum(np.arange(len(track.hertz)) * 160, len(hertz) - 1)]
    inside = slice(6, -6)
    assert track.voiced[inside].mean() > 0.95
    voiced = track.voiced[inside]
    error = 12 * np.abs(np.log2(track.hertz[inside][voiced] / expected[inside][voiced]))
    assert (error > 6).sum() == 0
    assert np.median(error) < 0.3


def test_the_pitch_agrees_with_pyin():
    import librosa

    hertz = 140.0 * 2.0 ** (0.4 * np.sin(2 * np.pi * 1.5 * np.arange(RATE) / RATE))
    sound = vowel(hertz, (600.0, 1100.0, 2500.0))
    sound[RATE // 3 : RATE // 2] = 0.003 * np.random.default_rng(1).standard_normal(RATE // 2 - RATE // 3)
    theirs, voiced, _ = librosa.pyin(sound, fmin=60, fmax=500, sr=RATE, frame_length=1024, hop_length=160)
    ours = track_pitch(sound)
    both = voiced & ours.voiced[: len(voiced)]
    assert both.sum() > 60
    assert np.mean(voiced == ours.voiced[: len(voiced)]) > 0.9
    assert np.median(12 * np.abs(np.log2(ours.hertz[: len(voiced)][both] / theirs[both]))) < 0.3


def test_noise_has_no_pitch():
    noise = np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.1
    assert track_pitch(noise).voiced.mean() < 0.05
    assert not track_pitch(np.zeros(RATE, np.float32)).voiced.any()


def test_pitch_is_relative_to_the_clip():
    low, high = (prosody(sine(hertz)).mean(axis=0) for hertz in (110.0, 220.0))
    assert high[PLACE["pitch_level"]] - low[PLACE["pitch_level"]] == pytest.approx(12.0, abs=0.05)
    assert low[PLACE["pitch_level"]] == pytest.approx(12.0, abs=0.05)  # semitones above 55 Hz
    for values in (low, high):
        assert values[PLACE["pitch"]] == pytest.approx(0.0, abs=0.05)
        assert values[PLACE["voiced"]] > 0.95
    rising = prosody(sine(150.0 * 2.0 ** np.linspace(0, 1, RATE)))[3:-3]
    assert rising[:, PLACE["pitch_change"]].mean() == pytest.approx(12.0, abs=0.5)  # an octave per second


def test_levels_are_in_decibels():
    loud, quiet = (prosody(sine(1000.0, level=level)).mean(axis=0) for level in (0.5, 0.05))
    assert loud[PLACE["loudness_level"]] == pytest.approx(10 * np.log10(0.5**2 / 2), abs=0.2)  # A-weighting is 0 dB at 1 kHz
    assert loud[PLACE["loudness_level"]] - quiet[PLACE["loudness_level"]] == pytest.approx(20.0, abs=0.1)
    soft, bright = (prosody(scipy.signal.lfilter([1.0], [1.0, pole], noise()).astype(np.float32)).mean(axis=0) for pole in (-0.9, 0.5))
    assert soft[PLACE["slope_level"]] < -3.0 < 1.0 < bright[PLACE["slope_level"]]
    assert soft[PLACE["alpha_ratio"]] > bright[PLACE["alpha_ratio"]]


def noise() -> np.ndarray:
    return 0.05 * np.random.default_rng(0).standard_normal(RATE)


@pytest.mark.parametrize("samples", [RATE, 1600, 100, 0])
def test_silence_and_short_clips_have_defined_values(samples):
    silent = prosody(np.zeros(samples, np.float32))
    assert silent.shape == (max(1, round(samples / RATE * 20)), len(columns.COLUMNS))
    expected = dict.fromkeys(columns.COLUMNS, 0.0) | {"loudness": -columns.RANGE, "loudness_level": columns.QUIETEST}
    np.testing.assert_allclose(silent[:, 1:], [[expected[name] for name in columns.COLUMNS][1:]] * len(silent), atol=1e-5)
    assert (silent[:, PLACE["voiced"]] < 0.01).all()
    assert np.isfinite(prosody(sine(200.0)[:samples])).all()


def test_frames_at_another_rate_keep_their_times():
    values = np.arange(100, dtype=np.float32)[:, None]  # at 50 Hz, the value is 50 t
    slower = to_rate(values, 50.0, 10.0, 2.0)
    np.testing.assert_allclose(slower[1:-1, 0], 50 * np.arange(20)[1:-1] / 10, atol=1e-5)
    faster = to_rate(values, 50.0, 100.0, 2.0)
    np.testing.assert_allclose(faster[:198, 0], 50 * np.arange(198) / 100, atol=1e-5)
    assert to_rate(values[:1], 50.0, 10.0, 1.0).shape == (10, 1)
    assert to_rate(values, 43.07, 10.0, 100 / 43.07).shape == (23, 1)


def test_names_of_features():
    assert block_names("librosa", AUDIO_FEATURES) == ["librosa33"]
    assert block_names(["prosody", "none"][:1], AUDIO_FEATURES) == ["prosody"]
    assert block_names("none", AUDIO_FEATURES) == []
    for names, message in (
        (["prosody", "prosody"], "--audio prosody prosody: names the same features twice"),
        (["prosody", "none"], "none cannot be combined with features"),
        (["hf"], "--audio hf: needs an argument: hf:NAME_OR_DIR"),
    ):
        with pytest.raises(UserError, match=message):
            block_names(names, AUDIO_FEATURES)
    common = {"corpus": "folder", "root": Path(), "output": "o"}
    assert Options(**common, audio="prosody").audio == ["prosody"]
    with pytest.raises(UserError, match=r"--audio-layer 3: only applies to --audio whisper and hf:NAME_OR_DIR"):
        Options(**common, audio_layer="3")
    with pytest.raises(UserError, match=r"--audio-layer first: use last, or the number of a layer from 1"):
        Options(**common, audio=["whisper"], audio_layer="first")
    with pytest.raises(UserError, match=r"--audio whisper: needs the speech recogniser, but --asr\.model is none"):
        open_blocks(PipelineSettings(whisper=None, audio="whisper"), None)


def test_several_blocks_are_joined_at_the_rate_of_the_slowest():
    blocks = open_blocks(PipelineSettings(whisper=None, audio=["prosody", "librosa33"]), None)
    assert blocks is not None
    info = blocks.info
    assert (info.extractor, info.rate_hz, info.width) == ("prosody+librosa33", 20.0, 48)
    assert info.columns[1] == {"name": "prosody/pitch", "unit": columns.COLUMNS["pitch"]}
    assert [block.extractor for block in blocks_of(info)] == ["prosody", "librosa33"]
    assert blocks_of(info)[0] == prosody_info()
    assert places_of(info, "librosa33")["mfcc_0"] == 16
    clip = Media(1.0, tone(1.0), 22_050, [], [])
    values = blocks.extract(clip)
    assert values.shape == (20, 48)
    np.testing.assert_allclose(values[:, :15], open_prosody().extract(clip.sound_at(RATE)), atol=1e-5)
    assert json.loads(json.dumps(info.settings)) == info.settings


def test_the_first_difference_names_the_block():
    rates = [FeatureInfo("whisper", 10.0, [{"name": "a", "unit": ""}], {"x": version}, {"model_sha256": model}) for version, model in
             (("1", "m"), ("2", "m"), ("1", "n"))]  # fmt: skip
    trained, newer, other = (joined_info([prosody_info(), block]) for block in rates)
    assert first_difference(trained, newer) is None  # only a library's version
    assert first_difference(trained, other) == "whisper: model_sha256: m, here n"
    assert first_difference(trained, prosody_info()) == "extractor prosody+whisper, here prosody"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Five clips: two speakers with two clips, one with one; the last clip of the first speaker has no voice."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = ["clip,speaker,transcript"]
    clips = [("a", "ann", 110.0), ("b", "ann", 220.0), ("c", "bob", 150.0), ("d", "bob", 150.0), ("e", "eve", 300.0)]
    for name, speaker, hertz in clips:
        write_clip(folder / f"{name}.mp4", tone(0.7, hertz), plain())
        rows.append(f"{name},{speaker},so good")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def preprocess(root: Path, output: Path, **changed: object):
    options = {"audio": ["prosody"], "vision": "none", "workers": 1, "asr": {"model": "none"}, **changed}
    return sm.preprocess("folder", root, output, **options)


def test_levels_relative_to_the_speaker_are_filled_in_at_the_end(root, tmp_path, capsys):
    place = PLACE["pitch_to_speaker"]

    def relative() -> dict[str, float]:
        return {row.id: round(float(row.audio[0, place]), 1) for row in sm.read_dataset(tmp_path / "d")}

    preprocess(root, tmp_path / "d", limit=1)
    assert relative() == {"a": 0.0}  # a speaker with one clip
    info = preprocess(root, tmp_path / "d")
    assert relative() == {"a": -6.0, "b": 6.0, "c": 0.0, "d": 0.0, "e": 0.0}
    assert json.loads((tmp_path / "d" / "dataset.json").read_text())["counts"]["speakers_normalised"] == 2
    assert info.counts["kept"] == 5
    before = (tmp_path / "d" / "data" / "part-000000.parquet").stat().st_mtime_ns
    preprocess(root, tmp_path / "d")
    assert "nothing to do" in capsys.readouterr().out
    assert (tmp_path / "d" / "data" / "part-000000.parquet").stat().st_mtime_ns == before
    table = root / "labels.csv"
    given = table.read_text()
    try:
        table.write_text(given.replace("e,eve", "e,ann"))  # a corrected speaker: the medians follow
        preprocess(root, tmp_path / "d")
        assert relative()["b"] == 0.0
    finally:
        table.write_text(given)


def test_a_dataset_with_other_blocks_is_refused(root, tmp_path):
    preprocess(root, tmp_path / "d", limit=1, audio="librosa")
    with pytest.raises(UserError, match=r"with other options \(--audio was librosa33, now prosody librosa33\)"):
        preprocess(root, tmp_path / "d", limit=1, audio=["prosody", "librosa33"])
    config = tmp_path / "d" / "config.yaml"
    config.write_text(config.read_text().replace("audio:\n- librosa33\n", "audio: librosa33\n"))  # as earlier versions wrote it
    preprocess(root, tmp_path / "d", limit=1, audio="librosa33")


def test_a_part_leaves_the_speakers_to_the_last_run(root, tmp_path, capsys):
    preprocess(root, tmp_path / "d", part="1/2")
    assert "note: the columns relative to the speaker are 0 until" in capsys.readouterr().out
    preprocess(root, tmp_path / "d", part="2/2")
    preprocess(root, tmp_path / "d")
    assert {abs(round(float(row.audio[0, PLACE["pitch_to_speaker"]]))) for row in sm.read_dataset(tmp_path / "d")} == {0, 6}
