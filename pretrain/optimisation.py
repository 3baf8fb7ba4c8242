"""What moves the weights: parameter groups with rates of their own, and how the rates rise and fall."""

import math
import re
from typing import Any

from torch import Tensor

from pretrain.options import PretrainOptions

LAYER = re.compile(r"\.(?:layer|layers|h|block|blocks)\.(\d+)\.")
EMBEDDINGS = re.compile(r"embed|\.w[tp]e\.")
WIDEST_BIAS = 1


def learning_rate_factor(step: int, total: int, warmup: float, schedule: str = "cosine") -> float:
    """A linear rise over `warmup` * total steps, then `cosine` or `linear` to 0 at `total`, or `constant`. In (0, 1] before the end."""
    rise = max(1, round(warmup * total))
    if step < rise:
        return (step + 1) / rise
    if schedule == "constant":
        return 1.0
    done = (step - rise) / max(1, total - rise)
    return 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))


def layer_of(name: str, layers: int) -> int:
    """The height of a text encoder's parameter: 0 for the embeddings, n for its n-th layer, `layers` for what stands above them."""
    found = LAYER.search(name)
    if found:
        return int(found.group(1)) + 1
    return 0 if EMBEDDINGS.search(name) else layers


def parameter_groups(model: Any, options: PretrainOptions) -> list[dict[str, Any]]:
    """AdamW's groups: text encoder and the rest with rates of their own, no decay on biases and LayerNorms.

    The text encoder's rate falls by `lm_layer_decay` with every layer below the topmost (Howard and Ruder 2018; Clark et al. 2020).
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    text = [name for name, _ in named if ".text_model." in name]
    layers = max((int(found.group(1)) + 1 for found in map(LAYER.search, text) if found), default=0)
    groups: dict[tuple[float, bool], list[Tensor]] = {}
    for name, parameter in named:
        rate = options.lr
        if ".text_model." in name:
            rate = options.lm_lr * options.lm_layer_decay ** (layers - layer_of(name, layers))
        groups.setdefault((rate, parameter.ndim > WIDEST_BIAS), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "base_lr": rate, "weight_decay": options.weight_decay if decay else 0.0}
        for (rate, decay), parameters in groups.items()
    ]
