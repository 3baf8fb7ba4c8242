"""What a generator of unimodal labels gets and gives. Adding a generator takes one file and a line in `finetune/labels/__init__.py`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


@dataclass
class LabelInputs:
    """All that a generator may see of the training split: N utterances, labels divided by the label range.

    `representations[m]` and `projected[m]` are [N, D], both detached, from the networks of stage 1. `descriptors[m]` [N, D_m] are
    fixed summaries of the raw input (mean frozen LM state; mean and deviation of the frames) that no label has touched: what
    cross-fitting needs. `present[m]` [N] says where the modality exists; rows elsewhere hold zeros and must not be learned from.
    `scale` is what the labels were divided by. `human[m]` (NaN where unknown) is filled for the generator `human` alone.
    """

    y: np.ndarray
    groups: list[str]
    representations: Mapping[str, Tensor]
    projected: Mapping[str, Tensor]
    descriptors: Mapping[str, np.ndarray]
    present: Mapping[str, np.ndarray]
    seed: int
    scale: float = 1.0
    human: Mapping[str, np.ndarray] | None = None

    @property
    def modalities(self) -> list[str]:
        """The modalities that at least one utterance has."""
        return [name for name, here in self.present.items() if here.any()]


class OnlineLabels(Protocol):
    """Labels that change while stage 3 runs: `targets[m]` [N] in place, after every step."""

    targets: dict[str, Tensor]

    def after_step(self, rows: Tensor, representations: Mapping[str, Tensor], epoch: int) -> None:
        """See one batch: its rows [B], its representations [B, D] by space, the epoch from 1."""
        ...


@dataclass
class LearnedLabels:
    """Labels [N] by modality, divided by the label range, and what the generator found out on the way (for results.json).

    `online` is set by generators that go on learning during stage 3.
    """

    labels: dict[str, np.ndarray]
    facts: dict[str, Any] = field(default_factory=dict)
    online: OnlineLabels | None = None


class LabelGenerator(Protocol):
    """A way to unimodal labels. Only one that `reads_human_labels` gets `LabelInputs.human`."""

    reads_human_labels: bool

    def __call__(self, inputs: LabelInputs) -> LearnedLabels:
        """Labels of every modality in `inputs.modalities`."""
        ...


def generator_for(seed: int, salt: int) -> torch.Generator:
    """A random stream of its own for each user, so that one generator's draws never shift another's."""
    return torch.Generator().manual_seed(seed * 1_000_003 + salt)
