"""Interaction: how the modalities share information about the label (PID), and what fusion makes of it."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.optimize import minimize

from finetune.corpora import LabelledCorpus
from finetune.metrics import score
from finetune.modalities import FUSED, LETTERS
from finetune.model.encoders import EncoderSource
from finetune.report.document import Cell, Figure, Table
from finetune.studies import QUESTIONS
from finetune.studies.report import stacked_bars
from finetune.studies.study import Outcome, Row, Setting, Study, StudyOptions, StudyResults, listed, mean_std
from finetune.training.variants import Variant
from skesl_mug.errors import UserError
from skesl_mug.wording import counted

SETTING, COPY, CLASSES, SHUFFLES, SMALL = "whole", "copy", 3, 20, 1e-12
PARTS = {"redundancy": "redundant", "unique_first": "first alone", "unique_second": "second alone", "synergy": "synergy"}
Predictions = dict[str, np.ndarray]
"""Of one seed: predictions [N] by head, in label units."""


@dataclass(kw_only=True)
class InteractionOptions(StudyOptions):
    """Redundancy, uniqueness and synergy of each pair of modalities (PID) in discretised predictions, and errors by agreement of the heads.

    Every modality's head learns y itself, so that its prediction is what the modality says about y.

    Example: skesl-mug study interaction --dataset sims --data sims.pkl --lm NAME --freeze-lm --output runs/interaction
    """

    neutral: float = 0.1
    """Labels closer to 0 than this share of the largest label value are neutral, the others negative or positive."""

    def __post_init__(self) -> None:
        """Validate the options."""
        super().__post_init__()
        if not 0 < self.neutral < 1:
            raise UserError(f"--neutral {self.neutral:g}: must lie between 0 and 1")


class Interaction(Study):
    """The study `interaction`."""

    title, question, options = "Interaction of the modalities", QUESTIONS["interaction"], InteractionOptions

    def settings(self, options: InteractionOptions, corpus: LabelledCorpus, source: EncoderSource) -> list[Setting]:
        """One model whose heads all learn y."""
        if len(corpus.modalities) < 2:
            raise UserError("interaction: needs two or more modalities, and this corpus has one")
        return [Setting(SETTING, options, [Variant(COPY, COPY)])]

    def outcome(self, options: InteractionOptions, corpus: LabelledCorpus, results: StudyResults) -> Outcome:
        """The decomposition of each pair, corrected by shuffled labels, and the errors by how many heads have the right class."""
        split = corpus.splits[corpus.evaluated_on]
        edge = options.neutral * corpus.scale.size
        arrays = results.arrays(SETTING, COPY, "predictions")
        here = ~np.isnan(np.stack([seed[f"pred_{LETTERS[name]}"] for seed in arrays for name in corpus.modalities])).any(0)
        if here.sum() < 2 * CLASSES:
            raise UserError(
                f"interaction: {counted(int(here.sum()), 'utterance')} of the {corpus.evaluated_on} split with all modalities, at least "
                f"{2 * CLASSES} needed; use a larger corpus"
            )
        y, truth = split.label[here], label_classes(split.label[here], edge)
        guesses = [{name: seed[f"pred_{LETTERS[name]}"][here] for name in (FUSED, *corpus.modalities)} for seed in arrays]
        pairs = list(combinations(corpus.modalities, 2))
        bits = {(a, b): _decomposition([(thirds(g[a]), thirds(g[b])) for g in guesses], truth) for a, b in pairs}
        closest = [_closest([g[name] for name in corpus.modalities], y) for g in guesses]
        rows = [Row("fused", [score(g[FUSED], y, options.dataset) for g in guesses])]
        rows += [Row(f"{name} head", [score(g[name], y, options.dataset) for g in guesses]) for name in corpus.modalities]
        best_head = min(rows[1:], key=lambda row: mean_std(row.scores)[0])
        oracle = [score(best, y, options.dataset) for best in closest]
        rows.append(Row("best head of each utterance", oracle, "knows the label: a bound, not a model"))
        slices = error_slices(guesses, corpus.modalities, y, truth, edge)
        gain = results.difference(rows[0].scores, best_head.scores)
        strongest = []
        for (a, b), part in bits.items():
            top = max(part, key=lambda key: part[key])
            strongest.append(f"{a} and {b}: {PARTS[top]} ({part[top]:.2f} bits)")
        verb = "clearly gains on" if gain.better else "clearly loses to" if gain.worse else "is indistinguishable from"
        shows = f"The largest part of the information of each pair about the label: {listed(strongest)}; "
        shows += f"fusion {verb} the {best_head.name} ({gain})."
        not_shown = (
            "What better heads would share: three classes of these heads' predictions are decomposed, not the modalities themselves; "
        )
        not_shown += results.limits() + "."
        bars = {f"{a} + {b}": {PARTS[key]: value for key, value in part.items()} for (a, b), part in bits.items()}
        caption = "Bits about the label (negative, neutral, positive) in thirds of two heads' predictions, less those of shuffled labels."
        figure = Figure("interaction", stacked_bars(bars, "bits"), caption)
        facts = {"bits": {f"{a}+{b}": part for (a, b), part in bits.items()}, "slices": slices, "utterances": int(here.sum())}
        note = "Heads are scored against y, on the utterances that have all modalities."
        tables = [("Errors by the number of heads with the right class", _slice_table(slices))]
        return Outcome(rows, shows, not_shown, figure, note=note, tables=tables, facts=facts)


def thirds(values: np.ndarray) -> np.ndarray:
    """0, 1 or 2: the third of the values [N] in which each lies."""
    return np.searchsorted(np.quantile(values, [1 / 3, 2 / 3]), values, side="right")


def label_classes(labels: np.ndarray, edge: float) -> np.ndarray:
    """0 negative, 1 neutral, 2 positive."""
    return np.asarray(np.digitize(labels, [-edge, edge]))


def _closest(guesses: list[np.ndarray], y: np.ndarray) -> np.ndarray:
    """Of several guesses [N] the closest to y, utterance by utterance."""
    table = np.stack(guesses)
    return np.asarray(table[np.abs(table - y).argmin(0), np.arange(len(y))])


def _decomposition(sources: list[tuple[np.ndarray, np.ndarray]], truth: np.ndarray) -> dict[str, float]:
    """Mean over the seeds, less the mean for shuffled labels (small samples look informative), at least 0."""
    random = np.random.default_rng(0)
    found = [decompose(first, second, truth, CLASSES) for first, second in sources]
    chance = [decompose(*sources[draw % len(sources)], random.permutation(truth), CLASSES) for draw in range(SHUFFLES)]
    return {key: round(max(0.0, float(np.mean([f[key] for f in found]) - np.mean([c[key] for c in chance]))), 4) for key in found[0]}


def error_slices(
    guesses: list[Predictions], modalities: tuple[str, ...], y: np.ndarray, truth: np.ndarray, edge: float
) -> dict[str, dict[str, float]]:
    """Where all, some or no heads have the right class: share of utterances, MAE of the fused prediction and of the mean of the heads."""
    right = [np.sum([label_classes(guess[name], edge) == truth for name in modalities], 0) for guess in guesses]
    heads = len(modalities)
    bounds = {"all right (redundant)": (heads, heads), "some right (unique)": (1, heads - 1), "none right (synergy needed)": (0, 0)}
    slices: dict[str, dict[str, float]] = {}
    for title, (low, high) in bounds.items():
        shares, errors, plain = [], [], []
        for count, guess in zip(right, guesses, strict=True):
            rows = (count >= low) & (count <= high)
            shares.append(rows.mean())
            if rows.any():
                errors.append(np.abs(guess[FUSED][rows] - y[rows]).mean())
                plain.append(np.abs(np.mean([guess[name][rows] for name in modalities], 0) - y[rows]).mean())
        if errors:
            means = {"share": shares, "MAE": errors, "mean_of_heads_MAE": plain}
            slices[title] = {key: round(float(np.mean(column)), 4) for key, column in means.items()}
    return slices


def _slice_table(slices: dict[str, dict[str, float]]) -> Table:
    rows = [
        [Cell(title), Cell(f"{100 * part['share']:.1f} %"), Cell(f"{part['MAE']:.3f}"), Cell(f"{part['mean_of_heads_MAE']:.3f}")]
        for title, part in slices.items()
    ]
    return Table(["", "Share", "MAE, fused", "MAE, mean of the heads"], rows)


def decompose(first: np.ndarray, second: np.ndarray, target: np.ndarray, classes: int) -> dict[str, float]:
    """Partial information decomposition of two discrete sources about a target (Bertschinger et al., 2014; used in arXiv 2306.04539).

    With Delta the distributions that keep p(x1, y) and p(x2, y), I_q is the least I_q(X1, X2; Y) over Delta and synergy the true
    information above it; U1 = I_q - I(X2; Y), U2 = I_q - I(X1; Y), R = I(X1; Y) - U1.

    Args:
        first, second, target: integers [N] below `classes`.
        classes: number of classes.

    Returns:
        Redundancy, uniqueness of each source and synergy, in bits.
    """
    joint = np.zeros((classes, classes, classes))
    np.add.at(joint, (first, second, target), 1.0 / len(target))
    one, other, both = information(joint.sum(1)), information(joint.sum(0)), information(joint.reshape(-1, classes))
    least = max(least_information(joint), one, other)
    parts = {"redundancy": one + other - least, "unique_first": least - other, "unique_second": least - one, "synergy": both - least}
    return {name: round(max(0.0, value), 4) for name, value in parts.items()}


def information(joint: np.ndarray) -> float:
    """I(X; Y) in bits of a joint distribution [X, Y]."""
    product = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    kept = joint > SMALL
    return float((joint[kept] * np.log2(joint[kept] / product[kept])).sum())


def least_information(joint: np.ndarray) -> float:
    """The least I_q(X1, X2; Y) over the distributions that share both pairwise margins with `joint` [X1, X2, Y].

    From the conditionally independent one, all of them are reached by moving mass between the corners of rectangles: a convex problem.
    """
    first, second, classes = joint.shape
    target = joint.sum((0, 1))
    safe = np.maximum(target, SMALL)
    start = joint.sum(1)[:, None, :] * joint.sum(0)[None, :, :] / safe
    moves = []
    for y in range(classes):
        for a in range(first - 1):
            for b in range(second - 1):
                move = np.zeros_like(start)
                move[a, b, y] = move[-1, -1, y] = 1.0
                move[a, -1, y] = move[-1, b, y] = -1.0
                moves.append(move.ravel())
    basis = np.array(moves)

    def objective(steps: np.ndarray) -> tuple[float, np.ndarray]:
        q = np.maximum((start.ravel() + steps @ basis).reshape(start.shape), SMALL)
        both = q.sum(2, keepdims=True)
        ratio = np.log2(q / both)
        return float((q * ratio).sum() - (target * np.log2(safe)).sum()), basis @ ratio.ravel()

    positive = {"type": "ineq", "fun": lambda steps: start.ravel() + steps @ basis, "jac": lambda _: basis.T}
    options = {"maxiter": 500, "ftol": 1e-10}
    found = minimize(objective, np.zeros(len(basis)), jac=True, constraints=[positive], method="SLSQP", options=options)
    return min(float(found.fun), information(joint.reshape(-1, classes)))
