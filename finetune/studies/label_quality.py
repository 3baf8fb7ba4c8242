"""Label quality against task quality: labels of controlled quality between y and the annotators' own, and learned labels beside them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from finetune.corpora import LabelledCorpus, LabelledSplit
from finetune.generator_options import CrossfitOptions, GeneratorOptions
from finetune.labels import LabelGenerator, LabelInputs, LearnedLabels
from finetune.labels.crossfit import out_of_fold
from finetune.labels.simple import HumanLabels
from finetune.metrics import mean_absolute_error, pearson
from finetune.modalities import FUSED, HUMAN_LABELS
from finetune.model.encoders import EncoderSource
from finetune.report.document import Figure
from finetune.studies import QUESTIONS
from finetune.studies.report import scatter
from finetune.studies.study import Outcome, Row, Setting, Study, StudyOptions, StudyResults, mean_std
from finetune.training.variants import Variant
from skesl_mug.errors import UserError
from skesl_mug.wording import signed

SETTING = "whole"
MIXED, NOISY, LEARNED, TEACHERS = "y → human", "human + noise", "learned labels", "teachers, not labels"
DISTILLATION = "distillation"
Maker = Callable[[GeneratorOptions], LabelGenerator]


@dataclass(kw_only=True)
class LabelQualityOptions(StudyOptions):
    """Labels between y and the annotators' own, and the annotators' own with noise, against task quality; learned labels beside them.

    Example: skesl-mug study label_quality --dataset sims --data sims.pkl --lm NAME --freeze-lm --output runs/label_quality
    """

    shares: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0])
    """Weights of the annotators' label in the mixture with y: 0 is a copy of y, 1 the annotators' label."""
    sigmas: list[float] = field(default_factory=lambda: [0.2, 0.4, 0.8])
    """Standard deviations of the noise on the annotators' labels (labels divided by the largest label)."""

    def __post_init__(self) -> None:
        """Validate the options."""
        super().__post_init__()
        if {0.0, 1.0} - set(self.shares) or not all(0 <= share <= 1 for share in self.shares):
            raise UserError(f"--shares {' '.join(map(str, self.shares))}: must lie between 0 and 1 and include both")
        if not self.sigmas or min(self.sigmas) <= 0:
            raise UserError("--sigmas: needs at least one standard deviation, all above 0")


@dataclass
class Interpolated:
    """(1 - share) y + share * human: a copy of y at 0, the annotators' own labels at 1."""

    share: float
    reads_human_labels = True

    def __call__(self, inputs: LabelInputs) -> LearnedLabels:
        """The mixture by modality."""
        human = HumanLabels()(inputs).labels
        return LearnedLabels({name: (1 - self.share) * inputs.y + self.share * values for name, values in human.items()})


@dataclass
class NoisyHuman:
    """The annotators' labels with Gaussian noise of standard deviation `sigma` (labels divided by their maximum), clipped to the range."""

    sigma: float
    reads_human_labels = True

    def __call__(self, inputs: LabelInputs) -> LearnedLabels:
        """The noisy labels by modality, with independent noise."""
        random = np.random.default_rng([inputs.seed, 1])
        human = HumanLabels()(inputs).labels
        return LearnedLabels({name: np.clip(v + self.sigma * random.normal(size=len(v)), -1, 1) for name, v in human.items()})


@dataclass
class FusedTeacher:
    """The distillation control: every modality learns the out-of-fold prediction of y from all modalities together.

    It holds no information about a single modality; what it gains is due to a smooth target.
    """

    options: CrossfitOptions
    reads_human_labels = False

    def __call__(self, inputs: LabelInputs) -> LearnedLabels:
        """The same label for all modalities."""
        fused = np.clip(out_of_fold(inputs, self.options)[FUSED], -1, 1)
        return LearnedLabels({name: np.where(inputs.present[name], fused, inputs.y) for name in inputs.modalities})


def interpolated(share: float) -> tuple[str, Maker]:
    """Name and maker of a mixture."""
    return f"interpolated-{share:g}", partial(_always, Interpolated(share))


def noisy_human(sigma: float) -> tuple[str, Maker]:
    """Name and maker of noisy annotators' labels."""
    return f"human-noise-{sigma:g}", partial(_always, NoisyHuman(sigma))


def distillation(options: GeneratorOptions) -> LabelGenerator:
    """The distillation control, with the options of cross-fitting."""
    return FusedTeacher(options.crossfit)


def _always(generator: LabelGenerator, options: GeneratorOptions) -> LabelGenerator:
    return generator  # makers are pickled for worker processes, which rules out a lambda


def known_labels(split: LabelledSplit) -> dict[str, np.ndarray]:
    """The annotators' unimodal labels [N] by modality, NaN where unknown; modalities without any are left out."""
    labels = {name: getattr(split, key) for name, key in HUMAN_LABELS.items()}
    return {name: values for name, values in labels.items() if values is not None and not np.isnan(values).all()}


def need_human_labels(corpus: LabelledCorpus, study: str, split: str = "train") -> None:
    """Check that a split has unimodal labels.

    Raises:
        UserError: it has none.
    """
    if not known_labels(corpus.splits[split]):
        raise UserError(f"{study}: needs unimodal labels (label_T, label_A, label_V) in {split}, and this corpus has none; SIMS has them")


def label_quality(learned: dict[str, np.ndarray], split: LabelledSplit) -> tuple[float, float]:
    """MAE and Corr of learned against known labels, mean over the modalities, in label units."""
    errors, correlations = [], []
    for name, known in known_labels(split).items():
        if name in learned:
            rows = ~np.isnan(known)
            errors.append(mean_absolute_error(learned[name][rows], known[rows]))
            correlations.append(pearson(learned[name][rows], known[rows]) or 0.0)
    return float(np.mean(errors)), float(np.mean(correlations))


