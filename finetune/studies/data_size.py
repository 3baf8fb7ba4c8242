"""How much the result rests on the number of labelled utterances, and what pretraining (on how many unlabelled ones) adds to it."""

from dataclasses import dataclass, field, replace

from finetune.corpora import LabelledCorpus
from finetune.model.encoders import EncoderSource, encoder_source
from finetune.report.document import Figure
from finetune.studies.differences import difference, limits, listed, margin_of
from finetune.studies.frame import Outcome, Row, Setting, Study, TaughtOptions, mark_of
from finetune.studies.pictures import curves
from finetune.studies.results import StudyResults, mean_std
from finetune.studies.views import FewerRows
from finetune.training.variants import NO_PRETRAINING, Variant
from skesl_mug.errors import UserError

SMALLEST = 16
"""Below, folds and batches mean nothing."""


@dataclass(kw_only=True)
class DataSizeOptions(TaughtOptions):
    """Labelled training utterances (some, and all), with and without pretraining, and from encoders of more or fewer unlabelled ones.

    Example: python -m finetune.studies data_size --dataset mosi --data mosi.pkl --encoder runs/skesl --freeze-lm --output runs/data_size
    """

    sizes: list[int] = field(default_factory=lambda: [64, 256])
    """Numbers of labelled training utterances; all of them are always run too. The development split stays whole."""
    more_encoders: list[str] = field(default_factory=list)
    """Further SKESL runs, as on other numbers of unlabelled utterances, to compare with --encoder."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        super().__post_init__()
        if min(self.sizes, default=SMALLEST) < SMALLEST:
            raise UserError(f"--sizes {min(self.sizes)}: wants {SMALLEST} or more")
        if self.more_encoders and self.encoder is None:
            raise UserError("--more-encoders: are compared with --encoder; give that too")


@dataclass(frozen=True)
class Way:
    """One encoder to start from: its name, the prefix of its settings, its variant, and how many unlabelled utterances it saw."""

    name: str
    prefix: str
    options: DataSizeOptions
    variant: Variant


def ways_of(options: DataSizeOptions) -> list[Way]:
    """As the options say; without pretraining where that can be left out; from further encoders."""
    labels = options.labels
    if options.encoder is None:
        return [Way("not pretrained", "", options, Variant(labels, labels))]
    ways = []
    for place, encoder in enumerate([options.encoder, *options.more_encoders]):
        own = replace(options, encoder=encoder)
        ways.append(Way(f"pretrained{unlabelled(encoder)}", f"{mark_of(encoder)}-" if place else "", own, Variant(labels, labels)))
    if encoder_source(options.encoder, None).without_pretraining() is not None:
        ways.append(Way("not pretrained", "", options, Variant(f"no_pretraining_{labels}", labels, NO_PRETRAINING)))
    return ways


def unlabelled(encoder: str) -> str:
    """How many unlabelled utterances a pretraining run used, as its own record says it; its name where there is none."""
    used = ((encoder_source(encoder, None).pretraining_results() or {}).get("data") or {}).get("used")
    return f" on {used} utterances" if used else f" ({encoder})"


def sizes_of(options: DataSizeOptions, corpus: LabelledCorpus) -> list[int]:
    """The sizes that train has, all of it last."""
    whole = len(corpus.splits["train"])
    return [*sorted({size for size in options.sizes if size < whole}), whole]


def settings(options: DataSizeOptions, corpus: LabelledCorpus, source: EncoderSource) -> list[Setting]:
    """A setting a size and encoder."""
    found: dict[str, Setting] = {}
    for size in sizes_of(options, corpus):
        for way in ways_of(options):
            name = f"{way.prefix}{size}"
            before = found[name].variants if name in found else []
            found[name] = Setting(name, way.options, [*before, way.variant], FewerRows(size))
    return list(found.values())


def outcome(options: DataSizeOptions, corpus: LabelledCorpus, results: StudyResults) -> Outcome:
    """The learning curve of each encoder, and at which sizes pretraining pays."""
    margin, sizes, ways = margin_of(options, corpus), sizes_of(options, corpus), ways_of(options)
    scores = {way.name: [results.scores(f"{way.prefix}{size}", way.variant.name) for size in sizes] for way in ways}
    first = ways[0].name
    rows = [Row(name, parts[-1 - place], f"{sizes[-1 - place]} labelled") for place in range(len(sizes)) for name, parts in scores.items()]
    fewer = {size: difference(part, scores[first][-1], margin) for size, part in zip(sizes[:-1], scores[first][:-1], strict=True)}
    smaller = [f"{size} ({held})" for size, held in fewer.items() if held.worse]
    told = f"clearly worse than all {sizes[-1]} labelled utterances: {listed(smaller)}" if smaller else "no smaller number is clearly worse"
    shows = f"Trained on fewer ({first}), {told}" if fewer else f"Train has no more than {sizes[-1]}: no smaller number was tried (--sizes)"
    for name in list(scores)[1:]:
        gains = {size: difference(own, other, margin) for size, own, other in zip(sizes, scores[first], scores[name], strict=True)}
        clear = [f"{size} ({held})" for size, held in gains.items() if held.clear]
        shows += f"; {first} differs from {name} at {listed(clear)}" if clear else f"; {first} is told from {name} at no size"
    not_shown = "What more labelled utterances than there are would bring"
    not_shown += "" if len(ways) > 1 else ", nor what pretraining adds (give --encoder)"
    not_shown += f"; the development split stays whole at every size, and {limits(options, corpus)}."
    series = {name: [(float(size), *mean_std(part)) for size, part in zip(sizes, parts, strict=True)] for name, parts in scores.items()}
    caption = "MAE by the number of labelled training utterances; bands are ± one deviation over the seeds."
    figure = Figure("data_size", curves(series, "labelled training utterances", "MAE", log=True), caption)
    facts = {"MAE": {name: {str(int(x)): round(mean, 4) for x, mean, _ in points} for name, points in series.items()}}
    return Outcome(rows, figure, shows + ".", not_shown, facts=facts)


STUDY = Study("Data size", DataSizeOptions, settings, outcome)
