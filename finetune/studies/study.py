"""The parts of a study: its options and settings, the results it reads, and how two settings are compared."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import numpy as np

from finetune.corpora import LabelledCorpus
from finetune.extensions import STUDIES
from finetune.metrics import Scores
from finetune.model.encoders import EncoderSource, encoder_source
from finetune.options import TrainOptions
from finetune.report.document import Figure, Table
from finetune.significance import FEWEST_SEEDS, SIGNIFICANCE, paired_over_seeds, shown_p
from finetune.training.folder import CHECKPOINTS
from finetune.training.pieces import SeedFolder
from finetune.training.trainer import Setting as Setting
from finetune.training.trainer import View as View
from skesl_mug.errors import UserError
from skesl_mug.wording import counted, signed


@dataclass(kw_only=True)
class StudyOptions(TrainOptions):
    """Options of every study."""

    margin: float = 0.01
    """Smallest MAE difference that counts, as a share of the largest label value; a paired t-test over the seeds (three or more) also
    has to find it (p < .05)."""

    def __post_init__(self) -> None:
        """Validate the options."""
        super().__post_init__()
        if not self.margin >= 0:
            raise UserError(f"--margin {self.margin:g}: must be 0 or more")


@dataclass(kw_only=True)
class OneGeneratorOptions(StudyOptions):
    """Options of studies that train with one label generator."""

    labels: str = "mucn-crossfit"
    """Source of the unimodal labels of stage 3."""


@dataclass(frozen=True)
class Row:
    """A row of the result table: the scores by seed, a remark, and the cells of the study's own columns."""

    name: str
    scores: list[Scores]
    remark: str = ""
    cells: tuple[str, ...] = ()


