"""Where the encoder of a fine-tuning run comes from: a SKESL run, or a plain language model under new cross-modal blocks."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import PreTrainedTokenizerBase

from lexicons.errors import UserError
from pretrain.encoder import SkeslConfig, SkeslModel, load_encoder, load_tokenizer

SHAPE_OPTIONS = (
    "attention_dim",
    "num_heads",
    "num_blocks",
    "share_blocks",
    "ff_dim",
    "residual",
    "feed_forward",
    "mask_padding",
    "dropout",
)


@dataclass
class EncoderSource:
    """An encoder that can be loaded again and again, each time with the same weights.

    `pretrained` is a run or model; else `lm` under blocks of shape `shape`, initialised from the seed.
    """

    pretrained: str | None
    lm: str | None
    shape: dict[str, Any] = field(default_factory=dict)

    def load(self, audio_dim: int, vision_dim: int, seed: int) -> tuple[SkeslModel, list[str]]:
        """The encoder for features of these widths, and what had to be made anew for them."""
        torch.manual_seed(seed)
        if self.pretrained is not None:
            return load_encoder(self.pretrained, audio_dim=audio_dim, vision_dim=vision_dim)
        assert self.lm is not None
        return SkeslModel.from_text_model(self.lm, audio_dim=audio_dim, vision_dim=vision_dim, **self.shape), []

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that belongs to it."""
        return load_tokenizer(self.pretrained or str(self.lm))

    def without_pretraining(self) -> "EncoderSource | None":
        """The same architecture around the same language model before SKESL saw it; None where that model is not known."""
        if self.pretrained is None:
            return None
        options = Path(self.pretrained) / "config.yaml"
        if not options.is_file():
            return None
        name = (yaml.safe_load(options.read_text(encoding="utf-8")) or {}).get("lm")
        if not name:
            return None
        config = SkeslConfig.from_pretrained(Path(self.pretrained) / "model")
        return EncoderSource(None, name, {key: getattr(config, key) for key in SHAPE_OPTIONS if hasattr(config, key)})

    def pretraining_results(self) -> dict[str, Any] | None:
        """What the pretraining run wrote about itself, for the report."""
        path = Path(self.pretrained or "") / "results.json"
        if self.pretrained is None or not path.is_file():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path}: is damaged ({error}); run pretraining again or give its model/ folder as --encoder") from error
