"""Which component carries the result: each off in turn, and each alone."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from finetune.corpora import LabelledCorpus
from finetune.modalities import MODALITIES
from finetune.model.encoders import EncoderSource
from finetune.report.document import Figure
from finetune.report.pictures import result_dots
from finetune.report.tables import humanise
from finetune.studies.differences import Difference, difference, limits, listed, margin_of
from finetune.studies.frame import Outcome, Row, Setting, Study, TaughtOptions
from finetune.studies.neighbours import NEIGHBOURS, NeighbourName, chosen, with_neighbour
from finetune.studies.results import StudyResults, mean_std
from finetune.training.variants import FULL, NO_PRETRAINING, PLAIN, Start, Variant
from skesl_mug.errors import UserError

NO_CPM, NO_TASKS, NOTHING = "without_alignment", "without_unimodal_tasks", "whole"


@dataclass(kw_only=True)
class AblationOptions(TaughtOptions):
    """Each component off in turn, and each alone: pretraining, alignment (CPM), learned labels, unimodal tasks, the modalities.

    --neighbours adds mechanisms of other methods to the whole, one at a time.

    Example: python -m finetune.studies ablation --dataset mosi --data mosi.pkl --encoder runs/skesl --freeze-lm --output runs/ablation
    """

    neighbours: list[NeighbourName] = field(default_factory=list)
    """Mechanisms of neighbouring methods to add to the whole method, a row each: some of these, or `all`."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        super().__post_init__()
        if self.labels in ("none", "copy"):
            raise UserError(f"--labels {self.labels}: an ablation wants a generator that learns something; leave the flag out")
        if self.training.alternate:
            raise UserError("--training.alternate: leaves no task out, as an ablation has to; take --neighbours alternate for a row of it")
        for name in chosen(self.neighbours):
            changed = with_neighbour(self, name)
            if (changed.model, changed.training) == (self.model, self.training):
                raise UserError(f"--neighbours {name}: is in the whole method already ({NEIGHBOURS[name].flag}); leave one of them out")


@dataclass(frozen=True)
class Part:
    """One line of the study: where its piece lies, and what it says."""

    setting: str
    variant: Variant
    name: str
    remark: str = ""
    kind: str = field(default="off")


def parts_of(options: AblationOptions, corpus: LabelledCorpus, source: EncoderSource) -> list[Part]:
    """What applies to this corpus and encoder, the whole method first."""
    labels = options.labels
    pretrained = source.without_pretraining() is not None
    base = Start(pretrained=not pretrained, unimodal_tasks=False)
    aligned_base = NO_PRETRAINING if pretrained else FULL
    parts = [Part(NOTHING, Variant(f"all_{labels}", labels), f"Whole method ({labels})", kind="whole")]
    if pretrained:
        parts.append(Part(NOTHING, Variant(f"no_pretraining_{labels}", labels, NO_PRETRAINING), "− pretraining"))
    parts += [
        Part(NO_CPM, Variant(f"all_{labels}", labels), "− alignment (CPM)"),
        Part(NOTHING, Variant("copy", "copy"), "− learned labels", "y copied for every modality"),
        Part(NO_TASKS, Variant("aligned", "none"), "− unimodal tasks", "the multimodal task and the alignment"),
    ]
    several = len(corpus.modalities) > 1
    for name in corpus.modalities if several else ():
        start = Start.without(name)
        parts.append(Part(NOTHING, Variant(f"{start.name}_{labels}", labels, start), f"− {name}"))
    for name in chosen(options.neighbours):
        added = NEIGHBOURS[name]
        parts.append(Part(f"with-{name}", Variant(f"all_{labels}", labels), f"+ {added.name}", added.remark, "neighbour"))
    parts.append(Part(NOTHING, Variant("nothing", "none", base), "Nothing", "the multimodal task alone, not pretrained", "alone"))
    if pretrained:
        parts.append(Part(NOTHING, Variant("pretraining", "none", PLAIN), "Pretraining alone", kind="alone"))
    parts += [
        Part(NO_TASKS, Variant("alignment_alone", "none", aligned_base), "Alignment alone", kind="alone")
        if pretrained
        else Part(NO_TASKS, Variant("aligned", "none"), "Alignment alone", "here the same model as − unimodal tasks", "alone"),
        Part(NO_CPM, Variant("copy", "copy", aligned_base), "Unimodal tasks alone", "y copied", "alone"),
    ]
    for name in corpus.modalities if several else ():
        start = Start.only(name)
        parts.append(Part(NOTHING, Variant(start.name, "none", start), humanise(start.name), "the multimodal task alone", "alone"))
    return parts


