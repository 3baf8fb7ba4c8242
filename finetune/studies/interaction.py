"""How the modalities share what they tell about the label, and what fusion makes of it."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from finetune.corpora import LabelledCorpus
from finetune.metrics import score
from finetune.modalities import FUSED, LETTERS
from finetune.model.encoders import EncoderSource
from finetune.report.document import Cell, Figure, Table
from finetune.studies.decomposition import decompose
from finetune.studies.differences import difference, limits, listed, margin_of
from finetune.studies.frame import Outcome, Row, Setting, Study, StudyOptions
from finetune.studies.pictures import stacked
from finetune.studies.results import StudyResults, mean_std
from finetune.training.variants import Variant
from skesl_mug.errors import UserError
from skesl_mug.wording import counted

WHOLE, COPY, CLASSES, SHUFFLES = "whole", "copy", 3, 20
PARTS = {"redundancy": "redundant", "unique_first": "first alone", "unique_second": "second alone", "synergy": "synergy"}


@dataclass(kw_only=True)
class InteractionOptions(StudyOptions):
    """Redundancy, uniqueness and synergy of each pair of modalities (PID) on discretised predictions, and errors sliced by them.

    Every modality's head learns y itself, so that its prediction is what the modality tells about y.

    Example: python -m finetune.studies interaction --dataset sims --data sims.pkl --lm NAME --freeze-lm --output runs/interaction
    """

    neutral: float = 0.1
    """Labels nearer to 0 than this share of the labels' largest value count as neutral; beside them, negative and positive."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        super().__post_init__()
        if not 0 < self.neutral < 1:
            raise UserError(f"--neutral {self.neutral:g}: wants a share between 0 and 1")


def settings(options: InteractionOptions, corpus: LabelledCorpus, source: EncoderSource) -> list[Setting]:
    """One model whose heads all learn y."""
    if len(corpus.modalities) < 2:
        raise UserError("interaction: wants two modalities or more, and this corpus has one")
    return [Setting(WHOLE, options, [Variant(COPY, COPY)])]


def thirds(values: np.ndarray) -> np.ndarray:
    """0, 1 or 2: the third of the values [N] that each lies in."""
    return np.searchsorted(np.quantile(values, [1 / 3, 2 / 3]), values, side="right")


def label_classes(labels: np.ndarray, edge: float) -> np.ndarray:
    """0 negative, 1 neutral, 2 positive."""
    return np.asarray(np.digitize(labels, [-edge, edge]))


def pairs_of(corpus: LabelledCorpus) -> list[tuple[str, str]]:
    """Every pair of modalities."""
    return list(combinations(corpus.modalities, 2))


