"""The objective of SKESL: predict the intensity of the masked word from the states of its pieces (section 3.4 of the paper)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MaskedIntensityHead(nn.Module):
    """Two linear layers with a GELU between: the state of a masked word -> its intensity in label units."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, 1))

    def forward(self, states: Tensor) -> Tensor:
        """[..., D] -> [...]."""
        result: Tensor = self.layers(states).squeeze(-1)
        return result


class RatingHead(nn.Module):
    """The mean state of an utterance -> its rating in label units: h = ReLU(W_0 mean + b), then a linear layer.

    It has the form of the multimodal path of fine-tuning (`MugModel`), which can so start from it.
    """

    def __init__(self, width: int, dim: int, dropout: float):
        super().__init__()
        self.pool = nn.Linear(width, dim)
        self.out = nn.Linear(dim, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        """[B, D] -> [B]."""
        hidden = torch.relu(self.pool(self.dropout(states)))
        result: Tensor = self.out(self.dropout(hidden)).squeeze(-1).float()
        return result


def piece_states(states: Tensor, mask_positions: Tensor) -> Tensor:
    """The states of the pieces of each masked word.

    Args:
        states: [B, L, D].
        mask_positions: [B, M, P], positions in L of the P pieces of M words, padded with -1.

    Returns:
        [B, M, P, D]; of the first token where padded.
    """
    rows = torch.arange(len(states), device=states.device)[:, None, None]
    return states[rows, mask_positions.clamp(min=0)]


def mean_of_pieces(pieces: Tensor, mask_positions: Tensor) -> Tensor:
    """The mean state of each masked word: [B, M, P, D] -> [B, M, D]; zeros where a word has no piece at all (padding of M)."""
    real = (mask_positions >= 0).unsqueeze(-1)
    return pieces.masked_fill(~real, 0.0).sum(dim=2) / real.sum(dim=2).clamp(min=1)


def mean_of_tokens(states: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean state over the real tokens: [B, L, D], [B, L] -> [B, D]."""
    weights = attention_mask.to(states.dtype).unsqueeze(-1)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


Scored = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Predictions, labels (NaN: none) and weights (None: all 1), of one shape; None where the batch has none of the kind."""


def weighted_error(kinds: Sequence[Scored]) -> Tensor:
    """Weighted mean absolute error over all labels of all kinds -> scalar. Zero where there is no label."""
    errors, total = torch.zeros(()), torch.zeros(())
    for predictions, labels, weights in kinds:
        if predictions is None or labels is None:
            continue
        real = (~labels.isnan()).float() if weights is None else weights.float().masked_fill(labels.isnan(), 0.0)
        errors = errors.to(real.device) + ((predictions.float() - labels.float().nan_to_num()).abs() * real).sum()
        total = total.to(real.device) + real.sum()
    return errors / torch.where(total > 0, total, torch.ones_like(total))
