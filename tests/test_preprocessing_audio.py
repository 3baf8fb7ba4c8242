"""SKESL's 33 audio columns against librosa's own functions."""

import warnings

import librosa
import numpy as np
import pytest
from clip_factory import tone

from preprocessing.audio import SAMPLE_RATE, librosa33, librosa33_info


@pytest.mark.parametrize("seconds", [0.5, 1.7])
def test_columns_equal_librosas_functions(seconds):
    rng = np.random.default_rng(0)
    sound = tone(seconds, 311.0) + 0.02 * rng.standard_normal(int(seconds * SAMPLE_RATE)).astype(np.float32)
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


def test_columns_mean_what_their_names_say():
    info = librosa33_info()
    names = [column["name"] for column in info.columns]
    assert len(set(names)) == 33
    assert all(column["unit"] for column in info.columns)
    assert info.rate_hz == pytest.approx(43.066, abs=1e-3)
    sound = tone(1.5, 440.0)
    middle = librosa33(sound)[20:40].mean(axis=0)
    # a sine of 440 Hz crosses zero 880 times a second, and is an A
    assert middle[names.index("zero_crossing_rate")] == pytest.approx(2 * 440 / SAMPLE_RATE, rel=0.02)
    assert names[21 + int(np.argmax(middle[21:]))] == "chroma_A"


def test_no_warnings_on_short_and_silent_clips():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        short = librosa33(tone(0.3))
        silent = librosa33(np.zeros(SAMPLE_RATE, np.float32))
    assert np.isfinite(short).all()
    assert np.isfinite(silent).all()


def test_too_short():
    with pytest.raises(ValueError, match="fewer than one analysis frame"):
        librosa33(np.zeros(100, np.float32))