@dataclass
class Outcome:
    """What a study found.

    Attributes:
        rows: the result table; every row is compared with the first.
        shows, not_shown: what the numbers show and what they do not, as sentences.
        figure: by default the MAE of each row.
        columns: headings of the rows' own cells.
        note: added below the result table.
        tables: further tables with their titles.
        facts: further numbers for study.json.
    """

    rows: list[Row]
    shows: str
    not_shown: str
    figure: Figure | None = None
    columns: tuple[str, ...] = ()
    note: str = ""
    tables: list[tuple[str, Table]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


class Study:
    """Base class of studies; subclasses are registered by `register_study` and created without arguments."""

    title: ClassVar[str]
    """Heading of the report."""
    question: ClassVar[str]
    """What it answers, in one sentence."""
    options: ClassVar[type[StudyOptions]] = StudyOptions
    """Its command-line options; the docstring of the class and those below its fields are the help."""

    def settings(self, options: Any, corpus: LabelledCorpus, source: EncoderSource) -> list[Setting]:
        """What to train for each seed.

        Raises:
            UserError: the study does not apply to this corpus.
        """
        raise NotImplementedError

    def outcome(self, options: Any, corpus: LabelledCorpus, results: "StudyResults") -> Outcome:
        """The findings, once everything is trained."""
        raise NotImplementedError


def find_study(name: str) -> Study:
    """The study that is registered under a name.

    Raises:
        UserError: there is none, or it is not a subclass of `Study`.
    """
    found = STUDIES.get(name)
    if not (isinstance(found, type) and issubclass(found, Study)):
        raise UserError(f"study {name}: what is registered under this name is not a subclass of finetune.studies.study.Study")
    return found()


def random_for(seed: int, *parts: str) -> np.random.Generator:
    """An independent random stream for each use."""
    return np.random.default_rng([seed, zlib.crc32("/".join(parts).encode())])


@cache
def encoder_tag(encoder: str) -> str:
    """Distinguishes the results of a further encoder on disk: the start of its weights' SHA-256."""
    return encoder_source(encoder, None).fingerprint()[:8]


class StudyResults:
    """The results of a study: `checkpoints/SETTING/seed-N/VARIANT.json` and the arrays beside it.

    Attributes:
        options, corpus: those of the study.
        margin: --margin in label units.
    """

    def __init__(self, options: StudyOptions, corpus: LabelledCorpus):
        self.options, self.corpus = options, corpus
        self.checkpoints, self.margin = options.output / CHECKPOINTS, options.margin * corpus.scale.size

    def _folders(self, setting: str) -> list[SeedFolder]:
        return [SeedFolder(self.checkpoints / setting / f"seed-{seed}") for seed in self.options.seeds]

    def scores(self, setting: str, variant: str, test: str | None = None) -> list[Scores]:
        """The metrics of a variant by seed, on the evaluated split or on one of the setting's `tests`."""
        found = [folder.results(variant) for folder in self._folders(setting)]
        return [each["metrics"] if test is None else each["tests"][test] for each in found]

    def arrays(self, setting: str, variant: str, kind: str) -> list[dict[str, np.ndarray]]:
        """By seed: "predictions" (pred_M and those of the heads [N], label units) or learned "labels" by modality [N]."""
        return [folder.arrays(f"{variant}_{kind}") for folder in self._folders(setting)]

    def difference(self, scores: Sequence[Scores], baseline: Sequence[Scores]) -> "Difference":
        """Compare the MAE of two settings seed by seed."""
        return difference(scores, baseline, self.margin)

    def limits(self) -> str:
        """What limits every study of this corpus and these seeds, as the end of a sentence."""
        count, split, data = len(self.options.seeds), self.corpus.evaluated_on, self.options.dataset
        seeds = ("one seed" if count == 1 else f"{count} seeds") + (" (too few to show any difference)" if count < FEWEST_SEEDS else "")
        rows = counted(len(self.corpus.splits[split]), "utterance")
        synthetic = "; at least part of the data is synthetic" if self.corpus.synthetic else ""
        return f"the evidence is one corpus ({data}, {rows} of its {split} split) and {seeds}{synthetic}"


def maes(scores: Sequence[Scores]) -> list[float]:
    """MAE by seed."""
    return [float(score["MAE"] or 0.0) for score in scores]


def mean_std(scores: Sequence[Scores]) -> tuple[float, float]:
    """Mean and population standard deviation of the MAE over the seeds."""
    return float(np.mean(maes(scores))), float(np.std(maes(scores)))


def mean_scores(parts: Sequence[Sequence[Scores]]) -> list[Scores]:
    """Scores by seed, averaged over several lists of them; a metric that is None anywhere is None."""
    averaged: list[Scores] = []
    for scores in zip(*parts, strict=True):
        columns = {key: [score[key] for score in scores] for key in scores[0]}
        averaged.append({key: None if None in column else float(np.mean(np.array(column, float))) for key, column in columns.items()})
    return averaged


@dataclass(frozen=True)
class Difference:
    """MAE of a setting minus MAE of its baseline, and the paired t-test over the seeds.

    Attributes:
        value, margin: in label units.
        p: None with fewer than three seeds, when nothing can be shown, or if the difference is the same with every seed.
        unanimous: three or more seeds, and the difference has the same sign with every seed.
        detectable: the smallest difference that the test would have found with 80 % power; None where p is.
    """

    value: float
    p: float | None
    margin: float
    unanimous: bool
    detectable: float | None = None

    @property
    def clear(self) -> bool:
        """At least the margin, and consistent over the seeds."""
        return abs(self.value) >= self.margin and (self.unanimous if self.p is None else self.p < SIGNIFICANCE)

    @property
    def worse(self) -> bool:
        """Clearly larger error than the baseline."""
        return self.clear and self.value > 0

    @property
    def better(self) -> bool:
        """Clearly smaller error than the baseline."""
        return self.clear and self.value < 0

    def __str__(self) -> str:
        parts = [signed(self.value, 3), *([] if self.p is None else [shown_p(self.p)])]
        return ", ".join(parts + ([] if self.clear or self.detectable is None else [f"detectable {self.detectable:.3f}"]))


def difference(scores: Sequence[Scores], baseline: Sequence[Scores], margin: float) -> Difference:
    """Compare the MAE of two settings seed by seed; `margin` in label units."""
    one, other = maes(scores), maes(baseline)
    paired = paired_over_seeds(one, other) or {}
    signs = set(np.sign(np.subtract(one, other)).tolist())
    value = float(np.mean(one) - np.mean(other))
    unanimous = len(signs) == 1 and len(one) >= FEWEST_SEEDS
    return Difference(value, paired.get("p"), margin, unanimous, paired.get("detectable"))


def named(differences: Mapping[str, Difference]) -> list[str]:
    """Names with their differences, for `listed`."""
    return [f"{name} ({found})" for name, found in differences.items()]


def listed(names: Sequence[str]) -> str:
    """ "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
