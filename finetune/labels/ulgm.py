"""`ulgm`: the unimodal label generation module of Self-MM (Yu et al., AAAI 2021), exact; its labels change during stage 3.

For each space s in {M, T, A, V} it keeps the features F_s of every training sample, their positive and negative centres, and a label.
With a_s = (||F_s - C_s^-|| - ||F_s - C_s^+||) / (||F_s - C_s^+|| + eps):

    y_s = 0.5 (a_s / (a_M + eps)) y + 0.5 (y + a_s - a_M),  clamped to the label range,
    and from epoch n = 2 on:  y_s <- (n - 1)/(n + 1) y_s + 2/(n + 1) new
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from finetune.labels import LabelInputs, LearnedLabels
from finetune.modalities import FUSED

EPSILON = 1e-8


class Ulgm:
    """`ulgm`: starts every label at y; stage 3 updates them."""

    reads_human_labels = False

    def __call__(self, inputs: LabelInputs) -> LearnedLabels:
        """y for every modality, and the updater."""
        labels = {name: inputs.y.copy() for name in inputs.modalities}
        return LearnedLabels(labels, online=UlgmUpdater(inputs.y, {name: inputs.present[name] for name in inputs.modalities}, inputs.scale))


class UlgmUpdater:
    """Labels in label units (the formula adds a unit-free offset to them, so the unit matters); `targets` are divided by the range.

    `targets[m]` [N] are updated in place, so a loss that holds them sees the new labels. Samples without a modality (`present[m]` [N])
    keep y and do not count in its centres (the paper has no absent modalities).
    """

    def __init__(self, y: np.ndarray, present: Mapping[str, np.ndarray], scale: float):
        self.scale = scale
        self.present = {FUSED: torch.ones(len(y), dtype=torch.bool)} | {name: torch.as_tensor(here) for name, here in present.items()}
        self.y = torch.as_tensor(y * scale, dtype=torch.float32)
        self.targets = {name: torch.as_tensor(y, dtype=torch.float32).clone() for name in present}
        self.features: dict[str, Tensor] = {}
        self.centres: dict[str, tuple[Tensor, Tensor]] = {}

    def after_step(self, rows: Tensor, representations: Mapping[str, Tensor], epoch: int) -> None:
        """Update after a backward pass: labels (from the second epoch on), then features, then centres over all samples.

        Args:
            rows: [B] indices of the samples.
            representations: [B, D] by space, `fused` among them, detached.
            epoch: from 1.
        """
        spaces = [FUSED, *self.targets]
        if epoch > 1:
            distance = {name: self._relative_distance(name, representations[name]) for name in spaces}
            for name, target in self.targets.items():
                new = self._new_label(self.y[rows], distance[name], distance[FUSED])
                old = target[rows] * self.scale
                moved = ((epoch - 1) / (epoch + 1) * old + 2 / (epoch + 1) * new) / self.scale
                target[rows] = torch.where(self.present[name][rows], moved, target[rows])
        for name in spaces:
            if name not in self.features:
                self.features[name] = torch.zeros(len(self.y), representations[name].shape[1])
            self.features[name][rows] = representations[name].detach().float().cpu()
            self._move_centres(name)

    def _new_label(self, y: Tensor, own: Tensor, fused: Tensor) -> Tensor:
        new = 0.5 * own / (fused + EPSILON) * y + 0.5 * (y + own - fused)
        return new.clamp(-self.scale, self.scale)

    def _relative_distance(self, space: str, features: Tensor) -> Tensor:
        positive, negative = self.centres[space]
        features = features.detach().float().cpu()
        near = (features - positive).norm(dim=-1)
        result: Tensor = ((features - negative).norm(dim=-1) - near) / (near + EPSILON)
        return result

    def _move_centres(self, space: str) -> None:
        """Means of the samples with a positive and a negative current label of the space; a side without samples keeps its last centre."""
        label = self.y if space == FUSED else self.targets[space]
        features = self.features[space]
        before = self.centres.get(space, (torch.zeros(features.shape[1]), torch.zeros(features.shape[1])))
        here = self.present[space]
        sides = (here & (label > 0), here & (label < 0))
        positive, negative = (features[side].mean(0) if side.any() else last for side, last in zip(sides, before, strict=True))
        self.centres[space] = (positive, negative)
