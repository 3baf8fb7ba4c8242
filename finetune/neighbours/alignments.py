"""Alignment losses after MMCL (arXiv 2210.14556; its equations could not be obtained): `cross-modal` predicts the representation of one
modality from that of another, `label-distance` weights the negatives of that contrast by the distance of their labels."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from typing import TYPE_CHECKING

from torch import Tensor, nn

from finetune.model.alignment import contrastive_loss
from finetune.model.unimodal import two_layers
from finetune.options import AlignmentOptions

if TYPE_CHECKING:
    from finetune.model.networks import MugOutput


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
