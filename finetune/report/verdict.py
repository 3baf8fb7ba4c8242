"""What the figures say, in sentences: better or not, by more than the seeds' spread or not, and that plainly when not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from finetune.report.document import Banner, Block, Chips, Paragraph
from finetune.report.run_results import MODALITIES, RunResults
from skesl_mug.wording import counted

Outcome = Literal["better", "worse", "within", "unknown"]
FEW_SAMPLES = 30
"""Fewer evaluated utterances tell no model from another."""

# What a control is called in a sentence: "better than ...", and what it is that the model has beyond it
IN_A_SENTENCE = {
    "constant": "always predicting the training median",
    "text_only": "text only",
    "no_pretraining": "the same without pretraining",
    "no_unimodal_tasks": "the same without unimodal tasks and alignment",
}
AT_A_GLANCE = {
    "constant": "the constant",
    "text_only": "text only",
    "no_pretraining": "no pretraining",
    "no_unimodal_tasks": "no unimodal tasks",
}


@dataclass(frozen=True)
class Comparison:
    """A control's MAE minus the model's (positive: the model is better), held against the larger of the two seed deviations."""

    difference: float
    spread: float
    seeds: int
    samples: int | None = None

    @property
    def outcome(self) -> Outcome:
        """Whether the difference exceeds the spread; unknown with fewer than two seeds, whose spread says nothing, or few samples."""
        if self.seeds < 2 or (self.samples is not None and self.samples < FEW_SAMPLES):
            return "unknown"
        if abs(self.difference) <= self.spread:
            return "within"
        return "better" if self.difference > 0 else "worse"


def compare(run: RunResults, control: Mapping[str, Any]) -> Comparison | None:
    """Hold one control against the headline model by MAE; None where either lacks it."""
    own, other = run.get("metrics"), control
    mean, other_mean = (own.get("mean") or {}).get("MAE"), (other.get("mean") or {}).get("MAE")
    if mean is None or other_mean is None:
        return None
    spread = max((own.get("std") or {}).get("MAE") or 0.0, (other.get("std") or {}).get("MAE") or 0.0)
    return Comparison(other_mean - mean, spread, len(run.seeds), evaluated_samples(run))


def evaluated_samples(run: RunResults) -> int | None:
    """How many utterances the figures rest on; None where the run does not say."""
    count = (run.get("data").get("counts") or {}).get(str(run.results.get("evaluated_on") or "test"))
    return int(count) if count is not None else None


def opening(run: RunResults) -> list[Block]:
    """The top of the report: the notice of made data, the verdict, and its findings at a glance."""
    blocks: list[Block] = []
    if run.made:
        how = (
            str(run.get("data").get("how") or "all or part of this corpus was made by a program, not recorded")
            .removeprefix("Made data: ")
            .rstrip(".")
        )
        meaning = "These figures show that the method runs and what it does; they are no result on real data."
        blocks.append(Banner(f"**Made data:** {how}. {meaning}"))
    blocks.append(Paragraph(" ".join(sentence for sentence in (reached(run), against_controls(run)) if sentence), "lead"))
    rest = " ".join(sentence for sentence in (audio_vision(run), labels(run)) if sentence)
    if rest:
        blocks.append(Paragraph(rest, "lead"))
    if chips := findings_at_a_glance(run):
        blocks.append(Chips(chips))
    if changed := changed_margins(run):
        blocks.append(Paragraph(changed, "quiet"))
    if note := run.results.get("evaluated_on_note"):
        blocks.append(Paragraph(note, "quiet"))
    return blocks


def reached(run: RunResults) -> str:
    """What the headline model reached on which samples."""
    metrics = run.get("metrics")
    mean, std = metrics.get("mean") or {}, metrics.get("std") or {}
    several = len(run.seeds) > 1
    figures = [
        f"{key} **{mean[key]:.3f}**" + (f" ± {std[key]:.3f}" if several and std.get(key) is not None else "")
        for key in ("MAE", "Corr")
        if mean.get(key) is not None
    ]
    split = str(run.results.get("evaluated_on") or "test")
    count = evaluated_samples(run)
    samples = f"the {counted(count, 'sample')} of the {split} split" if count else f"the {split} split"
    seeds = f"mean and standard deviation over {len(run.seeds)} seeds" if several else "one seed, so nothing is known about its spread"
    model = "The model without unimodal tasks" if run.headline == "none" else f"MUG with `{run.headline}` labels"
    return f"{model} reaches {' and '.join(figures) or 'no figure'} on {samples} ({seeds})."


def against_controls(run: RunResults) -> str:
    """The model held against the constant, text only, no pretraining and no unimodal tasks."""
    grouped: dict[Outcome, list[str]] = {"better": [], "worse": [], "within": [], "unknown": []}
    for name, phrase in IN_A_SENTENCE.items():
        control = run.get("controls").get(name)
        comparison = compare(run, control) if control else None
        if control and comparison:
            grouped[comparison.outcome].append(f"{phrase} (MAE {control['mean']['MAE']:.3f})")
    sentences = []
    if grouped["better"]:
        margin = "by more than the seeds' spread" if len(grouped["better"]) == 1 else "each time by more than the seeds' spread"
        sentences.append(f"It is better than {join_words(grouped['better'])}, {margin}.")
    if grouped["within"]:
        phrases = join_words(grouped["within"])
        sentences.append(f"It is not clearly better or worse than {phrases}: the difference lies within the seeds' spread.")
    if grouped["worse"]:
        sentences.append(f"**It is worse than {join_words(grouped['worse'])}** by more than the seeds' spread.")
    if grouped["unknown"]:
        count = evaluated_samples(run)
        why = "one seed" if len(run.seeds) < 2 or count is None else counted(count, "sample")
        sentences.append(f"Beside it stand {join_words(grouped['unknown'])}; with {why} no difference can be told from chance.")
    return " ".join(sentences)


def audio_vision(run: RunResults) -> str:
    """Whether the voices and faces were used, by the margin that was set beforehand."""
    use = run.get("audio_vision_use")
    sentence = str(use.get("sentence") or "")
    if not sentence:
        return ""
    if (count := evaluated_samples(run)) is not None and count < FEW_SAMPLES:
        return f"{sentence} On {counted(count, 'sample')} that says little."
    head, mark, rest = sentence.partition(":")
    return f"**{head}**{mark}{rest}"


def labels(run: RunResults) -> str:
    """Whether the learned unimodal labels are closer to the known ones than a copy of y is, by the margin that was set beforehand."""
    quality = run.get("unimodal_labels")
    known = {name: quality[name] for name in MODALITIES if quality.get(name) and quality[name].get("MAE") is not None}
    if not known or run.headline in ("copy", "human", "none"):
        return ""
    margin = run.margin("label_margin") * max(abs(edge) for edge in run.label_range)
    nearer = {name: row["copy_MAE"] - row["MAE"] for name, row in known.items()}
    closer = [name for name, by in nearer.items() if by >= margin]
    farther = [name for name, by in nearer.items() if by <= -margin]
    level = [name for name in nearer if name not in (*closer, *farther)]
    found = [("closer than copies of y", closer), ("as close as copies of y", level), ("**farther than copies of y**", farther)]
    text = "; ".join(f"{phrase} for {join_words(names)}" for phrase, names in found if names)
    return f"To the known unimodal labels the learned ones are {text} (margin {margin:g} MAE)."


def changed_margins(run: RunResults) -> str:
    """A margin that decides one of the sentences and was changed after the run began: no margin set beforehand any more."""
    first = run.get("margins_at_first")
    changed = [f"{name} from {first[name]:g} to {value:g}" for name, value in run.get("margins").items() if first.get(name, value) != value]
    return f"Changed after the run began, when figures could be seen: {join_words(changed)}." if changed else ""


def findings_at_a_glance(run: RunResults) -> list[tuple[str, str]]:
    """The outcome against each control in a few words, with "yes" (better), "no" (worse) or "unclear"."""
    chips = []
    for name, phrase in AT_A_GLANCE.items():
        control = run.get("controls").get(name)
        comparison = compare(run, control) if control else None
        if comparison and comparison.outcome == "within":
            chips.append((f"no clear difference to {phrase}", "unclear"))
        elif comparison and comparison.outcome != "unknown":
            chips.append((f"{comparison.outcome} than {phrase}", "yes" if comparison.outcome == "better" else "no"))
    use = run.get("audio_vision_use")
    few = (count := evaluated_samples(run)) is not None and count < FEW_SAMPLES
    if use.get("used") is not None and not few:
        chips.append(("audio and vision used", "yes") if use["used"] else ("audio and vision not used", "no"))
    return chips


def join_words(parts: list[str]) -> str:
    """Words or phrases as one enumeration: a, b and c."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