def settings(options: AblationOptions, corpus: LabelledCorpus, source: EncoderSource) -> list[Setting]:
    """As the options say, without alignment losses, with unimodal tasks of weight 0, and with each neighbouring mechanism.

    Raises:
        UserError: neighbours are wanted of a corpus of a single modality.
    """
    if options.neighbours and len(corpus.modalities) < 2:
        raise UserError(f"--neighbours: bring modalities together, and this corpus has {corpus.modalities[0]} alone; leave the flag out")
    unaligned, untaught = deepcopy(options), deepcopy(options)
    unaligned.training.alignment.losses = []
    for name in MODALITIES:
        setattr(untaught.training.task_weights, name, 0.0)
    parts = parts_of(options, corpus, source)
    ways: dict[str, AblationOptions] = {NOTHING: options, NO_CPM: unaligned, NO_TASKS: untaught}
    ways |= {f"with-{name}": with_neighbour(options, name) for name in chosen(options.neighbours)}
    return [
        Setting(name, changed, list(dict.fromkeys(part.variant for part in parts if part.setting == name)))
        for name, changed in ways.items()
    ]


def outcome(options: AblationOptions, corpus: LabelledCorpus, results: StudyResults) -> Outcome:
    """Which components are needed by more than the margin, and which alone beat nothing."""
    from finetune.training.trainer import open_source

    parts = parts_of(options, corpus, open_source(options))
    rows = [Row(part.name, results.scores(part.setting, part.variant.name), part.remark) for part in parts]
    margin = margin_of(options, corpus)
    whole, bare = rows[0].scores, next(row.scores for row in rows if row.name == "Nothing")

    def held_against_whole(kind: str) -> dict[str, Difference]:
        return {p.name[2:]: difference(row.scores, whole, margin) for p, row in zip(parts, rows, strict=True) if p.kind == kind}

    lost, added = held_against_whole("off"), held_against_whole("neighbour")
    needed = [f"{name} ({held})" for name, held in lost.items() if held.worse]
    harmful = [f"{name} ({held})" for name, held in lost.items() if held.better]
    idle = [name for name, held in lost.items() if not held.clear]
    gain = difference(whole, bare, margin)
    shows = f"Taking away {listed(needed)} makes the MAE clearly worse" if needed else "No component's absence makes the MAE clearly worse"
    shows += f"; without {listed(harmful)} it is clearly better" if harmful else ""
    against = "better than" if gain.better else "worse than" if gain.worse else "not told from"
    shows += f"; the whole method is {against} the multimodal task alone ({gain})"
    shows += (_neighbours_show(added) if added else "") + "."
    verb = "matters" if len(idle) == 1 else "matter"
    not_shown = f"That {listed(idle)} {verb} here: the loss is within the margin, or the seeds disagree; " if idle else ""
    not_shown += ("" if idle else "What the components are worth elsewhere: ") + limits(options, corpus) + "."
    dots = [(row.name, *mean_std(row.scores)) for row in rows]
    caption = (
        "MAE of the whole method, of the method without one component each (−), "
        + ("with one neighbouring mechanism each (+), " if added else "")
        + "and of components alone; bars are ± one deviation."
    )
    facts = {"lost_MAE": _plain(lost)} | ({"neighbours_MAE": _plain(added)} if added else {})
    return Outcome(rows, Figure("ablation", result_dots(dots), caption), shows, not_shown, facts=facts)


def _neighbours_show(added: Mapping[str, Difference]) -> str:
    helps = [f"{name} ({held})" for name, held in added.items() if held.better]
    harms = [f"{name} ({held})" for name, held in added.items() if held.worse]
    idle = [name for name, held in added.items() if not held.clear]
    said = [f"clearly better: {listed(helps)}" if helps else "none is clearly better"]
    said += [f"clearly worse: {listed(harms)}"] if harms else []
    said += [f"no clear difference: {listed(idle)}"] if idle else []
    return f". With a neighbouring mechanism added to it, {'; '.join(said)}"


def _plain(differences: Mapping[str, Difference]) -> dict[str, Any]:
    return {name: {"difference": round(held.value, 4), "p": held.p, "clear": held.clear} for name, held in differences.items()}


STUDY = Study("Ablation", AblationOptions, settings, outcome)
