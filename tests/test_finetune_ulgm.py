"""Self-MM's label generator against a loop transcription of its formulas, sample by sample."""

import math

import numpy as np
import pytest
import torch

from finetune.generator_options import GeneratorOptions
from finetune.labels import LabelInputs, make_generator
from finetune.labels.ulgm import UlgmUpdater


class ByHand:
    """Plain lists and loops, written from the formulas of the paper's appendix."""

    def __init__(self, y: list[float], spaces: list[str], width: int, limit: float):
        self.y, self.limit = y, limit
        self.labels = {space: list(y) for space in spaces}
        self.features = {space: [[0.0] * width for _ in y] for space in ["fused", *spaces]}
        self.centres = {space: ([0.0] * width, [0.0] * width) for space in ["fused", *spaces]}

    def distance(self, a: list[float], b: list[float]) -> float:
        return math.sqrt(sum((x - z) ** 2 for x, z in zip(a, b, strict=True)))

    def alpha(self, space: str, feature: list[float]) -> float:
        positive, negative = self.centres[space]
        near, far = self.distance(feature, positive), self.distance(feature, negative)
        return (far - near) / (near + 1e-8)

    def step(self, rows: list[int], batch: dict[str, list[list[float]]], epoch: int) -> None:
        if epoch > 1:
            for place, row in enumerate(rows):
                fused = self.alpha("fused", batch["fused"][place])
                for space, labels in self.labels.items():
                    own = self.alpha(space, batch[space][place])
                    new = 0.5 * own / (fused + 1e-8) * self.y[row] + 0.5 * (self.y[row] + own - fused)
                    new = max(-self.limit, min(self.limit, new))
                    labels[row] = (epoch - 1) / (epoch + 1) * labels[row] + 2 / (epoch + 1) * new
        for space, vectors in batch.items():
            for place, row in enumerate(rows):
                self.features[space][row] = vectors[place]
        for space in batch:
            label = self.y if space == "fused" else self.labels[space]
            sides = []
            for sign, last in ((1, self.centres[space][0]), (-1, self.centres[space][1])):
                chosen = [feature for feature, value in zip(self.features[space], label, strict=True) if value * sign > 0]
                sides.append([sum(column) / len(chosen) for column in zip(*chosen, strict=True)] if chosen else last)
            self.centres[space] = (sides[0], sides[1])


def everywhere(spaces: list[str], count: int) -> dict[str, np.ndarray]:
    return {space: np.ones(count, bool) for space in spaces}


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_updates_match_the_formulas(scale: float) -> None:
    random = torch.Generator().manual_seed(0)
    y = (torch.rand(12, generator=random) * 2 - 1).numpy().astype(np.float64)
    spaces = ["text", "audio", "vision"]
    updater = UlgmUpdater(y, everywhere(spaces, 12), scale)
    reference = ByHand([float(v) * scale for v in y], spaces, 4, scale)
    for epoch in (1, 2, 3):
        for rows in torch.randperm(12, generator=random).split(5):
            batch = {space: torch.relu(torch.randn(len(rows), 4, generator=random)) for space in ["fused", *spaces]}
            updater.after_step(rows, batch, epoch)
            reference.step(rows.tolist(), {space: values.tolist() for space, values in batch.items()}, epoch)
    for space in spaces:
        assert (updater.targets[space] * scale).tolist() == pytest.approx(reference.labels[space], abs=2e-3)
        assert updater.targets[space].abs().max() <= 1.0 + 1e-6
        assert not np.allclose(updater.targets[space].numpy(), y, atol=1e-3)


def test_samples_without_a_modality_keep_y_and_do_not_count_in_its_centres() -> None:
    random = torch.Generator().manual_seed(1)
    y = (torch.rand(10, generator=random) * 2 - 1).numpy().astype(np.float64)
    here = np.arange(10) % 3 != 0
    updaters = [UlgmUpdater(y, {"text": np.ones(10, bool), "audio": here}, 1.0) for _ in range(2)]
    rows = torch.arange(10)
    for epoch in (1, 2, 3):
        batch = {space: torch.rand(10, 4, generator=random) for space in ("fused", "text", "audio")}
        rubbish = {**batch, "audio": torch.where(torch.as_tensor(here)[:, None], batch["audio"], torch.full((10, 4), 1e3))}
        for updater, seen in zip(updaters, (batch, rubbish), strict=True):
            updater.after_step(rows, seen, epoch)
    for name in ("text", "audio"):
        assert torch.equal(updaters[0].targets[name], updaters[1].targets[name])
    assert updaters[0].targets["audio"][~here].tolist() == pytest.approx(y[~here].tolist())
    assert not np.allclose(updaters[0].targets["audio"][here].numpy(), y[here], atol=1e-3)


def test_a_side_without_samples_keeps_its_centre() -> None:
    updater = UlgmUpdater(np.array([0.5, 0.2]), everywhere(["text"], 2), 1.0)
    rows = torch.tensor([0, 1])
    for epoch in (1, 2):
        updater.after_step(rows, {"fused": torch.ones(2, 3), "text": torch.ones(2, 3)}, epoch)
    assert torch.isfinite(updater.targets["text"]).all()
    assert torch.equal(updater.centres["fused"][1], torch.zeros(3))


def test_labels_start_at_y_and_the_first_epoch_changes_nothing() -> None:
    y = np.array([0.5, -0.2, 0.0])
    inputs = LabelInputs(
        y=y, groups=["a", "b", "c"], representations={}, projected={}, descriptors={}, present={"text": np.ones(3, bool)}, seed=0, scale=3.0
    )
    made = make_generator("ulgm", GeneratorOptions())(inputs)
    assert np.array_equal(made.labels["text"], y)
    made.online.after_step(torch.arange(3), {"fused": torch.rand(3, 2), "text": torch.rand(3, 2)}, 1)
    assert made.online.targets["text"].tolist() == pytest.approx(y.tolist())
