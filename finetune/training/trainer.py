"""Training and evaluating the models of one setting and seed: data, networks, stages, metrics. Nothing here writes results to disk."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finetune.corpora import LabelledCorpus, LabelledSplit
from finetune.corpora.splits import LabelScale
from finetune.extensions import MECHANISMS
from finetune.generator_options import GeneratorOptions
from finetune.labels import LabelGenerator, LabelInputs, LearnedLabels, OnlineLabels, make_generator
from finetune.metrics import Scores, score
from finetune.modalities import AUDIO, FUSED, HUMAN_LABELS, MODALITIES, TEXT, VISION
from finetune.model.alignment import alignment_networks, cloud_distance
from finetune.model.encoders import EncoderSource, encoder_source
from finetune.model.minibatches import LazyStates, PreparedSplit, frames_of, prepare
from finetune.model.networks import MugConfig, MugModel
from finetune.model.opinions import PretrainedOpinions
from finetune.options import TrainingOptions, TrainOptions
from finetune.training.gates import Gate, held_out_gates
from finetune.training.processes import Team
from finetune.training.stages import Epoch, Loss, fit, label_inputs, predict, stage_one_loss, stage_three_loss
from finetune.training.variants import Start, Variant
from pretrain.crossmodal import feature_statistics
from pretrain.encoder import SkeslModel

PERMUTATIONS = 5
"""Draws that the permuted control averages."""
Clouds = tuple[dict[str, Tensor], dict[str, Tensor]]
"""Unimodal and projected representations [N, dim] by modality."""
View = Callable[[str, PreparedSplit, int], PreparedSplit]
"""What a setting sees of a split: takes its name ("train", "dev", ...), the split and the seed. A view that changes tokens leaves the
language model's states alone: they are computed again. Views and generators must be picklable, for --workers."""
Generators = Mapping[str, Callable[[GeneratorOptions], LabelGenerator]]
Splits = dict[str, PreparedSplit]


@dataclass(frozen=True)
class Setting:
    """One way to train.

    Attributes:
        name: folder of its pieces below the experiment's; together with the variants' names it has to show all that differs between two
            settings (`alignment`, `clouds` and `stage1_...` are taken). Empty: the experiment's own folder.
        options: how to train.
        variants: the models; those with the same start share stage 1.
        view: what the models see of each split, in place of the split.
        tests: further views of the evaluated split that each model is scored on.
        generators: label generators beside the registered ones.
        keep_model: keep the first variant's model.
        permuted: score the kept model with the audio and vision of other utterances too.
        further_splits: splits that each model is scored on beside the evaluated one.
    """

    name: str
    options: TrainOptions
    variants: Sequence[Variant]
    view: View | None = None
    tests: Mapping[str, View] = field(default_factory=dict)
    generators: Generators = field(default_factory=dict)
    keep_model: bool = False
    permuted: bool = False
    further_splits: Sequence[str] = ()


@dataclass
class Trained:
    """A model after stage 3, the labels it learned from ([N] by modality, encoded) and what training it was like."""

    model: MugModel
    labels: dict[str, np.ndarray]
    history: list[Epoch]
    facts: dict[str, object]
    seconds: dict[str, float]


def open_source(options: TrainOptions) -> EncoderSource:
    """Where the encoder comes from."""
    return encoder_source(options.encoder, options.lm, options.model.zero_init_blocks, options.lm_layer)


