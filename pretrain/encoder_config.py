"""The shape of a SKESL encoder, as its config.json holds it."""

from typing import Any

from transformers import AutoConfig, PretrainedConfig

from pretrain.crossmodal import MODALITIES
from pretrain.text_layers import check_layer
from skesl_mug.errors import UserError


class SkeslConfig(PretrainedConfig):
    """The shape of a SKESL encoder.

    Args:
        text_config: config of the text encoder (a config, or its dict with `model_type`); its width is the encoder's.
        audio_dim: columns of the audio features; 0: this encoder has no audio.
        vision_dim: columns of the vision features; 0: this encoder has no vision.
        attention_dim: width d in which the attention runs.
        num_heads: heads of each cross-modal attention.
        num_blocks: number L of cross-modal blocks.
        share_blocks: one block applied L times (the authors' code) instead of L blocks (the paper).
        ff_dim: inner width of the feed-forward layer; None: the text width.
        dropout: on attention weights, the feed-forward layer and the head.
        residual: `layernorm`, the paper's Y = Y^A + LN(X) + Y^V, or `raw`, the authors' Y^A + X + Y^V.
        feed_forward: `two_layer` (Linear, GELU, dropout, Linear) or `linear` (the authors' code).
        mask_padding: keep padded frames out of the softmax; the authors' code does not.
        layer_norm_eps: epsilon of every LayerNorm outside the text encoder.
        text_layer: the text encoder's layer that is read: `last`, an index of its `hidden_states`, or `weighted`, a learned sum of all.
        rating_dim: inner width of the head that rates whole utterances (`RatingHead`); 0: there is none.
    """

    model_type = "skesl"
    sub_configs = {"text_config": AutoConfig}  # noqa: RUF012 - the name and form that transformers reads

    def __init__(
        self,
        text_config: PretrainedConfig | dict[str, Any] | None = None,
        audio_dim: int = 33,
        vision_dim: int = 709,
        attention_dim: int = 256,
        num_heads: int = 1,
        num_blocks: int = 4,
        share_blocks: bool = False,
        ff_dim: int | None = None,
        dropout: float = 0.1,
        residual: str = "layernorm",
        feed_forward: str = "two_layer",
        mask_padding: bool = True,
        layer_norm_eps: float = 1e-5,
        text_layer: int | str = "last",
        rating_dim: int = 0,
        **kwargs: Any,
    ):
        if text_config is None:
            text_config = {"model_type": "bert"}
        if isinstance(text_config, dict):
            entries = dict(text_config)
            text_config = AutoConfig.for_model(entries.pop("model_type"), **entries)
        if residual not in ("layernorm", "raw"):
            raise UserError(f"residual is `layernorm` or `raw`, not `{residual}`")
        if feed_forward not in ("two_layer", "linear"):
            raise UserError(f"feed_forward is `two_layer` or `linear`, not `{feed_forward}`")
        if attention_dim % num_heads:
            raise UserError(f"attention_dim {attention_dim} is no multiple of num_heads {num_heads}")
        self.text_config = text_config
        self.audio_dim = audio_dim
        self.vision_dim = vision_dim
        self.attention_dim = attention_dim
        self.num_heads = num_heads
        self.num_blocks = num_blocks
        self.share_blocks = share_blocks
        self.ff_dim = ff_dim
        self.dropout = dropout
        self.residual = residual
        self.feed_forward = feed_forward
        self.mask_padding = mask_padding
        self.layer_norm_eps = layer_norm_eps
        self.text_layer = check_layer(text_layer, text_config)
        self.rating_dim = rating_dim
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """Width D of the text states and of the encoder's output."""
        return int(self.text_config.hidden_size)

    @property
    def feature_dims(self) -> dict[str, int]:
        """Width by modality, of those that this encoder has."""
        widths = {"audio": self.audio_dim, "vision": self.vision_dim}
        return {name: widths[name] for name in MODALITIES if widths[name] > 0}
