"""Networks of one modality: text from the states of the language model, audio and vision from their frames."""

import math

import torch
from torch import Tensor, nn

from pretrain.crossmodal import FeatureNorm

TRANSFORMER_LAYERS = 2


class TextNetwork(nn.Module):
    """States of the language model [B, L, D] to [B, dim]: their mean over real tokens, an attention-weighted mean, or the first token."""

    def __init__(self, width: int, dim: int, pooling: str, dropout: float):
        super().__init__()
        self.first = pooling == "first"
        self.score = nn.Linear(width, 1) if pooling == "attention" else None
        self.layers = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, dim), nn.ReLU())

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pool and project; `mask` [B, L] is 1 where a token is real."""
        if self.first:
            pooled = states[:, 0]
        elif self.score is None:
            pooled = masked_mean(states, mask)
        else:
            scores = self.score(states).squeeze(-1).float().masked_fill(mask == 0, -1e9)
            pooled = (states * scores.softmax(-1).to(states.dtype).unsqueeze(-1)).sum(1)
        hidden: Tensor = self.layers(pooled)
        return hidden


class FrameNetwork(nn.Module):
    """Frames [B, T, D] with a mask [B, T] to a representation [B, dim].

    `lstm`: the last state of an LSTM, as in the paper. `transformer`: two small self-attention layers, averaged over time.
    `statistics`: mean and deviation over time.
    """

    def __init__(self, width: int, dim: int, kind: str, dropout: float):
        super().__init__()
        self.norm = FeatureNorm(width)
        self.lstm = nn.LSTM(width, dim, batch_first=True) if kind == "lstm" else None
        self.transformer = FrameTransformer(width, dim, dropout) if kind == "transformer" else None
        self.layers = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * width if kind == "statistics" else dim, dim), nn.ReLU())

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Rows without a real frame give the value of an empty sequence; the caller ignores them by `present`."""
        frames = self.norm(frames) * mask.unsqueeze(-1)
        if self.lstm is not None:
            # Not packed: padding after the last real frame changes no earlier state, and whole batches have a fused kernel (on a CPU 5 to
            # 12 times faster, forward and backward).
            states, _ = self.lstm(frames)
            last = mask.sum(-1).long().clamp(min=1) - 1
            summary = states.gather(1, last[:, None, None].expand(-1, 1, states.shape[2])).squeeze(1)
        elif self.transformer is not None:
            summary = self.transformer(frames, mask)
        else:
            mean = masked_mean(frames, mask)
            spread = masked_mean((frames - mean.unsqueeze(1)) ** 2, mask)
            summary = torch.cat([mean, (spread + 1e-6).sqrt()], dim=-1)
        hidden: Tensor = self.layers(summary)
        return hidden


class FrameTransformer(nn.Module):
    """Self-attention over frames [B, T, D] with sinusoidal positions, averaged over the real ones to [B, dim]."""

    def __init__(self, width: int, dim: int, dropout: float):
        super().__init__()
        self.embed = nn.Linear(width, dim)
        heads = math.gcd(dim, 4)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(dim, heads, 2 * dim, dropout, activation="gelu", batch_first=True, norm_first=True)
            for _ in range(TRANSFORMER_LAYERS)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """A row without a real frame attends to all of its padding, since attention to nothing is NaN; its mean is zero."""
        states = self.embed(frames)
        states = states + sinusoids(states.shape[1], states.shape[2], states.device).to(states.dtype)
        hidden = (mask == 0) & (mask.sum(-1, keepdim=True) > 0)
        for block in self.blocks:
            states = block(states, src_key_padding_mask=hidden)
        return masked_mean(self.norm(states), mask)


def sinusoids(length: int, dim: int, device: torch.device) -> Tensor:
    """Sine and cosine position codes [length, dim], wavelengths from 2 pi to 20,000 pi frames (Vaswani et al., 2017)."""
    half = (dim + 1) // 2
    rates = torch.exp(torch.arange(half, device=device) * (-math.log(10_000.0) / max(1, half)))
    angles = torch.arange(length, device=device).unsqueeze(1) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)[:, :dim]


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """The mean over real positions: [B, T, D] with a mask [B, T] to [B, D]; zeros where nothing is real."""
    weights = mask.to(states.dtype).unsqueeze(-1)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)


def two_layers(dim: int) -> nn.Sequential:
    """A two-layer network [..., dim] to [..., dim]."""
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
