"""The text-centred cross-modal blocks of SKESL (Qian and Han, Findings of ACL 2023, section 3.3) and feature normalisation."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

MODALITIES = ("audio", "vision")
CLIP = 10.0


@dataclass
class KeyInput:
    """One modality of a batch as keys of the attention.

    `features` [B, T, D_m + 1] are frames normalised to mean 0 and standard deviation 1 (a LayerNorm whose affine weights belong to the
    blocks), with a last column of ones; `attend` [B, 1, 1, T] is added to the attention scores, None if all frames count; `present`
    [B, 1, 1] (bool) marks the rows that have this modality; `gate` multiplies what the attention returns.
    """

    features: Tensor
    attend: Tensor | None
    present: Tensor
    gate: float = 1.0


KeysValues = tuple[Tensor, Tensor]


class FeatureNorm(nn.Module):
    """x -> (x - mean) / std per column, clipped to +-10; the identity until `set` is called. The statistics are saved with the weights."""

    mean: Tensor
    std: Tensor
    limit: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.register_buffer("limit", torch.tensor([float("inf")]))

    def set(self, mean: Any, std: Any) -> None:
        """Set the column statistics, each [D_m]; a column with a standard deviation of (nearly) zero is only centred.

        Raises:
            ValueError: their length is not the width of this modality.
        """
        new_mean = torch.as_tensor(mean, dtype=torch.float32)
        new_std = torch.as_tensor(std, dtype=torch.float32)
        if new_mean.shape != self.mean.shape or new_std.shape != self.std.shape:
            raise ValueError(f"statistics of shapes {tuple(new_mean.shape)} and {tuple(new_std.shape)} for a width of {len(self.mean)}")
        self.mean.copy_(new_mean)
        self.std.copy_(torch.where(new_std > 1e-6, new_std, torch.ones_like(new_std)))
        self.limit.fill_(CLIP)

    @property
    def is_set(self) -> bool:
        """Whether statistics are set."""
        return bool(torch.isfinite(self.limit).all())

    def reset(self) -> None:
        """Reset to the identity."""
        self.mean.zero_()
        self.std.fill_(1.0)
        self.limit.fill_(float("inf"))

    def forward(self, features: Tensor) -> Tensor:
        """[B, T, D_m] -> [B, T, D_m]."""
        return torch.clamp((features - self.mean) / self.std, -self.limit, self.limit)


def feature_statistics(samples: Iterable[Mapping[str, np.ndarray | None]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and standard deviation [D_m] (float32) of every column over all frames, by modality; the input of `FeatureNorm.set`.

    Args:
        samples: frames [T, D_m] by modality, None or empty where absent; read once, so they may be streamed from disk.

    Returns:
        Modalities without a single frame are left out.

    The moments are accumulated in float64, sample by sample (Chan, Golub and LeVeque, 1979).
    """
    moments: dict[str, tuple[int, np.ndarray, np.ndarray]] = {}
    for sample in samples:
        for name, frames in sample.items():
            if frames is None or not len(frames):
                continue
            part = frames.astype(np.float64)
            count, mean, squares = moments.get(name, (0, np.zeros(part.shape[1]), np.zeros(part.shape[1])))
            total, shift = count + len(part), part.mean(0) - mean
            squares = squares + ((part - part.mean(0)) ** 2).sum(0) + shift**2 * (count * len(part) / total)
            moments[name] = (total, mean + shift * (len(part) / total), squares)
    return {
        name: (mean.astype(np.float32), np.sqrt(squares / count).astype(np.float32)) for name, (count, mean, squares) in moments.items()
    }


