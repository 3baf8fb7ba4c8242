"""Which generator of unimodal labels is worth its cost: label quality, task quality, seconds, memory, growth with the samples."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from finetune.corpora import LabelledCorpus
from finetune.model.encoders import EncoderSource
from finetune.report.document import Cell, Figure, Table
from finetune.studies.differences import difference, limits, listed, margin_of
from finetune.studies.frame import Outcome, Row, Setting, Study, StudyOptions
from finetune.studies.human_labels import known_labels, label_quality
from finetune.studies.label_cost import Cost, cost_of, growth, made_inputs
from finetune.studies.pictures import curves
from finetune.studies.results import StudyResults
from finetune.training.pieces import write_entries
from finetune.training.variants import of_generator
from skesl_mug.errors import UserError
from skesl_mug.files import read_json

WHOLE, COST_FILE = "whole", "label_cost.json"
META: tuple[str, ...] = ("mucn-meta", "meta-weight-net", "mlc")
ALL: tuple[str, ...] = ("copy", "mucn-crossfit", *META, "ulgm", "regressor", "shuffled", "human", "none")


@dataclass(kw_only=True)
class LabelSourceOptions(StudyOptions):
    """All generators of unimodal labels, Meta-Weight-Net and MLC among them: labels, task, seconds, memory.

    Example: python -m finetune.studies label_source --dataset sims --data sims.pkl --lm NAME --freeze-lm --output runs/label_source
    """

    compare_labels: list[str] = field(default_factory=lambda: list(ALL))
    """Generators to compare, the first being the one the others are held against; `human` is left out where there are no such labels."""
    cost_sizes: list[int] = field(default_factory=lambda: [500, 1000, 2000, 4000])
    """Numbers of samples at which seconds and memory are measured, on made inputs of the corpus's widths."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        super().__post_init__()
        if len(set(self.compare_labels)) < 2:
            raise UserError("--compare-labels: wants two generators or more")
        if min(self.cost_sizes, default=0) < 50:
            raise UserError("--cost-sizes: wants at least one number of samples, all of 50 or more")


def generators_of(options: LabelSourceOptions, corpus: LabelledCorpus) -> list[str]:
    """Those that the corpus can feed."""
    known = known_labels(corpus.splits["train"])
    return [name for name in dict.fromkeys(options.compare_labels) if known or name != "human"]


def settings(options: LabelSourceOptions, corpus: LabelledCorpus, source: EncoderSource) -> list[Setting]:
    """One setting: all labels are taught from the same stage 1."""
    return [Setting(WHOLE, options, [of_generator(name) for name in generators_of(options, corpus)])]


def measured_costs(options: LabelSourceOptions, corpus: LabelledCorpus, checkpoints: Path) -> dict[str, dict[int, Cost]]:
    """Seconds and memory by generator and size, measured once and kept."""
    path = checkpoints / COST_FILE
    kept: dict[str, dict[str, Cost]] = read_json(path) if path.is_file() else {}
    names = [name for name in options.compare_labels if name != "none"]
    missing = [(name, size) for size in sorted(set(options.cost_sizes)) for name in names if str(size) not in kept.get(name, {})]
    if missing:
        from finetune.training.trainer import open_source

        encoder, _ = open_source(options).load(corpus.audio_width, corpus.vision_width, options.seeds[0])
        for size in dict.fromkeys(size for _, size in missing):
            inputs = made_inputs(size, corpus, int(encoder.config.hidden_size), options.model.dim)
            for name in (name for name, wanted in missing if wanted == size):
                kept.setdefault(name, {})[str(size)] = cost_of(name, options.generators, inputs, options.plugin_options)
                write_entries(path, kept)
    return {name: {size: kept[name][str(size)] for size in sorted(set(options.cost_sizes))} for name in names}


def outcome(options: LabelSourceOptions, corpus: LabelledCorpus, results: StudyResults) -> Outcome:
    """Which generators beat the first in the task, what the meta step costs beside them."""
    names, margin, train = generators_of(options, corpus), margin_of(options, corpus), corpus.splits["train"]
    costs = measured_costs(options, corpus, results.checkpoints)
    largest, known = max(options.cost_sizes), bool(known_labels(train))
    rows, first = [], names[0]
    for name in names:
        quality = ("–", "–")
        if known and name != "none":
            pairs = [label_quality(learned, train) for learned in results.arrays(WHOLE, name, "labels")]
            quality = (f"{np.mean([pair[0] for pair in pairs]):.3f}", f"{np.mean([pair[1] for pair in pairs]):.3f}")
        cost = costs[name][largest] if name in costs else {"seconds": 0.0, "memory_mb": None}
        rows.append(
            Row("no unimodal tasks" if name == "none" else name, results.scores(WHOLE, name), "", (*quality, f"{cost['seconds']:.2f}"))
        )
    held = {name: difference(row.scores, rows[0].scores, margin) for name, row in zip(names[1:], rows[1:], strict=True)}
    better = [f"{name} ({value})" for name, value in held.items() if value.better]
    worse = [f"{name} ({value})" for name, value in held.items() if value.worse]
    shows = (
        f"In the task, clearly better than {first}: {listed(better)}"
        if better
        else f"No generator is clearly better in the task than {first}"
    )
    shows += f"; clearly worse: {listed(worse)}" if worse else ""
    shows += _worth(costs, largest) + "."
    not_shown = (
        "What the papers' own clean sets would give the two borrowed meta-learners, which have none here; " + limits(options, corpus) + "."
    )
    series = {
        name: [(float(size), float(cost["seconds"] or 0.0), 0.0) for size, cost in by_size.items()] for name, by_size in costs.items()
    }
    caption = "Seconds that the labels of all modalities take, on made inputs; for `ulgm` its steps of one epoch of stage 3."
    figure = Figure("label_source", curves(series, "samples", "seconds", log=True), caption)
    facts = {"cost": {name: {str(size): cost for size, cost in by_size.items()} for name, by_size in costs.items()}}
    further = ("label MAE ↓", "label Corr ↑", f"seconds at {largest}")
    return Outcome(rows, figure, shows, not_shown, further, tables=[("Cost of the labels by samples", _costs(costs))], facts=facts)


def _worth(costs: dict[str, dict[int, Cost]], size: int) -> str:
    if "mucn-meta" not in costs or "mucn-crossfit" not in costs:
        return ""
    meta, plain = (float(costs[name][size]["seconds"] or 0.0) for name in ("mucn-meta", "mucn-crossfit"))
    return f"; at {size} samples the bi-level step takes {meta:.1f} s, cross-fitting {plain:.1f} s"


def _costs(costs: dict[str, dict[int, Cost]]) -> Table:
    sizes = list(next(iter(costs.values())))
    rows = []
    for name, by_size in costs.items():
        cells = []
        for cost in by_size.values():
            memory = cost["memory_mb"]
            cells.append(Cell(f"{cost['seconds']:.2f} s", "" if memory is None else f"{memory:.0f} MB"))
        power = growth(by_size)
        rows.append([Cell(name), *cells, Cell("–" if power is None else f"{power:.2f}".replace("-", "−"))])
    note = "MB: peak of resident memory above what was held before. Growth: the exponent of seconds in the number of samples (1 is linear)."
    return Table(["", *(str(size) for size in sizes), "growth"], rows, note)


STUDY = Study("Label sources", LabelSourceOptions, settings, outcome)
