"""The SKESL encoder as a Hugging Face model: any text encoder, followed by text-centred cross-modal blocks."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils.generic import ModelOutput

from pretrain.crossmodal import MODALITIES, CrossModalStack, FeatureNorm
from pretrain.objective import MaskedIntensityHead, RatingHead, mean_of_pieces, mean_of_tokens, piece_states, weighted_error
from pretrain.text_models import (
    drop_pooler,
    load_config,
    load_text_model,
    load_tokenizer,
    opening,
    quiet_loading,
    refuse_other_than_skesl,
    resolve_text_model,
    run_model_folder,
)
from pretrain.text_states import LayerMix, check_layer, make_mix, read_layer
from skesl_mug.errors import UserError

__all__ = ["SkeslConfig", "SkeslForMaskedIntensity", "SkeslModel", "SkeslOutput", "load_encoder", "load_tokenizer", "resolve_text_model"]

PUSHED_BESIDE = ("README.md", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt")


class SkeslConfig(PretrainedConfig):
    """Configuration of a SKESL encoder.

    Args:
        text_config: config of the text encoder, or its dict with `model_type`; its width is that of the encoder.
        audio_dim: width of the audio features; 0: no audio.
        vision_dim: width of the vision features; 0: no vision.
        attention_dim: width d of the cross-modal attention.
        num_heads: number of heads of each cross-modal attention.
        num_blocks: number L of cross-modal blocks.
        share_blocks: one block applied L times (the authors' code) instead of L blocks (the paper).
        ff_dim: inner width of the feed-forward layer; None: the text width.
        dropout: in attention weights, feed-forward layer and head.
        residual: `layernorm`, the paper's Y = Y^A + LN(X) + Y^V, or `raw`, the authors' Y^A + X + Y^V.
        feed_forward: `two_layer` (Linear, GELU, dropout, Linear) or `linear` (the authors' code).
        mask_padding: exclude padded frames from the softmax (the authors' code does not).
        layer_norm_eps: epsilon of every LayerNorm outside the text encoder.
        text_layer: layer of the text encoder: `last`, an index of its `hidden_states`, or `weighted`, a learned sum of all.
        rating_dim: inner width of `RatingHead`, which rates whole utterances; 0: no such head.
    """

    model_type = "skesl"
    sub_configs = {"text_config": AutoConfig}  # noqa: RUF012 - as transformers expects it

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
            raise UserError(f"attention_dim {attention_dim} is not a multiple of num_heads {num_heads}")
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
        """Width D of the text states and of the output."""
        return int(self.text_config.hidden_size)

    @property
    def feature_dims(self) -> dict[str, int]:
        """Feature width by modality, for the modalities of this encoder."""
        widths = {"audio": self.audio_dim, "vision": self.vision_dim}
        return {name: widths[name] for name in MODALITIES if widths[name] > 0}


@dataclass
class SkeslOutput(ModelOutput):
    """`loss` (scalar, None without labels), `logits` [B, M] (0 where padded), `word_states` [B, M, D], the input of the head, and `ratings`
    [B] of whole utterances (0 for rows without a rating; None if no row has one)."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    word_states: Tensor | None = None
    ratings: Tensor | None = None


class SkeslPreTrainedModel(PreTrainedModel):
    """Common parts of both models: initialisation, and creation from a text model."""

    config_class = SkeslConfig
    base_model_prefix = "skesl"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, FeatureNorm):
            init.zeros_(module.mean)
            init.ones_(module.std)
            init.constant_(module.limit, float("inf"))
        elif isinstance(module, LayerMix):
            init.zeros_(module.scores)
        else:
            super()._init_weights(module)  # type: ignore[no-untyped-call]

    def _upload_modified_files(self, working_dir: Any, *arguments: Any, **options: Any) -> Any:
        """Have `push_to_hub` also upload the card and the tokenizer of the folder that was loaded."""
        for name in PUSHED_BESIDE:
            source = Path(self.name_or_path or "") / name
            if source.is_file():
                shutil.copyfile(source, Path(working_dir) / name)
        return super()._upload_modified_files(working_dir, *arguments, **options)

    @classmethod
    def from_text_model(cls, name_or_folder: str | Path, audio_dim: int = 33, vision_dim: int = 709, **options: Any) -> Any:
        """A new encoder with the weights of a text model and randomly initialised cross-modal blocks (seed torch beforehand).

        Args:
            name_or_folder: hub name, local folder, or an embedded model.
            audio_dim, vision_dim: feature widths; 0 if the modality is absent.
            options: further fields of `SkeslConfig`.

        Raises:
            UserError: the text model cannot be found or used.
        """
        text_model = load_text_model(name_or_folder)
        text_model.config._name_or_path = ""  # keep local paths out of the saved config
        config = SkeslConfig(text_config=text_model.config, audio_dim=audio_dim, vision_dim=vision_dim, **options)
        with torch.device("meta"):
            model = cls(config)
        model.to_empty(device="cpu")
        _base(model).text_model = text_model
        for name, module in model.named_modules():
            if not name.removeprefix("skesl.").startswith("text_model") and not isinstance(module, PreTrainedModel):
                model._init_weights(module)
        return model.train(False)


def _base(model: Any) -> "SkeslModel":
    return model if isinstance(model, SkeslModel) else model.skesl


class SkeslModel(SkeslPreTrainedModel):
    """Text encoder and cross-modal blocks: text, audio and vision in, text-aligned fused states out."""

    def __init__(self, config: SkeslConfig):
        super().__init__(config)
        self.text_model = AutoModel.from_config(config.text_config)
        drop_pooler(self.text_model)
        self.text_mix = make_mix(config)
        self.crossmodal = CrossModalStack(config)
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """Token embeddings of the text encoder."""
        table: nn.Module = self.text_model.get_input_embeddings()
        return table

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings of the text encoder."""
        self.text_model.set_input_embeddings(value)

    def set_feature_statistics(self, audio: tuple[Any, Any] | None = None, vision: tuple[Any, Any] | None = None) -> None:
        """Set mean and standard deviation of the columns of each modality; None keeps the present ones.

        Raises:
            ValueError: the encoder lacks this modality, or has another width.
        """
        for name, statistics in (("audio", audio), ("vision", vision)):
            if statistics is not None:
                if name not in self.crossmodal.norms:
                    raise ValueError(f"this encoder has no {name}")
                norm = self.crossmodal.norms[name]
                assert isinstance(norm, FeatureNorm)
                norm.set(*statistics)

    def text_states(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """States of the text encoder at layer `config.text_layer`: [B, L] -> [B, L, D]."""
        return read_layer(self.text_model, self.config.text_layer, self.text_mix, input_ids, attention_mask)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        audio: Tensor | None = None,
        audio_mask: Tensor | None = None,
        vision: Tensor | None = None,
        vision_mask: Tensor | None = None,
        text_states: Tensor | None = None,
        gates: Mapping[str, float] | None = None,
    ) -> BaseModelOutput:
        """Fuse text, audio and vision.

        Args:
            input_ids: tokens [B, L]; not needed with `text_states`.
            attention_mask: [B, L], 1 for real tokens.
            audio, vision: features [B, T, D_m]; None if the batch lacks this modality.
            audio_mask, vision_mask: [B, T], 1 for real frames; all zeros if a row lacks the modality; None if all frames are real.
            text_states: cached states [B, L, D] of the text encoder, which is then not run.
            gates: by modality, what its attention is multiplied by (default 1).

        Returns:
            `last_hidden_state` [B, L, D]; undefined at padded tokens.
        """
        if text_states is None:
            if input_ids is None:
                raise ValueError("the encoder needs input_ids or text_states")
            text_states = self.text_states(input_ids, attention_mask)
        features: dict[str, tuple[Tensor, Tensor | None]] = {}
        for name, sequence, mask in (("audio", audio, audio_mask), ("vision", vision, vision_mask)):
            if sequence is None or sequence.shape[1] == 0:
                continue
            width = self.config.feature_dims.get(name, 0)
            if sequence.shape[-1] != width:
                raise ValueError(f"{name} features of width {sequence.shape[-1]} for an encoder whose {name} width is {width}")
            features[name] = (sequence, mask)
        states = text_states.to(self.crossmodal.blocks[0].norm_feed_forward.weight.dtype)  # type: ignore[union-attr,arg-type]
        return BaseModelOutput(last_hidden_state=self.crossmodal(states, features, gates))


class SkeslForMaskedIntensity(SkeslPreTrainedModel):
    """The encoder with its pretraining heads: the intensity of each masked word and, with `config.rating_dim`, the rating of utterances."""

    def __init__(self, config: SkeslConfig):
        super().__init__(config)
        self.skesl = SkeslModel(config)
        self.head = MaskedIntensityHead(config.hidden_size, config.dropout)
        self.rating_head = RatingHead(config.hidden_size, config.rating_dim, config.dropout) if config.rating_dim else None
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        audio: Tensor | None = None,
        audio_mask: Tensor | None = None,
        vision: Tensor | None = None,
        vision_mask: Tensor | None = None,
        mask_positions: Tensor | None = None,
        labels: Tensor | None = None,
        label_weights: Tensor | None = None,
        text_states: Tensor | None = None,
        ratings: Tensor | None = None,
        rating_weights: Tensor | None = None,
    ) -> SkeslOutput:
        """Predict intensities and ratings. Inputs as in `SkeslModel`, and:

        Args:
            mask_positions: [B, M, P], positions of the P pieces of M masked words, padded with -1.
            labels, label_weights: intensities [B, M] in label units (NaN where padded) and weights of their errors (None: all 1).
            ratings, rating_weights: ratings [B] of whole utterances (NaN: none) and weights of their errors.

        For rows without a rating only the masked pieces pass through the cross-modal blocks. The predictions are the same, because a block
        treats every token independently of the others. Without ratings, `text_states` may therefore hold these pieces only.
        """
        if mask_positions is None:
            raise ValueError("mask_positions is required; without masked words use SkeslModel or rate()")
        if text_states is None:
            assert input_ids is not None
            text_states = self.skesl.text_states(input_ids, attention_mask)
        features = {"audio": audio, "audio_mask": audio_mask, "vision": vision, "vision_mask": vision_mask}
        words = text_states.new_zeros(*mask_positions.shape[:2], text_states.shape[-1])
        if mask_positions.numel():
            pieces = piece_states(text_states, mask_positions)
            fused = self.skesl(text_states=pieces.flatten(1, 2), **features).last_hidden_state
            words = mean_of_pieces(fused.unflatten(1, pieces.shape[1:3]), mask_positions)
        logits = self.head(words).masked_fill((mask_positions < 0).all(dim=-1), 0.0)
        scores = None
        if ratings is not None:
            rows = (~ratings.isnan()).nonzero().squeeze(1)
            chosen = {name: None if value is None else value[rows] for name, value in features.items()}
            mask = torch.ones_like(text_states[..., 0]) if attention_mask is None else attention_mask
            rated = self.rate(attention_mask=mask[rows], text_states=text_states[rows], **chosen)
            scores = rated.new_zeros(len(ratings)).index_copy(0, rows, rated)
        loss = None
        if labels is not None:
            loss = weighted_error([(logits, labels, label_weights), (scores, ratings, rating_weights)])
        return SkeslOutput(loss=loss, logits=logits, word_states=words, ratings=scores)

    def rate(self, attention_mask: Tensor, **inputs: Any) -> Tensor:
        """The rating of whole utterances [B] in label units, from the mean fused state of the real tokens; inputs as in `SkeslModel`.

        Raises:
            ValueError: this encoder has no `rating_head`.
        """
        if self.rating_head is None:
            raise ValueError("this encoder was not trained on ratings (its config has rating_dim 0)")
        fused = self.skesl(attention_mask=attention_mask, **inputs).last_hidden_state
        ratings: Tensor = self.rating_head(mean_of_tokens(fused, attention_mask))
        return ratings


def load_encoder(folder_or_name: str | Path, audio_dim: int, vision_dim: int) -> tuple[SkeslModel, list[str]]:
    """Load the encoder of a pretraining run, a model folder or a hub name, adapted to the given feature widths.

    If a width differs, the LayerNorm and the key and value projections of that modality are initialised again (at random: seed torch
    beforehand) and its statistics are reset. All other weights are kept.

    Returns:
        The encoder, and a note on each such change.

    Raises:
        UserError: it is not a SKESL encoder.
    """
    resolved = resolve_text_model(run_model_folder(folder_or_name))
    config = load_config(resolved)
    refuse_other_than_skesl(folder_or_name, config.model_type)
    notes = []
    changed, new = [], []
    for name, width in (("audio", audio_dim), ("vision", vision_dim)):
        before = getattr(config, f"{name}_dim")
        if width == before:
            continue
        setattr(config, f"{name}_dim", width)
        if width == 0:
            notes.append(f"{name}: absent from the data; its pretrained weights (width {before}) are not used")
        elif before == 0:
            notes.append(f"{name}: absent in pretraining; its attention (width {width}) starts at zero")
            changed.append(name)
            new.append(name)
        else:
            notes.append(f"{name}: pretrained with {before} columns, the data has {width}; keys and values are initialised again")
            changed.append(name)
    with opening(resolved, "encoder"), quiet_loading():
        model = SkeslModel.from_pretrained(resolved, config=config, ignore_mismatched_sizes=bool(changed), dtype=torch.float32)
    for name in changed:
        norm = model.crossmodal.norms[name]
        assert isinstance(norm, FeatureNorm)
        norm.reset()
    model.crossmodal.zero_init(new, feed_forward=False)
    return model, notes


def load_rating_head(folder_or_name: str | Path) -> RatingHead | None:
    """The rating head of a pretrained encoder; None if it has none.

    Raises:
        UserError: the encoder cannot be loaded.
    """
    resolved = resolve_text_model(run_model_folder(folder_or_name))
    config = load_config(resolved)
    if config.model_type != "skesl" or not config.rating_dim:
        return None
    with opening(resolved, "encoder"), quiet_loading():
        return SkeslForMaskedIntensity.from_pretrained(resolved, dtype=torch.float32).rating_head


AutoConfig.register("skesl", SkeslConfig, exist_ok=True)
AutoModel.register(SkeslConfig, SkeslModel, exist_ok=True)
