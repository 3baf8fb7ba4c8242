"""Training a study's settings, seed by seed; every variant is a piece on disk, so a stopped study goes on."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from finetune.corpora import LabelledCorpus
from finetune.metrics import score
from finetune.modalities import FUSED
from finetune.model.minibatches import LazyStates, PreparedSplit
from finetune.model.networks import MugModel
from finetune.studies.study import Setting, StudyOptions, find_study
from finetune.training.output_folder import CHECKPOINTS
from finetune.training.pace import pace_of
from finetune.training.seed_processes import in_processes, open_corpus, open_source, set_threads
from finetune.training.seed_run import SeedRun
from finetune.training.stages import predict
from finetune.training.variants import Variant
from pretrain.encoder import SkeslModel
from pretrain.text_cache import TextStateCache
from skesl_mug.files import read_json

Prepared = dict[str, dict[str, dict[str, PreparedSplit]]]
"""The splits by encoder and start: settings and seeds of one process share them."""


def run_study(name: str, options: StudyOptions, corpus: LabelledCorpus) -> None:
    """Train what is not finished.

    Raises:
        UserError: a stage diverged, or a worker process died.
    """
    if options.workers == 1 or len(options.seeds) == 1:
        prepared: Prepared = {}
        for seed in options.seeds:
            run_seed(name, options, corpus, prepared, seed)
        return
    for setting in find_study(name).settings(options, corpus, open_source(options)):  # the LM's states, before several processes want them
        run = StudyRun(setting, corpus, options.output, options.seeds[0], {})
        for start in {variant.start for variant in setting.variants}:
            _ = run.data(start)["train"].states.cache
    in_processes(options, partial(_in_worker, name, options))


def _in_worker(name: str, options: StudyOptions, seed: int) -> bool:
    set_threads(options)
    run_seed(name, options, open_corpus(options), {}, seed)
    return True


def run_seed(name: str, options: StudyOptions, corpus: LabelledCorpus, prepared: Prepared, seed: int) -> None:
    """All settings of one seed."""
    settings = find_study(name).settings(options, corpus, open_source(options))
    places = [(each.name, variant.name) for each in settings for variant in each.variants]
    checkpoints = options.output / CHECKPOINTS
    pace = pace_of(checkpoints / place / f"seed-{each}" / f"{piece}.json" for each in options.seeds for place, piece in places)
    for setting in settings:
        run = StudyRun(setting, corpus, options.output, seed, prepared)
        run.pace = pace
        run.mark = f"{setting.name}: " if len(settings) > 1 else ""
        run.run_missing()


class StudyRun(SeedRun):
    """One setting of one seed."""

    def __init__(self, setting: Setting, corpus: LabelledCorpus, output: Path, seed: int, prepared: Prepared):
        folder = output / CHECKPOINTS / setting.name / f"seed-{seed}"
        super().__init__(setting.options, corpus, open_source(setting.options), folder, seed)
        self.setting, self.generators = setting, setting.generators
        key = self.source.fingerprint()[:12]
        self.states_folder = output / CHECKPOINTS / f"text-{key}"
        self._prepared = prepared.setdefault(key, {})
        self._viewed: dict[str, dict[str, PreparedSplit]] = {}

    def shown(self, variant: Variant) -> str:
        """What a model is called on the terminal."""
        return self.mark + variant.name

    def run_missing(self) -> None:
        """Train the variants that are not finished."""
        for variant in self.setting.variants:
            if not self._is_finished(self.folder / f"{variant.name}.json"):
                self._run_variant(variant, headline=False)

    def _is_finished(self, piece: Path) -> bool:
        if not piece.is_file():
            return False
        done = read_json(piece).get("tests", {})
        return set(self.setting.tests) <= set(done)

    def data(self, start: str) -> dict[str, PreparedSplit]:
        """The splits as the setting sees them."""
        if start not in self._viewed:
            whole = super().data(start)
            view = self.setting.view
            self._viewed[start] = (
                whole if view is None else {name: self._restated(start, name, s, view(name, s, self.seed)) for name, s in whole.items()}
            )
        return self._viewed[start]

    def _restated(self, start: str, name: str, before: PreparedSplit, after: PreparedSplit) -> PreparedSplit:
        """With the LM's states of the tokens that a view left; a view that picks rows brings their states itself."""
        if after.tokens is before.tokens or after.states is not before.states:
            return after

        def build() -> TextStateCache:
            return TextStateCache.build(self._encoder(start), after.tokens, self.folder / f"text_states_{name}", progress=False)

        return replace(after, states=LazyStates(build))

    def _encoder(self, start: str) -> SkeslModel:
        encoder, _ = self._source(start).load(self.corpus.audio_width, self.corpus.vision_width, self.seed)
        encoder.to(self.device)
        encoder.train(False)
        return encoder

    def extra_metrics(self, model: MugModel, data: dict[str, PreparedSplit]) -> dict[str, Any]:
        """Scores on the setting's further views of the evaluated split."""
        return {"tests": {name: self._score(model, name, view) for name, view in self.setting.tests.items()}}

    def _score(self, model: MugModel, name: str, view: Callable[[str, PreparedSplit, int], PreparedSplit]) -> dict[str, float | None]:
        whole = super().data("full")[self.corpus.evaluated_on]
        seen = self._restated("full", "test", whole, view(self.corpus.evaluated_on, whole, self.seed))
        predictions = predict(model, seen)[FUSED] * self.scale
        return score(predictions.numpy(), whole.split.label, self.corpus.dataset)