class Trainer:
    """The models of one setting and seed.

    Args:
        setting: what to train.
        seed: of everything random.
        corpus: the labelled corpus.
        states: folder for the states of a frozen language model; settings and seeds share it.
        own_states: folder for those of the setting's views.
        prepared: tokenised splits by encoder, shared by the settings and seeds of a process.
        label: what the progress bars say before the stage.
        line: line of the progress bars, among several processes.
        epochs: of stages 1 and 3 by name of the start, where they are not those of the options.
    """

    def __init__(
        self,
        setting: Setting,
        seed: int,
        corpus: LabelledCorpus,
        states: Path,
        own_states: Path,
        prepared: dict[Path, Splits],
        label: str = "",
        line: int = 0,
        epochs: Mapping[str, tuple[int, int]] | None = None,
    ):
        self.setting, self.seed, self.corpus, self.options = setting, seed, corpus, setting.options
        self.source, self.team, self.scale = open_source(setting.options), Team(), corpus.scale
        self.device = self.team.state.device
        self.states, self._own_states, self.prepared = states, own_states, prepared
        self._label, self._line = label, line
        self._seen: dict[Start, Splits] = {}
        self._epochs = epochs or {}
        self._gates: dict[tuple[tuple[str, ...], bool], dict[str, Gate]] = {}

    def training(self, start: Start) -> TrainingOptions:
        """The training options of a start."""
        if start.name not in self._epochs:
            return self.options.training
        align, joint = self._epochs[start.name]
        return replace(self.options.training, align_epochs=align, joint_epochs=joint)

    def data(self, start: Start) -> Splits:
        """The splits as the setting sees them, with the modalities of a start."""
        if start not in self._seen:
            whole, view = self.whole(start), self.setting.view
            self._seen[start] = whole if view is None else {name: self.viewed(start, name, view) for name in whole}
        return self._seen[start]

    def whole(self, start: Start) -> Splits:
        """The splits without the setting's view. A frozen language model's states are cached on disk."""
        folder = self.states / f"text_states_{'given' if start.pretrained else 'plain'}"
        if folder not in self.prepared:
            with self.team.state.main_process_first():  # the others find the states on disk
                self.prepared[folder] = prepare(
                    self.corpus, lambda: self._encoder(start), self.source.tokenizer(), folder,
                    max_tokens=self.options.max_text_tokens, freeze_lm=self.options.freeze_lm, progress=False,
                )  # fmt: skip
        return {name: split.only(start.modalities) for name, split in self.prepared[folder].items()}

    def viewed(self, start: Start, name: str, view: View) -> PreparedSplit:
        """A view of a split, with the language model's states of the tokens that the view left."""
        before = self.whole(start)[name]
        after = view(name, before, self.seed)
        if after.tokens is before.tokens or after.states is not before.states:
            return after  # a view that picks rows brings their states itself
        folder = self._own_states / f"text_states_{name}{'' if start.pretrained else '_plain'}"
        return replace(after, states=LazyStates(lambda: after.build_states(self._encoder(start), folder)))

    def train(self, variant: Variant, model: MugModel, history: list[Epoch], stage_one_seconds: float) -> Trained:
        """Stages 2 and 3 of a model that has passed stage 1."""
        data = self.data(variant.start)
        began = time.perf_counter()
        learned = self._labels(variant, model, data["train"])
        label_seconds = time.perf_counter() - began
        online = learned.online
        targets = online.targets if online else {name: torch.as_tensor(v, dtype=torch.float32) for name, v in learned.labels.items()}
        tanh = online is not None or self.options.training.unimodal_weighting == "tanh"
        loss = stage_three_loss(data["train"].y, targets, self.options.training, tanh, model.error)
        began = time.perf_counter()
        history = history + self._fit(model, variant.start, loss, 3, variant.name, online)
        labels = {name: target.double().numpy() for name, target in online.targets.items()} if online else learned.labels
        seconds = {"stage 1": stage_one_seconds, "stage 2": label_seconds, "stage 3": time.perf_counter() - began}
        gates = {name: asdict(gate) for name, gate in self.gates(variant.start).items()}
        return Trained(model, labels, history, learned.facts | ({"gates": gates} if gates else {}), seconds)

    def stage_one(self, start: Start, model: MugModel) -> list[Epoch]:
        """Train the networks on y and align the spaces."""
        data = self.data(start)
        options, plugins = self.options.training, self.options.plugin_options
        loss = stage_one_loss(data["train"].y, options, start.unimodal_tasks, plugins, model.error, model.without_closed)
        return self._fit(model, start, loss, 1, start.name)

    def _fit(self, model: MugModel, start: Start, loss: Loss, stage: int, name: str, online: OnlineLabels | None = None) -> list[Epoch]:
        data = self.data(start)
        return fit(
            model, data["train"], data.get("dev"), loss, stage=stage, options=self.training(start), seed=self.seed,
            online=online, bar=f"seed {self.seed} {self._label}stage {stage} {name}", line=self._line,
        )  # fmt: skip

    def _labels(self, variant: Variant, model: MugModel, train: PreparedSplit) -> LearnedLabels:
        """Stage 2; with several processes the main one learns the labels for all."""
        if variant.generator == "none":
            return LearnedLabels({})
        options, own = self.options, self.setting.generators.get(variant.generator)
        generator = own(options.generators) if own else make_generator(variant.generator, options.generators, options.plugin_options)
        widths = (self.corpus.audio_width, self.corpus.vision_width)
        opinions = PretrainedOpinions(self._source(variant.start), train, widths, self.device)
        inputs = label_inputs(model, train, self.seed, self.scale.size, generator.reads_human_labels, opinions)
        return self.team.on_main(lambda: self._learn(generator, inputs, train.split))

    def _learn(self, generator: LabelGenerator, inputs: LabelInputs, split: LabelledSplit) -> LearnedLabels:
        """The labels. Where human labels are known, those of anchored modalities are scored without anchors too, for the report alone."""
        learned = generator(inputs)
        anchors = {name: entry for name, entry in (learned.facts.get("anchors") or {}).items() if "weights" in entry}
        known = {name: values for name in anchors if (values := getattr(split, HUMAN_LABELS[name])) is not None}
        if any(not np.isnan(values).all() for values in known.values()):
            plain = generator(replace(inputs, opinions={})).labels
            for name, values in known.items():
                labels, rows = self.scale.decode(plain[name]), ~np.isnan(values)
                anchors[name]["without"] = {
                    "MAE": float(np.abs(labels - values)[rows].mean()),
                    "Corr": float(np.corrcoef(labels[rows], values[rows])[0, 1]),
                }
        return learned

    def gates(self, start: Start) -> dict[str, Gate]:
        """The gates by held-out gain, if the options select them and there are several modalities; computed once."""
        key = (start.modalities, start.pretrained)
        if key not in self._gates:
            train = self.data(start)["train"]
            present = {name: train.present(name) for name in start.modalities if name in self.corpus.modalities}
            wanted = self.options.model.gates == "held-out" and sum(here.any() for here in present.values()) > 1
            self._gates[key] = self.team.on_main(lambda: self._held_out(train, present)) if wanted else {}
        return self._gates[key]

    def _held_out(self, train: PreparedSplit, present: Mapping[str, np.ndarray]) -> dict[str, Gate]:
        summaries = {name: train.descriptors(name) for name, here in present.items() if here.any()}
        return held_out_gates(train.y.double().numpy(), train.split.video_ids, summaries, present, self.seed)

    def new_model(self, start: Start) -> MugModel:
        """Networks around the encoder, initialised from the seed alone, so that variants differ only in what their name says."""
        text = self.corpus.text_width if TEXT in start.modalities else 0
        audio = self.corpus.audio_width if AUDIO in start.modalities else 0
        vision = self.corpus.vision_width if VISION in start.modalities else 0
        source = self._source(start)
        encoder, _ = source.load(audio, vision, self.seed)
        statistics = feature_statistics(frames_of(self.data(start)["train"].split))
        statistics = {name: values for name, values in statistics.items() if name in start.modalities}
        for name, values in statistics.items():  # pretraining's scaling is kept; features new to the encoder are scaled by train
            if name != TEXT and not encoder.crossmodal.norms[name].is_set:
                encoder.set_feature_statistics(**{name: values})
        torch.manual_seed(self.seed)
        o, training = self.options.model, self.options.training
        config = MugConfig(
            text_dim=text, audio_dim=audio, vision_dim=vision, dim=o.dim, frames=o.frames, pooling=o.pooling, dropout=o.dropout,
            label_scale=self.scale.size,
            fusion=o.fusion if TEXT in start.modalities and not text else "unimodal",  # without tokens the encoder has no queries
            mechanisms=[n for n in self.options.mechanisms if start.unimodal_tasks or not MECHANISMS.get(n).needs_unimodal_tasks],
            gates={name: gate.gate for name, gate in self.gates(start).items()},
        )  # fmt: skip
        model = MugModel.around(encoder, config)
        if start.unimodal_tasks:
            model.alignment = alignment_networks(training.alignment, model.modalities, o.dim)
        head = source.rating_head() if o.rating_start else None
        if head is not None:
            low, high = self.corpus.label_range
            model.start_from(head, self.scale.encode(low), self.scale.encode(high))
        model.set_feature_statistics(statistics)
        model.to(self.device)
        return model

    def own_weights(self, model: MugModel) -> dict[str, torch.Tensor]:
        """The weights that training can have changed: a frozen language model is not written for every stage."""
        frozen = "encoder.text_model." if self.options.freeze_lm else "\0"
        return {name: value.contiguous().clone() for name, value in model.state_dict().items() if not name.startswith(frozen)}

    def _encoder(self, start: Start) -> SkeslModel:
        encoder, _ = self._source(start).load(self.corpus.audio_width, self.corpus.vision_width, self.seed)
        encoder.to(self.device)
        encoder.train(False)
        return encoder

    def _source(self, start: Start) -> EncoderSource:
        if start.pretrained:
            return self.source
        plain = self.source.without_pretraining()
        assert plain is not None
        return plain


