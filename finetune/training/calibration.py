"""The interval around a model's scores: what is kept of the calibration part in training, and the intervals of all seeds."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.corpora import LabelledCorpus
from finetune.metrics import mean_and_std
from finetune.model.minibatches import PreparedSplit
from finetune.options import MugOptions
from finetune.prediction.intervals import (
    ScoreInterval,
    clipped_residuals,
    conformal_half_width,
    coverage_of,
    utterances_needed,
)
from finetune.training.pieces import mean_prediction, write_arrays
from skesl_mug.wording import counted

if TYPE_CHECKING:
    from finetune.training.pieces import Pieces

CALIBRATION = "calibration"
"""The piece with the headline model's predictions for the calibration part, in `calibration.npz`."""


def has_every_modality(split: PreparedSplit, modalities: Sequence[str]) -> np.ndarray:
    """Whether each utterance has all of the corpus's modalities, bool [N]: intervals are calibrated and given for these only."""
    complete: np.ndarray = np.all([split.present(name) for name in modalities], axis=0)
    return complete


def write_calibration(
    folder: Path, predictions: np.ndarray, part: PreparedSplit, evaluated: PreparedSplit, modalities: Sequence[str]
) -> None:
    """Keep what intervals need in a seed's folder.

    Args:
        folder: of the seed.
        predictions: for the calibration part [N], in label units; the model must not have been trained on these utterances.
        part: the calibration part.
        evaluated: the evaluated split.
        modalities: of the corpus.
    """
    arrays = {
        "pred_M": predictions,
        "label": part.split.label,
        "video": np.unique(np.asarray(part.split.video_ids), return_inverse=True)[1],
        "complete": has_every_modality(part, modalities),
        "evaluated_complete": has_every_modality(evaluated, modalities),
    }
    write_arrays(folder / f"{CALIBRATION}.npz", arrays)


def interval_of(pieces: "Pieces", corpus: LabelledCorpus, options: MugOptions, seeds: Sequence[int]) -> ScoreInterval:
    """The interval of a seed's headline model, or of the mean of several seeds' predictions, with its coverage on the evaluated split;
    without a half width if there is none."""
    level, per_seed = options.interval_level, [pieces.arrays(seed, CALIBRATION) for seed in seeds]
    kept = per_seed[0]
    if not all(per_seed):
        return ScoreInterval(level, reason="no interval around the scores: the run kept no predictions for its development part")
    used = kept["complete"]
    residuals = clipped_residuals(mean_prediction([each["pred_M"] for each in per_seed]), kept["label"], corpus.label_range)[used]
    half_width = conformal_half_width(residuals, level)
    n, videos = len(residuals), len(np.unique(kept["video"][used]))
    if half_width is None:
        return ScoreInterval(level, n=n, videos=videos, reason=too_few(corpus, options, n, len(used)))
    rows = kept["evaluated_complete"]
    predictions = mean_prediction([pieces.predictions[pieces.seeds.index(seed)] for seed in seeds])
    evaluated = clipped_residuals(predictions, corpus.splits[corpus.evaluated_on].label, corpus.label_range)[rows]
    selected = options.training.keep == "best" or options.epochs_from == "cross-validation"
    return ScoreInterval(level, half_width, n, videos, coverage_of(evaluated, half_width), len(evaluated), selected)


def too_few(corpus: LabelledCorpus, options: MugOptions, n: int, size: int) -> str:
    """Why there is no interval, and how to get one."""
    part = f"{counted(n, 'utterance')}" + (f" with every modality (of {size})" if n < size else "")
    level, folds = options.interval_level, options.epochs_from == "cross-validation"
    carved = corpus.evaluated_on_note is not None  # otherwise it is the file's own valid split
    fix = "add labelled utterances" if folds else "raise --dev-share" if carved else "add utterances to the file's `valid` split"
    where = "train has" if folds else "the development part has"
    needed = f"{100 * level:g} % needs {utterances_needed(level)}"
    return f"no interval around the scores: {where} {part}, and {needed}; {fix}, or lower --interval-level"


def score_intervals(pieces: "Pieces", corpus: LabelledCorpus, options: MugOptions) -> dict[str, Any]:
    """The entry `score_interval` of results.json: `half_width` (label units) and `coverage` per seed, with mean and standard deviation.

    `n`, `videos`, `evaluated` and `selected` are as in `ScoreInterval`; `reason` says why there is no interval.
    """
    found = {seed: interval_of(pieces, corpus, options, [seed]) for seed in pieces.seeds}
    known = {seed: interval for seed, interval in found.items() if interval.half_width is not None}
    one = next(iter((known or found).values()))
    entry: dict[str, Any] = {name: getattr(one, name) for name in ("level", "n", "videos", "evaluated", "selected")}
    entry["reason"] = next((interval.reason for interval in found.values() if interval.reason), "")
    scores = {seed: {"half_width": interval.half_width, "coverage": interval.coverage} for seed, interval in known.items()}
    return entry | {str(seed): score for seed, score in scores.items()} | (mean_and_std(list(scores.values())) if scores else {})


def interval_from(entry: dict[str, Any], seed: int) -> ScoreInterval:
    """The interval of one seed's model from the entry `score_interval` of results.json."""
    shared = {name: entry[name] for name in ("level", "n", "videos", "evaluated", "selected")}
    own = entry.get(str(seed))
    return ScoreInterval(**shared, **own) if own else ScoreInterval(**shared, reason=entry["reason"])
