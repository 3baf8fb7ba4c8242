"""An experiment: settings trained with every seed over one corpus, in this process or in several. Finished models are kept on disk."""

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm
from transformers.utils import logging

from finetune.corpora import LabelledCorpus, load_corpus
from finetune.corpora.checks import check_learnable
from finetune.corpora.context import with_context
from finetune.labels import WITHOUT_DESCRIPTORS
from finetune.metrics import Scores, score
from finetune.modalities import FUSED, LETTERS
from finetune.model.networks import MugModel
from finetune.options import MugOptions, TrainOptions
from finetune.training.calibration import CALIBRATION, write_calibration
from finetune.training.epochs import choose_epochs, cross_validated, held_out_predictions, stored_choice, without_dev
from finetune.training.pace import Pace
from finetune.training.pieces import PERMUTED, SeedFolder, write_arrays, write_entries, write_model
from finetune.training.stages import Epoch, represent
from finetune.training.trainer import (
    Setting,
    Splits,
    Trained,
    Trainer,
    clouds_of,
    fused_scores,
    head_scores,
    open_source,
    permuted_scores,
    predictions_of,
)
from finetune.training.variants import FULL, Start, Variant, epochs_in_words, variant_name
from skesl_mug.console import line_by_line, quiet_libraries
from skesl_mug.errors import UserError
from skesl_mug.interruption import ctrl_c_ignored, end_with_parent
from skesl_mug.memory import peak_memory_mb
from skesl_mug.registry import load_plugins

FEW_DRAW = 64
"""Of the draw of --few's utterances, beside the seed."""


