"""Label sources compared: label quality, task quality, and seconds and memory by the number of samples."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from finetune.corpora import LabelledCorpus
from finetune.generator_options import GeneratorOptions
from finetune.labels import LabelInputs, make_generator
from finetune.modalities import AUDIO, FUSED, TEXT, VISION
from finetune.model.encoders import EncoderSource
from finetune.report.document import Cell, Figure, Table
from finetune.studies import QUESTIONS
from finetune.studies.label_quality import known_labels, label_quality
from finetune.studies.report import curves
from finetune.studies.study import (
    Outcome,
    Row,
    Setting,
    Study,
    StudyOptions,
    StudyResults,
    listed,
    named,
)
from finetune.training.pieces import write_entries
from finetune.training.variants import of_generator
from skesl_mug.errors import UserError
from skesl_mug.files import read_json

SETTING, COST_FILE = "whole", "label_cost.json"
META: tuple[str, ...] = ("mucn-meta", "meta-weight-net", "mlc")
ALL: tuple[str, ...] = ("copy", "mucn-crossfit", *META, "ulgm", "regressor", "shuffled", "human", "none")
BATCH = 32
Cost = dict[str, float | None]
"""`seconds`, and `memory_mb` (None where the system does not report it)."""
Costs = dict[str, dict[int, Cost]]
"""By generator and number of samples."""


@dataclass(kw_only=True)
class LabelSourceOptions(StudyOptions):
    """All generators of unimodal labels, including Meta-Weight-Net and MLC: labels, task, seconds, memory.

    Example: skesl-mug study label_source --dataset sims --data sims.pkl --lm NAME --freeze-lm --output runs/label_source
    """

    compare_labels: list[str] = field(default_factory=lambda: list(ALL))
    """Generators to compare, the baseline first; `human` is left out where the corpus has no such labels."""
    cost_sizes: list[int] = field(default_factory=lambda: [500, 1000, 2000, 4000])
    """Numbers of samples at which seconds and memory are measured, on random inputs as wide as the corpus's."""

    def __post_init__(self) -> None:
        """Validate the options."""
        super().__post_init__()
        if len(set(self.compare_labels)) < 2:
            raise UserError("--compare-labels: needs two or more generators")
        if min(self.cost_sizes, default=0) < 50:
            raise UserError("--cost-sizes: needs at least one number of samples, all 50 or more")


def applicable_generators(names: list[str], corpus: LabelledCorpus) -> list[str]:
    """The named generators, each once; `human` only where the corpus has such labels."""
    known = known_labels(corpus.splits["train"])
    return [name for name in dict.fromkeys(names) if known or name != "human"]


def shown_generator(name: str) -> str:
    """Its name in tables and sentences."""
    return "no unimodal tasks" if name == "none" else name


class LabelSource(Study):
    """The study `label_source`."""

    title, question, options = "Label sources", QUESTIONS["label_source"], LabelSourceOptions

    def settings(self, options: LabelSourceOptions, corpus: LabelledCorpus, source: EncoderSource) -> list[Setting]:
        """One setting: all labels follow the same stage 1."""
        return [Setting(SETTING, options, [of_generator(name) for name in applicable_generators(options.compare_labels, corpus)])]

    def outcome(self, options: LabelSourceOptions, corpus: LabelledCorpus, results: StudyResults) -> Outcome:
        """Which generators beat the first in the task, and what they cost."""
        names, train = applicable_generators(options.compare_labels, corpus), corpus.splits["train"]
        costs = measured_costs(options, corpus, results.checkpoints)
        largest, known = max(options.cost_sizes), bool(known_labels(train))
        rows, first = [], names[0]
        for name in names:
            quality = ("–", "–")
            if known and name != "none":
                pairs = [label_quality(learned, train) for learned in results.arrays(SETTING, name, "labels")]
                quality = (f"{np.mean([pair[0] for pair in pairs]):.3f}", f"{np.mean([pair[1] for pair in pairs]):.3f}")
            seconds = costs[name][largest]["seconds"] if name in costs else 0.0
            rows.append(Row(shown_generator(name), results.scores(SETTING, name), "", (*quality, f"{seconds:.2f}")))
        found = {row.name: results.difference(row.scores, rows[0].scores) for row in rows[1:]}
        better = named({name: value for name, value in found.items() if value.better})
        worse = named({name: value for name, value in found.items() if value.worse})
        shows = (
            f"Clearly better than {first} in the task: {listed(better)}"
            if better
            else f"No generator is clearly better than {first} in the task"
        )
        shows += f"; clearly worse: {listed(worse)}" if worse else ""
        shows += _meta_cost(costs, largest) + "."
        not_shown = (
            "What a clean set, which these corpora do not have, would add to the two borrowed meta-learners; " + results.limits() + "."
        )
        series = {name: [(float(n), float(cost["seconds"] or 0.0), 0.0) for n, cost in by_size.items()] for name, by_size in costs.items()}
        caption = "Seconds to make the labels of all modalities, on random inputs; for `ulgm`, its updates of one epoch of stage 3."
        figure = Figure("label_source", curves(series, "samples", "seconds", log=True), caption)
        facts = {"cost": {name: {str(size): cost for size, cost in by_size.items()} for name, by_size in costs.items()}}
        columns = ("label MAE ↓", "label Corr ↑", f"seconds at {largest}")
        return Outcome(rows, shows, not_shown, figure, columns, tables=[("Cost of the labels by samples", _cost_table(costs))], facts=facts)


