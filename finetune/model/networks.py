"""The fine-tuned model: SKESL encoder, unimodal networks, fusion, heads and the projections of the CPM (arXiv 2408.16029)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from finetune.modalities import AUDIO, FUSED, MODALITIES, TEXT, VISION
from finetune.model.alternating import SharedHead, fuse_by_entropy
from finetune.model.unimodal import FrameNetwork, TextNetwork, masked_mean, two_layers
from pretrain.encoder import SkeslConfig, SkeslModel
from pretrain.objective import RatingHead

RATING_SCALE = 3.0
"""Ratings lie in -3 to 3, predictions here are labels divided by their range."""


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
    """Predictions [B] (labels divided by their range) and representations [B, dim] by task; `projected[m]` is P_m(h_M).

    `extras` [B, ...] are the outputs of the networks of alignment losses (in training); `log_scales` [B] by task are those of a shared
    head.
    """

    predictions: dict[str, Tensor] = field(default_factory=dict)
    representations: dict[str, Tensor] = field(default_factory=dict)
    projected: dict[str, Tensor] = field(default_factory=dict)
    extras: dict[str, Tensor] = field(default_factory=dict)
    log_scales: dict[str, Tensor] = field(default_factory=dict)


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
        common_space: bool = False,
        residual: bool = False,
        alternate: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.audio_dim, self.vision_dim = audio_dim, vision_dim
        self.dim, self.fusion, self.frames, self.pooling, self.dropout = dim, fusion, frames, pooling, dropout
        self.label_scale = label_scale
        self.common_space, self.residual, self.alternate = common_space, residual, alternate


class MugModel(PreTrainedModel):
    """Predicts one sentiment for the whole utterance and one for each modality.

    h_T, h_A, h_V come from the unimodal networks; z = W_0 pool(SKESL states) + sum over present modalities of W_m h_m; h_M = ReLU(z); a
    modality that is absent adds nothing. Heads are linear; P_m is a two-layer projection of h_M into the space of modality m.

    Neighbouring mechanisms, each off by default. `common_space`: h_M = C(z), and the head of m reads C(W_m h_m), where C are two layers
    that all share. `residual`: h_M gains the sum over present modalities of h_m + R_m(h_m). `alternate`: one
    `SharedHead` in place of all heads.
    """

    config_class = MugConfig
    base_model_prefix = "mug"
    main_input_name = "input_ids"
    _keys_to_ignore_on_load_unexpected = [r"^alignment\.", r"^predictors\."]  # noqa: RUF012

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
        self.projections = nn.ModuleDict({name: two_layers(dim) for name in unimodal})
        self.heads = nn.ModuleDict({} if config.alternate else {name: nn.Linear(dim, 1) for name in (FUSED, *unimodal)})
        # what follows is made last, so that everything above starts alike with it and without it
        self.shared_head = SharedHead(dim) if config.alternate else None
        self.common = nn.Sequential(*two_layers(dim), nn.ReLU()) if config.common_space else None
        self.branches = nn.ModuleDict({name: two_layers(dim) for name in unimodal}) if config.residual else None
        self.alignment = nn.ModuleDict()
        """Networks of alignment losses, set for stage 1 (`alignment_networks`); a finished model does not need them."""
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        """Torch's own initialisation stands; the encoder brings its weights."""

    @classmethod
    def around(cls, encoder: SkeslModel, config: MugConfig) -> "MugModel":
        """New networks around a given encoder (whose weights are used, not copied)."""
        config.encoder = encoder.config.to_dict()
        for module in encoder.modules():  # transformers would initialise it again otherwise
            module._is_hf_initialized = True  # type: ignore[assignment]
        return cls(config, encoder)

    @torch.no_grad()
    def start_from(self, head: RatingHead, low: float = -1.0, high: float = 1.0) -> bool:
        """Start the multimodal path as the head that rated utterances in pretraining: at first this model then predicts what that head
        does, whatever audio and vision say. Says whether the two fit; where they do not, nothing is changed.

        Args:
            head: whose ratings lie in -3 to 3.
            low, high: the ends of the label range, divided by its largest magnitude: what -3 and 3 become.
        """
        otherwise = (self.shared_head, self.common, self.branches)
        if self.pool is None or any(part is not None for part in otherwise) or self.pool.weight.shape != head.pool.weight.shape:
            return False
        self.pool.load_state_dict(head.pool.state_dict())
        share = (high - low) / 2 / RATING_SCALE
        self.heads[FUSED].load_state_dict({"weight": head.out.weight * share, "bias": head.out.bias * share + (low + high) / 2})
        for layer in self.gather.values() if self.gather is not None else ():
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
        return True

    @property
    def modalities(self) -> list[str]:
        """The modalities this model has networks for."""
        return [name for name in MODALITIES if name in self.unimodal]

    @property
    def tasks(self) -> list[str]:
        """The multimodal task, then those of the modalities."""
        return [FUSED, *self.modalities]

    def set_feature_statistics(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Mean and deviation [D] of each column of `audio` and `vision`, from the training split."""
        for name, (mean, deviation) in statistics.items():
            if name in self.unimodal:
                network = self.unimodal[name]
                assert isinstance(network, FrameNetwork)
                network.norm.set(mean, deviation)

    def forward(self, inputs: MugInputs, turn: str | None = None) -> MugOutput:
        """All predictions and representations of a batch; with `turn` those of one task alone (the fused one has all representations)."""
        spaces = self.modalities if turn in (None, FUSED) else [turn]
        states = inputs.text_states
        if states is None and TEXT in spaces:
            states = self.encoder.text_states(inputs.input_ids, inputs.attention_mask)
        hidden = {name: self._hidden(name, inputs, states) for name in spaces}
        output = MugOutput(representations=hidden)
        if turn in (None, FUSED):
            assert states is not None
            output.representations = {FUSED: self._fused(inputs, states, hidden), **hidden}
        self._predict(output, inputs, turn)
        if turn in (None, FUSED):
            output.projected = {name: self.projections[name](output.representations[FUSED]).float() for name in hidden}
            if self.training:
                for network in self.alignment.values():
                    output.extras |= {name: values.float() for name, values in network(hidden).items()}
        output.representations = {name: vector.float() for name, vector in output.representations.items()}
        return output

    def _hidden(self, name: str, inputs: MugInputs, states: Tensor | None) -> Tensor:
        """h_m [B, dim]; zeros where the whole batch lacks the modality: `present` keeps them out of everything."""
        if name == TEXT:
            frames, mask = states, inputs.attention_mask
        else:
            frames, mask = (inputs.audio, inputs.audio_mask) if name == AUDIO else (inputs.vision, inputs.vision_mask)  # type: ignore[assignment]
        if frames is None:
            return torch.zeros(len(inputs.input_ids), self.config.dim, device=inputs.input_ids.device)
        hidden: Tensor = self.unimodal[name](frames, mask)
        return hidden

    def _fused(self, inputs: MugInputs, states: Tensor, hidden: Mapping[str, Tensor]) -> Tensor:
        """h_M [B, dim]."""
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
        here = {name: inputs.present[name].to(vector.dtype).unsqueeze(-1) for name, vector in hidden.items()}
        if self.gather is not None:
            for name, vector in hidden.items():
                fused = fused + self.gather[name](self.dropout(vector)) * here[name]
        fused = torch.relu(fused) if self.common is None else self.common(fused)
        if self.branches is not None:
            for name, vector in hidden.items():
                fused = fused + (vector + self.branches[name](self.dropout(vector))) * here[name]
        return fused

    def _predict(self, output: MugOutput, inputs: MugInputs, turn: str | None) -> None:
        """Predictions of the representations, or of the one whose turn it is."""
        for name, vector in output.representations.items():
            if turn in (None, name):
                if self.common is not None and self.gather is not None and name != FUSED:
                    vector = self.common(self.fused_bias + self.gather[name](vector))
                if self.shared_head is None:
                    output.predictions[name] = self.heads[name](self.dropout(vector)).squeeze(-1).float()
                else:
                    output.predictions[name], output.log_scales[name] = self.shared_head(self.dropout(vector))
        if self.shared_head is not None and turn is None:
            present = {**inputs.present, FUSED: torch.ones_like(inputs.present[TEXT])}
            stacked = [torch.stack([part[name] for name in self.tasks]) for part in (output.predictions, output.log_scales, present)]
            output.predictions[FUSED] = fuse_by_entropy(*stacked)