class Experiment:
    """Settings x seeds over one corpus; `run` trains what is missing.

    Args:
        settings: what to train; the first one's options say how many processes and threads there are.
        seeds: the seeds of every setting.
        corpus: the labelled corpus.
        folder: where the pieces lie, as `SETTING/seed-N/VARIANT.json`.
    """

    def __init__(self, settings: Sequence[Setting], seeds: Sequence[int], corpus: LabelledCorpus, folder: Path):
        self.settings, self.seeds, self.corpus, self.folder = list(settings), list(seeds), corpus, folder
        self._prepared: dict[Path, Splits] = {}
        self._fingerprints: dict[str, str] = {}
        self._pace = Pace(self.seed_folder(s, seed).piece(v.name) for seed in self.seeds for s in self.settings for v in s.variants)

    def __reduce__(self) -> tuple[object, ...]:
        """For worker processes: the corpus is memory-mapped, so its pages are shared."""
        return Experiment, (self.settings, self.seeds, self.corpus, self.folder)

    def seed_folder(self, setting: Setting, seed: int) -> SeedFolder:
        """The pieces of a setting and seed."""
        return SeedFolder(self.folder / setting.name / f"seed-{seed}")

    def run(self) -> bool:
        """Train what is not finished; returns whether anything was left to do.

        Raises:
            UserError: a stage diverged, a piece cannot be written, or a worker process died.
        """
        options = self.settings[0].options
        if options.workers == 1 or len(self.seeds) == 1:
            worked = [self.run_seed(seed) for seed in self.seeds]
            return any(worked)
        if not any(self.missing(setting, seed) for setting in self.settings for seed in self.seeds):
            return False
        for setting in self.settings:  # the language model's states and the epochs, before several processes need them
            self._choose_epochs(setting)
            trainer = self.trainer(setting, self.seeds[0])
            for variant in setting.variants:
                train = trainer.data(variant.start)["train"]
                described = variant.generator not in WITHOUT_DESCRIPTORS or trainer.gates(variant.start)
                if described and not self.corpus.text_width:
                    _ = train.states.cache
        return any(self._in_processes(min(options.workers, len(self.seeds))))

    def run_seed(self, seed: int) -> bool:
        """Train what is not finished of one seed; returns whether anything was."""
        worked = False
        for setting in self.settings:
            self._choose_epochs(setting)
            trainer = self.trainer(setting, seed)
            for name in trainer.team.on_main(partial(self.missing, setting, seed)):
                if name == PERMUTED:
                    self._permuted(trainer)
                elif name == CALIBRATION:
                    self._calibrate(trainer, self._kept(trainer))
                else:
                    self._model(trainer, next(variant for variant in setting.variants if variant.name == name))
                trainer.team.wait()
                worked = True
        return worked

    def missing(self, setting: Setting, seed: int) -> list[str]:
        """The pieces that are not finished, in the order in which they are made."""
        folder = self.seed_folder(setting, seed)
        found = [variant.name for variant in setting.variants if not _is_finished(setting, folder, variant)]
        has_frames = self.corpus.audio_width or self.corpus.vision_width
        if setting.permuted and has_frames and not folder.piece(PERMUTED).is_file():
            found.append(PERMUTED)
        finished = setting.keep_model and setting.variants[0].name not in found
        if finished and not (folder.path / f"{CALIBRATION}.npz").is_file():  # trained by an earlier version
            found.append(CALIBRATION)
        return found

    def trainer(self, setting: Setting, seed: int) -> Trainer:
        """What trains the models of a setting and seed."""
        states = self.folder
        if setting.name:
            key = str(setting.options.encoder or setting.options.lm)
            if key not in self._fingerprints:
                self._fingerprints[key] = open_source(setting.options).fingerprint()[:12]
            o = setting.options  # what else decides the tokens and states that its runs share
            marks = f"{o.max_text_tokens}{f'-context{o.context}' if o.context else ''}{'' if o.freeze_lm else '-trained'}"
            states = self.folder / f"text-{self._fingerprints[key]}-{o.lm_layer}-{marks}"
        line = self.seeds.index(seed) if setting.options.workers > 1 else 0
        own = self.seed_folder(setting, seed).path
        chosen = {start.name: stored_choice(self.folder / setting.name, start) for start in _starts(setting)}
        epochs = {name: (choice.align, choice.joint) for name, choice in chosen.items() if choice is not None}
        return Trainer(setting, seed, self.corpus, states, own, self._prepared, self._mark(setting), line, epochs)

    def _choose_epochs(self, setting: Setting) -> None:
        """With cross-validated epochs: choose those of every start that is still to be trained, with the first seed."""
        if not cross_validated(setting.options):
            return
        assert isinstance(setting.options, MugOptions)
        trainer, folder = self.trainer(setting, self.seeds[0]), self.folder / setting.name
        missing = {name for seed in self.seeds for name in trainer.team.on_main(partial(self.missing, setting, seed))}
        for start in _starts(setting):
            variants = [variant for variant in setting.variants if variant.start == start]
            if missing.isdisjoint(variant.name for variant in variants) or stored_choice(folder, start) is not None:
                continue
            chosen = choose_epochs(trainer, variants[0], setting.options.epoch_folds, folder)
            if trainer.team.is_main:
                called = variant_name(variants[0].name, setting.options.labels)
                tqdm.write(f"epochs, {called}: {epochs_in_words(asdict(chosen))}")

    def _mark(self, setting: Setting) -> str:
        return f"{setting.name}: " if len(self.settings) > 1 else ""

    def _model(self, trainer: Trainer, variant: Variant) -> None:
        """Train, evaluate and store one variant."""
        setting, seed, folder = trainer.setting, trainer.seed, self.seed_folder(trainer.setting, trainer.seed)
        trained = trainer.train(variant, *self._stage_one(trainer, folder, variant.start))
        evaluated = trainer.data(variant.start)[self.corpus.evaluated_on]
        heads = [name for name in trained.labels if vars(setting.options.training.task_weights)[name] > 0]  # one of weight 0 is untrained
        predictions = predictions_of(trained.model, evaluated, heads, trainer.scale)
        scores = score(predictions[FUSED], evaluated.split.label, self.corpus.dataset)
        further = self._further(trainer, variant, trained.model)
        if setting.keep_model and variant == setting.variants[0]:
            self._calibrate(trainer, trained.model)
        if not trainer.team.is_main:
            return
        if setting.keep_model and variant == setting.variants[0]:
            write_model(folder.path / "model", trained.model)
        write_arrays(folder.path / f"{variant.name}_predictions.npz", {f"pred_{LETTERS[task]}": v for task, v in predictions.items()})
        if trained.labels:
            labels = {name: trainer.scale.decode(values) for name, values in trained.labels.items()}
            write_arrays(folder.path / f"{variant.name}_labels.npz", labels)
        result = {
            "metrics": scores,
            "unimodal_heads": head_scores(predictions, evaluated.split, self.corpus.dataset),
            "history": [asdict(epoch) for epoch in trained.history],
            "facts": trained.facts,
            "seconds": trained.seconds,
            "threads": torch.get_num_threads(),
            "peak_memory_mb": peak_memory_mb(),
            **further,
        }
        write_entries(folder.piece(variant.name), result)
        self._print(setting, seed, variant, scores, trained)

    def _print(self, setting: Setting, seed: int, variant: Variant, scores: Scores, trained: Trained) -> None:
        options = setting.options
        called = variant_name(variant.name, options.labels) if isinstance(options, MugOptions) else self._mark(setting) + variant.name
        correlation = "  –  " if scores["Corr"] is None else f"{scores['Corr']:.3f}".replace("-", "−")
        figures = f"MAE {scores['MAE']:.3f}  Corr {correlation}  {sum(trained.seconds.values()):.0f} s"
        tqdm.write(f"seed {seed}  {called:<32} {figures:<32}{self._pace}".rstrip())

    def _further(self, trainer: Trainer, variant: Variant, model: MugModel) -> dict[str, dict[str, Scores]]:
        """Scores on the setting's further views of the evaluated split, and on further splits."""
        setting, scale, dataset = trainer.setting, trainer.scale, self.corpus.dataset
        views = {name: trainer.viewed(variant.start, self.corpus.evaluated_on, view) for name, view in setting.tests.items()}
        splits = {name: trainer.data(variant.start)[name] for name in setting.further_splits}
        found = {"tests": views, "splits": splits}
        return {key: {name: fused_scores(model, s, scale, dataset) for name, s in group.items()} for key, group in found.items() if group}

    def _stage_one(self, trainer: Trainer, folder: SeedFolder, start: Start) -> tuple[MugModel, list[Epoch], float]:
        """Stage 1 of a start, from disk if it is finished."""
        model = trainer.new_model(start)
        if trainer.team.on_main(partial(folder.has_stage_one, start)):
            weights, history, seconds = folder.stage_one(start)
            model.load_state_dict(weights, strict=False)
            return model, history, seconds
        evaluated = trainer.data(start)[self.corpus.evaluated_on]
        began = time.perf_counter()
        before = represent(model, evaluated) if start == FULL else None
        history = trainer.stage_one(start, model)
        seconds = time.perf_counter() - began
        after = represent(model, evaluated) if before is not None else None
        if trainer.team.is_main:
            if before is not None and after is not None:
                arrays, distances = clouds_of(before, after, evaluated)
                write_arrays(folder.path / "clouds.npz", {**arrays, "label": evaluated.split.label})
                write_entries(folder.path / "alignment.json", distances)
            folder.write_stage_one(start, trainer.own_weights(model), history, seconds)
        return model, history, seconds

    def _permuted(self, trainer: Trainer) -> None:
        """Score the kept model with the audio and vision of other utterances."""
        folder, model = self.seed_folder(trainer.setting, trainer.seed), self._kept(trainer)
        evaluated = trainer.data(trainer.setting.variants[0].start)[self.corpus.evaluated_on]
        scores = permuted_scores(model, evaluated, trainer.seed, trainer.scale, self.corpus.dataset)
        if trainer.team.is_main:
            write_entries(folder.piece(PERMUTED), scores)

    def _kept(self, trainer: Trainer) -> MugModel:
        """The headline model of a seed, from disk."""
        model: MugModel = MugModel.from_pretrained(self.seed_folder(trainer.setting, trainer.seed).path / "model")
        model.to(trainer.device)
        return model

    def _calibrate(self, trainer: Trainer, model: MugModel) -> None:
        """Keep the headline model's predictions for the development part, for the interval around its scores; with cross-validated epochs
        those for the held-out folds of train, by models of the same epochs."""
        start = trainer.setting.variants[0].start
        data = trainer.data(start)
        part = data["train"] if cross_validated(trainer.options) else data["dev"]
        if cross_validated(trainer.options):
            predictions = held_out_predictions(self.folder / trainer.setting.name, start)
        else:
            predictions = predictions_of(model, part, [], trainer.scale)[FUSED]
        if trainer.team.is_main:
            folder = self.seed_folder(trainer.setting, trainer.seed).path
            write_calibration(folder, predictions, part, data[self.corpus.evaluated_on], self.corpus.modalities)

    def _in_processes(self, workers: int) -> list[bool]:
        """Each seed in a process of its own, `workers` at a time."""
        context = multiprocessing.get_context("spawn")  # not forked: torch's threads and locks do not survive a fork
        with ProcessPoolExecutor(workers, context, initializer=_start_worker) as pool:
            with ctrl_c_ignored():
                futures = [pool.submit(_run_seed, self, seed) for seed in self.seeds]
            try:
                return [future.result() for future in as_completed(futures)]
            except BrokenProcessPool as error:
                raise UserError(
                    "a worker process died (out of memory?); use fewer --workers, and run the same command again to resume"
                ) from error
            except BaseException:
                for child in multiprocessing.active_children():  # finished pieces are on disk; the others are not waited for
                    child.terminate()
                raise
            finally:
                pool.shutdown(cancel_futures=True)


