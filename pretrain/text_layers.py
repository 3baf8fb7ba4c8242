"""Which of the language model's layers the encoder reads: the last, one by number, or a learned weighted sum of all."""

from typing import Any

import torch
from torch import Tensor, nn

from pretrain.options import LAST_LAYER, WEIGHTED_LAYERS, parse_layer
from skesl_mug.errors import UserError


class LayerMix(nn.Module):
    """A softmax-weighted sum of all hidden states, the embeddings' among them; at first their mean.

    Source: SUPERB, Yang et al., arXiv 2105.01051, section 3 (there over the layers of a speech model).
    """

    def __init__(self, layers: int):
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(layers + 1))

    def shares(self) -> Tensor:
        """The weight of each hidden state [layers + 1], which sum to 1."""
        return self.scores.softmax(0)

    def forward(self, hidden_states: tuple[Tensor, ...]) -> Tensor:
        """`layers` + 1 states [B, L, D] -> [B, L, D]."""
        shares = self.shares()
        mixed = hidden_states[0] * shares[0]
        for share, states in zip(shares[1:], hidden_states[1:], strict=True):
            mixed = mixed + states * share
        return mixed


def check_layer(layer: int | str, text_config: Any) -> int | str:
    """`layer` as `parse_layer` gives it, where a language model of this config has it.

    Raises:
        UserError: it does not.
    """
    layer = parse_layer(layer)
    if layer == LAST_LAYER:
        return layer
    count = getattr(text_config, "num_hidden_layers", None)
    if not isinstance(count, int):
        raise UserError(f"--lm-layer {layer}: a {text_config.model_type} model does not say how many layers it has; take {LAST_LAYER}")
    if layer != WEIGHTED_LAYERS and not -count - 1 <= int(layer) <= count:
        raise UserError(
            f"--lm-layer {layer}: the language model has {count} layers; give 0 (its embeddings) to {count}, or -1 to {-count - 1} "
            "from the end"
        )
    return layer


def make_mix(config: Any) -> LayerMix | None:
    """The learned weights that an encoder of this `SkeslConfig` has, if any."""
    return LayerMix(config.text_config.num_hidden_layers) if config.text_layer == WEIGHTED_LAYERS else None


def read_layer(text_model: Any, layer: int | str, mix: LayerMix | None, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    """The states [B, L, D] of the chosen layer. All layers run, whichever is chosen; only for the last are the others' states not kept."""
    if layer == LAST_LAYER:
        result: Tensor = text_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return result
    states = text_model(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True).hidden_states
    result = mix(states) if mix is not None else states[layer]
    return result


def describe_layers(encoder: Any) -> dict[str, list[float]]:
    """What `results.json` says of a `SkeslModel`'s learned weights: `lm_layer_weights` from the embeddings up; {} where it has none."""
    if encoder.text_mix is None:
        return {}
    return {"lm_layer_weights": [round(share, 6) for share in encoder.text_mix.shares().tolist()]}


def recompute_layers(text_model: Any) -> None:
    """Have the text model compute its inner states again in the backward pass instead of keeping them.

    Raises:
        UserError: transformers does not offer that for this kind of model.
    """
    if not text_model.supports_gradient_checkpointing:
        raise UserError(f"--gradient-checkpointing: transformers does not offer it for {text_model.config.model_type} models; leave it out")
    text_model.gradient_checkpointing_enable({"use_reentrant": False})
