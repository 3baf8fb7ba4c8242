"""The encoder of a fine-tuning run: a SKESL pretraining run, or a plain language model with new cross-modal blocks."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from preprocessing.blocks import identity
from preprocessing.schema import DatasetInfo
from pretrain.encoder import SkeslConfig, SkeslModel, load_encoder, load_rating_head, load_tokenizer, resolve_text_model
from pretrain.objective import RatingHead
from pretrain.options import LAST_LAYER
from pretrain.starter import starter_lm
from pretrain.text_models import run_model_folder
from skesl_mug.console import read_stored_options
from skesl_mug.errors import UserError

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
    "text_layer",
)


def _shown(blocks: list[list[str]] | None, before: dict[str, Any]) -> str:
    """Blocks of features by name, layer and the first digits of their weights' checksum."""
    if blocks is None:
        return str(before["extractor"])
    return "+".join(" ".join([name, *(f"layer {part}" if len(part) < 10 else part[:8] for part in rest)]) for name, *rest in blocks)


def encoder_source(encoder: str | None, lm: str | None, zero_init_blocks: bool = True, lm_layer: str = LAST_LAYER) -> "EncoderSource":
    """The source that --encoder or --lm names; `starter` and `starter:LM` are the starter's run, which is trained first if it is missing.

    Raises:
        UserError: the starter cannot be trained.
    """
    starter = starter_lm(encoder) if encoder is not None else None
    if starter is not None:
        from pretrain.pretraining import ensure_starter

        encoder = str(ensure_starter(starter))
    return EncoderSource(encoder, lm, {} if lm is None else {"text_layer": lm_layer}, zero_init_blocks)


@dataclass
class EncoderSource:
    """An encoder that can be loaded repeatedly with the same weights.

    `pretrained` is a run or model; otherwise `lm` with new blocks of shape `shape`, initialised from the seed. With `zero_init_blocks` the
    new blocks initially add nothing to the text states: without pretraining, random blocks would drown out the language model.
    """

    pretrained: str | None
    lm: str | None
    shape: dict[str, Any] = field(default_factory=dict)
    zero_init_blocks: bool = True

    def load(self, audio_dim: int, vision_dim: int, seed: int) -> tuple[SkeslModel, list[str]]:
        """The encoder for features of these widths, and notes on the parts that had to be initialised again for them."""
        torch.manual_seed(seed)
        if self.pretrained is not None:
            return load_encoder(self.pretrained, audio_dim=audio_dim, vision_dim=vision_dim)
        assert self.lm is not None
        encoder = SkeslModel.from_text_model(self.lm, audio_dim=audio_dim, vision_dim=vision_dim, **self.shape)
        if self.zero_init_blocks:
            encoder.crossmodal.zero_init()
        return encoder, []

    def checked_notes(self, notes: Sequence[str], info: DatasetInfo | None) -> list[str]:
        """The notes of `load` with the names of the features in pretraining and here (`info`, of an utterance dataset).

        Raises:
            UserError: pretraining had other features with the same number of columns, so that its weights would be misread.
        """
        sources = ((self.pretraining_results() or {}).get("data") or {}).get("sources") or [{}]
        noted = list(notes)
        for modality in ("audio", "vision"):
            before, here = sources[0].get(modality), getattr(info, modality, None)
            if before is None or here is None or before.get("identity") == identity(here):
                continue
            if before["width"] == here.width and ("identity" in before or before["extractor"] != here.extractor):
                raise UserError(
                    f"--encoder {self.pretrained}: was pretrained on the {modality} features {_shown(before.get('identity'), before)}, the "
                    f"data has {_shown(identity(here), before)}, the same number of columns with another meaning; preprocess both with the "
                    f"same --{modality}"
                )
            for place, note in enumerate(noted):
                if note.startswith(f"{modality}: pretrained with"):
                    noted[place] = note.replace("columns,", f"columns ({before['extractor']}),").replace(";", f" ({here.extractor});")
        return noted

    def rating_head(self) -> RatingHead | None:
        """The head that rated utterances in pretraining, for `MugModel.start_from`; None if there is none."""
        return load_rating_head(self.pretrained) if self.pretrained is not None else None

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer."""
        tokenizer: PreTrainedTokenizerBase = load_tokenizer(self.pretrained or str(self.lm))
        return tokenizer

    def fingerprint(self) -> str:
        """SHA-256 of the weights in a local folder; of a hub model, its name."""
        folder = Path(str(resolve_text_model(run_model_folder(str(self.pretrained or self.lm)))))
        digest = hashlib.sha256(str(self.pretrained or self.lm).encode() if not folder.is_dir() else b"")
        for weights in sorted(folder.glob("*.safetensors")):
            with weights.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def without_pretraining(self) -> "EncoderSource | None":
        """The same architecture around the same language model without pretraining; None if that language model is unknown."""
        if self.pretrained is None:
            return None
        options = Path(self.pretrained) / "config.yaml"
        if not options.is_file():
            return None
        name = read_stored_options(options).get("lm")
        if not name:
            return None
        config = SkeslConfig.from_pretrained(Path(self.pretrained) / "model")
        return EncoderSource(
            None, name, {key: getattr(config, key) for key in SHAPE_OPTIONS if hasattr(config, key)}, self.zero_init_blocks
        )

    def pretraining_results(self) -> dict[str, Any] | None:
        """The results.json of the pretraining run, for the report.

        Raises:
            UserError: it is damaged.
        """
        path = Path(self.pretrained or "") / "results.json"
        if self.pretrained is None or not path.is_file():
            return None
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise UserError(f"{path}: is damaged ({error}); run pretraining again, or use its model/ folder as --encoder") from error
