"""Label noise and label ambiguity: corrupted multimodal labels in training, and utterances whose modalities disagree."""

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
import torch

from finetune.corpora import LabelledCorpus, LabelledSplit
from finetune.metrics import Scores, score
from finetune.model.encoders import EncoderSource
from finetune.model.minibatches import PreparedSplit
from finetune.report.document import Cell, Figure, Table
from finetune.studies import QUESTIONS
from finetune.studies.label_quality import known_labels, need_human_labels
from finetune.studies.label_source import applicable_generators, shown_generator
from finetune.studies.report import curve_panels, curves
from finetune.studies.study import (
    Outcome,
    Row,
    Setting,
    Study,
    StudyOptions,
    StudyResults,
    listed,
    mean_scores,
    mean_std,
    named,
    random_for,
)
from finetune.training.variants import of_generator
from skesl_mug.errors import UserError
from skesl_mug.wording import signed

NoiseKind = Literal["gaussian", "swap", "bias"]
CLEAN, SETTING = "clean", "whole"
GENERATORS: tuple[str, ...] = ("copy", "ulgm", "mucn-crossfit", "mucn-meta", "human")
Curves = dict[str, dict[str, list[tuple[float, float, float]]]]
"""(strength, mean MAE, standard deviation) by kind and generator."""


@dataclass(kw_only=True)
class LabelNoiseOptions(StudyOptions):
    """Gaussian noise, swaps or a one-sided bias on the training labels y, for each generator of unimodal labels.

    The development and evaluated splits stay clean, and so do the annotators' unimodal labels that `human` reads.

    Example: skesl-mug study label_noise --dataset mosi --data mosi.pkl --lm NAME --freeze-lm --output runs/label_noise
    """

    kinds: list[NoiseKind] = field(default_factory=lambda: list(get_args(NoiseKind)))
    """`gaussian`: noise with the strength as standard deviation; `swap`: that share of labels comes from other utterances; `bias`: all
    labels are raised by it."""
    strengths: list[float] = field(default_factory=lambda: [0.1, 0.2, 0.4, 0.6, 0.8])
    """Strengths of the noise (labels divided by the largest label)."""
    compare_labels: list[str] = field(default_factory=lambda: list(GENERATORS))
    """Generators to compare, the baseline first; `human` is left out where the corpus has no such labels."""

    def __post_init__(self) -> None:
        """Validate the options."""
        super().__post_init__()
        if not self.kinds or not self.strengths or not self.compare_labels:
            raise UserError("--kinds, --strengths, --compare-labels: each needs at least one entry")
        if not all(0 < strength <= 1 for strength in self.strengths):
            raise UserError(f"--strengths {' '.join(map(str, self.strengths))}: must be above 0 and at most 1; 0 is always included")


@dataclass(frozen=True)
class NoisyLabels:
    """Corrupts y (divided by its range, clipped to it) of the training split; the other splits stay clean.

    `gaussian`: noise of standard deviation `strength`. `swap`: with probability `strength` the y of another utterance. `bias`: every y
    is raised by `strength`, as by a rater who sees everything in a brighter light.
    """

    kind: NoiseKind
    strength: float

    def __call__(self, name: str, split: PreparedSplit, seed: int) -> PreparedSplit:
        """The split with corrupted y."""
        if name != "train" or not self.strength:
            return split
        return replace(split, y=torch.as_tensor(self.corrupted(split.y.double().numpy(), seed), dtype=torch.float32))

    def corrupted(self, y: np.ndarray, seed: int) -> np.ndarray:
        """The corrupted labels [N]; with one seed, all strengths of a kind use the same draws."""
        random = random_for(seed, self.kind)
        if self.kind == "gaussian":
            moved = y + self.strength * random.normal(size=len(y))
        elif self.kind == "bias":
            moved = y + self.strength
        else:
            moved = np.where(random.random(len(y)) < self.strength, y[random.permutation(len(y))], y)
        return np.clip(moved, -1.0, 1.0)