class CrossModalAttention(nn.Module):
    """Y^m = softmax(Q K^T / sqrt(d)) V, then projected to the text width by W_O (in the authors' code, not in the formula).

    Q = LN(X^T) W_Q, K = LN(X_0^m) W_K, V = LN(X_0^m) W_V, with a LayerNorm for the queries and one for the keys and values.
    """

    def __init__(self, text_dim: int, feature_dim: int, attention_dim: int, num_heads: int, dropout: float, eps: float):
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.norm_text = nn.LayerNorm(text_dim, eps=eps)
        self.norm_features = nn.LayerNorm(feature_dim, eps=eps)
        self.query = nn.Linear(text_dim, attention_dim)
        self.key = nn.Linear(feature_dim, attention_dim)
        self.value = nn.Linear(feature_dim, attention_dim)
        self.output = nn.Linear(attention_dim, text_dim)

    def _heads(self, states: Tensor) -> Tensor:
        result: Tensor = states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return result

    def keys_values(self, source: KeyInput) -> KeysValues:
        """Keys and values [B, H, T, d/H] of a feature sequence; blocks with shared weights share them."""
        normed = source.features[..., :-1] * self.norm_features.weight + self.norm_features.bias
        return self._heads(self.key(normed)), self._heads(self.value(normed))

    def forward(self, text: Tensor, keys_values: KeysValues | None, source: KeyInput) -> Tensor:
        """[B, L, D] -> [B, L, D], exactly zero in rows without this modality; `keys_values` None: see `_folded`."""
        queries = self._heads(self.query(self.norm_text(text)))
        if keys_values is None:
            mixed = self._folded(queries, source)
        else:
            mixed = self._attend(queries, *keys_values, source)
        attended = self.output(mixed.transpose(1, 2).flatten(2))
        result: Tensor = attended.masked_fill(~source.present, 0.0) * source.gate
        return result

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, source: KeyInput) -> Tensor:
        attend = None if source.attend is None else source.attend.to(queries.dtype)
        dropout = self.dropout if self.training else 0.0
        scale = (self.query.out_features // self.num_heads) ** -0.5
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=attend, dropout_p=dropout, scale=scale)

    def _folded(self, queries: Tensor, source: KeyInput) -> Tensor:
        """The same attention with W_K applied to the queries and W_V to the result, so that keys and values are never computed.

        With the frames x of `source`, K = (x g + b) W_K + c and likewise V: q.K = x.(g W_K q) + q.(b W_K + c), and
        sum_t a_t V_t = (g sum_t a_t x_t + b sum_t a_t) W_V + c sum_t a_t. The column of ones in x yields the second terms, even where
        dropout keeps the weights a from summing to one.
        """
        gain, shift = self.norm_features.weight, self.norm_features.bias

        def heads(layer: nn.Linear) -> tuple[Tensor, Tensor]:
            bias = layer.bias + layer.weight @ shift
            return (layer.weight * gain).unflatten(0, (self.num_heads, -1)), bias.unflatten(0, (self.num_heads, -1))

        key_weight, key_bias = heads(self.key)  # [H, d/H, D_m], [H, d/H]
        value_weight, value_bias = heads(self.value)
        key_weight = torch.cat([key_weight, key_bias.unsqueeze(-1)], dim=-1)
        folded = torch.einsum("bhld,hdm->bhlm", queries, key_weight)
        frames = source.features.unsqueeze(1).expand(-1, self.num_heads, -1, -1).to(folded.dtype)
        gathered = self._attend(folded, frames, frames, source)
        value_weight = torch.cat([value_weight, value_bias.unsqueeze(-1)], dim=-1)
        return torch.einsum("bhlm,hdm->bhld", gathered, value_weight)

    def folding_pays(self, tokens: int, frames: int, uses: int) -> bool:
        """Whether `_folded` needs fewer multiplications than keys and values that are computed once and used `uses` times."""
        width, inner = self.key.in_features, self.key.out_features
        return uses * tokens * width * (inner + frames * self.num_heads) < inner * frames * (width + uses * tokens)


class CrossModalBlock(nn.Module):
    """X_l = FF(LN(Y)) + Y with Y = Y^A + LN(X_{l-1}) + Y^V (`residual="raw"`: Y = Y^A + X_{l-1} + Y^V, as in the authors' code)."""

    def __init__(self, config: Any):
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.attention = nn.ModuleDict(
            {
                name: CrossModalAttention(width, dim, config.attention_dim, config.num_heads, config.dropout, eps)
                for name, dim in (("audio", config.audio_dim), ("vision", config.vision_dim))
                if dim > 0
            }
        )
        self.norm_residual = nn.LayerNorm(width, eps=eps) if config.residual == "layernorm" else nn.Identity()
        self.norm_feed_forward = nn.LayerNorm(width, eps=eps)
        if config.feed_forward == "linear":
            self.feed_forward: nn.Module = nn.Linear(width, width)
        else:
            inner = config.ff_dim or width
            self.feed_forward = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(inner, width))

    def keys_values(self, sources: dict[str, KeyInput], tokens: int, uses: int) -> dict[str, KeysValues | None]:
        """Keys and values of every modality of the batch, to be used `uses` times; None where `_folded` is cheaper."""
        made: dict[str, KeysValues | None] = {}
        for name, source in sources.items():
            attention = self.attention[name]
            assert isinstance(attention, CrossModalAttention)
            made[name] = None if attention.folding_pays(tokens, source.features.shape[1], uses) else attention.keys_values(source)
        return made

    def forward(self, text: Tensor, sources: dict[str, KeyInput], keys_values: dict[str, KeysValues | None]) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        mixed = self.norm_residual(text)
        for name, source in sources.items():
            mixed = mixed + self.attention[name](text, keys_values[name], source)
        result: Tensor = self.feed_forward(self.norm_feed_forward(mixed)) + mixed
        return result


