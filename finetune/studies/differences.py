"""Whether two settings differ: by a margin set beforehand and, with three seeds or more, by a paired test over them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finetune.corpora import LabelledCorpus
from finetune.metrics import Scores
from finetune.significance import paired_over_seeds
from finetune.studies.frame import StudyOptions
from finetune.studies.results import maes
from skesl_mug.wording import counted, signed

LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """MAE of a setting minus that of the one it is held against; `p` is None below three seeds, where two have to agree."""

    value: float
    p: float | None
    margin: float
    unanimous: bool

    @property
    def clear(self) -> bool:
        """Beyond the margin, and no chance of the seeds."""
        return abs(self.value) >= self.margin and (self.unanimous if self.p is None else self.p < LEVEL)

    @property
    def worse(self) -> bool:
        """Clearly the larger error."""
        return self.clear and self.value > 0

    @property
    def better(self) -> bool:
        """Clearly the smaller error."""
        return self.clear and self.value < 0

    def __str__(self) -> str:
        return signed(self.value, 3) + ("" if self.p is None else f", p {self.p:.3f}")


def margin_of(options: StudyOptions, corpus: LabelledCorpus) -> float:
    """--margin in label units."""
    return options.margin * max(abs(edge) for edge in corpus.label_range)


def difference(scores: Sequence[Scores], against: Sequence[Scores], margin: float) -> Difference:
    """Of MAE, seed by seed."""
    one, other = maes(scores), maes(against)
    paired = paired_over_seeds(one, other)
    signs = set(np.sign(np.subtract(one, other)).tolist())
    return Difference(
        float(np.mean(one) - np.mean(other)), None if paired is None else paired["p"], margin, len(signs) == 1 and len(one) > 1
    )


def listed(names: Sequence[str]) -> str:
    """ "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def limits(options: StudyOptions, corpus: LabelledCorpus) -> str:
    """What no study over this corpus and these seeds can show, as the end of a sentence."""
    seeds, of = len(options.seeds), counted(len(corpus.splits[corpus.evaluated_on]), "utterance")
    parts = [f"{seeds} seeds" if seeds > 1 else "one seed", f"one corpus ({options.dataset}, {of} of its {corpus.evaluated_on} split)"]
    if seeds < 3:
        parts[0] += ", too few for a test"
    return f"this rests on {parts[0]} and {parts[1]}" + ("; (parts of) the data are made" if corpus.made else "")
