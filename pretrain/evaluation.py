"""Validation scores and their controls: a constant, text only, and audio and vision of other utterances."""

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from pretrain.batches import LengthBucketSampler, MaskedCollator
from pretrain.options import WORD, ObjectiveOptions, PretrainOptions
from pretrain.training_data import HeldOut, MaskedUtterances, RatedSentences
from skesl_mug.wording import counted, signed

Score = dict[str, float | None]
PERMUTATIONS = 5
"""Number of permutations the control averages over."""
MANY = 5000
"""Number of samples above which one permutation is enough."""
FEW_TO_JUDGE = 15


def labels_of(data: MaskedUtterances | RatedSentences, kind: str) -> np.ndarray:
    """The label of each sample under an objective, float32 [N]."""
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
    """The model's prediction for every sample [N], the same on all processes; `text_only` leaves out audio and vision."""
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
    """MAE and Pearson's Corr; Corr is None where predictions or labels are constant."""
    varies = len(labels) > 1 and np.ptp(predictions) > 1e-9 and np.ptp(labels) > 1e-9
    return {
        "MAE": float(np.abs(predictions - labels).mean()),
        "Corr": float(np.corrcoef(predictions, labels)[0, 1]) if varies else None,
    }


def evaluate(accelerator: Accelerator, model: Any, held: HeldOut, pad_token_id: int, options: PretrainOptions) -> dict[str, Score]:
    """Validation score of the model by objective, the main one first."""
    scores = {}
    for kind in held.kinds(options.objective):
        data = held.data(kind)
        scores[kind] = score_predictions(predict(accelerator, model, data, kind, pad_token_id, options), labels_of(data, kind))
    return scores


def combined_mae(scores: dict[str, Score], objective: ObjectiveOptions) -> float:
    """Mean MAE over the objectives, weighted like the loss; it selects the best epoch."""
    weights = {kind: float(vars(objective)[kind]) for kind in scores}
    return sum(weights[kind] * float(score["MAE"] or 0.0) for kind, score in scores.items()) / sum(weights.values())


def run_controls(
    accelerator: Accelerator, model: Any, train_labels: np.ndarray, held: HeldOut, pad_token_id: int, options: PretrainOptions
) -> dict[str, Score]:
    """The controls of the main objective (`constant`, `text_only`, `shuffled_audio_vision`), all of the same trained model.

    The latter two are absent where the validation samples have neither audio nor vision.
    """
    kind = held.kinds(options.objective)[0]
    valid = held.data(kind)
    labels = labels_of(valid, kind)

    def scored(data: Any, text_only: bool = False) -> Score:
        return score_predictions(predict(accelerator, model, data, kind, pad_token_id, options, text_only), labels)

    controls = {"constant": score_predictions(np.full(len(labels), np.median(train_labels)), labels)}
    if not model.config.feature_dims or not isinstance(valid, MaskedUtterances):
        return controls
    controls["text_only"] = scored(valid, text_only=True)
    shuffled = []
    for draw in range(PERMUTATIONS if len(valid) <= MANY else 1):
        donors = derangement(len(valid), np.random.default_rng((options.seed, draw)))
        shuffled.append(scored(valid.with_donors(donors)))
    correlations = [one["Corr"] for one in shuffled if one["Corr"] is not None]
    controls["shuffled_audio_vision"] = {
        "MAE": float(np.mean([one["MAE"] for one in shuffled])),
        "Corr": float(np.mean(correlations)) if correlations else None,
    }
    return controls


def derangement(n: int, rng: np.random.Generator) -> np.ndarray:
    """A random permutation [n] without a fixed point: one random cycle through all.

    Raises:
        ValueError: n is less than 2.
    """
    if n < 2:
        raise ValueError(f"a single sample cannot be exchanged with another (n = {n})")
    order = rng.permutation(n)
    donors = np.empty(n, np.int64)
    donors[order] = np.roll(order, 1)
    return donors


def verdict(score: Score, controls: dict[str, Score], margin: float, count: int, sample: str = "utterance") -> str:
    """Whether audio and vision were used, by a margin fixed in advance; undecided where the encoder is no better than a constant.

    Args:
        score, controls: results of `evaluate` and `run_controls`.
        margin: increase of the MAE under permuted audio and vision that counts as use.
        count: number of validation samples.
        sample: what they are ("utterance", "sentence").
    """
    before, constant = score["MAE"], controls["constant"]["MAE"]
    assert before is not None
    assert constant is not None
    beaten = before < constant
    sentences = (
        [] if beaten else [f"The encoder does not beat a constant on the held-out {sample}s (MAE {before:.3f} against {constant:.3f})."]
    )
    after = controls.get("shuffled_audio_vision", {}).get("MAE")
    if after is None:
        sentences.append("The data has neither audio nor vision: this encoder reads text alone.")
    else:
        used = f"Audio and vision {'were' if after - before >= margin else 'were not'} used"
        sentences.append(
            f"{used if beaten else 'Use of audio and vision therefore cannot be judged'}: permuting them between utterances changes the "
            f"validation MAE by {signed(after - before, 3)} (margin {margin:g}, fixed in advance)."
        )
    if count < FEW_TO_JUDGE:
        sentences.append(f"With only {counted(count, sample)} no conclusion is safe.")
    return " ".join(sentences)
