"""Stage 1's alignment losses, several at once if wanted, and how far apart two clouds are.

`contrastive` is MUG's contrastive projection module (CPM, arXiv 2408.16029), `covariance` the alignment of modality pairs after Lai et al.
(arXiv 2305.08473, in the Deep CORAL form), `similarity` MCLEA's agreement of batch-similarity matrices (arXiv 2209.00891). After MMCL
(arXiv 2210.14556; its equations could not be obtained): `cross-modal` predicts one modality's representation from another's,
`label-distance` does so with negatives that count by the distance of their labels.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from finetune.alignment_options import AlignmentOptions
from finetune.modalities import FUSED

if TYPE_CHECKING:
    from finetune.model.networks import MugOutput


def alignment_loss(output: "MugOutput", present: Mapping[str, Tensor], y: Tensor, options: AlignmentOptions) -> Tensor:
    """The weighted sum of the chosen losses over one batch; utterances without a modality take no part in its terms.

    Args:
        output: representations, projections and predicted representations of the batch.
        present: [B] by modality.
        y: multimodal labels [B], divided by their range.
        options: which losses, and their settings.
    """
    representations, projected = output.representations, output.projected
    total = representations[FUSED].sum() * 0.0
    for name, vectors in projected.items():
        here = present[name]
        if "contrastive" in options.losses:
            total = total + contrastive_loss(vectors[here], representations[name][here], options.temperature)
        if "similarity" in options.losses:
            total = total + similarity_loss(representations[FUSED][here], representations[name][here], options.temperature)
    if "covariance" in options.losses:
        for first, second in combinations(projected, 2):
            both = present[first] & present[second]
            for sign, text in ((1.0, ""), (-1.0, "!")):
                if {f"{text}{first}-{second}", f"{text}{second}-{first}"} & set(options.covariance_pairs):
                    total = total + sign * covariance_loss(representations[first][both], representations[second][both])
    for pair, vectors in output.predicted.items():
        given, wanted = pair.split("-")
        both = present[given] & present[wanted]
        actual = representations[wanted][both].detach()
        if "cross-modal" in options.losses:
            total = total + contrastive_loss(vectors[both], actual, options.temperature)
        if "label-distance" in options.losses:
            total = total + contrastive_loss(vectors[both], actual, options.temperature, y[both])
    return options.weight * total


def covariance_loss(first: Tensor, second: Tensor) -> Tensor:
    """Deep CORAL: squared Frobenius distance of the two covariance matrices of [B, D], over 4 D^2; 0 for fewer than two rows."""
    if len(first) < 2:
        return first.sum() * 0.0
    return ((torch.cov(first.T) - torch.cov(second.T)) ** 2).sum() / (4.0 * first.shape[1] ** 2)


def similarity_loss(fused: Tensor, unimodal: Tensor, temperature: float) -> Tensor:
    """KL divergence from each row of the fused space's batch-similarity matrix to the unimodal space's, both [B, D]; own row left out."""
    if len(fused) < 3:
        return fused.sum() * 0.0
    own = torch.eye(len(fused), dtype=torch.bool, device=fused.device)

    def log_rows(vectors: Tensor) -> Tensor:
        unit = functional.normalize(vectors, dim=-1)
        return functional.log_softmax((unit @ unit.T / temperature).masked_fill(own, -1e4), dim=-1)

    return functional.kl_div(log_rows(unimodal), log_rows(fused), reduction="batchmean", log_target=True)


def contrastive_loss(projected: Tensor, unimodal: Tensor, temperature: float = 0.07, y: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE between projected (or predicted) and unimodal representations of the same samples, both [B, D].

    Row i of one is the positive of row i of the other; all other rows of the batch are negatives. A batch of fewer than two rows
    has no negatives and gives 0. With labels y [B] the term of a negative j is multiplied by |y_i - y_j|: one with the same label is no
    negative at all. Source: the CPM of MUG in the form reconstructed in docs/method.md; the labels' part is ours, after MMCL.
    """
    if len(projected) < 2:
        return projected.sum() * 0.0
    similarity = functional.normalize(projected, dim=-1) @ functional.normalize(unimodal, dim=-1).T / temperature
    if y is not None:
        similarity = similarity + (y.unsqueeze(1) - y).abs().fill_diagonal_(1.0).log()
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
