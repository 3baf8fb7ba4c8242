"""Stage 1's alignment: the contrastive projection module (CPM) of MUG, and how far apart two clouds are (reference: arXiv 2408.16029)."""

import torch
from torch import Tensor
from torch.nn import functional


def contrastive_loss(projected: Tensor, unimodal: Tensor, temperature: float = 0.07) -> Tensor:
    """Symmetric InfoNCE between projected multimodal and unimodal representations of the same samples, both [B, D].

    Row i of one is the positive of row i of the other; all other rows of the batch are negatives. A batch of fewer than two rows
    has no negatives and gives 0. Source: the CPM of MUG in the form reconstructed in docs/method.md.
    """
    if len(projected) < 2:
        return projected.sum() * 0.0
    similarity = functional.normalize(projected, dim=-1) @ functional.normalize(unimodal, dim=-1).T / temperature
    target = torch.arange(len(similarity), device=similarity.device)
    return 0.5 * (functional.cross_entropy(similarity, target) + functional.cross_entropy(similarity.T, target))


def to_common_scale(vectors: Tensor, norm: Tensor | float) -> Tensor:
    """Rows of [N, D] brought to length `norm`: InfoNCE leaves the length free, and what reads both clouds must not see it."""
    return functional.normalize(vectors, dim=-1) * norm


def cloud_distance(projected: Tensor, unimodal: Tensor) -> dict[str, float]:
    """How far the projected multimodal cloud lies from the unimodal one, both [N, D]; directions alone count.

    Returns:
        `centroid_distance`: distance between the mean directions (0 to 2); `retrieval_at_1`: share of projected rows whose nearest
        unimodal row is their own; `chance`: what guessing would retrieve (1 / N).
    """
    first, second = functional.normalize(projected, dim=-1), functional.normalize(unimodal, dim=-1)
    nearest = (first @ second.T).argmax(dim=-1)
    own = torch.arange(len(first), device=first.device)
    return {
        "centroid_distance": float((first.mean(0) - second.mean(0)).norm()),
        "retrieval_at_1": float((nearest == own).float().mean()),
        "chance": 1.0 / max(1, len(first)),
    }
