"""What is measured of a trained model on the reported split."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finetune.corpora import LabelledSplit
from finetune.corpora.splits import LabelScale
from finetune.metrics import Scores, score
from finetune.modalities import FUSED, HUMAN_LABELS, MODALITIES
from finetune.model.alignment import cloud_distance
from finetune.model.minibatches import PreparedSplit
from finetune.model.networks import MugModel
from finetune.training.stages import predict

PERMUTATIONS = 5
"""Draws that the permuted control averages."""
Clouds = tuple[dict[str, Tensor], dict[str, Tensor]]
"""Unimodal and projected representations [N, dim] by modality."""


def predictions_of(model: MugModel, split: PreparedSplit, heads: Sequence[str], scale: LabelScale) -> dict[str, np.ndarray]:
    """Predictions [N] in label units: the fused one, and those of the trained unimodal heads, NaN where a modality is absent."""
    raw = {name: scale.decode(values).numpy() for name, values in predict(model, split).items()}
    return {FUSED: raw[FUSED], **{name: np.where(split.present(name), raw[name], np.nan).astype(np.float32) for name in heads}}


def fused_scores(model: MugModel, split: PreparedSplit, scale: LabelScale, dataset: str) -> Scores:
    """Metrics of the fused prediction."""
    return score(scale.decode(predict(model, split)[FUSED]).numpy(), split.split.label, dataset)


def permuted_scores(model: MugModel, split: PreparedSplit, seed: int, scale: LabelScale, dataset: str) -> Scores:
    """Metrics with the audio and vision of other utterances, averaged over several draws."""
    draws = [fused_scores(model, split.with_permuted_frames(seed * 100 + draw), scale, dataset) for draw in range(PERMUTATIONS)]
    return {key: _mean([draw[key] for draw in draws]) for key in draws[0]}


def head_scores(predictions: dict[str, np.ndarray], split: LabelledSplit, dataset: str) -> dict[str, Any]:
    """Metrics of each unimodal head against the known label of its modality if there is one, else against the multimodal label."""
    scores = {}
    for name in MODALITIES:
        if name in predictions and not np.isnan(predictions[name]).all():
            here = ~np.isnan(predictions[name])
            known = getattr(split, HUMAN_LABELS[name])
            rows = here & ~np.isnan(known) if known is not None else np.zeros(len(split), bool)
            truth, against = (known, HUMAN_LABELS[name]) if rows.any() else (split.label, "label")
            rows = rows if rows.any() else here
            assert truth is not None
            scores[name] = {**score(predictions[name][rows], truth[rows], dataset), "against": against}
    return scores


def clouds_of(before: Clouds, after: Clouds, evaluated: PreparedSplit) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The representations of the evaluated split before and after stage 1 as arrays, and the distances of their clouds."""
    arrays: dict[str, np.ndarray] = {}
    distances: dict[str, dict[str, dict[str, float]]] = {}
    for modality in before[0]:
        here = torch.as_tensor(evaluated.present(modality))
        if not here.any():
            continue
        distances[modality] = {}
        for moment, (unimodal, projected) in (("before", before), ("after", after)):
            own, other = unimodal[modality][here], projected[modality][here]
            arrays[f"{moment}_{modality}_unimodal"] = own.numpy().astype(np.float32)
            arrays[f"{moment}_{modality}_projected"] = other.numpy().astype(np.float32)
            distances[modality][moment] = cloud_distance(other, own)
    return arrays, distances


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(float(np.mean(known)), 4) if known else None