class CrossModalStack(nn.Module):
    """L cross-modal blocks; with `share_blocks` one block applied L times, its keys and values computed once."""

    def __init__(self, config: Any):
        super().__init__()
        self.num_blocks = config.num_blocks
        self.shared = config.share_blocks
        self.mask_padding = config.mask_padding
        self.eps = config.layer_norm_eps
        self.norms = nn.ModuleDict({name: FeatureNorm(dim) for name, dim in config.feature_dims.items()})
        self.blocks = nn.ModuleList([CrossModalBlock(config) for _ in range(1 if self.shared else self.num_blocks)])

    def zero_init(self, modalities: Sequence[str] = MODALITIES, feed_forward: bool = True) -> None:
        """Zero the output weights of the attention to these modalities and of the feed-forward layers, so that a block initially returns
        LN(X): randomly initialised blocks would drown out the language model."""
        for block in self.blocks:
            assert isinstance(block, CrossModalBlock)
            layers = [block.attention[name].output for name in modalities if name in block.attention]
            if feed_forward:
                layers.append(block.feed_forward[-1] if isinstance(block.feed_forward, nn.Sequential) else block.feed_forward)
            for layer in layers:
                nn.init.zeros_(layer.weight)  # type: ignore[arg-type,union-attr]
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type,union-attr]

    def prepare(self, name: str, features: Tensor, mask: Tensor | None, gate: float = 1.0) -> KeyInput:
        """Normalise a feature sequence [B, T, D_m] and build its attention mask from `mask` [B, T] (1: real frame; None: all real)."""
        batch, frames, _ = features.shape
        real = torch.ones(batch, frames, dtype=torch.bool, device=features.device) if mask is None else mask.bool()
        present = real.any(dim=1)
        # padding may hold anything, even NaN, and must reach neither the softmax nor a gradient
        normed = self.norms[name](features.masked_fill(~real.unsqueeze(-1), 0.0))
        width = len(self.norms[name].mean)  # type: ignore[arg-type]  # a constant, not a traced size, for ONNX
        normed = F.layer_norm(normed.masked_fill(~real.unsqueeze(-1), 0.0), [width], eps=self.eps)
        normed = F.pad(normed, (0, 1), value=1.0)
        if torch.is_autocast_enabled(normed.device.type):
            normed = normed.to(torch.get_autocast_dtype(normed.device.type))  # once for all blocks
        attend = None
        if self.mask_padding:
            # a row without keys would be 0/0: let it attend to everything; its result is set to zero afterwards
            attend = torch.zeros_like(real, dtype=normed.dtype).masked_fill(~(real | ~present.unsqueeze(1)), float("-inf"))[:, None, None]
        return KeyInput(normed, attend, present[:, None, None], gate)

    def forward(self, text: Tensor, features: dict[str, tuple[Tensor, Tensor | None]], gates: Mapping[str, float] | None = None) -> Tensor:
        """[B, L, D] -> [B, L, D]; `features` holds (sequence, mask) of the modalities in the batch, `gates` their gates (default 1)."""
        gates = gates or {}
        sources = {
            name: self.prepare(name, sequence.to(text.dtype), mask, gates.get(name, 1.0)) for name, (sequence, mask) in features.items()
        }
        tokens, uses = text.shape[1], self.num_blocks if self.shared else 1
        for place in range(self.num_blocks):
            block = self.blocks[0 if self.shared else place]
            if place == 0 or not self.shared:
                keys_values = block.keys_values(sources, tokens, uses)  # type: ignore[operator]
            text = block(text, sources, keys_values)
        return text
