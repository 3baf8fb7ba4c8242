"""Unimodal labels of a known quality, and two teachers that are not labels of the modality at all."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from finetune.labels import LabelGenerator, LabelInputs, LearnedLabels
from finetune.labels.crossfit import out_of_fold
from finetune.labels.simple import HumanLabels
from finetune.modalities import FUSED
from finetune.options import CrossfitOptions, GeneratorOptions

Maker = Callable[[GeneratorOptions], LabelGenerator]


@dataclass
class Interpolated:
    """(1 - share) y + share * human: from the copied label at 0 to the annotators' own at 1."""

    share: float
    reads_human_labels = True

    def __call__(self, inputs: LabelInputs) -> LearnedLabels:
        """The mixture by modality."""
        human = HumanLabels()(inputs).labels
        return LearnedLabels({name: (1 - self.share) * inputs.y + self.share * values for name, values in human.items()})


@dataclass
class NoisyHuman:
    """The annotators' labels plus Gaussian noise of deviation `sigma` (labels divided by their range), clipped to the range."""

    sigma: float
    reads_human_labels = True

    def __call__(self, inputs: LabelInputs) -> LearnedLabels:
        """The noisy labels by modality; each modality has its own noise."""
        random = np.random.default_rng([inputs.seed, 1])
        human = HumanLabels()(inputs).labels
        return LearnedLabels({name: np.clip(v + self.sigma * random.normal(size=len(v)), -1, 1) for name, v in human.items()})


@dataclass
class FusedTeacher:
    """The distillation control: every modality is taught the out-of-fold prediction of y from all modalities together.

    It holds nothing that is a modality's own; what it gains is gained by a smooth target.
    """

    options: CrossfitOptions
    reads_human_labels = False

    def __call__(self, inputs: LabelInputs) -> LearnedLabels:
        """The same label for all modalities."""
        fused = np.clip(out_of_fold(inputs, self.options)[FUSED], -1, 1)
        return LearnedLabels({name: np.where(inputs.present[name], fused, inputs.y) for name in inputs.modalities})


DISTILLATION = "distillation"


@dataclass(frozen=True)
class Always:
    """Makes one generator whatever the options; picklable, for worker processes."""

    generator: LabelGenerator

    def __call__(self, options: GeneratorOptions) -> LabelGenerator:
        """The generator."""
        return self.generator


def distillation(options: GeneratorOptions) -> LabelGenerator:
    """The distillation control, with the options of cross-fitting."""
    return FusedTeacher(options.crossfit)


def interpolated(share: float) -> tuple[str, Maker]:
    """Its name and maker."""
    return f"interpolated-{share:g}", Always(Interpolated(share))


def noisy_human(sigma: float) -> tuple[str, Maker]:
    """Its name and maker."""
    return f"human-noise-{sigma:g}", Always(NoisyHuman(sigma))


def with_controls(*further: tuple[str, Maker]) -> dict[str, Maker]:
    """The generators of this study beside the registered ones: the distillation control and some of known quality."""
    return {DISTILLATION: distillation, **dict(further)}
