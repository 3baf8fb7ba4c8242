"""Does a better unimodal label make a better model? Labels of known quality against the quality of the task."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from finetune.corpora import LabelledCorpus
from finetune.model.encoders import EncoderSource
from finetune.report.document import Figure
from finetune.studies.controlled_labels import DISTILLATION, interpolated, noisy_human, with_controls
from finetune.studies.differences import difference, limits, margin_of
from finetune.studies.frame import Outcome, Row, Setting, Study, StudyOptions
from finetune.studies.human_labels import label_quality, need_human_labels
from finetune.studies.pictures import scatter
from finetune.studies.results import StudyResults, mean_std
from finetune.training.variants import Variant
from skesl_mug.errors import UserError
from skesl_mug.wording import signed

WHOLE = "whole"
MIXED, NOISY, LEARNED, TEACHERS = "y → human", "human + noise", "learned labels", "teachers, not labels"


@dataclass(kw_only=True)
class LabelQualityOptions(StudyOptions):
    """Labels between y copied and the annotators' own, and the annotators' with noise, against task quality; learned labels beside them.

    Example: python -m finetune.studies label_quality --dataset sims --data sims.pkl --lm NAME --freeze-lm --output runs/label_quality
    """

    shares: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0])
    """Of the annotators' label in the mixture with y: 0 is y copied, 1 the annotators' label."""
    sigmas: list[float] = field(default_factory=lambda: [0.2, 0.4, 0.8])
    """Deviations of the noise on the annotators' labels (labels divided by their range)."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        super().__post_init__()
        if {0.0, 1.0} - set(self.shares) or not all(0 <= share <= 1 for share in self.shares):
            raise UserError(f"--shares {' '.join(map(str, self.shares))}: wants shares from 0 to 1, both ends among them")
        if not self.sigmas or min(self.sigmas) <= 0:
            raise UserError("--sigmas: wants at least one deviation, all above 0")


@dataclass(frozen=True)
class Point:
    """A generator, its place in the picture, its name there."""

    generator: str
    group: str
    name: str


def points_of(options: LabelQualityOptions) -> list[Point]:
    """The controlled labels, the learned ones, and what teaches without being a label of the modality."""
    ends = {0.0: "y", 1.0: "human"}
    points = [Point(interpolated(share)[0], MIXED, ends.get(share, f"{share:g} human")) for share in sorted(options.shares)]
    points += [Point(noisy_human(sigma)[0], NOISY, f"σ {sigma:g}") for sigma in sorted(options.sigmas)]
    points += [Point(name, LEARNED, name) for name in ("mucn-crossfit", "mucn-meta")]
    return [*points, Point("regressor", TEACHERS, "regressor"), Point(DISTILLATION, TEACHERS, "distillation")]


def settings(options: LabelQualityOptions, corpus: LabelledCorpus, source: EncoderSource) -> list[Setting]:
    """One setting: all labels are taught from the same stage 1."""
    need_human_labels(corpus, "label_quality")
    known = with_controls(*map(interpolated, options.shares), *map(noisy_human, options.sigmas))
    variants = [Variant(point.generator, point.generator) for point in points_of(options)]
    return [Setting(WHOLE, options, [*variants, Variant("untaught", "none")], generators=known)]


def fisher_interval(first: Sequence[float], second: Sequence[float]) -> dict[str, float] | None:
    """Pearson's r over points with its 95 % interval by Fisher's transformation; None below 4 points or where one side is constant."""
    n = len(first)
    if n < 4 or np.ptp(first) < 1e-9 or np.ptp(second) < 1e-9:
        return None
    r = float(np.corrcoef(first, second)[0, 1])
    z, half = np.arctanh(np.clip(r, -0.999999, 0.999999)), 1.959964 / np.sqrt(n - 3)
    return {"r": round(r, 3), "low": round(float(np.tanh(z - half)), 3), "high": round(float(np.tanh(z + half)), 3), "points": n}


def outcome(options: LabelQualityOptions, corpus: LabelledCorpus, results: StudyResults) -> Outcome:
    """How task MAE follows label MAE over the controlled points, and where the teachers lie against that."""
    train, margin = corpus.splits["train"], margin_of(options, corpus)
    rows, error = [], {}
    groups: dict[str, list[tuple[str, float, float, float]]] = {}
    for point in points_of(options):
        scores = results.scores(WHOLE, point.generator)
        qualities = [label_quality(learned, train) for learned in results.arrays(WHOLE, point.generator, "labels")]
        label_mae, label_corr = (float(np.mean(column)) for column in zip(*qualities, strict=True))
        error[point.generator] = label_mae
        groups.setdefault(point.group, []).append((point.name, label_mae, *mean_std(scores)))
        rows.append(Row(point.name, scores, point.group, (f"{label_mae:.3f}", f"{label_corr:.3f}")))
    rows.append(Row("no unimodal labels", results.scores(WHOLE, "untaught"), "", ("–", "–")))
    controlled = [point for group in (MIXED, NOISY) for point in groups[group]]
    mixed = fisher_interval([x for _, x, _, _ in groups[MIXED]], [y for _, _, y, _ in groups[MIXED]])
    both = fisher_interval([x for _, x, _, _ in controlled], [y for _, _, y, _ in controlled])
    by_name = {row.name: row.scores for row in rows}
    human, regressor = (difference(by_name[name], by_name["y"], margin) for name in ("human", "regressor"))
    spread = float(np.ptp([y for _, _, y, _ in controlled]))
    shows = _follows(both, spread, margin)
    gains = "improve the task over y copied" if human.better else "do not clearly improve the task over y copied"
    shows = f"{shows}; the annotators' own labels {gains} ({human})."
    if regressor.better and error["regressor"] > error[interpolated(0.0)[0]]:
        not_shown = f"That label quality alone drives the task: the regressor's labels are worse than y and teach better ({regressor}); "
    else:
        not_shown = "That a learned label gains or loses by its quality, as learned labels also differ in smoothness; "
    not_shown += limits(options, corpus) + "."
    picture = scatter(
        groups, "MAE of the labels against the annotators' (training split, mean of the modalities)", "MAE of the task", (MIXED, NOISY)
    )
    caption = "Quality of the unimodal labels and of the model that learned from them; bars are ± one deviation over the seeds."
    facts = {"correlation_controlled": both, "correlation_interpolated": mixed}
    return Outcome(rows, Figure("label_quality", picture, caption), shows, not_shown, ("label MAE ↓", "label Corr ↑"), facts=facts)


def _follows(both: dict[str, float] | None, spread: float, margin: float) -> str:
    if both is None or spread < margin:
        return f"Whatever the quality of its labels, the task's MAE stays within {spread:.3f}, less than the margin"
    sure = "rises with" if both["low"] > 0 else "falls with" if both["high"] < 0 else "is not told to follow"
    found = f"r {signed(both['r'], 2)}, 95 % {signed(both['low'], 2)} to {signed(both['high'], 2)}"
    return f"Over {both['points']} labels of known quality the task's MAE {sure} that of the labels ({found})"


STUDY = Study("Label quality and task quality", LabelQualityOptions, settings, outcome)
