"""The contrastive projection loss against a loop transcription, and the distance of clouds."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune.alignment import cloud_distance, contrastive_loss, to_common_scale


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


def test_clouds_that_coincide_and_clouds_that_do_not() -> None:
    cloud = torch.randn(50, 8)
    same = cloud_distance(cloud * 7.0, cloud)
    assert same["centroid_distance"] == pytest.approx(0.0, abs=1e-5)
    assert same["retrieval_at_1"] == 1.0
    assert same["chance"] == pytest.approx(0.02)
    apart = cloud_distance(torch.ones(50, 8), -torch.ones(50, 8))
    assert apart["centroid_distance"] == pytest.approx(2.0, abs=1e-5)


def test_common_scale_changes_lengths_alone() -> None:
    scaled = to_common_scale(torch.randn(20, 5), 3.0)
    assert scaled.norm(dim=-1) == pytest.approx(torch.full((20,), 3.0), rel=1e-5)
