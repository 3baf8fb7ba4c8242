"""Mechanisms of other papers: `alternate`, `common-space`, `residual`.

`alternate` is MLA (Zhang et al., arXiv 2311.10707): alternating unimodal steps through one shared head, with a projected gradient and an
entropy-weighted fusion. Adapted, because labels are real numbers here and entropy needs a distribution: the head predicts the location and
the scale b of a Laplace distribution, whose likelihood is trained in place of L1 and whose entropy is 1 + log 2b. MLA's weights
exp(max entropy - entropy_m), normalised, are then (1 / b_m) / sum (1 / b). The fused representation has a step of its own, unlike in MLA.
`common-space` follows unseen modality interaction; `residual` adds a branch per modality to the fused representation.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from finetune.modalities import FUSED, TEXT
from finetune.model.mechanisms import Mechanism, Present
from finetune.model.unimodal import two_layers
from skesl_mug.errors import UserError

if TYPE_CHECKING:
    from finetune.model.networks import MugModel, MugOutput
    from finetune.options import TrainOptions

LOG_SCALES = (-4.0, 2.0)
"""Bounds of log b, labels divided by the largest label: without them the likelihood of a sample that is fitted exactly has no bound."""


class SharedHead(nn.Linear):
    """One head for all spaces: a representation [B, dim] to the location [B] and the log scale [B] of its label."""

    def __init__(self, dim: int):
        super().__init__(dim, 2)

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Location and log scale, in float32."""
        location, log_scale = super().forward(vectors).float().unbind(-1)
        return location, log_scale.clamp(*LOG_SCALES)


def laplace_loss(location: Tensor, log_scale: Tensor, target: Tensor) -> Tensor:
    """-log density of a Laplace distribution, without log 2: |target - location| / b + log b, by sample."""
    return (location - target).abs() * torch.exp(-log_scale) + log_scale


def fuse_by_entropy(locations: Tensor, log_scales: Tensor, present: Tensor) -> Tensor:
    """sum_m w_m y_m [B] with w_m = exp(max entropy - entropy_m), normalised over what is present; all arguments are [M, B]."""
    entropies = (1.0 + log_scales).masked_fill(~present, float("inf"))  # log 2 is the same for all
    return (torch.softmax(-entropies, dim=0) * locations).sum(0)


class GradientProjector:
    """P [D, D], by which the gradient of the shared weight is multiplied from the right, so that a step does not change the output of the
    head for the mean inputs of earlier steps. It starts as the identity; `after_step` removes a direction:

        k = P r;  P <- P - k k^T / (a + k^T r)

    Args:
        weight: [out, D].
        alpha: a; the smaller, the more of a direction one step removes.
    """

    def __init__(self, weight: Tensor, alpha: float = 1.0):
        self.weight, self.alpha = weight, alpha
        self.matrix = torch.eye(weight.shape[1], device=weight.device)

    def project(self) -> None:
        """grad_W <- grad_W P."""
        if self.weight.grad is not None:
            self.weight.grad = self.weight.grad @ self.matrix

    def after_step(self, inputs: Tensor) -> None:
        """Remove the mean r of the inputs [B, D] of the last step, if it had any."""
        if len(inputs):
            mean = inputs.detach().float().mean(0)
            gain = self.matrix @ mean
            self.matrix = self.matrix - torch.outer(gain, gain) / (self.alpha + gain @ mean)


