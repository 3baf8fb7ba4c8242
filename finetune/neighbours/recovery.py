"""`recover`, after EMMR (recovery of missing modalities; our reading, its equations were not consulted): an absent modality is filled in
from the present ones. For each ordered pair of modalities a two-layer network R_st predicts h_t from h_s:

    r_t = mean over present s != t of R_st(h_s);   z gains W_t r_t where t is absent;   loss: mean over t of |r_t - h_t|^2 / dim

The loss drops each modality of a training utterance in turn. No gradient leaves the R_st, so what is present is read as without them.
"""

from collections.abc import Mapping
from itertools import permutations
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from finetune.modalities import FUSED
from finetune.model.mechanisms import Mechanism, Present
from finetune.model.unimodal import two_layers
from skesl_mug.errors import UserError

if TYPE_CHECKING:
    from finetune.model.networks import MugModel, MugOutput
    from finetune.options import TrainOptions

LOSS = "recovery loss"


class Recover(Mechanism):
    """`recover`: predictors between the unimodal representations, which fill in what is absent."""

    @classmethod
    def check(cls, options: "TrainOptions") -> None:
        """The sum over modalities has to exist, and no other mechanism may replace it or its loss.

        Raises:
            UserError: it cannot be combined with the options.
        """
        if options.model.fusion == "encoder":
            raise UserError("--mechanisms recover: fills in a modality that --model.fusion encoder leaves out; choose joint or unimodal")
        if other := [name for name in ("alternate", "common-space") if name in options.mechanisms]:
            raise UserError(f"--mechanisms recover, {other[0]}: both replace the fused representation or its loss; choose one of them")

    def build(self, model: "MugModel") -> None:
        """R_st."""
        self.recovery = model.recovery = nn.ModuleDict(
            {f"{s}-{t}": two_layers(model.config.dim) for s, t in permutations(model.unimodal, 2)}
        )

    def recovered(self, hidden: Mapping[str, Tensor], present: Present, target: str) -> tuple[Tensor, Tensor]:
        """r_t [B, dim], zeros where no other modality is present, and whether one is [B]."""
        others = [name for name in hidden if name != target]
        shares = torch.stack([present[name].to(hidden[target].dtype) for name in others])
        guesses = torch.stack([self.recovery[f"{name}-{target}"](hidden[name].detach()) for name in others])
        return (guesses * shares.unsqueeze(-1)).sum(0) / shares.sum(0).clamp(min=1).unsqueeze(-1), shares.sum(0) > 0

    def fuse(self, model: "MugModel", z: Tensor, fused: Tensor, hidden: Mapping[str, Tensor], present: Present) -> Tensor:
        """Add ReLU(z + W_t r_t) - ReLU(z) for what is absent."""
        filled = z
        for name in hidden if len(hidden) > 1 and model.gather is not None else ():
            if model.gate_of(name) > 0:  # a closed modality is not missed
                guess, possible = self.recovered(hidden, present, name)
                absent = (possible & ~present[name]).to(z.dtype).unsqueeze(-1)
                filled = filled + model.gather[name](guess.detach()) * absent  # type: ignore[index]
        return fused + torch.relu(filled) - torch.relu(z)

    def finish(self, model: "MugModel", output: "MugOutput", present: Present) -> None:
        """The loss [B] of the predictors, in training."""
        hidden = {name: output.representations[name] * model.gate_of(name) for name in model.modalities}  # as `fuse` reads them
        if model.training and len(hidden) > 1:
            losses = []
            for name, vector in hidden.items():
                guess, possible = self.recovered(hidden, present, name)
                losses.append((guess - vector.detach()).pow(2).mean(-1) * (possible & present[name]))
            output.extras[LOSS] = torch.stack(losses).mean(0).float()

    def error(self, output: "MugOutput", name: str, target: Tensor) -> Tensor | None:
        """L1, and for the multimodal task the loss of the predictors."""
        return (output.predictions[name] - target).abs() + output.extras[LOSS] if name == FUSED and LOSS in output.extras else None
