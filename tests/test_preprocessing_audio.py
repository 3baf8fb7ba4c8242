"""SKESL's 33 audio columns against librosa's own functions."""

import warnings

import librosa
import numpy as np
import pytest
from clip_factory import tone, voice

from lexicons import UserError
from preprocessing.audio import SAMPLE_RATE, librosa33, librosa33_info, open_egemaps, open_librosa33, spectrum
from preprocessing.chroma import estimate_tuning


def sweep(seconds: float) -> np.ndarray:
    """A tone that rises through all octaves, on a hum."""
    times = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.3 * np.sin(2 * np.pi * 55 * (2 ** (7 * times / seconds)) * times) + tone(seconds, 61.0)).astype(np.float32)


def steps(seconds: float) -> np.ndarray:
    """Silence, then clicks, then noise."""
    sound = np.zeros(int(seconds * SAMPLE_RATE), np.float32)
    sound[len(sound) // 3 :: 1999] = 0.9
    sound[2 * len(sound) // 3 :] += np.random.default_rng(1).standard_normal(len(sound) - 2 * len(sound) // 3).astype(np.float32) * 0.1
    return sound


def noisy(seconds: float, frequency: float) -> np.ndarray:
    return tone(seconds, frequency) + 0.02 * np.random.default_rng(0).standard_normal(int(seconds * SAMPLE_RATE)).astype(np.float32)


@pytest.mark.parametrize(
    "sound",
    [
        noisy(0.5, 311.0),
        noisy(1.7, 311.0),
        noisy(1.0, 452.0),
        noisy(0.1, 200.0),
        sweep(2.5),
        steps(1.8),
        tone(1.2, 3000.0),
        noisy(1, 33)[:21999],
    ],
)
def test_columns_equal_those_of_librosa(sound):
    columns = librosa33(sound)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.concatenate(
            [
                librosa.feature.zero_crossing_rate(sound, hop_length=512),
                librosa.feature.mfcc(y=sound, sr=22050, n_mfcc=20, hop_length=512, htk=True),
                librosa.feature.chroma_cqt(y=sound, sr=22050, hop_length=512),
            ]
        ).T
    assert columns.shape == expected.shape == (1 + len(sound) // 512, 33)
    assert columns.dtype == np.float32
    np.testing.assert_allclose(columns, expected, atol=1e-4)


def test_columns_match_their_names():
    info = librosa33_info()
    names = [column["name"] for column in info.columns]
    assert len(set(names)) == 33
    assert all(column["unit"] for column in info.columns)
    assert info.rate_hz == pytest.approx(43.066, abs=1e-3)
    sound = tone(1.5, 440.0)
    middle = librosa33(sound)[20:40].mean(axis=0)
    # a sine of 440 Hz crosses zero 880 times per second, and is an A
    assert middle[names.index("zero_crossing_rate")] == pytest.approx(2 * 440 / SAMPLE_RATE, rel=0.02)
    assert names[21 + int(np.argmax(middle[21:]))] == "chroma_A"


def test_no_warnings_on_short_and_silent_clips():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        short = librosa33(tone(0.3))
        silent = librosa33(np.zeros(SAMPLE_RATE, np.float32))
    assert np.isfinite(short).all()
    assert np.isfinite(silent).all()


def test_a_voice_has_librosas_columns():
    sound = voice("The film was wonderful and the music was great.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chroma = librosa.feature.chroma_cqt(y=sound, sr=22050, hop_length=512)
        tuning = librosa.estimate_tuning(y=sound, sr=22050, bins_per_octave=36)
    assert estimate_tuning(spectrum(sound), 22050) == pytest.approx(tuning)
    heard = librosa.feature.rms(y=sound, hop_length=512)[0] > 1e-8  # in digital silence librosa's chroma is rounding errors, normalised
    assert heard.mean() > 0.8
    np.testing.assert_allclose(librosa33(sound)[heard, 21:], chroma.T[heard], atol=1e-4)


def test_egemaps():
    opensmile = pytest.importorskip("opensmile", reason="the extra `egemaps` (opensmile) is not installed")
    extractor = open_egemaps()
    info = extractor.info
    sound = 0.3 * np.sin(2 * np.pi * 220 * np.arange(16_000) / 16_000).astype(np.float32)
    values = extractor.extract(sound)
    assert values.shape[1] == info.width == 25
    assert len(values) == pytest.approx(info.rate_hz * 1.0, abs=6)
    own = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.LowLevelDescriptors)
    np.testing.assert_allclose(values, own.process_signal(sound, 16_000).to_numpy(), atol=1e-5)
    names = [column["name"] for column in info.columns]
    pitch = np.median(values[20:60, names.index("F0semitoneFrom27.5Hz_sma3nz")])
    assert pitch == pytest.approx(12 * np.log2(220 / 27.5), abs=0.5)
    assert all(column["unit"] != "openSMILE's own" for column in info.columns)
    assert "audEERING" in info.settings["licence"]


def test_a_missing_package_is_reported(monkeypatch):
    assert open_librosa33().sample_rate == SAMPLE_RATE
    from preprocessing import audio

    audio._smile.cache_clear()
    monkeypatch.setattr("preprocessing.audio.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install opensmile"):
        open_egemaps()


def test_too_short():
    with pytest.raises(ValueError, match="fewer than one analysis frame"):
        librosa33(np.zeros(100, np.float32))
