"""All runs of one seed: the model with each label generator, and its controls. Each piece is kept on disk, so a stopped run goes on."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from tqdm import tqdm

from finetune.corpora import LabelledCorpus
from finetune.labels import LabelGenerator, LearnedLabels, OnlineLabels, make_generator
from finetune.metrics import score
from finetune.modalities import AUDIO, FUSED, HUMAN_LABELS, LETTERS, MODALITIES, TEXT, VISION
from finetune.model.alignment import alignment_networks, cloud_distance
from finetune.model.encoders import EncoderSource
from finetune.model.minibatches import PreparedSplit, feature_statistics, prepare
from finetune.model.networks import MugConfig, MugModel
from finetune.options import GeneratorOptions, MugOptions, TrainOptions
from finetune.training.pace import Pace, pace_of
from finetune.training.processes import Team
from finetune.training.row_names import variant_name
from finetune.training.stages import Epoch, Loss, fit, label_inputs, predict, represent, stage_one_loss, stage_three_loss
from finetune.training.storing import write_arrays, write_entries, write_model, write_weights
from finetune.training.variants import Variant, teaches_modalities, visible
from pretrain.encoder import SkeslModel
from skesl_mug.files import read_json
from skesl_mug.memory import peak_memory_mb

PERMUTED = "permuted"
"""The piece that holds the headline model's scores with the voices and faces of other utterances."""
PERMUTATIONS = 5
"""How many draws the permuted control averages."""


