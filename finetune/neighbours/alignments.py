"""Alignment losses after MMCL (arXiv 2210.14556; its equations could not be obtained): `cross-modal` predicts the representation of one
modality from that of another, `label-distance` weights the negatives of that contrast by the distance of their labels. After CLFA
(arXiv 2403.06355): `teacher` fits the spaces to the batch similarities of the language model."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from finetune.modalities import TEXT
from finetune.model.alignment import contrastive_loss
from finetune.model.unimodal import two_layers
from finetune.options import AlignmentOptions
from skesl_mug.errors import UserError

if TYPE_CHECKING:
    from finetune.model.networks import MugOutput

STATES = "language model"
"""What networks of alignments find the language model's mean states [B, D] under, beside the representations by modality."""


class CrossModalPredictors(nn.Module):
    """A two-layer network for each ordered pair of modalities; both losses share them."""

    def __init__(self, modalities: Sequence[str], dim: int):
        super().__init__()
        self.predictors = nn.ModuleDict({f"{source}-{target}": two_layers(dim) for source, target in permutations(modalities, 2)})

    def forward(self, representations: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """ "text-audio" [B, dim] is the representation of audio as predicted from text."""
        return {pair: network(representations[pair.split("-")[0]]) for pair, network in self.predictors.items()}


class CrossModal:
    """`cross-modal`: InfoNCE between predicted and actual representations; no gradient reaches the actual ones."""

    networks = CrossModalPredictors

    def __call__(self, output: "MugOutput", present: Mapping[str, Tensor], y: Tensor, options: AlignmentOptions) -> Tensor:
        """The sum over all pairs of modalities."""
        parts = (contrastive_loss(guess, actual, options.temperature) for guess, actual, _ in _pairs(output, present, y))
        return sum(parts, y.new_zeros(()))


class LabelDistance(CrossModal):
    """`label-distance`: the same with negatives weighted by the distance of their labels."""

    def __call__(self, output: "MugOutput", present: Mapping[str, Tensor], y: Tensor, options: AlignmentOptions) -> Tensor:
        """The sum over all pairs of modalities."""
        parts = (contrastive_loss(*pair[:2], options.temperature, pair[2]) for pair in _pairs(output, present, y))
        return sum(parts, y.new_zeros(()))


def _pairs(output: "MugOutput", present: Mapping[str, Tensor], y: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Predicted and actual representations and labels of the utterances that have both modalities."""
    for source, target in permutations(output.projected, 2):
        both = present[source] & present[target]
        yield output.extras[f"{source}-{target}"][both], output.representations[target][both].detach(), y[both]


class SentenceStates(nn.Module):
    """The mean state of the language model, without gradient, for losses that read it; it has no weights."""

    def __init__(self, modalities: Sequence[str], dim: int):
        super().__init__()

    def forward(self, representations: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """[B, D] by name.

        Raises:
            UserError: the model reads text vectors, so there is no language model.
        """
        if STATES not in representations:
            raise UserError("--training.alignment.losses teacher: needs the states of a language model, and this model reads text vectors")
        return {STATES: representations[STATES]}


class Teacher:
    """`teacher`, after CLFA (arXiv 2403.06355; our reading): cross-entropy between the batch similarities of the language model's mean
    states (cosines after centring, because raw ones are all near 1) and those of P_m(h_M) and h_m, softmax over rows and over columns."""

    networks = SentenceStates

    def __call__(self, output: "MugOutput", present: Mapping[str, Tensor], y: Tensor, options: AlignmentOptions) -> Tensor:
        """The sum over modalities of KL(teacher, student), the mean of both directions."""
        total = y.new_zeros(())
        for name, projected in output.projected.items():
            both = present[name] & present[TEXT]
            if int(both.sum()) > 1:
                states = output.extras[STATES][both].float()
                states = functional.normalize(states - states.mean(0), dim=-1)
                pair = [functional.normalize(part[both], dim=-1) for part in (projected, output.representations[name])]
                wanted = torch.softmax(states @ states.T / options.temperature, dim=-1)
                logits = pair[0] @ pair[1].T / options.temperature
                for found in (logits, logits.T):
                    total = total + functional.kl_div(functional.log_softmax(found, dim=-1), wanted, reduction="batchmean") / 2
        return total
