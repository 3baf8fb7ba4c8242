"""What the validation score is compared with: a constant, the text alone, and audio and vision of other utterances."""

from typing import Any

import numpy as np
from accelerate import Accelerator

from pretrain.loop import Score, predict, score_predictions
from pretrain.options import PretrainOptions
from pretrain.samples import MaskedUtterances

PERMUTATIONS = 5
MANY = 5000


def run_controls(
    accelerator: Accelerator, model: Any, train_labels: np.ndarray, valid: MaskedUtterances, pad_token_id: int, options: PretrainOptions
) -> tuple[Score, dict[str, Score]]:
    """The validation score and the controls' (`constant`, `text_only`, `shuffled_audio_vision`), all of the same trained model.

    Returns:
        (score, controls); the two modality controls are absent where the encoder has neither audio nor vision.
    """
    labels = valid.selection.intensities[valid.members]
    score = score_predictions(predict(accelerator, model, valid, pad_token_id, options), labels)
    controls = {"constant": score_predictions(np.full(len(labels), np.median(train_labels)), labels)}
    if not model.config.feature_dims:
        return score, controls
    controls["text_only"] = score_predictions(predict(accelerator, model, valid, pad_token_id, options, text_only=True), labels)
    shuffled = []
    for turn in range(PERMUTATIONS if len(valid) <= MANY else 1):
        donors = permutation_without_fixed_points(len(valid), np.random.default_rng((options.seed, turn)))
        other = MaskedUtterances(
            valid.corpora, valid.selection, valid.members, valid.max_audio_frames, valid.max_vision_frames, valid.cache, donors
        )
        shuffled.append(score_predictions(predict(accelerator, model, other, pad_token_id, options), labels))
    correlations = [one["Corr"] for one in shuffled if one["Corr"] is not None]
    controls["shuffled_audio_vision"] = {
        "MAE": float(np.mean([one["MAE"] for one in shuffled])),
        "Corr": float(np.mean(correlations)) if correlations else None,
    }
    return score, controls


def permutation_without_fixed_points(count: int, generator: np.random.Generator) -> np.ndarray:
    """A random permutation [count] in which no sample keeps its own place: one random cycle through all."""
    order = generator.permutation(count)
    donors = np.empty(count, np.int64)
    donors[order] = np.roll(order, 1)
    return donors


def verdict(score: Score, controls: dict[str, Score], margin: float) -> str:
    """One sentence: whether audio and vision were used, by the margin that was set beforehand."""
    if "shuffled_audio_vision" not in controls:
        return "The data has neither audio nor vision: this encoder reads text alone."
    before, after = score["MAE"], controls["shuffled_audio_vision"]["MAE"]
    assert before is not None
    assert after is not None
    said = f"permuting them between utterances changes the validation MAE by {after - before:+.3f} (margin {margin:g}, set beforehand)"
    return f"Audio and vision were used: {said}." if after - before >= margin else f"Audio and vision were not used: {said}."
