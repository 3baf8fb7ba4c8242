"""Where the annotators' modalities disagree most: is that where unimodal labels pay?"""

from dataclasses import dataclass, field

import numpy as np

from finetune.corpora import LabelledCorpus
from finetune.metrics import Scores, score
from finetune.model.encoders import EncoderSource
from finetune.report.document import Figure
from finetune.studies.differences import difference, limits, listed, margin_of
from finetune.studies.frame import Outcome, Row, Setting, Study, StudyOptions
from finetune.studies.human_labels import disagreement, need_human_labels
from finetune.studies.pictures import curves
from finetune.studies.results import StudyResults, mean_std
from finetune.training.variants import of_generator
from skesl_mug.errors import UserError
from skesl_mug.wording import signed

WHOLE = "whole"
SHOWN: dict[str, str] = {"none": "no unimodal tasks"}
"""Names that do not speak for themselves."""


@dataclass(kw_only=True)
class LabelAmbiguityOptions(StudyOptions):
    """Errors by how far the annotators' unimodal labels of an utterance lie apart, for each generator of the labels learned from.

    Example: python -m finetune.studies label_ambiguity --dataset sims --data sims.pkl --lm NAME --freeze-lm --output runs/ambiguity
    """

    compare_labels: list[str] = field(default_factory=lambda: ["none", "copy", "ulgm", "mucn-crossfit", "mucn-meta", "human"])
    """Generators to compare, the first being the one the others are held against."""
    parts: int = 3
    """Into so many parts the evaluated utterances are cut by their disagreement; the first and the last are compared."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        super().__post_init__()
        if self.parts < 2:
            raise UserError(f"--parts {self.parts}: wants 2 or more")
        if len(set(self.compare_labels)) < 2:
            raise UserError("--compare-labels: wants two generators or more")


def settings(options: LabelAmbiguityOptions, corpus: LabelledCorpus, source: EncoderSource) -> list[Setting]:
    """One setting; the utterances are told apart in the evaluation alone."""
    need_human_labels(corpus, "label_ambiguity", corpus.evaluated_on)
    return [Setting(WHOLE, options, [of_generator(name) for name in dict.fromkeys(options.compare_labels)])]


def parts_by_disagreement(spread: np.ndarray, count: int) -> list[np.ndarray]:
    """Rows in `count` parts of like size from the least to the most disagreement; ties keep their order, unknown ones are left out."""
    known = np.flatnonzero(~np.isnan(spread))
    return np.array_split(known[np.argsort(spread[known], kind="stable")], count)


def outcome(options: LabelAmbiguityOptions, corpus: LabelledCorpus, results: StudyResults) -> Outcome:
    """MAE in each part by generator, and whether a generator gains where the modalities disagree."""
    split, margin = corpus.splits[corpus.evaluated_on], margin_of(options, corpus)
    spread = disagreement(split)
    parts = parts_by_disagreement(spread, options.parts)
    if min(len(part) for part in parts) < 2:
        raise UserError(f"--parts {options.parts}: too many for {int((~np.isnan(spread)).sum())} utterances with known labels; take fewer")
    names = list(dict.fromkeys(options.compare_labels))
    by_part: dict[str, list[list[Scores]]] = {}
    for name in names:
        predictions = [arrays["pred_M"] for arrays in results.arrays(WHOLE, name, "predictions")]
        by_part[name] = [[score(guess[part], split.label[part], options.dataset) for guess in predictions] for part in parts]
    median = float(np.median(corpus.splits["train"].label))
    constant = [score(np.full(len(part), median), split.label[part], options.dataset) for part in parts]
    rows = [
        Row(SHOWN.get(name, name), results.scores(WHOLE, name), "", tuple(f"{mean_std(part)[0]:.3f}" for part in by_part[name]))
        for name in names
    ]
    gaps = {name: difference(by_part[name][-1], by_part[name][0], margin) for name in names}
    harder = [SHOWN.get(name, name) for name, gap in gaps.items() if gap.worse]
    first = names[0]
    gains = {name: difference(by_part[name][-1], by_part[first][-1], margin) for name in names[1:]}
    said = {name: SHOWN.get(name, name) for name in names}
    better = [f"{said[name]} ({held})" for name, held in gains.items() if held.better]
    shows = "Utterances whose modalities disagree most are " + (f"clearly harder for {listed(harder)}" if harder else "not clearly harder")
    moved = signed(float(constant[-1]["MAE"] or 0) - float(constant[0]["MAE"] or 0), 3)
    shows += f" ({said[first]}: {gaps[first]}; the constant {moved})"
    shows += (
        f"; there {listed(better)} clearly gain on {said[first]}." if better else f"; no generator clearly gains on {said[first]} there."
    )
    not_shown = "That disagreement is the cause, as such utterances differ in their labels too (the constant's error says how much); "
    not_shown += limits(options, corpus) + "."
    middle = [float(np.mean(spread[part])) for part in parts]
    series = {said[name]: [(x, *mean_std(part)) for x, part in zip(middle, by_part[name], strict=True)] for name in names}
    series["constant"] = [(x, float(value["MAE"] or 0), 0.0) for x, value in zip(middle, constant, strict=True)]
    caption = f"MAE in {options.parts} parts of the evaluated split, by the deviation of the annotators' unimodal labels."
    figure = Figure("label_ambiguity", curves(series, "disagreement of the annotators' modalities", "MAE"), caption)
    heads = tuple(f"MAE, part {place} of {options.parts}" for place in range(1, options.parts + 1))
    facts = {"disagreement": [round(value, 4) for value in middle], "sizes": [len(part) for part in parts], "constant": constant}
    note = "Part 1 holds the utterances whose modalities agree best, the last those where they disagree most."
    return Outcome(rows, figure, shows, not_shown, heads, note, facts=facts)


STUDY = Study("Label ambiguity", LabelAmbiguityOptions, settings, outcome)