class LabelNoise(Study):
    """The study `label_noise`."""

    title, question, options = "Label noise", QUESTIONS["label_noise"], LabelNoiseOptions

    def settings(self, options: LabelNoiseOptions, corpus: LabelledCorpus, source: EncoderSource) -> list[Setting]:
        """Clean labels, and one setting per kind and strength; stage 1 sees the noise too."""
        variants = [of_generator(name) for name in applicable_generators(options.compare_labels, corpus)]
        noisy = [
            Setting(f"{kind}-{strength:g}", options, variants, NoisyLabels(kind, strength))
            for kind in options.kinds
            for strength in sorted(options.strengths)
        ]
        return [Setting(CLEAN, options, variants), *noisy]

    def outcome(self, options: LabelNoiseOptions, corpus: LabelledCorpus, results: StudyResults) -> Outcome:
        """Scores with clean labels and averaged over the strengths, and which generators beat the first under noise."""
        names, strengths = applicable_generators(options.compare_labels, corpus), sorted(options.strengths)
        by_strength: dict[tuple[str, str], list[list[Scores]]] = {
            (kind, name): [results.scores(f"{kind}-{strength:g}", name) for strength in strengths]
            for kind in options.kinds
            for name in names
        }
        clean = {name: results.scores(CLEAN, name) for name in names}
        mean = {key: mean_scores(parts) for key, parts in by_strength.items()}
        rows = [Row(shown_generator(name), clean[name], "clean labels") for name in names]
        rows += [Row(shown_generator(name), mean[kind, name], f"{kind}, mean of the strengths") for kind in options.kinds for name in names]
        first, *others = names
        found = {
            f"{shown_generator(name)} under {kind}": results.difference(mean[kind, name], mean[kind, first])
            for kind in options.kinds
            for name in others
        }
        won = named({name: value for name, value in found.items() if value.better})
        lost = named({name: value for name, value in found.items() if value.worse})
        harm = {kind: results.difference(mean[kind, first], clean[first]) for kind in options.kinds}
        hurts, base = named({kind: value for kind, value in harm.items() if value.worse}), shown_generator(first)
        shows = f"Noise makes {base} clearly worse: {listed(hurts)}" if hurts else f"No kind of noise makes {base} clearly worse"
        shows += (
            f"; clearly better than {base} under noise: {listed(won)}"
            if won
            else f"; no generator is clearly better than {base} under noise"
        )
        shows += f"; clearly worse: {listed(lost)}." if lost else "."
        not_shown = "The effect of noise in the development labels, or of noise that follows the content as that of real raters does; "
        not_shown += results.limits() + "."
        panels: Curves = {
            kind: {
                shown_generator(name): [
                    (0.0, *mean_std(clean[name])),
                    *((s, *mean_std(part)) for s, part in zip(strengths, by_strength[kind, name], strict=True)),
                ]
                for name in names
            }
            for kind in options.kinds
        }
        caption = "MAE on clean labels after training with corrupted ones; bands are ± one standard deviation over the seeds."
        figure = Figure("label_noise", curve_panels(panels, "strength of the noise", "MAE"), caption)
        facts = {
            "MAE": {
                kind: {name: {f"{x:g}": float(np.round(mae, 4)) for x, mae, _ in points} for name, points in series.items()}
                for kind, series in panels.items()
            }
        }
        return Outcome(rows, shows, not_shown, figure, tables=[("MAE by strength", _strength_table(panels))], facts=facts)


def _strength_table(panels: Curves) -> Table:
    strengths = [x for x, _, _ in next(iter(next(iter(panels.values())).values()))]
    rows = [
        [Cell(name, kind), *(Cell(f"{mean:.3f}", f"± {std:.3f}") for _, mean, std in points)]
        for kind, series in panels.items()
        for name, points in series.items()
    ]
    return Table(["", *(f"{strength:g}" for strength in strengths)], rows)


@dataclass(kw_only=True)
class LabelAmbiguityOptions(StudyOptions):
    """Errors by the disagreement between the annotators' unimodal labels of an utterance, for each label generator.

    Example: skesl-mug study label_ambiguity --dataset sims --data sims.pkl --lm NAME --freeze-lm --output runs/ambiguity
    """

    compare_labels: list[str] = field(default_factory=lambda: ["none", "copy", "ulgm", "mucn-crossfit", "mucn-meta", "human"])
    """Generators to compare, the baseline first."""
    parts: int = 3
    """Number of equal parts into which the evaluated utterances are divided by disagreement; the first and last are compared."""

    def __post_init__(self) -> None:
        """Validate the options."""
        super().__post_init__()
        if self.parts < 2:
            raise UserError(f"--parts {self.parts}: must be 2 or more")
        if len(set(self.compare_labels)) < 2:
            raise UserError("--compare-labels: needs two or more generators")


