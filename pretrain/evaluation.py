"""Held-out samples, and how well a model predicts them: masked words' intensities and whole utterances' ratings."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from pretrain.batches import LengthBucketSampler, MaskedCollator
from pretrain.options import ObjectiveOptions, PretrainOptions
from pretrain.samples import MaskedUtterances, RatedSentences

Score = dict[str, float | None]
WORD, RATED, DISTIL = "word", "rated", "distil"
"""What a model learns, by the names of the objective's options."""


@dataclass
class HeldOut:
    """The held-out samples; None where the run has none of the kind."""

    utterances: MaskedUtterances | None
    sentences: RatedSentences | None

    def kinds(self, objective: ObjectiveOptions) -> list[str]:
        """What can be scored on them, the leading one first: it stands in the results' first row and beside the controls."""
        weights = vars(objective)
        kinds = [WORD, DISTIL] if self.utterances is not None else []
        kinds += [RATED] if self.sentences is not None else []
        return [kind for kind in kinds if weights[kind] > 0]

    def data(self, kind: str) -> MaskedUtterances | RatedSentences:
        """The samples of a kind."""
        found = self.sentences if kind == RATED else self.utterances
        assert found is not None
        return found


def labels_of(data: MaskedUtterances | RatedSentences, kind: str) -> np.ndarray:
    """What is to be predicted of each sample, float32 [N]."""
    return data.intensities if kind == WORD and isinstance(data, MaskedUtterances) else data.labels


def model_inputs(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The collator's batch without `index`, on the device."""
    return {name: None if value is None else value.to(device) for name, value in batch.items() if name != "index"}


@torch.no_grad()
def predict(
    accelerator: Accelerator,
    model: Any,
    data: MaskedUtterances | RatedSentences,
    kind: str,
    pad_token_id: int,
    options: PretrainOptions,
    text_only: bool = False,
) -> np.ndarray:
    """What the model predicts of every sample [N], the same on all processes; `text_only`: without audio and vision."""
    model.eval()
    sampler = LengthBucketSampler(data.costs, options.batch_size, shuffle=False)
    mine = list(sampler)[accelerator.process_index :: accelerator.num_processes]
    loader = DataLoader(data, batch_sampler=mine, collate_fn=MaskedCollator(pad_token_id), num_workers=options.num_workers)
    found: list[tuple[int, float]] = []
    for batch in loader:
        inputs = model_inputs(batch, accelerator.device)
        inputs.pop("labels")
        if kind == WORD:
            inputs |= {"ratings": None, "rating_weights": None}
        if text_only:
            inputs |= {"audio": None, "audio_mask": None, "vision": None, "vision_mask": None}
        with accelerator.autocast():
            output = model(**inputs)
        values = output.logits[:, 0] if kind == WORD else output.ratings
        found += zip(batch["index"].tolist(), values.float().tolist(), strict=True)
    if accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        found = gather_object(found)
    predictions = np.full(len(data), np.nan)
    for index, value in found:
        predictions[index] = value
    return predictions


def score_predictions(predictions: np.ndarray, labels: np.ndarray) -> Score:
    """MAE and Pearson's Corr (None where one side is constant)."""
    moving = len(labels) > 1 and np.ptp(predictions) > 1e-9 and np.ptp(labels) > 1e-9
    return {
        "MAE": float(np.abs(predictions - labels).mean()),
        "Corr": float(np.corrcoef(predictions, labels)[0, 1]) if moving else None,
    }


def evaluate(accelerator: Accelerator, model: Any, held: HeldOut, pad_token_id: int, options: PretrainOptions) -> dict[str, Score]:
    """The model's score on the held-out samples by kind, the leading one first."""
    scores = {}
    for kind in held.kinds(options.objective):
        data = held.data(kind)
        scores[kind] = score_predictions(predict(accelerator, model, data, kind, pad_token_id, options), labels_of(data, kind))
    return scores


def combined_mae(scores: dict[str, Score], objective: ObjectiveOptions) -> float:
    """The mean of the kinds' MAEs, weighted as the objective weighs them: by it the best epoch is chosen."""
    weights = {kind: float(vars(objective)[kind]) for kind in scores}
    return sum(weights[kind] * float(score["MAE"] or 0.0) for kind, score in scores.items()) / sum(weights.values())
