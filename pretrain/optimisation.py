"""Learning-rate schedule and parameter groups, for pretraining and fine-tuning alike."""

import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from transformers import get_scheduler

SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
"""Values of --schedule, and what `transformers.get_scheduler` calls them."""
LAYER = re.compile(r"\.(?:layer|layers|h|block|blocks)\.(\d+)\.")
EMBEDDINGS = re.compile(r"embed|\.w[tp]e\.")


def choose_attention_kernels() -> None:
    """Leave cuDNN's attention out on a GPU: it plans again for every length of a batch, which made a bf16 step of the small language model
    2.8 times slower on an H100 (benchmarks/gpu.py). PyTorch then takes its own fused kernels."""
    torch.backends.cuda.enable_cudnn_sdp(False)


def learning_rate_schedule(steps: int, warmup_steps: int, name: str = "cosine") -> Callable[[int], float]:
    """The factor on the learning rate at each step, counted from 0: a linear warm-up, then `name` (one of `SCHEDULES`) until `steps`.

    The warm-up takes at least one step and starts above zero, at 1 / warmup_steps, so that the first step already changes the weights.
    """
    warmup_steps = max(1, warmup_steps)
    placeholder = torch.optim.SGD([torch.zeros(1)])
    factor = get_scheduler(SCHEDULES[name], placeholder, warmup_steps, max(steps, warmup_steps + 1)).lr_lambdas[0]
    return lambda step: float(factor(step + 1 if step < warmup_steps else step))


def parameter_groups(
    parameters: Iterable[tuple[str, Tensor]], rate: float | Callable[[str], float], weight_decay: float
) -> list[dict[str, Any]]:
    """Parameter groups for AdamW, without weight decay on biases and norms (every parameter of at most one dimension).

    Args:
        parameters: named parameters; those that do not require gradients are left out.
        rate: the learning rate, or a function from a parameter's name to its learning rate.
        weight_decay: of all other parameters.

    Returns:
        One group per learning rate and weight decay, each with a further entry `base_lr`, its rate before any schedule.
    """
    groups: dict[tuple[float, bool], list[Tensor]] = {}
    for name, parameter in parameters:
        if parameter.requires_grad:
            key = (rate(name) if callable(rate) else rate, parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
    return [
        {"params": members, "lr": lr, "base_lr": lr, "weight_decay": weight_decay if decays else 0.0}
        for (lr, decays), members in groups.items()
    ]


def layerwise_rates(model: torch.nn.Module, lr: float | Callable[[str], float], lm_lr: float, decay: float) -> Callable[[str], float]:
    """Learning rates by parameter name: `lr` (or what it returns), and `lm_lr` in the text encoder, where each layer has `decay` times the
    rate of the layer above it (Howard and Ruder 2018; Clark et al. 2020)."""
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad and ".text_model." in name]
    layers = max((int(found.group(1)) + 1 for found in map(LAYER.search, names) if found), default=0)
    others = lr if callable(lr) else lambda _: lr

    def rate(name: str) -> float:
        return lm_lr * decay ** (layers - layer_of(name, layers)) if ".text_model." in name else others(name)

    return rate


def layer_of(name: str, layers: int) -> int:
    """Height of a text encoder's parameter: 0 for the embeddings, n for the n-th layer, `layers` for anything above them."""
    found = LAYER.search(name)
    if found:
        return int(found.group(1)) + 1
    return 0 if EMBEDDINGS.search(name) else layers
