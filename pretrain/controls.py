"""What the validation score is compared with: a constant, the text alone, and audio and vision of other utterances."""

from typing import Any

import numpy as np
from accelerate import Accelerator

from pretrain.evaluation import HeldOut, Score, labels_of, predict, score_predictions
from pretrain.options import PretrainOptions
from pretrain.samples import MaskedUtterances
from skesl_mug.wording import counted, signed

PERMUTATIONS = 5
MANY = 5000
FEW_TO_JUDGE = 15


def run_controls(
    accelerator: Accelerator, model: Any, train_labels: np.ndarray, held: HeldOut, pad_token_id: int, options: PretrainOptions
) -> dict[str, Score]:
    """The controls of the leading kind (`constant`, `text_only`, `shuffled_audio_vision`), all of the same trained model.

    The two modality controls are absent where the held-out samples have neither audio nor vision.
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
    for turn in range(PERMUTATIONS if len(valid) <= MANY else 1):
        donors = derangement(len(valid), np.random.default_rng((options.seed, turn)))
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


def verdict(score: Score, controls: dict[str, Score], margin: float, count: int, what: str = "utterance") -> str:
    """Whether audio and vision were used, by the margin that was set beforehand; unknown where the encoder loses to a constant.

    Args:
        score, controls: of `evaluate` and `run_controls`.
        margin: by how much permuting audio and vision must raise the MAE.
        count: validation samples, each a `what`.
    """
    before, constant = score["MAE"], controls["constant"]["MAE"]
    assert before is not None
    assert constant is not None
    beaten = before < constant
    sentences = (
        [] if beaten else [f"The encoder does not beat a constant on the held-out {what}s (MAE {before:.3f} against {constant:.3f})."]
    )
    after = controls.get("shuffled_audio_vision", {}).get("MAE")
    if after is None:
        sentences.append("The data has neither audio nor vision: this encoder reads text alone.")
    else:
        used = f"Audio and vision {'were' if after - before >= margin else 'were not'} used"
        sentences.append(
            f"{used if beaten else 'So audio and vision cannot be judged'}: permuting them between utterances changes the validation MAE "
            f"by {signed(after - before, 3)} (margin {margin:g}, set beforehand)."
        )
    if count < FEW_TO_JUDGE:
        sentences.append(f"On {counted(count, what)} all this says little.")
    return " ".join(sentences)
