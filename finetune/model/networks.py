"""The fine-tuned model: SKESL encoder, unimodal networks, fusion, heads and the projections of the CPM (arXiv 2408.16029)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from finetune.extensions import MECHANISMS
from finetune.modalities import AUDIO, FUSED, MODALITIES, TEXT, VISION
from finetune.model.context import pick_states
from finetune.model.mechanisms import Mechanism, make_mechanism
from finetune.model.unimodal import FrameNetwork, TextNetwork, masked_mean, two_layers
from pretrain.encoder import SkeslConfig, SkeslModel
from pretrain.objective import RatingHead

RATING_SCALE = 3.0
"""Ratings are in -3 to 3; predictions here are labels divided by the largest label."""


@dataclass
class MugInputs:
    """One batch. Masks are 1 where a token or frame is real; `present[m]` [B] says which utterances have the modality.

    `input_ids`, `attention_mask` [B, L]; `text_states` [B, L, D] if the states of the language model are cached, else None;
    `audio` [B, Ta, Da], `vision` [B, Tv, Dv] and `text_vectors` [B, T, D] (in place of tokens) with masks [B, T], None if no utterance of
    the batch has them. With context, `own_places` [B, L'] are the places of the utterance's own tokens in `input_ids`, padded with -1;
    `text_states` are then [B, L', D].
    """

    input_ids: Tensor
    attention_mask: Tensor
    text_states: Tensor | None
    audio: Tensor | None
    audio_mask: Tensor | None
    vision: Tensor | None
    vision_mask: Tensor | None
    present: dict[str, Tensor]
    text_vectors: Tensor | None = None
    text_vectors_mask: Tensor | None = None
    own_places: Tensor | None = None

    @property
    def own_mask(self) -> Tensor:
        """Which text states are real [B, L]; with context [B, L']."""
        return self.attention_mask if self.own_places is None else (self.own_places >= 0).to(self.attention_mask.dtype)

    def to(self, device: torch.device) -> "MugInputs":
        """The same batch on another device."""
        moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in vars(self).items() if name != "present"}
        return MugInputs(**moved, present={name: value.to(device) for name, value in self.present.items()})


@dataclass
class MugOutput:
    """Predictions [B] (labels divided by the largest label) and representations [B, dim] by task; `projected[m]` is P_m(h_M).

    `extras` [B, ...] by name come from mechanisms and, in training, from the networks of alignment losses.
    """

    predictions: dict[str, Tensor] = field(default_factory=dict)
    representations: dict[str, Tensor] = field(default_factory=dict)
    projected: dict[str, Tensor] = field(default_factory=dict)
    extras: dict[str, Tensor] = field(default_factory=dict)


class MugConfig(PretrainedConfig):
    """Configuration of `MugModel`.

    `encoder` is a `SkeslConfig` as a dict; `label_scale` turns predictions into label units; `text_dim` is the width of vectors that the
    text network reads in place of the language model's states (0: none); `gates` are fixed gates by modality (default 1), in 0 to 1.
    """

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
        mechanisms: Sequence[str] = (),
        text_dim: int = 0,
        gates: Mapping[str, float] | None = None,
        **kwargs: Any,
    ):
        older = [name for name in MECHANISMS.names() if kwargs.pop(name.replace("-", "_"), False)]  # each was a flag
        super().__init__(**kwargs)
        self.encoder = encoder
        self.audio_dim, self.vision_dim, self.text_dim = audio_dim, vision_dim, text_dim
        self.dim, self.fusion, self.frames, self.pooling, self.dropout = dim, fusion, frames, pooling, dropout
        self.label_scale = label_scale
        self.mechanisms = [*mechanisms, *older]
        self.gates = dict(gates or {})


class MugModel(PreTrainedModel):
    """Predicts the sentiment of an utterance, and one sentiment per modality.

    h_T, h_A, h_V come from the unimodal networks; z = W_0 pool(SKESL states) + sum over present modalities of W_m h_m; h_M = ReLU(z); an
    absent modality adds nothing. Heads are linear; P_m is a two-layer projection of h_M into the space of modality m.

    `config.mechanisms` may change all of this (`finetune/model/mechanisms.py`).
    """

    config_class = MugConfig
    base_model_prefix = "mug"
    main_input_name = "input_ids"
    _keys_to_ignore_on_load_unexpected = [r"^alignment\.", r"^predictors\."]  # noqa: RUF012

    def __init__(self, config: MugConfig, encoder: SkeslModel | None = None):
        super().__init__(config)
        self.encoder = encoder if encoder is not None else SkeslModel(SkeslConfig(**(config.encoder or {})))
        width, dim = self.encoder.config.hidden_size, config.dim
        unimodal: dict[str, nn.Module] = {} if config.text_dim else {TEXT: TextNetwork(width, dim, config.pooling, config.dropout)}
        for name, frame_width in ((TEXT, config.text_dim), (AUDIO, config.audio_dim), (VISION, config.vision_dim)):
            if frame_width:
                unimodal[name] = FrameNetwork(frame_width, dim, config.frames, config.dropout)
        self.unimodal = nn.ModuleDict(unimodal)
        self.pool = nn.Linear(width, dim) if config.fusion != "unimodal" else None
        self.gather = nn.ModuleDict({name: nn.Linear(dim, dim, bias=False) for name in unimodal}) if config.fusion != "encoder" else None
        self.fused_bias = nn.Parameter(torch.zeros(dim))
        self.dropout = nn.Dropout(config.dropout)
        self.projections = nn.ModuleDict({name: two_layers(dim) for name in unimodal})
        self.mechanisms: list[Mechanism] = [make_mechanism(name) for name in config.mechanisms]
        self.predictor = next((each for each in self.mechanisms if each.replaces_heads), None)
        self.heads = nn.ModuleDict({} if self.predictor else {name: nn.Linear(dim, 1) for name in (FUSED, *unimodal)})
        for mechanism in self.mechanisms:  # last, so that the modules above start from the same weights with and without it
            mechanism.build(self)
        self.alignment = nn.ModuleDict()
        """Networks of alignment losses, set for stage 1 (`alignment_networks`); a finished model does not need them."""
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        """Keep torch's own initialisation and the weights of the encoder."""

    @classmethod
    def around(cls, encoder: SkeslModel, config: MugConfig) -> "MugModel":
        """New networks around a given encoder (whose weights are used, not copied)."""
        config.encoder = encoder.config.to_dict()
        for module in encoder.modules():  # otherwise transformers would initialise it again
            module._is_hf_initialized = True  # type: ignore[assignment]
        return cls(config, encoder)

    @torch.no_grad()
    def start_from(self, head: RatingHead, low: float = -1.0, high: float = 1.0) -> bool:
        """Initialise the multimodal path as the head that rated utterances in pretraining, so that the untrained model predicts what that
        head does, whatever the unimodal networks say.

        Args:
            head: with ratings in -3 to 3.
            low, high: what -3 and 3 become: the ends of the label range, divided by its largest magnitude.

        Returns:
            Whether the head fits; if not, nothing is changed.
        """
        if self.pool is None or self.mechanisms or self.pool.weight.shape != head.pool.weight.shape:
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

    def gate_of(self, name: str) -> float:
        """What the contribution of a modality to the fused representation is multiplied by."""
        return float(self.config.gates.get(name, 1.0))

    def without_closed(self, present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`present` without the modalities whose gate is 0, which neither fusion nor alignment reads."""
        return {name: torch.zeros_like(here) if self.gate_of(name) == 0 else here for name, here in present.items()}

    def set_feature_statistics(self, statistics: Mapping[str, tuple[Any, Any]]) -> None:
        """Mean and deviation [D] of each column of the features by modality, from the training split."""
        for name, (mean, deviation) in statistics.items():
            if name in self.unimodal:
                network = self.unimodal[name]
                assert isinstance(network, FrameNetwork)
                network.norm.set(mean, deviation)

    def forward(self, inputs: MugInputs, turn: str | None = None) -> MugOutput:
        """All predictions and representations of a batch; with `turn` those of one task (the fused task has all representations)."""
        spaces = self.modalities if turn in (None, FUSED) else [turn]
        states = inputs.text_states
        if states is None and TEXT in spaces and not self.config.text_dim:
            states = self.encoder.text_states(inputs.input_ids, inputs.attention_mask)
            states = states if inputs.own_places is None else pick_states(states, inputs.own_places)
        hidden = {name: self._hidden(name, inputs, states) for name in spaces}
        output = MugOutput(representations=hidden)
        if turn in (None, FUSED):
            output.representations = {FUSED: self._fused(inputs, states, hidden), **hidden}
        self._predict(output, inputs, turn)
        if turn in (None, FUSED):
            output.projected = {name: self.projections[name](output.representations[FUSED]).float() for name in hidden}
            if self.training and self.alignment:
                sentence = {} if states is None else {"language model": masked_mean(states, inputs.own_mask).detach()}
                for network in self.alignment.values():
                    output.extras |= {name: values.float() for name, values in network({**hidden, **sentence}).items()}
        output.representations = {name: vector.float() for name, vector in output.representations.items()}
        return output

    def _hidden(self, name: str, inputs: MugInputs, states: Tensor | None) -> Tensor:
        """h_m [B, dim]; zeros if the whole batch lacks the modality (they are ignored by `present`)."""
        sequences = {
            TEXT: (inputs.text_vectors, inputs.text_vectors_mask) if self.config.text_dim else (states, inputs.own_mask),
            AUDIO: (inputs.audio, inputs.audio_mask),
            VISION: (inputs.vision, inputs.vision_mask),
        }
        frames, mask = sequences[name]
        if frames is None:
            return torch.zeros(len(inputs.input_ids), self.config.dim, device=inputs.input_ids.device)
        hidden: Tensor = self.unimodal[name](frames, mask)
        return hidden

    def _fused(self, inputs: MugInputs, states: Tensor | None, hidden: Mapping[str, Tensor]) -> Tensor:
        """h_M [B, dim]."""
        fused = self.fused_bias.unsqueeze(0)
        gates = {name: self.gate_of(name) for name in hidden}
        used = self.without_closed(inputs.present)
        if self.pool is not None:
            assert states is not None  # a model of text vectors has no such path
            encoded = self.encoder(
                audio=inputs.audio if self.gate_of(AUDIO) else None,
                audio_mask=inputs.audio_mask,
                vision=inputs.vision if self.gate_of(VISION) else None,
                vision_mask=inputs.vision_mask,
                text_states=states,
                gates=gates,
            ).last_hidden_state
            fused = fused + self.pool(self.dropout(masked_mean(encoded, inputs.own_mask)))
        if self.gather is not None:
            for name, vector in hidden.items():
                fused = fused + self.gather[name](self.dropout(vector)) * gates[name] * used[name].to(vector.dtype).unsqueeze(-1)
        z, fused = fused, torch.relu(fused)
        gated = {name: vector * gates[name] for name, vector in hidden.items()} if self.mechanisms else {}
        for mechanism in self.mechanisms:
            fused = mechanism.fuse(self, z, fused, gated, used)
        return fused

    def _predict(self, output: MugOutput, inputs: MugInputs, turn: str | None) -> None:
        """Predictions from the representations, or from that of the one task whose turn it is."""
        for name, vector in output.representations.items():
            if turn not in (None, name):
                continue
            for mechanism in self.mechanisms:
                vector = mechanism.read(self, name, vector)
            vector = self.dropout(vector)
            if self.predictor is None:
                output.predictions[name] = self.heads[name](vector).squeeze(-1).float()
            else:
                output.predictions[name] = self.predictor.predict(self, output, name, vector)
        if turn is None:
            for mechanism in self.mechanisms:
                mechanism.finish(self, output, self.without_closed(inputs.present))

    def turns(self, present: Mapping[str, bool]) -> list[str | None]:
        """The steps of a batch: a task each, or None for all tasks in one step."""
        return next((turns for each in self.mechanisms if (turns := each.turns(self, present)) != [None]), [None])

    def error(self, output: MugOutput, name: str, target: Tensor) -> Tensor:
        """The error of a task by utterance [B]: L1, unless a mechanism has another."""
        errors = (each.error(output, name, target) for each in self.mechanisms)
        return next((error for error in errors if error is not None), (output.predictions[name] - target).abs())
