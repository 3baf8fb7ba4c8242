"""What is left of the result where frames and words, or whole modalities, are missing, at test alone or in training too."""

from dataclasses import dataclass, field, replace

from finetune.corpora import LabelledCorpus
from finetune.metrics import Scores
from finetune.model.encoders import EncoderSource
from finetune.model.minibatches import PreparedSplit
from finetune.report.document import Cell, Figure, Table
from finetune.studies.differences import difference, limits, listed, margin_of
from finetune.studies.frame import Outcome, Row, Setting, Study, TaughtOptions, View, mark_of
from finetune.studies.pictures import curves
from finetune.studies.results import StudyResults, mean_scores, mean_std
from finetune.studies.views import DroppedAtRandom, Without
from finetune.training.variants import Start, Variant
from skesl_mug.errors import UserError


@dataclass(kw_only=True)
class MissingModalityOptions(TaughtOptions):
    """Frames and words left out at random at several rates, and whole modalities absent, at test alone and in training too.

    What is left out is absent, never zeros. The figure to compare is the mean over the rates, as LNLN reports it.

    Example: python -m finetune.studies missing_modality --dataset mosi --data mosi.pkl --encoder runs/skesl --output runs/missing
    """

    rates: list[float] = field(default_factory=lambda: [round(0.1 * place, 1) for place in range(10)])
    """Shares of frames and words that are left out. In training too: each utterance has one of them, drawn by the seed."""
    other_encoder: str | None = None
    """A second SKESL run to start from, as one pretrained with modality dropout, to compare with --encoder."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        super().__post_init__()
        if len(set(self.rates)) < 2 or 0.0 not in self.rates or not all(0 <= rate < 1 for rate in self.rates):
            raise UserError(f"--rates {' '.join(map(str, self.rates))}: wants rates from 0 to below 1, 0 and another among them")
        if self.other_encoder is not None and self.encoder is None:
            raise UserError("--other-encoder: is compared with --encoder; give that too")


@dataclass(frozen=True)
class InTraining:
    """A view of the training and development splits alone."""

    view: View

    def __call__(self, name: str, split: PreparedSplit, seed: int) -> PreparedSplit:
        """The evaluated split as it is."""
        return self.view(name, split, seed) if name in ("train", "dev") else split


@dataclass(frozen=True)
class Way:
    """One of the ways to start and to train; `prefix` marks the second encoder's settings."""

    prefix: str
    name: str
    setting: str
    options: MissingModalityOptions


def ways_of(options: MissingModalityOptions) -> list[Way]:
    """Trained on whole utterances, and on incomplete ones; from each encoder."""
    incomplete = "incomplete-" + "_".join(f"{rate:g}" for rate in sorted(options.rates))
    ways = [Way("", "trained whole", "whole", options), Way("", "trained incomplete", incomplete, options)]
    if options.other_encoder is not None:
        other = replace(options, encoder=options.other_encoder)
        ways += [
            replace(way, prefix=f"{mark_of(options.other_encoder)}-", name=f"other encoder, {way.name}", options=other) for way in ways
        ]
    return ways


def subsets(corpus: LabelledCorpus) -> list[str]:
    """The modalities that can be missing while another is left."""
    return list(corpus.modalities) if len(corpus.modalities) > 1 else []


def settings(options: MissingModalityOptions, corpus: LabelledCorpus, source: EncoderSource) -> list[Setting]:
    """Each way scored at every rate and without each modality, and models trained without a modality at all."""
    tests: dict[str, View] = {f"rate-{rate:g}": DroppedAtRandom((rate,)) for rate in options.rates}
    tests |= {f"without-{name}": Without((name,)) for name in subsets(corpus)}
    labels, settings = options.labels, []
    for way in ways_of(options):
        view = None if way.setting == "whole" else InTraining(DroppedAtRandom(tuple(sorted(options.rates))))
        settings.append(Setting(way.prefix + way.setting, way.options, [Variant(labels, labels)], view, tests))
        if way.setting == "whole" and subsets(corpus):
            lacking = [Variant(f"without_{name}_{labels}", labels, Start.without(name)) for name in subsets(corpus)]
            settings.append(Setting(f"{way.prefix}lacking", way.options, lacking))
    return settings


def outcome(options: MissingModalityOptions, corpus: LabelledCorpus, results: StudyResults) -> Outcome:
    """Scores at every rate and their mean; what training on incomplete utterances buys and costs."""
    margin, rates, labels = margin_of(options, corpus), sorted(options.rates), options.labels
    ways = ways_of(options)
    at_rate = {way.name: [results.scores(way.prefix + way.setting, labels, f"rate-{rate:g}") for rate in rates] for way in ways}
    mean = {name: mean_scores(parts) for name, parts in at_rate.items()}
    whole, incomplete = (way.name for way in ways[:2])
    rows = [Row(f"{way.name}, nothing missing", at_rate[way.name][0]) for way in ways]
    rows += [Row(f"{way.name}, mean over the rates", mean[way.name]) for way in ways]
    absent: dict[str, list[Scores]] = {}
    for name in subsets(corpus):
        absent[name] = results.scores("whole", labels, f"without-{name}")
        rows.append(Row(f"{name} absent at test alone", absent[name], whole))
        rows.append(Row(f"{name} absent at test alone", results.scores(ways[1].setting, labels, f"without-{name}"), incomplete))
        rows.append(Row(f"{name} absent in training too", results.scores("lacking", f"without_{name}_{labels}")))
    loss = difference(mean[whole], at_rate[whole][0], margin)
    gain, cost = difference(mean[incomplete], mean[whole], margin), difference(at_rate[incomplete][0], at_rate[whole][0], margin)
    verb = "clearly lowers" if gain.better else "clearly raises" if gain.worse else "does not clearly change"
    shows = f"The mean over the rates lies {loss} from nothing missing, and training on incomplete utterances {verb} it ({gain})"
    shows += f", at {'a' if cost.worse else 'no clear'} cost where nothing is missing ({cost})"
    needed = [f"{n} ({held})" for n, scores in absent.items() if (held := difference(scores, at_rate[whole][0], margin)).worse]
    shows += f"; clearly missed at test: {listed(needed)}." if needed else "; no single modality is clearly missed at test."
    if options.other_encoder is not None:
        other = difference(mean[ways[2].name], mean[whole], margin)
        shows = shows[:-1] + f"; the other encoder {'differs' if other.clear else 'does not clearly differ'} in the mean ({other})."
    not_shown = "What frames that are lost in runs, as by an occluded face or a dead microphone, would do; " + limits(options, corpus) + "."
    series = {n: [(rate, *mean_std(part)) for rate, part in zip(rates, parts, strict=True)] for n, parts in at_rate.items()}
    caption = "MAE by the share of frames and words that are missing at test; bands are ± one deviation over the seeds."
    figure = Figure("missing_modality", curves(series, "share missing", "MAE"), caption)
    table = Table(
        ["", *(f"{rate:g}" for rate in rates)],
        [[Cell(n), *(Cell(f"{m:.3f}", f"± {s:.3f}") for _, m, s in points)] for n, points in series.items()],
    )
    facts = {"MAE": {n: {f"{rate:g}": round(m, 4) for rate, m, _ in points} for n, points in series.items()}}
    return Outcome(rows, figure, shows, not_shown, tables=[("MAE by rate", table)], facts=facts)


STUDY = Study("Missing modalities", MissingModalityOptions, settings, outcome)