def outcome(options: InteractionOptions, corpus: LabelledCorpus, results: StudyResults) -> Outcome:
    """The decomposition of each pair, above what shuffled labels give, and errors by how many heads have the class right."""
    split, margin = corpus.splits[corpus.evaluated_on], margin_of(options, corpus)
    edge = options.neutral * max(abs(end) for end in corpus.label_range)
    arrays = results.arrays(WHOLE, COPY, "predictions")
    here = ~np.isnan(np.stack([seed[f"pred_{LETTERS[name]}"] for seed in arrays for name in corpus.modalities])).any(0)
    if here.sum() < 2 * CLASSES:
        raise UserError(
            f"interaction: {counted(int(here.sum()), 'utterance')} of the {corpus.evaluated_on} split with all modalities, and it takes "
            f"{2 * CLASSES}; give --data with more"
        )
    y, guesses = split.label[here], [{name: seed[f"pred_{LETTERS[name]}"][here] for name in (FUSED, *corpus.modalities)} for seed in arrays]
    truth = label_classes(y, edge)
    tables = {pair: _decomposition([(thirds(g[pair[0]]), thirds(g[pair[1]])) for g in guesses], truth) for pair in pairs_of(corpus)}
    oracle = [_nearest([g[name] for name in corpus.modalities], y) for g in guesses]
    rows = [Row("fused", [score(g[FUSED], y, options.dataset) for g in guesses])]
    rows += [Row(f"{name} head", [score(g[name], y, options.dataset) for g in guesses]) for name in corpus.modalities]
    rows.append(
        Row("best head of each utterance", [score(best, y, options.dataset) for best in oracle], "knows the label: a bound, no model")
    )
    sliced = _slices([{name: label_classes(g[name], edge) for name in corpus.modalities} for g in guesses], guesses, y, truth)
    best_head = min(rows[1:-1], key=lambda row: mean_std(row.scores)[0])
    gain = difference(rows[0].scores, best_head.scores, margin)
    strongest = []
    for (one, other), part in tables.items():
        top = max(part, key=lambda key: part[key])
        strongest.append(f"{one} and {other}: {PARTS[top]} ({part[top]:.2f} bits)")
    verb = "clearly gains on" if gain.better else "clearly loses to" if gain.worse else "is not told from"
    shows = f"The largest part of what each pair tells about the label: {listed(strongest)}; fusion {verb} the {best_head.name} ({gain})."
    not_shown = "What better heads would share: this decomposes three classes of these heads' predictions, not the modalities themselves; "
    not_shown += limits(options, corpus) + "."
    bars = {f"{a} + {b}": {PARTS[key]: value for key, value in part.items()} for (a, b), part in tables.items()}
    caption = "Bits about the label (negative, neutral, positive) in thirds of two heads' predictions, above what shuffled labels give."
    facts = {"bits": {f"{a}+{b}": part for (a, b), part in tables.items()}, "slices": sliced, "utterances": int(here.sum())}
    note = "Heads against y, on the utterances that have all modalities."
    shown = [("Errors by how many heads have the class right", _slice_table(sliced))]
    return Outcome(rows, Figure("interaction", stacked(bars, "bits"), caption), shows, not_shown, (), note, shown, facts)


def _nearest(guesses: list[np.ndarray], y: np.ndarray) -> np.ndarray:
    """Of several guesses [N] the one nearest to y, utterance by utterance."""
    table = np.stack(guesses)
    return np.asarray(table[np.abs(table - y).argmin(0), np.arange(len(y))])


def _decomposition(sources: list[tuple[np.ndarray, np.ndarray]], truth: np.ndarray) -> dict[str, float]:
    """Mean over the seeds, less the mean that shuffled labels give (counts of few samples look like information), 0 at least."""
    random = np.random.default_rng(0)
    found = [decompose(first, second, truth, CLASSES) for first, second in sources]
    chance = [decompose(*sources[draw % len(sources)], random.permutation(truth), CLASSES) for draw in range(SHUFFLES)]
    return {key: round(max(0.0, float(np.mean([f[key] for f in found]) - np.mean([c[key] for c in chance]))), 4) for key in found[0]}


def _slices(
    classes: list[dict[str, np.ndarray]], guesses: list[dict[str, np.ndarray]], y: np.ndarray, truth: np.ndarray
) -> dict[str, dict[str, float]]:
    """Share of the utterances, and MAE of the fused prediction and of the mean of the heads, where all, some or no heads are right."""
    slices: dict[str, dict[str, float]] = {}
    right = [np.sum([seed[name] == truth for name in seed], 0) for seed in classes]
    heads = len(classes[0])
    bounds = {"all right (redundant)": (heads, heads), "some right (unique)": (1, heads - 1), "none right (synergy wanted)": (0, 0)}
    for title, (low, high) in bounds.items():
        shares, errors, plain = [], [], []
        for count, guess in zip(right, guesses, strict=True):
            rows = (count >= low) & (count <= high)
            shares.append(rows.mean())
            if rows.any():
                errors.append(np.abs(guess[FUSED][rows] - y[rows]).mean())
                plain.append(np.abs(np.mean([guess[name][rows] for name in classes[0]], 0) - y[rows]).mean())
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


STUDY = Study("Interaction of the modalities", InteractionOptions, settings, outcome)
