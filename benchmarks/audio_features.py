"""Processor time of the 33 audio columns against librosa's functions called per clip, interleaved.

    python benchmarks/audio_features.py [FOLDER OF VIDEOS]

Without a folder, synthetic clips are used (those of `preprocess.py`).
"""

import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "tests")]

import librosa
import numpy as np

from benchmarks.preprocess import make_clips
from preprocessing.audio import SAMPLE_RATE, librosa33, warm_up
from preprocessing.layouts.files import list_files
from preprocessing.media import decode

CLIPS, ROUNDS = 20, 3


def plain(sound: np.ndarray) -> np.ndarray:
    crossings = librosa.feature.zero_crossing_rate(sound, hop_length=512)
    cepstrum = librosa.feature.mfcc(y=sound, sr=SAMPLE_RATE, n_mfcc=20, hop_length=512, htk=True)
    return np.concatenate([crossings, cepstrum, librosa.feature.chroma_cqt(y=sound, sr=SAMPLE_RATE, hop_length=512)]).T


def main() -> None:
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(scratch)
        if len(sys.argv) == 1:
            make_clips(folder, CLIPS)
        sounds = [decode(path).sound_at(SAMPLE_RATE) for path in list_files(folder).recordings[:CLIPS]]
    media = sum(map(len, sounds)) / SAMPLE_RATE
    plain(sounds[0])
    warm_up()
    for number in range(ROUNDS):
        spent = {"librosa": 0.0, "ours": 0.0}
        worst = 0.0
        for sound in sounds:
            start = time.process_time()
            expected = plain(sound)
            spent["librosa"] += time.process_time() - start
            start = time.process_time()
            found = librosa33(sound)
            spent["ours"] += time.process_time() - start
            worst = max(worst, float(np.abs(found - expected).max()))
        rates = f"librosa {media / spent['librosa']:.0f}, ours {media / spent['ours']:.0f} times real time"
        ratio = spent["librosa"] / spent["ours"]
        print(f"round {number + 1}: {len(sounds)} clips, {media:.1f} s; {rates}, ratio {ratio:.1f}; largest difference {worst:.1e}")


if __name__ == "__main__":
    main()