def _starts(setting: Setting) -> list[Start]:
    return list(dict.fromkeys(variant.start for variant in setting.variants))


def _is_finished(setting: Setting, folder: SeedFolder, variant: Variant) -> bool:
    """Whether a variant has its piece, with all tests of the setting."""
    if not setting.tests:
        return folder.piece(variant.name).is_file()
    return folder.piece(variant.name).is_file() and set(setting.tests) <= set(folder.results(variant.name).get("tests", {}))


def _start_worker() -> None:
    quiet_libraries()
    line_by_line()
    end_with_parent()
    logging.disable_progress_bar()  # transformers' own, between ours
    load_plugins()


def _run_seed(experiment: Experiment, seed: int) -> bool:
    set_threads(experiment.settings[0].options)
    return experiment.run_seed(seed)


def open_corpus(options: TrainOptions, corpus: LabelledCorpus | None = None) -> LabelledCorpus:
    """The labelled corpus, read and checked unless it is given; with --few its train split is that many of its utterances (whose context
    is of all of train: transcripts are not labels).

    Raises:
        UserError: the corpus cannot be read, has equal labels only, nothing for --context, or fewer utterances than --few.
    """
    fold = {"auto": None, "fold": True, "keep": False}[options.case]
    if corpus is None:
        corpus = load_corpus(
            options.dataset, options.data, fold_case=fold, dev_share=options.dev_share, label_range=options.label_range,
            synthetic=options.synthetic, text_bert=options.text_bert, cache=options.cache,
        )  # fmt: skip
    if cross_validated(options) and "dev" in corpus.splits:
        corpus = without_dev(corpus)
    check_learnable(corpus.splits["train"], corpus.source)
    corpus = with_context(corpus, options.context)
    if isinstance(options, MugOptions) and options.few is not None:
        corpus = replace(corpus, splits=dict(corpus.splits))  # a given one stays as it is
        draw_few(corpus, options.few, options.seeds[0])
    return corpus


def draw_few(corpus: LabelledCorpus, few: int, seed: int) -> None:
    """Keep `few` utterances of a corpus's train split, drawn at random.

    Raises:
        UserError: it has fewer.
    """
    train = corpus.splits["train"]
    if few > len(train):
        raise UserError(f"--few {few}: train has {len(train)} utterances; choose that number, or fewer")
    chosen = np.random.default_rng((seed, FEW_DRAW)).permutation(len(train))[:few]
    corpus.splits["train"] = train.select(np.sort(chosen))


def set_threads(options: TrainOptions) -> None:
    """The same number in every process, whatever --workers is: sums over several threads differ in their last digits."""
    torch.set_num_threads(options.threads)
    threadpool_limits(options.threads)
