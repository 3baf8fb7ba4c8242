"""Gates by held-out gain: how much of each modality the fused prediction uses, measured on train before anything is trained.

Ridge regressions of y on fixed summaries of the raw input predict every utterance of train out of fold (by video). Text, or else the
modality that predicts best alone, has gate 1. Each further modality joins if it lowers the absolute error: with the mean gain d over
utterances and its standard error e over videos, its gate is max(0, 1 - (e / d)^2), so 0 unless the gain exceeds its standard error, and
close to 1 if it is several times as large (the form of positive-part James-Stein shrinkage). No development part is involved.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune.labels.crossfit import make_folds
from finetune.modalities import TEXT

FOLDS, REPEATS = 5, 5
PENALTIES = np.logspace(0, 6, 13)
MOST_COLUMNS = 256
"""Wider summaries are reduced to this many principal components, so that a run with wide features does not wait for its gates."""
CLIP = 3.0
"""Summaries are clipped to this many standard deviations: COVAREP and FACET have outliers."""


@dataclass(frozen=True)
class Gate:
    """How much of a modality is used: `gate` in 0 to 1; `gain` in mean absolute error over the modalities before it, and its standard
    `error`, both in units of y (0 for the first modality)."""

    gate: float
    gain: float = 0.0
    error: float = 0.0


def held_out_gates(
    y: np.ndarray, videos: Sequence[str], summaries: Mapping[str, np.ndarray], present: Mapping[str, np.ndarray], seed: int
) -> dict[str, Gate]:
    """The gate of every modality.

    Args:
        y: labels [N].
        videos: of each utterance.
        summaries: [N, D_m] by modality; no label may have touched them.
        present: which utterances have the modality, bool [N].
        seed: of the folds.
    """
    columns = {name: standardised(summaries[name], present[name]) for name in summaries if present[name].any()}
    if len(columns) < 2:
        return dict.fromkeys(columns, Gate(1.0))
    errors = OutOfFoldErrors(y, videos, columns, seed)
    first = TEXT if TEXT in columns else min(columns, key=lambda name: errors((name,)).mean())
    chosen, gates = [first], {first: Gate(1.0)}
    while rest := [name for name in columns if name not in gates]:
        found = {name: gate_of(errors(chosen) - errors([*chosen, name]), videos) for name in rest}
        best = max(rest, key=lambda name: found[name].gain / max(found[name].error, 1e-12))
        if found[best].gate == 0:
            gates |= found
        else:
            gates[best] = found[best]
            chosen.append(best)
    return {name: gates[name] for name in columns}


def mean_gates(facts: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The means of `gate`, `gain` and `error` over seeds by modality, from the facts of each seed; {} without gates."""
    per_seed = [part.get("gates") or {} for part in facts]
    return {
        name: {key: round(float(np.mean([gates[name][key] for gates in per_seed])), 4) for key in entry}
        for name, entry in per_seed[0].items()
        if all(name in gates for gates in per_seed)
    }


def gate_of(gains: np.ndarray, videos: Sequence[str]) -> Gate:
    """The gate for the gains [N] of single utterances."""
    names, video = np.unique(np.asarray(videos), return_inverse=True)
    units = video if len(names) > 1 else np.arange(len(gains))
    gain = float(gains.mean())
    error = float(np.sqrt((np.bincount(units, gains - gain) ** 2).sum())) / len(gains)
    gate = 1.0 - (error / gain) ** 2 if gain > error else 0.0
    return Gate(round(gate, 4), round(gain, 5), round(error, 5))


def standardised(summaries: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Columns [N, D] of mean 0 and deviation 1 over the utterances that have the modality, clipped; others are 0. Constant columns go."""
    known = summaries[present]
    deviation = known.std(0)
    kept = deviation > 1e-6
    columns: np.ndarray = np.clip((summaries[:, kept] - known[:, kept].mean(0)) / deviation[kept], -CLIP, CLIP)
    columns[~present] = 0.0
    if columns.shape[1] > MOST_COLUMNS:
        _, vectors = np.linalg.eigh(columns.T @ columns)
        columns = columns @ vectors[:, -MOST_COLUMNS:]
    return columns


class OutOfFoldErrors:
    """Absolute errors [N] of out-of-fold ridge predictions from a set of modalities, averaged over draws of the folds.

    The penalty of each fit is chosen by generalised cross-validation (Golub, Heath and Wahba 1979).
    """

    def __init__(self, y: np.ndarray, videos: Sequence[str], columns: Mapping[str, np.ndarray], seed: int):
        self.y, self.columns = y, columns
        self.folds = [make_folds(videos, FOLDS, "video", (seed * REPEATS + draw) % 2**32) for draw in range(REPEATS)]
        self._known: dict[frozenset[str], np.ndarray] = {}

    def __call__(self, names: Sequence[str]) -> np.ndarray:
        """The errors with these modalities."""
        key = frozenset(names)
        if key not in self._known:
            features = np.concatenate([self.columns[name] for name in self.columns if name in key], axis=1)
            gram = features.T @ features
            self._known[key] = np.mean([self._errors(features, gram, folds) for folds in self.folds], axis=0)
        return self._known[key]

    def _errors(self, features: np.ndarray, gram: np.ndarray, folds: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        errors = np.zeros(len(self.y))
        for train, held_out in folds:
            x, y = features[train], self.y[train]
            mean, level = x.mean(0), y.mean()
            inner = gram - features[held_out].T @ features[held_out] - len(x) * np.outer(mean, mean)  # centred
            values, vectors = np.linalg.eigh(inner)
            values = np.maximum(values, 0.0)
            along = vectors.T @ (x.T @ (y - level))
            total = float(((y - level) ** 2).sum())

            def score(penalty: float, values: np.ndarray = values, along: np.ndarray = along, total: float = total) -> float:
                kept = values / (values + penalty)
                left = total - float((along**2 * (2 - kept) / (values + penalty)).sum())
                return left / max(1.0, len(train) - 1 - float(kept.sum())) ** 2  # noqa: B023

            weights = vectors @ (along / (values + min(PENALTIES, key=score)))
            errors[held_out] = np.abs(self.y[held_out] - level - (features[held_out] - mean) @ weights)
        return errors
