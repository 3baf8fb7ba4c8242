"""Alternating unimodal steps through one shared head, with the gradient projection and the entropy-weighted fusion of MLA
(Zhang et al., arXiv 2311.10707).

Ours, because labels are real numbers here and entropy wants a distribution: the head gives the location and the scale b of a Laplace
distribution, whose likelihood is trained in place of L1 and whose entropy is 1 + log 2b. MLA's weights exp(max entropy - entropy_m),
normalised, are then (1 / b_m) / sum (1 / b). The fused representation takes a turn as well, which MLA does not have.
"""

import torch
from torch import Tensor, nn

LOG_SCALES = (-4.0, 2.0)
"""Bounds of log b, labels divided by their range: a likelihood without them grows without end where a sample is fitted exactly."""


class SharedHead(nn.Linear):
    """One head for all spaces: a representation [B, dim] to the location [B] and the log scale [B] of its label."""

    def __init__(self, dim: int):
        super().__init__(dim, 2)

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Location and log scale, in float32."""
        location, log_scale = super().forward(vectors).float().unbind(-1)
        return location, log_scale.clamp(*LOG_SCALES)


def laplace_loss(location: Tensor, log_scale: Tensor, target: Tensor) -> Tensor:
    """-log density of a Laplace distribution but for log 2: |target - location| / b + log b, by sample."""
    return (location - target).abs() * torch.exp(-log_scale) + log_scale


def fuse_by_entropy(locations: Tensor, log_scales: Tensor, present: Tensor) -> Tensor:
    """sum_m w_m y_m [B] with w_m = exp(max entropy - entropy_m), normalised over what is present; all arguments are [M, B]."""
    entropies = (1.0 + log_scales).masked_fill(~present, float("inf"))  # log 2 is the same for all
    return (torch.softmax(-entropies, dim=0) * locations).sum(0)


class GradientProjector:
    """P [D, D], by which the shared weight's gradient is multiplied from the right: a step leaves alone what the head makes of the mean
    inputs of earlier steps. It starts as the identity, and `after_step` takes a direction away:

        k = P r;  P <- P - k k^T / (a + k^T r)

    Args:
        weight: [out, D].
        alpha: a; the smaller, the more of a direction one step takes away.
    """

    def __init__(self, weight: Tensor, alpha: float = 1.0):
        self.weight, self.alpha = weight, alpha
        self.matrix = torch.eye(weight.shape[1], device=weight.device)

    def project(self) -> None:
        """grad_W <- grad_W P."""
        if self.weight.grad is not None:
            self.weight.grad = self.weight.grad @ self.matrix

    def after_step(self, inputs: Tensor) -> None:
        """Take away the mean r of the inputs [B, D] that the head has just learned from; nothing where there was none."""
        if len(inputs):
            mean = inputs.detach().float().mean(0)
            gain = self.matrix @ mean
            self.matrix = self.matrix - torch.outer(gain, gain) / (self.alpha + gain @ mean)
