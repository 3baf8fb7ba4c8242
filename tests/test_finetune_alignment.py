"""The contrastive projection loss against a loop transcription, and the distance of clouds."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune.extensions import ALIGNMENTS
from finetune.model.alignment import (
    AlignmentLoss,
    cloud_distance,
    contrastive_loss,
    covariance_loss,
    similarity_loss,
    to_common_scale,
)
from finetune.model.networks import MugOutput
from finetune.options import AlignmentOptions


def info_nce_by_hand(first: torch.Tensor, second: torch.Tensor, temperature: float) -> float:
    def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(a @ b / (a.norm() * b.norm()))

    total = 0.0
    for x, y in ((first, second), (second, first)):
        for i in range(len(x)):
            scores = [math.exp(cosine(x[i], y[j]) / temperature) for j in range(len(y))]
            total -= math.log(scores[i] / sum(scores)) / len(x)
    return total / 2


@given(st.integers(2, 8), st.integers(1, 6), st.floats(0.05, 1.0), st.integers(0, 1000))
def test_contrastive_loss_is_symmetric_info_nce(rows: int, width: int, temperature: float, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, rows, width, generator=random)
    assert float(contrastive_loss(first, second, temperature)) == pytest.approx(
        info_nce_by_hand(first, second, temperature), rel=1e-3, abs=1e-4
    )


def test_one_row_has_no_negatives_and_keeps_its_graph() -> None:
    row = torch.randn(1, 4, requires_grad=True)
    loss = contrastive_loss(row, torch.randn(1, 4))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(row.grad, torch.zeros(1, 4))


def test_cloud_distance_of_identical_and_of_opposite_clouds() -> None:
    cloud = torch.randn(50, 8)
    same = cloud_distance(cloud * 7.0, cloud)
    assert same["centroid_distance"] == pytest.approx(0.0, abs=1e-5)
    assert same["retrieval_at_1"] == 1.0
    assert same["chance"] == pytest.approx(0.02)
    apart = cloud_distance(torch.ones(50, 8), -torch.ones(50, 8))
    assert apart["centroid_distance"] == pytest.approx(2.0, abs=1e-5)


def test_common_scale_changes_only_lengths() -> None:
    scaled = to_common_scale(torch.randn(20, 5), 3.0)
    assert scaled.norm(dim=-1) == pytest.approx(torch.full((20,), 3.0), rel=1e-5)


def test_covariance_loss_is_deep_corals_formula() -> None:
    first, second = torch.randn(2, 9, 3, dtype=torch.float64)

    def covariance(x: torch.Tensor) -> torch.Tensor:
        ones = torch.ones(1, len(x), dtype=x.dtype)
        return (x.T @ x - (ones @ x).T @ (ones @ x) / len(x)) / (len(x) - 1)

    by_hand = ((covariance(first) - covariance(second)) ** 2).sum() / (4 * 3**2)
    assert float(covariance_loss(first, second)) == pytest.approx(float(by_hand), rel=1e-9)
    assert float(covariance_loss(first, first)) == 0.0


def test_similarity_loss_is_the_kl_divergence_of_the_batch_similarities() -> None:
    fused, unimodal = torch.randn(2, 5, 4)
    temperature, total = 0.3, 0.0

    def row(vectors: torch.Tensor, i: int) -> list[float]:
        scores = [math.exp(float(torch.cosine_similarity(vectors[i], vectors[j], dim=0)) / temperature) for j in range(5) if j != i]
        return [score / sum(scores) for score in scores]

    for i in range(5):
        total += sum(p * math.log(p / q) for p, q in zip(row(fused, i), row(unimodal, i), strict=True)) / 5
    assert float(similarity_loss(fused, unimodal, temperature)) == pytest.approx(total, rel=1e-3)
    assert float(similarity_loss(fused, fused * 3, temperature)) == pytest.approx(0.0, abs=1e-6)


def test_losses_add_up_and_pairs_can_be_pushed_apart() -> None:
    vectors = {name: torch.randn(6, 3) for name in ("fused", "text", "audio")}
    projected = {name: torch.randn(6, 3) for name in ("text", "audio")}
    output = MugOutput(representations=vectors, projected=projected)
    present = {name: torch.ones(6, dtype=torch.bool) for name in projected}

    def loss(*names: str, pairs: tuple[str, ...] = ("audio-text",)) -> float:
        options = AlignmentOptions(losses=list(names), weight=0.5, covariance_pairs=list(pairs))
        return float(AlignmentLoss(options)(output, present, torch.randn(6)))

    assert loss() == 0.0
    assert loss("contrastive", "covariance", "similarity") == pytest.approx(
        loss("contrastive") + loss("covariance") + loss("similarity"), rel=1e-4
    )
    assert loss("covariance") == pytest.approx(0.5 * float(covariance_loss(vectors["text"], vectors["audio"])), rel=1e-5)
    assert loss("covariance", pairs=("!text-audio",)) == pytest.approx(-loss("covariance"), rel=1e-5)
    nobody = {name: torch.zeros(6, dtype=torch.bool) for name in projected}
    output.extras = {"text-audio": vectors["text"], "audio-text": vectors["audio"]}
    every = AlignmentOptions(losses=["contrastive", "covariance", "similarity", "cross-modal", "label-distance"])
    assert float(AlignmentLoss(every)(output, nobody, torch.randn(6))) == 0.0


def test_a_class_is_made_once_and_called_for_every_batch() -> None:
    class Counter:
        def __init__(self) -> None:
            self.batches = 0

        def __call__(self, output: MugOutput, present: dict, y: torch.Tensor, options: AlignmentOptions) -> torch.Tensor:
            self.batches += 1
            return torch.tensor(float(self.batches))

    ALIGNMENTS._found["counter"] = Counter
    try:
        loss = AlignmentLoss(AlignmentOptions(losses=["counter"], weight=1.0))
    finally:
        del ALIGNMENTS._found["counter"]
    output = MugOutput(representations={"fused": torch.zeros(2, 3)})
    assert [float(loss(output, {}, torch.zeros(2))) for _ in range(3)] == [1.0, 2.0, 3.0]