def measured_costs(options: LabelSourceOptions, corpus: LabelledCorpus, checkpoints: Path) -> Costs:
    """Seconds and memory of every generator, measured once and stored."""
    path = checkpoints / COST_FILE
    stored: dict[str, dict[str, Cost]] = read_json(path) if path.is_file() else {}
    names = [name for name in options.compare_labels if name != "none"]
    sizes = sorted(set(options.cost_sizes))
    missing = [(size, name) for size in sizes for name in names if str(size) not in stored.get(name, {})]
    if missing:
        from finetune.training.trainer import open_source

        encoder, _ = open_source(options).load(corpus.audio_width, corpus.vision_width, options.seeds[0])
        for size in dict.fromkeys(size for size, _ in missing):
            inputs = random_inputs(size, corpus, int(encoder.config.hidden_size), options.model.dim)
            for name in (name for missing_size, name in missing if missing_size == size):
                stored.setdefault(name, {})[str(size)] = cost_of(name, options.generators, inputs, options.plugin_options)
                write_entries(path, stored)
    return {name: {size: stored[name][str(size)] for size in sizes} for name in names}


def random_inputs(count: int, corpus: LabelledCorpus, text_width: int, dim: int, seed: int = 0) -> LabelInputs:
    """Random inputs of `count` samples; the cost does not depend on their content."""
    random = np.random.default_rng(seed)
    widths = {TEXT: 2 * corpus.text_width or text_width, AUDIO: 2 * corpus.audio_width, VISION: 2 * corpus.vision_width}
    names = corpus.modalities
    y = random.uniform(-1, 1, count)
    states = {name: random.normal(size=(count, dim)).astype(np.float32) for name in (*names, FUSED)}
    return LabelInputs(
        y=y,
        groups=[f"v{row // 10}" for row in range(count)],
        representations=states,
        projected=states,
        descriptors={name: random.normal(size=(count, widths[name])) for name in names},
        present={name: np.ones(count, bool) for name in names},
        seed=seed,
        human=dict.fromkeys(names, y),
    )


def cost_of(generator: str, options: GeneratorOptions, inputs: LabelInputs, plugin_options: Sequence[str] = ()) -> Cost:
    """Seconds and memory to make all labels once; of a generator that learns during stage 3 also one epoch of its updates."""
    before = _reset_peak()
    began = time.perf_counter()
    made = make_generator(generator, options, plugin_options)(inputs)
    if made.online is not None:
        for start in range(0, len(inputs.y), BATCH):
            rows = torch.arange(start, min(start + BATCH, len(inputs.y)))
            made.online.after_step(rows, {name: torch.from_numpy(values)[rows] for name, values in inputs.representations.items()}, 1)
    seconds = time.perf_counter() - began
    peak = _resident("VmHWM")
    return {"seconds": round(seconds, 4), "memory_mb": None if before is None or peak is None else round(max(0.0, peak - before), 1)}


def growth(costs: dict[int, Cost]) -> float | None:
    """The exponent of seconds in the number of samples (1 is linear), fitted over the sizes; None with a single size."""
    if len(costs) < 2:
        return None
    sizes = np.log(np.array(list(costs), float))
    seconds = np.log(np.array([max(cost["seconds"] or 0.0, 1e-6) for cost in costs.values()]))
    return round(float(np.polyfit(sizes, seconds, 1)[0]), 2)


def _reset_peak() -> float | None:
    """Reset Linux's peak of resident memory; returns what is resident now (MB)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _resident("VmRSS")


def _resident(key: str) -> float | None:
    """An entry of /proc/self/status in MB, None where there is no such file."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(key)), None)


def _meta_cost(costs: Costs, size: int) -> str:
    if "mucn-meta" not in costs or "mucn-crossfit" not in costs:
        return ""
    meta, plain = (float(costs[name][size]["seconds"] or 0.0) for name in ("mucn-meta", "mucn-crossfit"))
    return f"; at {size} samples the bi-level step takes {meta:.1f} s, cross-fitting {plain:.1f} s"


def _cost_table(costs: Costs) -> Table:
    sizes = list(next(iter(costs.values())))
    rows = []
    for name, by_size in costs.items():
        cells = []
        for cost in by_size.values():
            memory = cost["memory_mb"]
            cells.append(Cell(f"{cost['seconds']:.2f} s", "" if memory is None else f"{memory:.0f} MB"))
        power = growth(by_size)
        rows.append([Cell(name), *cells, Cell("–" if power is None else f"{power:.2f}".replace("-", "−"))])
    note = "MB: peak of resident memory above the level before. Growth: exponent of seconds in the number of samples (1 is linear)."
    return Table(["", *(str(size) for size in sizes), "growth"], rows, note)