def predictions_of(model: MugModel, split: PreparedSplit, heads: Sequence[str], scale: LabelScale) -> dict[str, np.ndarray]:
    """Predictions [N] in label units: the fused one, and those of the trained unimodal heads, NaN where a modality is absent."""
    raw = {name: scale.decode(values).numpy() for name, values in predict(model, split).items()}
    return {FUSED: raw[FUSED], **{name: np.where(split.present(name), raw[name], np.nan).astype(np.float32) for name in heads}}


def fused_scores(model: MugModel, split: PreparedSplit, scale: LabelScale, dataset: str) -> Scores:
    """Metrics of the fused prediction."""
    return score(scale.decode(predict(model, split)[FUSED]).numpy(), split.split.label, dataset)


def permuted_scores(model: MugModel, split: PreparedSplit, seed: int, scale: LabelScale, dataset: str) -> Scores:
    """Metrics with the audio and vision of other utterances, averaged over several draws."""
    draws = [fused_scores(model, split.with_permuted_frames(seed * 100 + draw), scale, dataset) for draw in range(PERMUTATIONS)]
    return {key: _mean([draw[key] for draw in draws]) for key in draws[0]}


def head_scores(predictions: dict[str, np.ndarray], split: LabelledSplit, dataset: str) -> dict[str, Any]:
    """Metrics of each unimodal head against the known label of its modality if there is one, else against the multimodal label."""
    scores = {}
    for name in MODALITIES:
        if name in predictions and not np.isnan(predictions[name]).all():
            here = ~np.isnan(predictions[name])
            known = getattr(split, HUMAN_LABELS[name])
            rows = here & ~np.isnan(known) if known is not None else np.zeros(len(split), bool)
            truth, against = (known, HUMAN_LABELS[name]) if rows.any() else (split.label, "label")
            rows = rows if rows.any() else here
            assert truth is not None
            scores[name] = {**score(predictions[name][rows], truth[rows], dataset), "against": against}
    return scores


def clouds_of(before: Clouds, after: Clouds, evaluated: PreparedSplit) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The representations of the evaluated split before and after stage 1 as arrays, and the distances of their clouds."""
    arrays: dict[str, np.ndarray] = {}
    distances: dict[str, dict[str, dict[str, float]]] = {}
    for modality in before[0]:
        here = torch.as_tensor(evaluated.present(modality))
        if not here.any():
            continue
        distances[modality] = {}
        for moment, (unimodal, projected) in (("before", before), ("after", after)):
            own, other = unimodal[modality][here], projected[modality][here]
            arrays[f"{moment}_{modality}_unimodal"] = own.numpy().astype(np.float32)
            arrays[f"{moment}_{modality}_projected"] = other.numpy().astype(np.float32)
            distances[modality][moment] = cloud_distance(other, own)
    return arrays, distances


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(float(np.mean(known)), 4) if known else None
