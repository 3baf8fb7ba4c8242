"""The losses of stages 1 and 3 on numbers that can be worked out by hand."""

import math

import pytest
import torch

from finetune.model.networks import MugOutput
from finetune.options import TaskWeights, TrainingOptions
from finetune.training.stages import present_error, stage_one_loss, stage_three_loss

Y = torch.tensor([0.0, 0.5, -1.0, 1.0])
ROWS = torch.tensor([1, 2])  # y of the batch: .5 and -1
PRESENT = {"text": torch.tensor([True, True]), "audio": torch.tensor([True, False])}


def output() -> MugOutput:
    predictions = {"fused": torch.tensor([0.0, -0.5]), "text": torch.tensor([1.0, 0.0]), "audio": torch.tensor([0.0, 9.0])}
    representations = {name: torch.zeros(2, 3) for name in predictions}
    projected = {name: torch.zeros(2, 3) for name in ("text", "audio")}
    return MugOutput(predictions, representations, projected)


def options(**weights: float) -> TrainingOptions:
    chosen = TrainingOptions(task_weights=TaskWeights(**weights))
    chosen.alignment.losses = []
    return chosen


def test_an_absent_modality_is_not_in_the_mean() -> None:
    errors = torch.tensor([1.0, 3.0, 100.0])
    assert present_error(errors, torch.tensor([True, True, False])).item() == 2.0
    assert present_error(errors, torch.tensor([True, True, False]), torch.tensor([2.0, 0.0, 5.0])).item() == 1.0
    assert present_error(errors, torch.tensor([False, False, False])).item() == 0.0


def test_stage_one_is_every_task_on_y() -> None:
    fused, text, audio = 0.5, (0.5 + 1.0) / 2, 0.5  # audio: of the first utterance alone
    assert stage_one_loss(Y, options(text=2.0, audio=3.0), True)(output(), PRESENT, ROWS).item() == pytest.approx(
        fused + 2 * text + 3 * audio
    )
    assert stage_one_loss(Y, options(), False)(output(), PRESENT, ROWS).item() == pytest.approx(fused)


def test_stage_three_uses_y_for_the_fused_task_and_learned_labels_for_the_modalities() -> None:
    labels = {"text": torch.tensor([9.0, 0.0, -0.5, 9.0]), "audio": torch.tensor([9.0, -1.0, 0.0, 9.0])}
    fused, text, audio = 0.5, (1.0 + 0.5) / 2, 1.0
    loss = stage_three_loss(Y, labels, options(audio=0.5), tanh=False)
    assert loss(output(), PRESENT, ROWS).item() == pytest.approx(fused + text + 0.5 * audio)
    weighed = (math.tanh(0.5) * 1.0 + math.tanh(0.5) * 0.5) / 2 + 0.5 * math.tanh(1.5) * 1.0
    loss = stage_three_loss(Y, labels, options(audio=0.5), tanh=True)
    assert loss(output(), PRESENT, ROWS).item() == pytest.approx(fused + weighed)
