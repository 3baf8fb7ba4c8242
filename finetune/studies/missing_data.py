"""Missing modalities and data size: frames, words and modalities left out, and fewer labelled utterances."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from finetune.corpora import LabelledCorpus
from finetune.corpora.splits import FrameSequence
from finetune.metrics import Scores
from finetune.modalities import AUDIO, MODALITIES, TEXT, VISION
from finetune.model.encoders import EncoderSource, encoder_source
from finetune.model.minibatches import PreparedSplit
from finetune.report.document import Cell, Figure, Table
from finetune.studies import QUESTIONS
from finetune.studies.report import curves
from finetune.studies.study import (
    OneGeneratorOptions,
    Outcome,
    Row,
    Setting,
    Study,
    StudyResults,
    View,
    encoder_tag,
    listed,
    mean_scores,
    mean_std,
    named,
    random_for,
)
from finetune.training.variants import NO_PRETRAINING, Start, Variant
from skesl_mug.errors import UserError

COMPLETE, LACKING = "whole", "lacking"
"""Settings, as they are called on disk."""
FEWEST = 16
"""Labelled utterances below which folds and batches are meaningless."""


@dataclass(kw_only=True)
class MissingModalityOptions(OneGeneratorOptions):
    """Frames and words left out at random at several rates, and modalities left out, at test time only and in training too.

    What is left out is absent, not zero. The figure to compare is the mean over the rates, as LNLN reports it.

    Example: skesl-mug study missing_modality --dataset mosi --data mosi.pkl --encoder runs/skesl --output runs/missing
    """

    rates: list[float] = field(default_factory=lambda: [round(0.1 * place, 1) for place in range(10)])
    """Shares of frames and words that are left out. For training, the seed draws one of them for each utterance."""
    other_encoder: str | None = None
    """A second SKESL run to compare with --encoder, such as one pretrained with modality dropout."""

    def __post_init__(self) -> None:
        """Validate the options."""
        super().__post_init__()
        if len(set(self.rates)) < 2 or 0.0 not in self.rates or not all(0 <= rate < 1 for rate in self.rates):
            raise UserError(f"--rates {' '.join(map(str, self.rates))}: needs 0 and at least one other rate, all below 1")
        if self.other_encoder is not None and self.encoder is None:
            raise UserError("--other-encoder: is compared with --encoder; add that too")


class DroppedFrames(Sequence[np.ndarray | None]):
    """Features with frames left out at random, a share `rates[i]` of item i; None where no frame remains."""

    def __init__(self, frames: FrameSequence, rates: np.ndarray, seed: int, salt: str):
        self.frames, self.rates, self.seed, self.salt = frames, rates, seed, salt

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> np.ndarray | None:  # type: ignore[override]  # slices are not supported
        values = self.frames[index]
        if values is None:
            return None
        left = values[random_for(self.seed, self.salt, str(index)).random(len(values)) >= self.rates[index]]
        return left if len(left) else None

    def __iter__(self) -> Iterator[np.ndarray | None]:
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True)
class DroppedAtRandom:
    """Leaves out frames and words (word pieces) at random, at the same rate in all modalities; they are absent, not zero.

    The seed draws one of the `rates` for each utterance. An utterance that loses all of a modality does not have it.
    """

    rates: tuple[float, ...]

    def __call__(self, name: str, split: PreparedSplit, seed: int) -> PreparedSplit:
        """The split with what remains."""
        if not any(self.rates):
            return split
        random = random_for(seed, "rates", name)
        rates = random.choice(self.rates, len(split))
        tokens = [
            [row[0], *(t for t, chance in zip(row[1:-1], random.random(len(row[1:-1])), strict=True) if chance >= rate), row[-1]]
            for row, rate in zip(split.tokens, rates, strict=True)
        ]
        labelled = split.split
        vectors, audio, vision = (
            None if frames is None else DroppedFrames(frames, rates, seed, f"{name} {modality}")
            for modality, frames in ((TEXT, labelled.text_vectors), (AUDIO, labelled.audio), (VISION, labelled.vision))
        )
        text = None if labelled.text is None else [t if len(left) > 2 else "" for t, left in zip(labelled.text, tokens, strict=True)]
        own = None if labelled.tokens is None else tokens
        left = replace(labelled, text=text, tokens=own, text_vectors=vectors, audio=audio, vision=vision)
        context = split.context and split.context.dropped(rates, random, tokens)
        return replace(split, split=left, tokens=tokens, context=context)


@dataclass(frozen=True)
class Without:
    """Leaves out modalities."""

    modalities: tuple[str, ...]

    def __call__(self, name: str, split: PreparedSplit, seed: int) -> PreparedSplit:
        """The split without them; without text the language model reads an empty transcript."""
        left = split.only([modality for modality in MODALITIES if modality not in self.modalities])
        return replace(left, tokens=[[row[0], row[-1]] for row in split.tokens], context=None) if TEXT in self.modalities else left


@dataclass(frozen=True)
class InTraining:
    """Applies a view to the training and development splits only."""

    view: View

    def __call__(self, name: str, split: PreparedSplit, seed: int) -> PreparedSplit:
        """The split; the evaluated one is unchanged."""
        return self.view(name, split, seed) if name in ("train", "dev") else split


@dataclass(frozen=True)
class Training:
    """How and from which encoder a model is trained; `prefix` marks the settings of the second encoder."""

    prefix: str
    name: str
    setting: str
    options: MissingModalityOptions


def trainings_of(options: MissingModalityOptions) -> list[Training]:
    """On complete and on incomplete utterances, from each encoder."""
    incomplete = "incomplete-" + "_".join(f"{rate:g}" for rate in sorted(options.rates))
    found = [Training("", "trained complete", COMPLETE, options), Training("", "trained incomplete", incomplete, options)]
    if options.other_encoder is not None:
        prefix, other = f"{encoder_tag(options.other_encoder)}-", replace(options, encoder=options.other_encoder)
        found += [replace(each, prefix=prefix, name=f"other encoder, {each.name}", options=other) for each in found]
    return found


def removable(corpus: LabelledCorpus) -> list[str]:
    """The modalities that can be missing while another remains."""
    return list(corpus.modalities) if len(corpus.modalities) > 1 else []


class MissingModality(Study):
    """The study `missing_modality`."""

    title, question, options = "Missing modalities", QUESTIONS["missing_modality"], MissingModalityOptions

    def settings(self, options: MissingModalityOptions, corpus: LabelledCorpus, source: EncoderSource) -> list[Setting]:
        """Each training, tested at every rate and without each modality, and models trained without a modality."""
        tests: dict[str, View] = {f"rate-{rate:g}": DroppedAtRandom((rate,)) for rate in options.rates}
        tests |= {f"without-{name}": Without((name,)) for name in removable(corpus)}
        labels, settings = options.labels, []
        for each in trainings_of(options):
            view = None if each.setting == COMPLETE else InTraining(DroppedAtRandom(tuple(sorted(options.rates))))
            settings.append(Setting(each.prefix + each.setting, each.options, [Variant(labels, labels)], view, tests))
            if each.setting == COMPLETE and removable(corpus):
                lacking = [Variant(f"without_{name}_{labels}", labels, Start.without(name)) for name in removable(corpus)]
                settings.append(Setting(each.prefix + LACKING, each.options, lacking))
        return settings

    def outcome(self, options: MissingModalityOptions, corpus: LabelledCorpus, results: StudyResults) -> Outcome:
        """Scores at every rate and their mean; what training on incomplete utterances gains and costs."""
        rates, labels = sorted(options.rates), options.labels
        trainings = trainings_of(options)
        at_rate = {
            each.name: [results.scores(each.prefix + each.setting, labels, f"rate-{rate:g}") for rate in rates] for each in trainings
        }
        mean = {name: mean_scores(parts) for name, parts in at_rate.items()}
        complete, incomplete = (each.name for each in trainings[:2])
        rows = [Row(f"{name}, nothing missing", parts[0]) for name, parts in at_rate.items()]
        rows += [Row(f"{name}, mean over the rates", scores) for name, scores in mean.items()]
        absent: dict[str, list[Scores]] = {}
        for name in removable(corpus):
            absent[name] = results.scores(COMPLETE, labels, f"without-{name}")
            rows.append(Row(f"{name} absent at test only", absent[name], complete))
            rows.append(Row(f"{name} absent at test only", results.scores(trainings[1].setting, labels, f"without-{name}"), incomplete))
            rows.append(Row(f"{name} absent in training too", results.scores(LACKING, f"without_{name}_{labels}")))
        base = at_rate[complete][0]
        loss = results.difference(mean[complete], base)
        gain, cost = results.difference(mean[incomplete], mean[complete]), results.difference(at_rate[incomplete][0], base)
        verb = "clearly lowers" if gain.better else "clearly raises" if gain.worse else "does not clearly change"
        shows = (
            f"The MAE averaged over the rates differs from that with nothing missing by {loss}; training on incomplete utterances {verb} "
        )
        shows += f"the average ({gain}), at {'a' if cost.worse else 'no clear'} cost where nothing is missing ({cost})"
        lost = {name: results.difference(scores, base) for name, scores in absent.items()}
        needed = named({name: found for name, found in lost.items() if found.worse})
        shows += f"; clearly needed at test time: {listed(needed)}" if needed else "; no single modality is clearly needed at test time"
        if options.other_encoder is not None:
            other = results.difference(mean[trainings[2].name], mean[complete])
            shows += f"; the average of the other encoder {'differs' if other.clear else 'does not clearly differ'} ({other})"
        not_shown = "The effect of frames lost in a row, as with a covered face or a dead microphone; " + results.limits() + "."
        series = {name: [(rate, *mean_std(part)) for rate, part in zip(rates, parts, strict=True)] for name, parts in at_rate.items()}
        caption = "MAE by the share of frames and words missing at test time; bands are ± one standard deviation over the seeds."
        figure = Figure("missing_modality", curves(series, "share missing", "MAE"), caption)
        cells = [[Cell(name), *(Cell(f"{mae:.3f}", f"± {std:.3f}") for _, mae, std in points)] for name, points in series.items()]
        table = Table(["", *(f"{rate:g}" for rate in rates)], cells)
        facts = {"MAE": {name: {f"{rate:g}": round(mae, 4) for rate, mae, _ in points} for name, points in series.items()}}
        return Outcome(rows, shows + ".", not_shown, figure, tables=[("MAE by rate", table)], facts=facts)


@dataclass(kw_only=True)
class DataSizeOptions(OneGeneratorOptions):
    """Several numbers of labelled training utterances, with and without pretraining, and encoders pretrained on more or fewer utterances.

    Example: skesl-mug study data_size --dataset mosi --data mosi.pkl --encoder runs/skesl --freeze-lm --output runs/data_size
    """

    sizes: list[int] = field(default_factory=lambda: [64, 256])
    """Numbers of labelled training utterances; all of them are always run too. The development split keeps its size."""
    more_encoders: list[str] = field(default_factory=list)
    """Further SKESL runs to compare with --encoder, such as those pretrained on other numbers of unlabelled utterances."""

    def __post_init__(self) -> None:
        """Validate the options."""
        super().__post_init__()
        if min(self.sizes, default=FEWEST) < FEWEST:
            raise UserError(f"--sizes {min(self.sizes)}: must be {FEWEST} or more")
        if self.more_encoders and self.encoder is None:
            raise UserError("--more-encoders: are compared with --encoder; add that too")


@dataclass(frozen=True)
class FewerRows:
    """Keeps `count` random training utterances; with one seed, a smaller selection is part of a larger one."""

    count: int

    def __call__(self, name: str, split: PreparedSplit, seed: int) -> PreparedSplit:
        """The training split with fewer rows; the others unchanged."""
        if name != "train" or self.count >= len(split):
            return split
        rows = sorted(random_for(seed, "rows").permutation(len(split))[: self.count].tolist())
        return split.select(rows)


@dataclass(frozen=True)
class Arm:
    """An encoder to start from: its name, the prefix of its settings, the options and the variant."""

    name: str
    prefix: str
    options: DataSizeOptions
    variant: Variant


def arms_of(options: DataSizeOptions) -> list[Arm]:
    """The given encoder, further ones, and none where pretraining can be left out."""
    labels = options.labels
    if options.encoder is None:
        return [Arm("not pretrained", "", options, Variant(labels, labels))]
    arms = []
    for place, encoder in enumerate([options.encoder, *options.more_encoders]):
        prefix = f"{encoder_tag(encoder)}-" if place else ""
        arms.append(Arm(f"pretrained{_pretrained_on(encoder)}", prefix, replace(options, encoder=encoder), Variant(labels, labels)))
    if encoder_source(options.encoder, None).without_pretraining() is not None:
        arms.append(Arm("not pretrained", "", options, Variant(f"no_pretraining_{labels}", labels, NO_PRETRAINING)))
    return arms


def _pretrained_on(encoder: str) -> str:
    """The number of unlabelled utterances that a pretraining run records, or else its name."""
    used = ((encoder_source(encoder, None).pretraining_results() or {}).get("data") or {}).get("used")
    return f" on {used} utterances" if used else f" ({encoder})"


def sizes_of(options: DataSizeOptions, corpus: LabelledCorpus) -> list[int]:
    """The sizes below that of the training split, and that one."""
    available = len(corpus.splits["train"])
    return [*sorted({size for size in options.sizes if size < available}), available]


class DataSize(Study):
    """The study `data_size`."""

    title, question, options = "Data size", QUESTIONS["data_size"], DataSizeOptions

    def settings(self, options: DataSizeOptions, corpus: LabelledCorpus, source: EncoderSource) -> list[Setting]:
        """One setting per size and encoder."""
        found: dict[str, Setting] = {}
        for size in sizes_of(options, corpus):
            for arm in arms_of(options):
                name = f"{arm.prefix}{size}"
                before = found[name].variants if name in found else []
                found[name] = Setting(name, arm.options, [*before, arm.variant], FewerRows(size))
        return list(found.values())

    def outcome(self, options: DataSizeOptions, corpus: LabelledCorpus, results: StudyResults) -> Outcome:
        """The learning curve of each encoder, and the sizes at which pretraining helps."""
        sizes, arms = sizes_of(options, corpus), arms_of(options)
        scores = {arm.name: [results.scores(f"{arm.prefix}{size}", arm.variant.name) for size in sizes] for arm in arms}
        first, *others = scores
        largest_first = list(enumerate(sizes))[::-1]
        rows = [Row(name, parts[place], f"{size} labelled") for place, size in largest_first for name, parts in scores.items()]
        fewer = {str(size): results.difference(scores[first][place], scores[first][-1]) for place, size in enumerate(sizes[:-1])}
        smaller = named({size: found for size, found in fewer.items() if found.worse})
        worse = f"clearly worse than all {sizes[-1]}: {listed(smaller)}" if smaller else f"none is clearly worse than all {sizes[-1]}"
        shows = f"Of the smaller numbers of labelled utterances ({first}), {worse}"
        shows = shows if fewer else f"The training split has {sizes[-1]} utterances: no smaller number was run (--sizes)"
        for name in others:
            gains = {str(size): results.difference(scores[first][place], scores[name][place]) for place, size in enumerate(sizes)}
            clear = named({size: found for size, found in gains.items() if found.clear})
            shows += (
                f"; {first} differs from {name} at {listed(clear)}"
                if clear
                else f"; {first} is indistinguishable from {name} at every size"
            )
        not_shown = "The effect of more labelled utterances than there are"
        not_shown += "" if others else ", nor that of pretraining (add --encoder)"
        not_shown += f"; the development split has the same size throughout, and {results.limits()}."
        series = {name: [(float(size), *mean_std(part)) for size, part in zip(sizes, parts, strict=True)] for name, parts in scores.items()}
        caption = "MAE by the number of labelled training utterances; bands are ± one standard deviation over the seeds."
        figure = Figure("data_size", curves(series, "labelled training utterances", "MAE", log=True), caption)
        facts = {"MAE": {name: {str(int(x)): round(mae, 4) for x, mae, _ in points} for name, points in series.items()}}
        return Outcome(rows, shows + ".", not_shown, figure, facts=facts)
