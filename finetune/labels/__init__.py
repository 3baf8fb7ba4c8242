"""Generators of unimodal labels, by the names that `--labels` takes."""

from collections.abc import Callable

from finetune.generator_options import GeneratorOptions
from finetune.labels.crossfit import CrossfitMucn, OutOfFoldRegressor
from finetune.labels.meta_correctors import MetaCorrector
from finetune.labels.mucn_meta import MetaMucn
from finetune.labels.protocol import LabelGenerator, LabelInputs, LearnedLabels
from finetune.labels.simple import CopyLabels, HumanLabels, ShuffledCorrections
from finetune.labels.ulgm import Ulgm

GENERATORS: dict[str, Callable[[GeneratorOptions], LabelGenerator]] = {
    "mucn-crossfit": lambda options: CrossfitMucn(options.crossfit),
    "mucn-meta": lambda options: MetaMucn(options.meta),
    "meta-weight-net": lambda options: MetaCorrector(options.meta, "meta-weight-net"),
    "mlc": lambda options: MetaCorrector(options.meta, "mlc"),
    "regressor": lambda options: OutOfFoldRegressor(options.crossfit),
    "copy": lambda _: CopyLabels(),
    "human": lambda _: HumanLabels(),
    "ulgm": lambda _: Ulgm(),
    "shuffled": lambda options: ShuffledCorrections(CrossfitMucn(options.crossfit)),
}

CROSSFITTED = frozenset({"mucn-crossfit", "regressor", "shuffled"})
"""Generators that cross-fit predictions on descriptors of the raw input, folds by video."""

__all__ = ["CROSSFITTED", "GENERATORS", "GeneratorOptions", "LabelGenerator", "LabelInputs", "LearnedLabels"]
