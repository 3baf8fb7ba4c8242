"""How each label generator stands corrupted multimodal labels in training."""

from dataclasses import dataclass, field
from typing import get_args

import numpy as np

from finetune.corpora import LabelledCorpus
from finetune.metrics import Scores
from finetune.model.encoders import EncoderSource
from finetune.report.document import Cell, Figure, Table
from finetune.studies.differences import difference, limits, listed, margin_of
from finetune.studies.frame import Outcome, Row, Setting, Study, StudyOptions
from finetune.studies.human_labels import known_labels
from finetune.studies.pictures import curve_panels
from finetune.studies.results import StudyResults, mean_scores, mean_std
from finetune.studies.views import NoiseKind, NoisyLabels
from finetune.training.variants import of_generator
from skesl_mug.errors import UserError

Curves = dict[str, dict[str, list[tuple[float, float, float]]]]
"""(strength, mean MAE, deviation) by kind and generator."""
CLEAN = "clean"
GENERATORS: tuple[str, ...] = ("copy", "ulgm", "mucn-crossfit", "mucn-meta", "human")


@dataclass(kw_only=True)
class LabelNoiseOptions(StudyOptions):
    """Gaussian noise, swaps or a one-sided bias on the training labels y, against the generator of the unimodal labels.

    The development and the evaluated split stay clean, and so do the annotators' unimodal labels that `human` reads.

    Example: python -m finetune.studies label_noise --dataset mosi --data mosi.pkl --lm NAME --freeze-lm --output runs/label_noise
    """

    kinds: list[NoiseKind] = field(default_factory=lambda: list(get_args(NoiseKind)))
    """`gaussian`: noise of that deviation. `swap`: that share of labels is another utterance's. `bias`: all labels moved up by it."""
    strengths: list[float] = field(default_factory=lambda: [0.1, 0.2, 0.4, 0.6, 0.8])
    """Strengths of the noise (labels divided by their range)."""
    compare_labels: list[str] = field(default_factory=lambda: list(GENERATORS))
    """Generators to compare, the first being the one the others are held against; `human` is left out where there are no such labels."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        super().__post_init__()
        if not self.kinds or not self.strengths or not self.compare_labels:
            raise UserError("--kinds, --strengths, --compare-labels: want at least one entry each")
        if not all(0 < strength <= 1 for strength in self.strengths):
            raise UserError(f"--strengths {' '.join(map(str, self.strengths))}: wants values above 0, at most 1; 0 is always run")


def generators_of(options: LabelNoiseOptions, corpus: LabelledCorpus) -> list[str]:
    """Those that the corpus can feed."""
    known = known_labels(corpus.splits["train"])
    return [name for name in dict.fromkeys(options.compare_labels) if known or name != "human"]


def settings(options: LabelNoiseOptions, corpus: LabelledCorpus, source: EncoderSource) -> list[Setting]:
    """A setting a kind and strength, stage 1 included, and one with clean labels."""
    variants = [of_generator(name) for name in generators_of(options, corpus)]
    noisy = [
        Setting(f"{kind}-{strength:g}", options, variants, NoisyLabels(kind, strength))
        for kind in options.kinds
        for strength in sorted(options.strengths)
    ]
    return [Setting(CLEAN, options, variants), *noisy]


def outcome(options: LabelNoiseOptions, corpus: LabelledCorpus, results: StudyResults) -> Outcome:
    """Clean and mean-over-strengths scores of every generator; who keeps more than the first of them under noise."""
    names, margin, strengths = generators_of(options, corpus), margin_of(options, corpus), sorted(options.strengths)
    by_strength: dict[tuple[str, str], list[list[Scores]]] = {
        (kind, name): [results.scores(f"{kind}-{strength:g}", name) for strength in strengths] for kind in options.kinds for name in names
    }
    clean = {name: results.scores(CLEAN, name) for name in names}
    mean = {key: mean_scores(parts) for key, parts in by_strength.items()}
    said = {name: "no unimodal tasks" if name == "none" else name for name in names}
    rows = [Row(said[name], clean[name], "clean labels") for name in names]
    rows += [Row(said[name], mean[kind, name], f"{kind}, mean over the strengths") for kind in options.kinds for name in names]
    first, *others = names
    won: list[str] = []
    lost: list[str] = []
    for kind in options.kinds:
        for name in others:
            held = difference(mean[kind, name], mean[kind, first], margin)
            (won if held.better else lost if held.worse else []).append(f"{said[name]} under {kind} ({held})")
    harm = {kind: difference(mean[kind, first], clean[first], margin) for kind in options.kinds}
    hurts = [f"{kind} ({held})" for kind, held in harm.items() if held.worse]
    shows = (
        f"Against clean labels, {said[first]} clearly loses by {listed(hurts)}"
        if hurts
        else f"No kind of noise makes {said[first]} clearly worse"
    )
    shows += (
        f"; clearly better than {said[first]} under noise: " if won else f"; no generator is clearly better than {said[first]} under noise"
    )
    shows += listed(won) if won else ""
    shows += f"; clearly worse: {listed(lost)}." if lost else "."
    not_shown = "What noise in the development labels, or noise that follows the content as real raters' does, would do; "
    not_shown += limits(options, corpus) + "."
    panels: Curves = {
        kind: {
            said[name]: [
                (0.0, *mean_std(clean[name])),
                *((s, *mean_std(part)) for s, part in zip(strengths, by_strength[kind, name], strict=True)),
            ]
            for name in names
        }
        for kind in options.kinds
    }
    caption = "MAE on clean labels after training on corrupted ones; bands are ± one deviation over the seeds."
    figure = Figure("label_noise", curve_panels(panels, "strength of the noise", "MAE"), caption)
    return Outcome(rows, figure, shows, not_shown, tables=[("MAE by strength", _by_strength(panels))], facts={"MAE": _plain(panels)})


def _by_strength(panels: Curves) -> Table:
    strengths = [x for x, _, _ in next(iter(next(iter(panels.values())).values()))]
    rows = [
        [Cell(name, kind), *(Cell(f"{mean:.3f}", f"± {std:.3f}") for _, mean, std in points)]
        for kind, series in panels.items()
        for name, points in series.items()
    ]
    return Table(["", *(f"{strength:g}" for strength in strengths)], rows)


def _plain(panels: Curves) -> dict[str, dict[str, dict[str, float]]]:
    return {
        kind: {name: {f"{x:g}": float(np.round(mean, 4)) for x, mean, _ in points} for name, points in series.items()}
        for kind, series in panels.items()
    }


STUDY = Study("Label noise", LabelNoiseOptions, settings, outcome)
