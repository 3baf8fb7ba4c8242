"""Two other ways to fuse: `common-space` (after unseen modality interaction) and `residual` branches."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from finetune.model.mechanisms import Mechanism, Present
from finetune.model.unimodal import two_layers
from skesl_mug.errors import UserError

if TYPE_CHECKING:
    from finetune.model.networks import MugModel
    from finetune.options import TrainOptions


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