class SeedRun:
    """The variants of one seed over one corpus; `folder` holds what is finished."""

    def __init__(self, options: TrainOptions, corpus: LabelledCorpus, source: EncoderSource, folder: Path, seed: int):
        self.options, self.corpus, self.source, self.folder, self.seed = options, corpus, source, folder, seed
        self.line = options.seeds.index(seed) if options.workers > 1 else 0
        low, high = corpus.label_range
        self.scale = max(abs(low), abs(high))
        self.team = Team()
        self.device = self.team.state.device
        self.states_folder = folder.parent
        """Where the states of a frozen language model lie; seeds share them."""
        self.generators: Mapping[str, Callable[[GeneratorOptions], LabelGenerator]] = {}
        """Generators beyond the registered ones, by name."""
        self.mark = ""
        """What tells this run's lines on the terminal from those of others with the same variants."""
        self.pace: Pace | None = None
        self._prepared: dict[str, dict[str, PreparedSplit]] = {}

    def run(self, variants: list[Variant], permuted: bool) -> bool:
        """Train what is not finished yet, the first of them the headline; says whether anything was left to do."""
        pieces: dict[str, Callable[[], None]] = {
            variant.name: partial(self._run_variant, variant, headline=variant is variants[0]) for variant in variants
        }
        folders = [self.folder.parent / f"seed-{seed}" for seed in self.options.seeds]
        self.pace = pace_of(folder / f"{name}.json" for folder in folders for name in pieces)
        pieces[PERMUTED] = self._run_permuted
        missing = self.team.on_main(lambda: self.missing(variants, permuted))
        for name in missing:
            pieces[name]()
            self.team.wait()
        return bool(missing)

    def missing(self, variants: list[Variant], permuted: bool) -> list[str]:
        """The pieces that are not finished yet, in the order in which they are made."""
        names = [variant.name for variant in variants]
        if permuted and (self.corpus.audio_width or self.corpus.vision_width):
            names.append(PERMUTED)
        return [name for name in names if not (self.folder / f"{name}.json").is_file()]

    def data(self, start: str) -> dict[str, PreparedSplit]:
        """The splits as a start sees them; a frozen LM's states are cached under the run's folder, one cache an LM."""
        key = "plain" if start.startswith("no_pretraining") else "given"
        if key not in self._prepared:

            def load_encoder() -> SkeslModel:
                encoder, _ = self._source(start).load(self.corpus.audio_width, self.corpus.vision_width, self.seed)
                encoder.to(self.device)
                encoder.train(False)
                return encoder

            with self.team.state.main_process_first():  # the others find the states on disk
                self._prepared[key] = prepare(
                    self.corpus, load_encoder, self.source.tokenizer(), self.states_folder / f"text_states_{key}",
                    max_tokens=self.options.max_text_tokens, freeze_lm=self.options.freeze_lm, progress=False,
                )  # fmt: skip
        splits = self._prepared[key]
        return {name: split.only(visible(start)) for name, split in splits.items()}

    def _source(self, start: str) -> EncoderSource:
        if not start.startswith("no_pretraining"):
            return self.source
        plain = self.source.without_pretraining()
        assert plain is not None
        return plain

    def _new_model(self, start: str) -> MugModel:
        """Networks around the encoder, initialised from the seed alone, so that variants differ in what their name says."""
        seen = visible(start)
        audio = self.corpus.audio_width if AUDIO in seen else 0
        vision = self.corpus.vision_width if VISION in seen else 0
        encoder, _ = self._source(start).load(audio, vision, self.seed)
        statistics = {name: values for name, values in feature_statistics(self.data(start)["train"].split).items() if name in seen}
        for name, values in statistics.items():  # what pretraining scaled stays so; features new to the encoder are scaled by train
            if not encoder.crossmodal.norms[name].is_set:
                encoder.set_feature_statistics(**{name: values})
        torch.manual_seed(self.seed)
        o, training = self.options.model, self.options.training
        config = MugConfig(
            audio_dim=audio, vision_dim=vision, dim=o.dim, frames=o.frames, pooling=o.pooling, dropout=o.dropout, label_scale=self.scale,
            fusion=o.fusion if TEXT in seen else "unimodal",  # without text the encoder has nothing to ask audio and vision about
            common_space=o.common_space, residual=o.residual,
            alternate=training.alternate and teaches_modalities(start),  # a single task has nobody to take turns with
        )  # fmt: skip
        model = MugModel.around(encoder, config)
        if teaches_modalities(start):
            model.alignment = alignment_networks(training.alignment, model.modalities, o.dim)
        head = self._source(start).rating_head() if o.rating_start else None
        if head is not None:
            model.start_from(head, *(edge / self.scale for edge in self.corpus.label_range))
        model.set_feature_statistics(statistics)
        model.to(self.device)
        return model

    def _stage_one(self, start: str) -> tuple[MugModel, list[Epoch], float]:
        """Stage 1 of a start, from disk where it was done before."""
        model, weights, log = self._new_model(start), self.folder / f"stage1_{start}.safetensors", self.folder / f"stage1_{start}.json"
        data = self.data(start)
        if self.team.on_main(lambda: log.is_file() and weights.is_file()):
            model.load_state_dict(load_file(weights), strict=False)
            done = read_json(log)
            return model, [Epoch(**epoch) for epoch in done["history"]], done["seconds"]
        began = time.perf_counter()
        before = represent(model, data[self.corpus.evaluated_on]) if start == "full" else None
        loss = stage_one_loss(data["train"].y, self.options.training, teaches_modalities(start), self.options.plugin_options)
        history = self._fit(model, data, loss, 1, start)
        seconds = time.perf_counter() - began
        after = represent(model, data[self.corpus.evaluated_on]) if before is not None else None
        if self.team.is_main:
            if before is not None and after is not None:
                self._keep_clouds(before, after)
            write_weights(weights, self._own_weights(model))
            write_entries(log, {"history": [asdict(epoch) for epoch in history], "seconds": seconds})
        return model, history, seconds

    def _fit(
        self, model: MugModel, data: dict[str, PreparedSplit], loss: Loss, stage: int, name: str, online: OnlineLabels | None = None
    ) -> list[Epoch]:
        bar = f"seed {self.seed} {self.mark}stage {stage} {name}"
        return fit(
            model, data["train"], data["dev"], loss, stage=stage, options=self.options.training, seed=self.seed,
            online=online, bar=bar, line=self.line,
        )  # fmt: skip

    def _own_weights(self, model: MugModel) -> dict[str, torch.Tensor]:
        """The weights that training can have changed: a frozen LM is not written for every stage."""
        frozen = "encoder.text_model." if self.options.freeze_lm else "\0"
        return {name: value.contiguous().clone() for name, value in model.state_dict().items() if not name.startswith(frozen)}

    def _keep_clouds(self, before: tuple[dict[str, torch.Tensor], ...], after: tuple[dict[str, torch.Tensor], ...]) -> None:
        """Unimodal and projected clouds of the evaluated split before and after stage 1, and their distances."""
        arrays: dict[str, np.ndarray] = {}
        distances: dict[str, dict[str, dict[str, float]]] = {}
        evaluated = self.data("full")[self.corpus.evaluated_on]
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
        arrays["label"] = self.corpus.splits[self.corpus.evaluated_on].label
        write_arrays(self.folder / "clouds.npz", arrays)
        write_entries(self.folder / "alignment.json", distances)

    def _run_variant(self, variant: Variant, headline: bool) -> None:
        model, history, stage_one_seconds = self._stage_one(variant.start)
        data = self.data(variant.start)
        evaluated = data[self.corpus.evaluated_on]
        began = time.perf_counter()
        made = self._labels(variant, model, data["train"])
        label_seconds = time.perf_counter() - began
        online = made.online
        targets = online.targets if online else {name: torch.as_tensor(v, dtype=torch.float32) for name, v in made.labels.items()}
        tanh = online is not None or self.options.training.unimodal_weighting == "tanh"
        loss = stage_three_loss(data["train"].y, targets, self.options.training, tanh)
        began = time.perf_counter()
        history = history + self._fit(model, data, loss, 3, variant.name, online)
        learned = {name: target.double().numpy() for name, target in online.targets.items()} if online else made.labels
        predictions = self._predictions(model, evaluated, learned)
        seconds = {"stage 1": stage_one_seconds, "stage 2": label_seconds, "stage 3": time.perf_counter() - began}
        further = self.extra_metrics(model, data)
        scores = score(predictions[FUSED], evaluated.split.label, self.corpus.dataset)
        if not self.team.is_main:
            return
        if headline:
            write_model(self.folder / "model", model)
        arrays = {f"pred_{LETTERS[task]}": values for task, values in predictions.items()}
        write_arrays(self.folder / f"{variant.name}_predictions.npz", arrays)
        if learned:
            write_arrays(self.folder / f"{variant.name}_labels.npz", {name: values * self.scale for name, values in learned.items()})
        result = {
            "metrics": scores,
            "unimodal_heads": self._score_heads(predictions),
            "history": [asdict(epoch) for epoch in history],
            "facts": made.facts,
            "seconds": seconds,
            "threads": torch.get_num_threads(),
            "peak_memory_mb": peak_memory_mb(),
            **further,
        }
        write_entries(self.folder / f"{variant.name}.json", result)
        spent = sum(seconds.values())
        figures = f"MAE {scores['MAE']:.3f}  Corr {_show(scores['Corr'])}  {spent:.0f} s"
        tqdm.write(f"seed {self.seed}  {self.shown(variant):<32} {figures:<32}{self.pace or ''}".rstrip())

    def shown(self, variant: Variant) -> str:
        """What a model is called on the terminal: as in the result's table."""
        return variant_name(variant.name, self.options.labels if isinstance(self.options, MugOptions) else "")

    def extra_metrics(self, model: MugModel, data: dict[str, PreparedSplit]) -> dict[str, Any]:
        """What else a finished model is asked, for its piece's JSON; nothing here, the studies' runs ask."""
        return {}

    def _labels(self, variant: Variant, model: MugModel, train: PreparedSplit) -> LearnedLabels:
        """Stage 2; with several processes the main one learns the labels for all."""
        if variant.generator == "none":
            return LearnedLabels({})
        if variant.generator in self.generators:
            generator = self.generators[variant.generator](self.options.generators)
        else:
            generator = make_generator(variant.generator, self.options.generators, self.options.plugin_options)
        inputs = label_inputs(model, train, self.seed, self.scale, generator.reads_human_labels)
        return self.team.on_main(lambda: generator(inputs))

    def _predictions(self, model: MugModel, evaluated: PreparedSplit, learned: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Predictions [N] in label units: the multimodal one, and those of the trained unimodal heads, NaN where a modality is absent."""
        raw = {name: (values * self.scale).numpy() for name, values in predict(model, evaluated).items()}
        heads = {name: np.where(evaluated.present(name), raw[name], np.nan).astype(np.float32) for name in self._taught(learned)}
        return {FUSED: raw[FUSED], **heads}

    def _taught(self, learned: dict[str, np.ndarray]) -> list[str]:
        """The modalities whose heads were trained: a head of weight 0 has nothing to say."""
        return [name for name in learned if vars(self.options.training.task_weights)[name] > 0]

    def _run_permuted(self) -> None:
        """The headline model's scores with the voices and faces of other utterances, averaged over several draws."""
        model = MugModel.from_pretrained(self.folder / "model").to(self.device)
        evaluated = self.data("full")[self.corpus.evaluated_on]
        draws = []
        for draw in range(PERMUTATIONS):
            permuted = predict(model, evaluated.with_permuted_frames(self.seed * 100 + draw))[FUSED] * self.scale
            draws.append(score(permuted.numpy(), evaluated.split.label, self.corpus.dataset))
        if self.team.is_main:
            write_entries(self.folder / f"{PERMUTED}.json", {key: _mean([draw[key] for draw in draws]) for key in draws[0]})

    def _score_heads(self, predictions: dict[str, np.ndarray]) -> dict[str, Any]:
        """Each unimodal head against the known label of its modality where there is one, else against the multimodal label."""
        split = self.corpus.splits[self.corpus.evaluated_on]
        scores = {}
        for name in MODALITIES:
            if name in predictions and not np.isnan(predictions[name]).all():
                here = ~np.isnan(predictions[name])
                known = getattr(split, HUMAN_LABELS[name])
                rows = here & ~np.isnan(known) if known is not None else np.zeros(len(split), bool)
                truth, against = (known, HUMAN_LABELS[name]) if rows.any() else (split.label, "label")
                rows = rows if rows.any() else here
                assert truth is not None
                scores[name] = {**score(predictions[name][rows], truth[rows], self.corpus.dataset), "against": against}
        return scores


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(float(np.mean(known)), 4) if known else None


def _show(value: float | None) -> str:
    return "  –  " if value is None else f"{value:.3f}".replace("-", "−")