class Alternate(Mechanism):
    """`alternate`: one step per modality, then one for the fused task; the result weights the predictions of all tasks by their entropy."""

    replaces_heads = True
    needs_unimodal_tasks = True  # a single task has nothing to alternate with
    projector: GradientProjector

    @classmethod
    def check(cls, options: "TrainOptions") -> None:
        """Refuse tasks that cannot take a step, and a second mechanism that shares a head.

        Raises:
            UserError: it cannot be combined with the options.
        """
        if "common-space" in options.mechanisms:
            raise UserError("--mechanisms alternate, common-space: each shares a head between the tasks in its own way; choose one of them")
        if not all(vars(options.training.task_weights).values()):
            raise UserError("--mechanisms alternate: weights every task in the result, so each --training.task-weights must be above 0")
        if getattr(options, "labels", "") == "none":
            raise UserError("--mechanisms alternate: --labels none leaves no unimodal task to alternate with; leave one of them out")

    def build(self, model: "MugModel") -> None:
        """The shared head."""
        self.head = model.shared_head = SharedHead(model.config.dim)

    def predict(self, model: "MugModel", output: "MugOutput", name: str, vector: Tensor) -> Tensor:
        """The location; the log scale goes into the extras."""
        location: Tensor
        location, log_scale = self.head(vector)
        output.extras[_log_scale(name)] = log_scale
        return location

    def finish(self, model: "MugModel", output: "MugOutput", present: Present) -> None:
        """Fuse the predictions of all tasks by entropy."""
        here = {**present, FUSED: torch.ones_like(present[TEXT])}
        log_scales = torch.stack([output.extras[_log_scale(name)] for name in model.tasks])
        locations, presences = (torch.stack([part[name] for name in model.tasks]) for part in (output.predictions, here))
        output.predictions[FUSED] = fuse_by_entropy(locations, log_scales, presences)

    def begin_stage(self, model: "MugModel") -> None:
        """No direction has been learned yet."""
        self.projector = GradientProjector(self.head.weight)

    def turns(self, model: "MugModel", present: Mapping[str, bool]) -> list[str | None]:
        """The modalities that the batch has, then the fused task."""
        return [*(name for name in model.modalities if present[name]), FUSED]

    def error(self, output: "MugOutput", name: str, target: Tensor) -> Tensor:
        """The Laplace loss."""
        return laplace_loss(output.predictions[name], output.extras[_log_scale(name)], target)

    def before_update(self, model: "MugModel") -> None:
        """Project the gradient of the shared head."""
        self.projector.project()

    def after_update(self, model: "MugModel", output: "MugOutput", present: Present, turn: str | None) -> None:
        """Remove the direction of this step's inputs."""
        if turn is not None:
            vectors = output.representations[turn]
            self.projector.after_step(vectors[present[turn]] if turn in present else vectors)


def _log_scale(name: str) -> str:
    return f"log scale of {name}"


class CommonSpace(Mechanism):
    """`common-space`: h_M = C(z), and the head of m reads C(b + W_m h_m), where C are two layers that all tasks share."""

    @classmethod
    def check(cls, options: "TrainOptions") -> None:
        """The sum over modalities has to exist.

        Raises:
            UserError: it does not.
        """
        if options.model.fusion == "encoder":
            raise UserError(
                "--mechanisms common-space: sums the modalities, which --model.fusion encoder leaves out; choose joint or unimodal"
            )

    def build(self, model: "MugModel") -> None:
        """C."""
        self.common = model.common = nn.Sequential(*two_layers(model.config.dim), nn.ReLU())

    def fuse(self, model: "MugModel", z: Tensor, fused: Tensor, hidden: Mapping[str, Tensor], present: Present) -> Tensor:
        """C(z)."""
        common: Tensor = self.common(z)
        return common

    def read(self, model: "MugModel", name: str, vector: Tensor) -> Tensor:
        """C(b + W_m h_m) for a modality; the fused representation has passed C already."""
        if model.gather is None or name not in model.gather:
            return vector
        common: Tensor = self.common(model.fused_bias + model.gather[name](vector))
        return common


class Residual(Mechanism):
    """`residual`: h_M gains the sum over present modalities of h_m + R_m(h_m), with two-layer networks R_m."""

    def build(self, model: "MugModel") -> None:
        """R_m."""
        self.branches = model.branches = nn.ModuleDict({name: two_layers(model.config.dim) for name in model.modalities})

    def fuse(self, model: "MugModel", z: Tensor, fused: Tensor, hidden: Mapping[str, Tensor], present: Present) -> Tensor:
        """Add the branches."""
        for name, vector in hidden.items():
            fused = fused + (vector + self.branches[name](model.dropout(vector))) * present[name].to(vector.dtype).unsqueeze(-1)
        return fused
