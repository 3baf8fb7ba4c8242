"""What a label generator costs: seconds and memory by the number of samples, on made inputs of the corpus's widths."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from finetune.corpora import LabelledCorpus
from finetune.labels import LabelInputs, make_generator
from finetune.modalities import AUDIO, FUSED, TEXT, VISION
from finetune.options import GeneratorOptions

BATCH = 32
Cost = dict[str, float | None]
"""`seconds`, and `memory_mb` (None where the system does not tell)."""


def made_inputs(count: int, corpus: LabelledCorpus, text_width: int, dim: int, seed: int = 0) -> LabelInputs:
    """Random inputs of `count` samples; their content does not matter to the cost."""
    random = np.random.default_rng(seed)
    widths = {TEXT: text_width, AUDIO: 2 * corpus.audio_width, VISION: 2 * corpus.vision_width}
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


def cost_of(generator: str, options: GeneratorOptions, inputs: LabelInputs, given: Sequence[str] = ()) -> Cost:
    """Of all labels once; of a generator that learns during stage 3, of one epoch of its steps beside that."""
    before = reset_peak()
    began = time.perf_counter()
    made = make_generator(generator, options, given)(inputs)
    if made.online is not None:
        for start in range(0, len(inputs.y), BATCH):
            rows = torch.arange(start, min(start + BATCH, len(inputs.y)))
            made.online.after_step(rows, {name: torch.from_numpy(values)[rows] for name, values in inputs.representations.items()}, 1)
    seconds = time.perf_counter() - began
    peak = resident("VmHWM")
    return {"seconds": round(seconds, 4), "memory_mb": None if before is None or peak is None else round(max(0.0, peak - before), 1)}


def growth(costs: dict[int, Cost]) -> float | None:
    """The exponent of seconds in the number of samples, fitted over the sizes: 1 is linear; None with a single size."""
    if len(costs) < 2:
        return None
    sizes, seconds = (
        np.log(np.array(column, float)) for column in (list(costs), [max(cost["seconds"] or 0.0, 1e-6) for cost in costs.values()])
    )
    return round(float(np.polyfit(sizes, seconds, 1)[0]), 2)


def reset_peak() -> float | None:
    """Have Linux count the peak of resident memory anew; gives what is resident now (MB)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return resident("VmRSS")


def resident(key: str) -> float | None:
    """An entry of /proc/self/status in MB, None where there is no such file."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(key)), None)