@dataclass(frozen=True)
class Point:
    """A label source: its generator, its group in the figure, and its name there."""

    generator: str
    group: str
    name: str


def points_of(options: LabelQualityOptions) -> list[Point]:
    """Labels of controlled quality, learned labels, and targets that are not labels of the modality."""
    ends = {0.0: "y", 1.0: "human"}
    points = [Point(interpolated(share)[0], MIXED, ends.get(share, f"{share:g} human")) for share in sorted(options.shares)]
    points += [Point(noisy_human(sigma)[0], NOISY, f"σ {sigma:g}") for sigma in sorted(options.sigmas)]
    points += [Point(name, LEARNED, name) for name in ("mucn-crossfit", "mucn-meta")]
    return [*points, Point("regressor", TEACHERS, "regressor"), Point(DISTILLATION, TEACHERS, "distillation")]


class LabelQuality(Study):
    """The study `label_quality`."""

    title, question, options = "Label quality and task quality", QUESTIONS["label_quality"], LabelQualityOptions

    def settings(self, options: LabelQualityOptions, corpus: LabelledCorpus, source: EncoderSource) -> list[Setting]:
        """One setting: all labels follow the same stage 1."""
        need_human_labels(corpus, "label_quality")
        controlled = [*map(interpolated, options.shares), *map(noisy_human, options.sigmas)]
        variants = [Variant(point.generator, point.generator) for point in points_of(options)]
        return [
            Setting(SETTING, options, [*variants, Variant("untaught", "none")], generators={DISTILLATION: distillation, **dict(controlled)})
        ]

    def outcome(self, options: LabelQualityOptions, corpus: LabelledCorpus, results: StudyResults) -> Outcome:
        """How the task MAE follows the label MAE over the controlled labels, and how the regressor's labels compare."""
        train = corpus.splits["train"]
        rows, error = [], {}
        groups: dict[str, list[tuple[str, float, float, float]]] = {}
        for point in points_of(options):
            scores = results.scores(SETTING, point.generator)
            qualities = [label_quality(learned, train) for learned in results.arrays(SETTING, point.generator, "labels")]
            label_mae, label_corr = (float(np.mean(column)) for column in zip(*qualities, strict=True))
            error[point.generator] = label_mae
            groups.setdefault(point.group, []).append((point.name, label_mae, *mean_std(scores)))
            rows.append(Row(point.name, scores, point.group, (f"{label_mae:.3f}", f"{label_corr:.3f}")))
        rows.append(Row("no unimodal labels", results.scores(SETTING, "untaught"), "", ("–", "–")))
        controlled = [point for group in (MIXED, NOISY) for point in groups[group]]
        mixed = fisher_interval([x for _, x, _, _ in groups[MIXED]], [y for _, _, y, _ in groups[MIXED]])
        both = fisher_interval([x for _, x, _, _ in controlled], [y for _, _, y, _ in controlled])
        by_name = {row.name: row.scores for row in rows}
        human, regressor = (results.difference(by_name[name], by_name["y"]) for name in ("human", "regressor"))
        spread = float(np.ptp([y for _, _, y, _ in controlled]))
        gains = "improve the task over copies of y" if human.better else "do not clearly improve the task over copies of y"
        shows = f"{_relation(both, spread, results.margin)}; the annotators' own labels {gains} ({human})."
        if regressor.better and error["regressor"] > error[interpolated(0.0)[0]]:
            not_shown = (
                f"Whether label quality alone drives the task: the regressor's labels are worse than y and teach better ({regressor}); "
            )
        else:
            not_shown = "Whether a learned label gains or loses by its quality, as learned labels also differ in smoothness; "
        not_shown += results.limits() + "."
        x_label = "MAE of the labels against the annotators' (training split, mean of the modalities)"
        caption = "Quality of the unimodal labels and of the model trained with them; bars are ± one standard deviation over the seeds."
        figure = Figure("label_quality", scatter(groups, x_label, "MAE of the task", (MIXED, NOISY)), caption)
        facts = {"correlation_controlled": both, "correlation_interpolated": mixed}
        return Outcome(rows, shows, not_shown, figure, ("label MAE ↓", "label Corr ↑"), facts=facts)


def fisher_interval(first: Sequence[float], second: Sequence[float]) -> dict[str, float] | None:
    """Pearson's r with its 95 % interval by Fisher's transformation; None below 4 points or where either side is constant."""
    n = len(first)
    if n < 4 or np.ptp(first) < 1e-9 or np.ptp(second) < 1e-9:
        return None
    r = float(np.corrcoef(first, second)[0, 1])
    z, half = np.arctanh(np.clip(r, -0.999999, 0.999999)), 1.959964 / np.sqrt(n - 3)
    return {"r": round(r, 3), "low": round(float(np.tanh(z - half)), 3), "high": round(float(np.tanh(z + half)), 3), "points": n}


def _relation(both: dict[str, float] | None, spread: float, margin: float) -> str:
    if both is None or spread < margin:
        return f"Whatever the quality of the labels, the task's MAE varies by {spread:.3f}, less than the margin"
    verb = "rises with" if both["low"] > 0 else "falls with" if both["high"] < 0 else "does not clearly follow"
    found = f"r {signed(both['r'], 2)}, 95 % {signed(both['low'], 2)} to {signed(both['high'], 2)}"
    return f"Over {both['points']} labels of known quality the task's MAE {verb} that of the labels ({found})"