def disagreement(split: LabelledSplit) -> np.ndarray:
    """Standard deviation of the known unimodal labels of each utterance [N], NaN where fewer than two are known."""
    table = np.stack(list(known_labels(split).values()))
    known = (~np.isnan(table)).sum(0)
    centred = np.where(np.isnan(table), 0.0, table - np.where(known > 0, np.nansum(table, 0) / np.maximum(known, 1), 0.0))
    spread = np.sqrt((centred**2).sum(0) / np.maximum(known, 1))
    return np.where(known >= 2, spread, np.nan)


def parts_by_disagreement(spread: np.ndarray, count: int) -> list[np.ndarray]:
    """Row numbers in `count` parts of equal size from least to most disagreement; ties keep their order, unknown ones are left out."""
    known = np.flatnonzero(~np.isnan(spread))
    return np.array_split(known[np.argsort(spread[known], kind="stable")], count)


class LabelAmbiguity(Study):
    """The study `label_ambiguity`."""

    title, question, options = "Label ambiguity", QUESTIONS["label_ambiguity"], LabelAmbiguityOptions

    def settings(self, options: LabelAmbiguityOptions, corpus: LabelledCorpus, source: EncoderSource) -> list[Setting]:
        """One setting; utterances are divided only in the evaluation."""
        need_human_labels(corpus, "label_ambiguity", corpus.evaluated_on)
        return [Setting(SETTING, options, [of_generator(name) for name in dict.fromkeys(options.compare_labels)])]

    def outcome(self, options: LabelAmbiguityOptions, corpus: LabelledCorpus, results: StudyResults) -> Outcome:
        """MAE in each part by generator, and which generators gain where the modalities disagree."""
        split = corpus.splits[corpus.evaluated_on]
        spread = disagreement(split)
        parts = parts_by_disagreement(spread, options.parts)
        if min(len(part) for part in parts) < 2:
            raise UserError(
                f"--parts {options.parts}: too many for {int((~np.isnan(spread)).sum())} utterances with known labels; use fewer"
            )
        names = {name: shown_generator(name) for name in dict.fromkeys(options.compare_labels)}
        by_part: dict[str, list[list[Scores]]] = {}
        for name, shown in names.items():
            predictions = [arrays["pred_M"] for arrays in results.arrays(SETTING, name, "predictions")]
            by_part[shown] = [[score(guess[part], split.label[part], options.dataset) for guess in predictions] for part in parts]
        median = float(np.median(corpus.splits["train"].label))
        constant = [score(np.full(len(part), median), split.label[part], options.dataset) for part in parts]
        rows = [
            Row(shown, results.scores(SETTING, name), "", tuple(f"{mean_std(part)[0]:.3f}" for part in by_part[shown]))
            for name, shown in names.items()
        ]
        gaps = {name: results.difference(scores[-1], scores[0]) for name, scores in by_part.items()}
        harder = [name for name, gap in gaps.items() if gap.worse]
        first, *others = by_part
        gains = {name: results.difference(by_part[name][-1], by_part[first][-1]) for name in others}
        better = named({name: value for name, value in gains.items() if value.better})
        moved = signed(float(constant[-1]["MAE"] or 0) - float(constant[0]["MAE"] or 0), 3)
        shows = "The utterances whose modalities disagree most are "
        shows += f"clearly harder for {listed(harder)}" if harder else "not clearly harder"
        shows += f" ({first}: {gaps[first]}; the constant: {moved})"
        shows += (
            f"; there, clearly better than {first}: {listed(better)}."
            if better
            else f"; no generator is clearly better than {first} there."
        )
        not_shown = "Whether disagreement is the cause, as such utterances differ in their labels too (see the constant's error); "
        not_shown += results.limits() + "."
        middle = [float(np.mean(spread[part])) for part in parts]
        series = {name: [(x, *mean_std(part)) for x, part in zip(middle, scores, strict=True)] for name, scores in by_part.items()}
        series["constant"] = [(x, float(value["MAE"] or 0), 0.0) for x, value in zip(middle, constant, strict=True)]
        caption = f"MAE in {options.parts} parts of the evaluated split, by the standard deviation of the annotators' unimodal labels."
        figure = Figure("label_ambiguity", curves(series, "disagreement between the annotators' modalities", "MAE"), caption)
        columns = tuple(f"MAE, part {place} of {options.parts}" for place in range(1, options.parts + 1))
        facts = {"disagreement": [round(value, 4) for value in middle], "sizes": [len(part) for part in parts], "constant": constant}
        note = "Part 1 holds the utterances whose modalities agree best, the last part those that disagree most."
        return Outcome(rows, shows, not_shown, figure, columns, note, facts=facts)
