"""Ablation: every component removed in turn, every component alone, and mechanisms of neighbouring methods added."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from finetune.corpora import LabelledCorpus
from finetune.modalities import MODALITIES
from finetune.model.encoders import EncoderSource
from finetune.options import TrainOptions
from finetune.studies import QUESTIONS
from finetune.studies.report import mae_figure
from finetune.studies.study import (
    Difference,
    OneGeneratorOptions,
    Outcome,
    Row,
    Setting,
    Study,
    StudyResults,
    listed,
    named,
)
from finetune.training.variants import FULL as FULL_START
from finetune.training.variants import NO_PRETRAINING, PLAIN, Start, Variant, humanise
from skesl_mug.errors import UserError

FULL, NO_CPM, NO_TASKS = "whole", "without_alignment", "without_unimodal_tasks"
"""Settings, as they are called on disk."""
NeighbourName = Literal["all", "cross-modal", "label-distance", "teacher", "common-space", "residual", "alternate", "recover"]
OptionsT = TypeVar("OptionsT", bound=TrainOptions)


@dataclass(frozen=True)
class Neighbour:
    """A mechanism of another method: its row in the table, and the flag that turns it on in any run."""

    name: str
    remark: str
    flag: str


NEIGHBOURS: dict[NeighbourName, Neighbour] = {
    "cross-modal": Neighbour("cross-modal prediction", "after MMCL", "--training.alignment.losses"),
    "label-distance": Neighbour("label-distance contrast", "on cross-modal predictions, after MMCL", "--training.alignment.losses"),
    "teacher": Neighbour("a teacher's similarities", "of the language model, after CLFA", "--training.alignment.losses"),
    "common-space": Neighbour("common space", "after unseen modality interaction", "--mechanisms"),
    "residual": Neighbour("residual branches", "", "--mechanisms"),
    "alternate": Neighbour("alternating steps", "after MLA, with its entropy-weighted fusion", "--mechanisms"),
    "recover": Neighbour("recovery", "of absent modalities, after EMMR", "--mechanisms"),
}


def chosen_neighbours(names: Sequence[NeighbourName]) -> list[NeighbourName]:
    """The named mechanisms, each once; `all` selects every one."""
    return list(NEIGHBOURS) if "all" in names else list(dict.fromkeys(names))


def with_neighbour(options: OptionsT, name: NeighbourName) -> OptionsT:
    """A copy of the options with one mechanism added.

    Raises:
        UserError: it cannot be combined with the other options.
    """
    changed = deepcopy(options)
    if NEIGHBOURS[name].flag == "--training.alignment.losses":
        alignment = changed.training.alignment
        alignment.losses = list(dict.fromkeys([*alignment.losses, name]))
    elif name not in changed.mechanisms:
        changed.mechanisms = [*changed.mechanisms, name]
    changed.check_training()
    return changed


@dataclass(kw_only=True)
class AblationOptions(OneGeneratorOptions):
    """Each component removed in turn, and each alone: pretraining, alignment (CPM), learned labels, unimodal tasks, the modalities.

    --neighbours adds mechanisms of other methods to the full method, one at a time.

    Example: skesl-mug study ablation --dataset mosi --data mosi.pkl --encoder runs/skesl --freeze-lm --output runs/ablation
    """

    neighbours: list[NeighbourName] = field(default_factory=list)
    """Mechanisms of neighbouring methods to add to the full method, one row each, or `all`."""

    def __post_init__(self) -> None:
        """Validate the options."""
        super().__post_init__()
        if self.labels in ("none", "copy"):
            raise UserError(f"--labels {self.labels}: an ablation needs a generator that learns labels; leave the flag out")
        if "alternate" in self.mechanisms:
            raise UserError(
                "--mechanisms alternate: allows no task to be left out, which an ablation does; use --neighbours alternate instead"
            )
        for name in chosen_neighbours(self.neighbours):
            changed = with_neighbour(self, name)
            if (changed.mechanisms, changed.training) == (self.mechanisms, self.training):
                raise UserError(f"--neighbours {name}: is already part of the full method ({NEIGHBOURS[name].flag}); leave one of them out")


@dataclass(frozen=True)
class Component:
    """A row of the study: the model that it needs, and how it is compared."""

    setting: str
    variant: Variant
    name: str
    remark: str = ""
    kind: Literal["full", "removed", "alone", "neighbour"] = "removed"


def components_of(options: AblationOptions, corpus: LabelledCorpus, source: EncoderSource) -> list[Component]:
    """The rows that apply to this corpus and encoder, the full method first."""
    labels = options.labels
    pretrained = source.without_pretraining() is not None
    base = Start(pretrained=not pretrained, unimodal_tasks=False)
    aligned_base = NO_PRETRAINING if pretrained else FULL_START
    full = Variant(f"all_{labels}", labels)
    rows = [Component(FULL, full, f"Full method ({labels})", kind="full")]
    if pretrained:
        rows.append(Component(FULL, Variant(f"no_pretraining_{labels}", labels, NO_PRETRAINING), "− pretraining"))
    rows += [
        Component(NO_CPM, full, "− alignment (CPM)"),
        Component(FULL, Variant("copy", "copy"), "− learned labels", "y copied to every modality"),
        Component(NO_TASKS, Variant("aligned", "none"), "− unimodal tasks", "multimodal task and alignment"),
    ]
    several = len(corpus.modalities) > 1
    for name in corpus.modalities if several else ():
        start = Start.without(name)
        rows.append(Component(FULL, Variant(f"{start.name}_{labels}", labels, start), f"− {name}"))
    for neighbour in chosen_neighbours(options.neighbours):
        added = NEIGHBOURS[neighbour]
        rows.append(Component(f"with-{neighbour}", full, f"+ {added.name}", added.remark, "neighbour"))
    rows.append(Component(FULL, Variant("nothing", "none", base), "Nothing", "multimodal task only, not pretrained", "alone"))
    if pretrained:
        rows.append(Component(FULL, Variant("pretraining", "none", PLAIN), "Pretraining alone", kind="alone"))
    alone, remark = (
        (Variant("alignment_alone", "none", aligned_base), "") if pretrained else (Variant("aligned", "none"), "as − unimodal tasks")
    )
    rows.append(Component(NO_TASKS, alone, "Alignment alone", remark, "alone"))
    rows.append(Component(NO_CPM, Variant("copy", "copy", aligned_base), "Unimodal tasks alone", "y copied", "alone"))
    for name in corpus.modalities if several else ():
        start = Start.only(name)
        rows.append(Component(FULL, Variant(start.name, "none", start), humanise(start.name), "multimodal task only", "alone"))
    return rows


class Ablation(Study):
    """The study `ablation`."""

    title, question, options = "Ablation", QUESTIONS["ablation"], AblationOptions

    def settings(self, options: AblationOptions, corpus: LabelledCorpus, source: EncoderSource) -> list[Setting]:
        """The given options, without alignment losses, with unimodal tasks of weight 0, and with each neighbouring mechanism.

        Raises:
            UserError: neighbouring mechanisms are requested for a corpus of one modality.
        """
        if options.neighbours and len(corpus.modalities) < 2:
            raise UserError(f"--neighbours: need several modalities, and this corpus has only {corpus.modalities[0]}; leave the flag out")
        unaligned, no_tasks = deepcopy(options), deepcopy(options)
        unaligned.training.alignment.losses = []
        for modality in MODALITIES:
            setattr(no_tasks.training.task_weights, modality, 0.0)
        rows = components_of(options, corpus, source)
        settings: dict[str, AblationOptions] = {FULL: options, NO_CPM: unaligned, NO_TASKS: no_tasks}
        settings |= {f"with-{name}": with_neighbour(options, name) for name in chosen_neighbours(options.neighbours)}
        return [
            Setting(name, changed, list(dict.fromkeys(row.variant for row in rows if row.setting == name)))
            for name, changed in settings.items()
        ]

    def outcome(self, options: AblationOptions, corpus: LabelledCorpus, results: StudyResults) -> Outcome:
        """Which components the method needs, and whether it beats the multimodal task alone."""
        from finetune.training.trainer import open_source

        components = components_of(options, corpus, open_source(options))
        rows = [Row(part.name, results.scores(part.setting, part.variant.name), part.remark) for part in components]
        full, bare = rows[0].scores, next(row.scores for row in rows if row.name == "Nothing")

        def against_full(kind: str) -> dict[str, Difference]:
            pairs = zip(components, rows, strict=True)
            return {part.name[2:]: results.difference(row.scores, full) for part, row in pairs if part.kind == kind}

        removed, added = against_full("removed"), against_full("neighbour")
        needed = named({name: found for name, found in removed.items() if found.worse})
        harmful = named({name: found for name, found in removed.items() if found.better})
        idle = [name for name, found in removed.items() if not found.clear]
        gain = results.difference(full, bare)
        shows = (
            f"Removing {listed(needed)} makes the MAE clearly worse"
            if needed
            else "Removing any one component does not clearly worsen the MAE"
        )
        shows += f"; removing {listed(harmful)} makes it clearly better" if harmful else ""
        against = "better than" if gain.better else "worse than" if gain.worse else "indistinguishable from"
        shows += f"; the full method is {against} the multimodal task alone ({gain})"
        shows += (_neighbours_show(added) if added else "") + "."
        verb = "matters" if len(idle) == 1 else "matter"
        not_shown = f"Whether {listed(idle)} {verb} here: the loss is within the margin, or the seeds disagree; " if idle else ""
        not_shown += ("" if idle else "What the components contribute elsewhere: ") + results.limits() + "."
        neighbours = "with one neighbouring mechanism added (+), " if added else ""
        caption = (
            f"MAE of the full method, without one component (−), {neighbours}and of components alone; bars are ± one standard deviation."
        )
        facts = {"lost_MAE": _plain(removed)} | ({"neighbours_MAE": _plain(added)} if added else {})
        return Outcome(rows, shows, not_shown, mae_figure("ablation", rows, caption), facts=facts)


def _neighbours_show(added: Mapping[str, Difference]) -> str:
    helps = named({name: found for name, found in added.items() if found.better})
    harms = named({name: found for name, found in added.items() if found.worse})
    idle = [name for name, found in added.items() if not found.clear]
    parts = [f"clearly better: {listed(helps)}" if helps else "none is clearly better"]
    parts += [f"clearly worse: {listed(harms)}"] if harms else []
    parts += [f"no clear difference: {listed(idle)}"] if idle else []
    return f". With a neighbouring mechanism added, {'; '.join(parts)}"


def _plain(differences: Mapping[str, Difference]) -> dict[str, Any]:
    return {name: {"difference": round(found.value, 4), "p": found.p, "clear": found.clear} for name, found in differences.items()}
