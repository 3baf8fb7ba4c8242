"""The fine-tuned model: SKESL encoder, unimodal networks, fusion, heads and the projections of the CPM (arXiv 2408.16029)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from finetune.modalities import AUDIO, FUSED, MODALITIES, TEXT, VISION
from finetune.unimodal import FrameNetwork, TextNetwork, masked_mean
from pretrain.encoder import SkeslConfig, SkeslModel


@dataclass
class MugInputs:
    """One batch. Masks are 1 where a token or frame is real; `present[m]` [B] says which utterances have the modality at all.

    `input_ids`, `attention_mask` [B, L]; `text_states` [B, L, D] where the LM's states are cached, else None;
    `audio` [B, Ta, Da], `vision` [B, Tv, Dv] with masks [B, T], None where no utterance of the batch has them.
    """

    input_ids: Tensor
    attention_mask: Tensor
    text_states: Tensor | None
    audio: Tensor | None
    audio_mask: Tensor | None
    vision: Tensor | None
    vision_mask: Tensor | None
    present: dict[str, Tensor]

    def to(self, device: torch.device) -> "MugInputs":
        """The same batch on another device."""
        moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in vars(self).items() if name != "present"}
        return MugInputs(**moved, present={name: value.to(device) for name, value in self.present.items()})


@dataclass
class MugOutput:
    """Predictions [B] (labels divided by their range) and representations [B, dim] by task; `projected[m]` is P_m(h_M)."""

    predictions: dict[str, Tensor] = field(default_factory=dict)
    representations: dict[str, Tensor] = field(default_factory=dict)
    projected: dict[str, Tensor] = field(default_factory=dict)


class MugConfig(PretrainedConfig):
    """Configuration of `MugModel`. `encoder` is a `SkeslConfig` as a dict; `label_scale` turns predictions into label units."""

    model_type = "mug"

    def __init__(
        self,
        encoder: dict[str, Any] | None = None,
        audio_dim: int = 0,
        vision_dim: int = 0,
        dim: int = 64,
        fusion: str = "joint",
        frames: str = "lstm",
        pooling: str = "mean",
        dropout: float = 0.3,
        label_scale: float = 3.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.audio_dim, self.vision_dim = audio_dim, vision_dim
        self.dim, self.fusion, self.frames, self.pooling, self.dropout = dim, fusion, frames, pooling, dropout
        self.label_scale = label_scale


class MugModel(PreTrainedModel):
    """Predicts one sentiment for the whole utterance and one for each modality.

    h_T, h_A, h_V come from the unimodal networks; h_M = ReLU(W_0 pool(SKESL states) + sum over present modalities of W_m h_m); a
    modality that is absent adds nothing. Heads are linear; P_m is a two-layer projection of h_M into the space of modality m.
    """

    config_class = MugConfig
    base_model_prefix = "mug"
    main_input_name = "input_ids"

    def __init__(self, config: MugConfig, encoder: SkeslModel | None = None):
        super().__init__(config)
        self.encoder = encoder if encoder is not None else SkeslModel(SkeslConfig(**(config.encoder or {})))
        width, dim = self.encoder.config.hidden_size, config.dim
        unimodal: dict[str, nn.Module] = {TEXT: TextNetwork(width, dim, config.pooling, config.dropout)}
        for name, frame_width in ((AUDIO, config.audio_dim), (VISION, config.vision_dim)):
            if frame_width:
                unimodal[name] = FrameNetwork(frame_width, dim, config.frames, config.dropout)
        self.unimodal = nn.ModuleDict(unimodal)
        self.pool = nn.Linear(width, dim) if config.fusion != "unimodal" else None
        self.gather = nn.ModuleDict({name: nn.Linear(dim, dim, bias=False) for name in unimodal}) if config.fusion != "encoder" else None
        self.fused_bias = nn.Parameter(torch.zeros(dim))
        self.dropout = nn.Dropout(config.dropout)
        self.projections = nn.ModuleDict({name: nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim)) for name in unimodal})
        self.heads = nn.ModuleDict({name: nn.Linear(dim, 1) for name in (FUSED, *unimodal)})
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Torch's own initialisation stands; the encoder brings its weights."""

    @classmethod
    def around(cls, encoder: SkeslModel, config: MugConfig) -> "MugModel":
        """New networks around a given encoder (whose weights are used, not copied)."""
        config.encoder = encoder.config.to_dict()
        for module in encoder.modules():  # transformers would initialise it again otherwise
            module._is_hf_initialized = True  # type: ignore[assignment]
        return cls(config, encoder)

    @property
    def modalities(self) -> list[str]:
        """The modalities this model has networks for."""
        return [name for name in MODALITIES if name in self.unimodal]

    def set_feature_statistics(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Mean and deviation [D] of each column of `audio` and `vision`, from the training split."""
        for name, (mean, deviation) in statistics.items():
            if name in self.unimodal:
                network = self.unimodal[name]
                assert isinstance(network, FrameNetwork)
                network.norm.set(mean, deviation)

    def forward(self, inputs: MugInputs) -> MugOutput:
        """All predictions and representations of a batch."""
        states = inputs.text_states
        if states is None:
            states = self.encoder.text_states(inputs.input_ids, inputs.attention_mask)
        hidden: dict[str, Tensor] = {TEXT: self.unimodal[TEXT](states, inputs.attention_mask)}
        for name, frames, mask in ((AUDIO, inputs.audio, inputs.audio_mask), (VISION, inputs.vision, inputs.vision_mask)):
            if name in self.unimodal:  # zeros where the whole batch lacks the modality: `present` keeps them out of everything
                hidden[name] = self.unimodal[name](frames, mask) if frames is not None else states.new_zeros(len(states), self.config.dim)
        fused = self.fused_bias.unsqueeze(0)
        if self.pool is not None:
            encoded = self.encoder(
                input_ids=inputs.input_ids,
                attention_mask=inputs.attention_mask,
                audio=inputs.audio,
                audio_mask=inputs.audio_mask,
                vision=inputs.vision,
                vision_mask=inputs.vision_mask,
                text_states=states,
            ).last_hidden_state
            fused = fused + self.pool(self.dropout(masked_mean(encoded, inputs.attention_mask)))
        if self.gather is not None:
            for name, vector in hidden.items():
                fused = fused + self.gather[name](self.dropout(vector)) * inputs.present[name].to(vector.dtype).unsqueeze(-1)
        output = MugOutput(representations={FUSED: torch.relu(fused), **hidden})
        for name, vector in output.representations.items():
            output.predictions[name] = self.heads[name](self.dropout(vector)).squeeze(-1).float()
            if name != FUSED:
                output.projected[name] = self.projections[name](output.representations[FUSED]).float()
        output.representations = {name: vector.float() for name, vector in output.representations.items()}
        return output
