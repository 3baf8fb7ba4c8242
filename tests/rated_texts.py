"""Synthetic sentences whose ratings follow from their words, for the tests of rating and of the starter."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_pretraining import SENTIMENT, WORDS

from lexicons.rated import RatedTexts, load_rated
from pretrain.options import PretrainOptions

CSV_VARIABLE = "RATED_CSV_OF_THE_TEST"
VALUES = dict(zip(SENTIMENT, (2.8, -2.8, 1.6, -1.4, 2.3, -2.3, 0.9, -0.8), strict=True))


def rated_rows(count: int, seed: int = 0) -> pd.DataFrame:
    """Different sentences of two sentiment words, their mean value as the score, three sentences per document."""
    generator = np.random.default_rng(seed)
    rows: dict[str, float] = {}
    while len(rows) < count:
        chosen = [str(word) for word in generator.choice(SENTIMENT, 2)]
        words = [*(str(word) for word in generator.choice(WORDS, generator.integers(2, 6))), *chosen]
        rows[" ".join(str(word) for word in generator.permutation(words))] = float(np.mean([VALUES[word] for word in chosen]))
    documents = [f"d{place // 3}" for place in range(count)]
    return pd.DataFrame({"text": list(rows), "score": np.round(list(rows.values()), 3), "document": documents})


def write_rated(path: Path, count: int = 120, seed: int = 0) -> Path:
    """Such sentences as a csv file."""
    rated_rows(count, seed).to_csv(path, index=False)
    return path


def use_rated(patch: pytest.MonkeyPatch, file: Path) -> None:
    """Let pretraining read a csv file instead of the published set, so that a starter needs no network."""

    def load(*_: object) -> RatedTexts:
        return load_rated(file)

    patch.setattr("pretrain.training_data.load_rated", load)


def pretrain_on_csv(options: PretrainOptions) -> None:
    """Pretraining in a separate process, on the csv file named by an environment variable."""
    from pretrain.pretraining import run_pretraining

    assert "WORLD_SIZE" not in os.environ
    with pytest.MonkeyPatch.context() as patch:
        use_rated(patch, Path(os.environ[CSV_VARIABLE]))
        run_pretraining(options)
