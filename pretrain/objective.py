"""The objective of SKESL: predict the intensity of the masked word from the states of its pieces (section 3.4 of the paper)."""

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


def masked_intensity_loss(predictions: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean absolute error over the real labels (NaN: padding), weighted; [B, M] each -> scalar. Zero where there is no label."""
    real = (~labels.isnan()).float() if weights is None else weights.float().masked_fill(labels.isnan(), 0.0)
    errors = (predictions.float() - labels.float().nan_to_num()).abs() * real
    total = real.sum()
    return errors.sum() / torch.where(total > 0, total, torch.ones_like(total))
