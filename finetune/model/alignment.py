"""Alignment losses of stage 1, and how far apart two clouds are.

`contrastive` is the contrastive projection module (CPM) of MUG (arXiv 2408.16029), `covariance` the alignment of modality pairs after Lai
et al. (arXiv 2305.08473, in the Deep CORAL form), `similarity` MCLEA's agreement of batch-similarity matrices (arXiv 2209.00891).
`finetune/neighbours/alignments.py` has three more; docs/extending.md shows how to add one.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from finetune.extensions import ALIGNMENTS, plugin_options
from finetune.modalities import FUSED
from finetune.options import AlignmentOptions
from skesl_mug.registry import plugin_errors

if TYPE_CHECKING:
    from finetune.model.networks import MugOutput

Present = Mapping[str, Tensor]


class AlignmentLoss:
    """The weighted sum of the chosen losses; utterances without a modality are left out of its terms.

    Args:
        options: which losses, and their settings.
        given: the values of `--plugin-options`.
    """

    def __init__(self, options: AlignmentOptions, given: Sequence[str] = ()):
        self.weight = options.weight
        self.losses: list[tuple[Callable[..., Tensor], Any]] = []
        for name in options.losses:
            loss, own = ALIGNMENTS.get(name), plugin_options(name, given)
            with plugin_errors(loss):
                self.losses.append((loss() if isinstance(loss, type) else loss, options if own is None else own))

    def __call__(self, output: "MugOutput", present: Present, y: Tensor) -> Tensor:
        """The loss of a batch: its output, which utterances have which modality ([B] each), and their labels y [B] divided by the range."""
        total = output.representations[FUSED].sum() * 0.0
        for loss, options in self.losses:
            with plugin_errors(loss):
                total = total + loss(output, present, y, options)
        return self.weight * total


def alignment_networks(options: AlignmentOptions, modalities: Sequence[str], dim: int) -> nn.ModuleDict:
    """The networks that the chosen losses need, by class name; losses that name the same class share them."""
    needed = (getattr(ALIGNMENTS.get(name), "networks", None) for name in options.losses)
    found = nn.ModuleDict()
    for kind in dict.fromkeys(needed):
        if kind is not None:
            with plugin_errors(kind):
                found[kind.__name__] = kind(modalities, dim)
    return found


def contrastive(output: "MugOutput", present: Present, y: Tensor, options: AlignmentOptions) -> Tensor:
    """CPM: the projected multimodal representation against each unimodal one."""
    parts = ((vectors[present[name]], output.representations[name][present[name]]) for name, vectors in output.projected.items())
    return sum((contrastive_loss(*part, options.temperature) for part in parts), y.new_zeros(()))


def similarity(output: "MugOutput", present: Present, y: Tensor, options: AlignmentOptions) -> Tensor:
    """MCLEA: the fused space against each unimodal one."""
    fused = output.representations[FUSED]
    parts = ((fused[present[name]], output.representations[name][present[name]]) for name in output.projected)
    return sum((similarity_loss(*part, options.temperature) for part in parts), y.new_zeros(()))


def covariance(output: "MugOutput", present: Present, y: Tensor, options: AlignmentOptions) -> Tensor:
    """Pairs of unimodal spaces, by `covariance_pairs`."""
    total = y.new_zeros(())
    for first, second in combinations(output.projected, 2):
        both = present[first] & present[second]
        for sign, text in ((1.0, ""), (-1.0, "!")):
            if {f"{text}{first}-{second}", f"{text}{second}-{first}"} & set(options.covariance_pairs):
                total = total + sign * covariance_loss(output.representations[first][both], output.representations[second][both])
    return total


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

    Row i of one is the positive of row i of the other; all other rows are negatives. Fewer than two rows have no negatives and give 0.
    With labels y [B] the term of a negative j is multiplied by |y_i - y_j|, so that one with the same label does not count. Source: the
    CPM of MUG in the form reconstructed in docs/method.md; the use of labels is ours, after MMCL.
    """
    if len(projected) < 2:
        return projected.sum() * 0.0
    similarity = functional.normalize(projected, dim=-1) @ functional.normalize(unimodal, dim=-1).T / temperature
    if y is not None:
        similarity = similarity + (y.unsqueeze(1) - y).abs().fill_diagonal_(1.0).log()
    target = torch.arange(len(similarity), device=similarity.device)
    return 0.5 * (functional.cross_entropy(similarity, target) + functional.cross_entropy(similarity.T, target))


def to_common_scale(vectors: Tensor, norm: Tensor | float) -> Tensor:
    """Rows of [N, D] scaled to length `norm`: InfoNCE leaves the length free, so readers of both clouds must not depend on it."""
    return functional.normalize(vectors, dim=-1) * norm


def cloud_distance(projected: Tensor, unimodal: Tensor) -> dict[str, float]:
    """How far the projected multimodal cloud is from the unimodal one, both [N, D], by direction only.

    Returns:
        `centroid_distance`: distance between the mean directions (0 to 2); `retrieval_at_1`: share of projected rows whose nearest
        unimodal row is the matching one; `chance`: retrieval by chance (1 / N).
    """
    first, second = functional.normalize(projected, dim=-1), functional.normalize(unimodal, dim=-1)
    nearest = (first @ second.T).argmax(dim=-1)
    own = torch.arange(len(first), device=first.device)
    return {
        "centroid_distance": float((first.mean(0) - second.mean(0)).norm()),
        "retrieval_at_1": float((nearest == own).float().mean()),
        "chance": 1.0 / max(1, len(first)),
    }
