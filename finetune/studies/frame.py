"""What a study is: settings that are trained, and what is made of their results."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from finetune.corpora import LabelledCorpus
from finetune.metrics import Scores
from finetune.model.encoders import EncoderSource, encoder_source
from finetune.options import TrainOptions
from finetune.report.document import Figure, Table
from finetune.studies.results import StudyResults
from finetune.training.trainer import Setting as Setting
from finetune.training.trainer import View as View
from skesl_mug.errors import UserError


@dataclass(kw_only=True)
class StudyOptions(TrainOptions):
    """What all studies take."""

    margin: float = 0.01
    """Two settings count as different from this MAE on, as a share of the labels' largest value; the seeds have to agree too
    (from three seeds on by a paired t-test, p < .05)."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        super().__post_init__()
        if not self.margin >= 0:
            raise UserError(f"--margin {self.margin:g}: wants 0 or more")


@dataclass(kw_only=True)
class TaughtOptions(StudyOptions):
    """Studies of one model take the generator of its labels too."""

    labels: str = "mucn-crossfit"
    """Where the unimodal labels of stage 3 come from."""


@dataclass(frozen=True)
class Row:
    """A line of the result's table: scores by seed, and what else stands in the study's own columns."""

    name: str
    scores: list[Scores]
    remark: str = ""
    further: tuple[str, ...] = ()


@dataclass
class Outcome:
    """What a study found. The first row is the one that the others are held against; `further` names the rows' own columns.

    `shows` and `not_shown` are computed from the numbers; `facts` are numbers for study.json that the table does not hold.
    """

    rows: list[Row]
    figure: Figure
    shows: str
    not_shown: str
    further: tuple[str, ...] = ()
    note: str = ""
    tables: list[tuple[str, Table]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A study: its options, its settings over a corpus, and what it makes of their results."""

    title: str
    options: type[StudyOptions]
    settings: Callable[[Any, LabelledCorpus, EncoderSource], list[Setting]]
    outcome: Callable[[Any, LabelledCorpus, StudyResults], Outcome]


@cache
def mark_of(encoder: str) -> str:
    """What names the pieces of a further encoder: a part of its weights' SHA-256."""
    return encoder_source(encoder, None).fingerprint()[:8]
