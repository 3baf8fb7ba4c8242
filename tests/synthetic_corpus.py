"""A synthetic labelled corpus as an MMSA pickle and the flags of a short run on it, for the tests and the drill of fine-tuning."""

import pickle
from pathlib import Path

import numpy as np
from synthetic_pretraining import SENTIMENT, WORDS

SMALL = [
    "--training.align-epochs",
    "2",
    "--training.joint-epochs",
    "2",
    "--generators.crossfit.steps",
    "20",
    "--generators.meta.steps",
    "5",
    "--bootstrap",
    "50",
]


def write_pickle(path: Path, sizes: dict[str, int], human: bool = True, seed: int = 0, vision: bool = True) -> Path:
    """An MMSA pickle of synthetic samples; y is the mean of three unimodal scores that words, sound and face show."""
    random = np.random.default_rng(seed)
    content = {}
    for split, count in sizes.items():
        scores = np.clip(random.normal(size=(count, 1)) * 0.4 + random.normal(size=(count, 3)) * 0.3, -1, 1).astype(np.float32)
        sentiment = [SENTIMENT[0] if score > 0 else SENTIMENT[1] for score in scores[:, 0]]
        entry = {
            "raw_text": [" ".join([*random.choice(WORDS, 4), word]) for word in sentiment],
            "audio": (scores[:, 1, None, None] + random.normal(size=(count, 6, 5))).astype(np.float32),
            "id": [f"{split}{row // 4}$_${row}" for row in range(count)],
            "regression_labels": scores.mean(1),
        }
        if vision:
            entry["vision"] = (scores[:, 2, None, None] + random.normal(size=(count, 4, 3))).astype(np.float32)
        for place, letter in enumerate("TAV"):
            entry[f"regression_labels_{letter}"] = scores[:, place] if human else np.full(count, np.nan, np.float32)
        content[split] = entry
    path.write_bytes(pickle.dumps(content))
    return path
