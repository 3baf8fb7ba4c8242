"""Where do learned unimodal labels help? Synthetic features: contradiction between modalities x noise of y x number of labels.

    python -m benchmarks.label_map --output RUN        # a quarter of an hour on one thread; writes map.md, map.png, map.json

**Corpus** (no media, new for every seed). An utterance has a sentiment c ~ N(0, .45); words, voice and face have s_m = c + N(0, .1). With
probability `contradiction` one of them, drawn at random, contradicts: its sentiment has the opposite sign of c and a size of its own. Each
modality is 24 columns: s_m in one direction, 6 nuisance directions, noise; from 800 true labels, a ridge regression finds s_T with Corr .9,
s_A and s_V with .7. y = .45 s_T + .25 s_A + .30 s_V, plus N(0, `noise`) in training and development (a quarter as many utterances), all
in [-1, 1]. The 1,000 test utterances have no noise.

**Models.** Stage 3 of MUG with `--model.fusion unimodal`: h_m = ReLU(W_m x_m), y_M from ReLU(sum of V_m h_m), a linear head per modality,
dropout .3, L1 losses of weight 1, AdamW, 500 batches of 32, the best of 25 checkpoints on the development part. Stage 1 and its alignment
are left out. The labels of `mucn-crossfit` come from the toolkit's generator with a third of its steps. The four models of a seed start
from the same weights and see the same batches and dropout. All are trained at once, as one stacked network.

**Rule, set before the run.** Two models differ clearly if a paired t-test over the seeds has p < .05 and their mean MAE differs by .005 or
more. With 27 cells, one or two of each comparison pass p < .05 by chance.
"""

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from skesl_mug.console import CommandOptions, run_command

MODELS = ("none", "copy", "mucn-crossfit", "true")
NAMES = {"none": "no unimodal tasks", "copy": "y copied", "mucn-crossfit": "`mucn-crossfit`", "true": "true unimodal labels"}
WEIGHTS = {"text": 0.45, "audio": 0.25, "vision": 0.30}
SIGNAL = {"text": 2.1, "audio": 0.75, "vision": 0.75}
"""Length of the sentiment's direction; the noise has deviation .35 per column."""
WIDTH, NUISANCE, DIM, TEST = 24, 6, 24, 1000
BATCH, EVERY, BATCHES, DROPOUT, RATE = 32, 20, 500, 0.3, 3e-3
MARGIN = 0.005


@dataclass(kw_only=True)
class MapOptions(CommandOptions):
    """Map where learned unimodal labels help, on synthetic features."""

    output: Path
    """Folder for map.md, map.png and map.json."""
    contradiction: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5])
    """Shares of utterances in which one modality contradicts the others."""
    noise: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5])
    """Standard deviations of the noise of y (labels divided by the largest label)."""
    sizes: list[int] = field(default_factory=lambda: [64, 256, 1024])
    """Numbers of training utterances."""
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5])
    """Seeds, each with a corpus and weights of its own."""
    threads: int = 1
    """Threads."""


def main(options: MapOptions) -> None:
    """Train the map, print and write it."""
    import numpy as np
    import torch

    torch.set_num_threads(options.threads)
    began, cells = time.perf_counter(), []
    for size in options.sizes:
        grid = [(share, noise) for share in options.contradiction for noise in options.noise]
        corpora = [corpus(share, noise, size, seed) for share, noise in grid for seed in options.seeds]
        label_error = [[float(np.mean(np.abs(c["labels"][name] - c["labels"]["true"]))) for c in corpora] for name in MODELS[1:3]]
        print(f"{size} utterances: labels of {len(corpora)} corpora learned after {time.perf_counter() - began:.0f} s", flush=True)
        errors = train(corpora, [seed for _ in grid for seed in options.seeds])
        for place, (share, noise) in enumerate(grid):
            rows = slice(place * len(options.seeds), (place + 1) * len(options.seeds))
            found = {name: errors[rows, column].tolist() for column, name in enumerate(MODELS)}
            quality = {name: float(np.mean(values[rows])) for name, values in zip(MODELS[1:3], label_error, strict=True)}
            cells.append({"size": size, "contradiction": share, "noise": noise, "MAE": found, "label_MAE": quality})
        print(f"  trained after {time.perf_counter() - began:.0f} s", flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "map.json").write_text(json.dumps({"seeds": options.seeds, "cells": cells}, indent=1), encoding="utf-8")
    table = markdown(cells)
    (options.output / "map.md").write_text(table, encoding="utf-8")
    draw(cells, options, options.output / "map.png")
    print(f"{table}\n{time.perf_counter() - began:.0f} s")


def corpus(contradiction: float, noise: float, size: int, seed: int) -> dict[str, Any]:
    """One corpus: `x` [N + dev + TEST, 3, WIDTH], `y` [N + dev + TEST], `labels` by model [3, N + dev] (learned on N alone), `size` N.

    Cells that differ in the noise of y, or in the contradiction, use the same draws.
    """
    import numpy as np

    from finetune.labels import LabelInputs, make_generator
    from finetune.options import GeneratorOptions

    random = np.random.default_rng([seed, size])
    count = size + size // 4 + TEST
    sentiment = random.normal(0, 0.45, (count, 1))
    scores = sentiment + random.normal(0, 0.1, (count, 3))
    opposed = -np.sign(sentiment[:, 0]) * random.uniform(0.2, 1.0, count)
    contradicts, which = random.random(count) < contradiction, random.integers(3, size=count)
    scores[contradicts, which[contradicts]] = opposed[contradicts]
    scores = np.clip(scores, -1, 1)
    x = np.empty((count, 3, WIDTH))
    for place, name in enumerate(WEIGHTS):
        directions = np.linalg.qr(random.normal(size=(WIDTH, NUISANCE + 1)))[0].T
        x[:, place] = scores[:, [place]] * SIGNAL[name] * directions[0] + random.normal(size=(count, NUISANCE)) @ directions[1:]
        x[:, place] += 0.35 * random.normal(size=(count, WIDTH))
    clean = scores @ np.array(list(WEIGHTS.values()))
    noisy = np.clip(clean + noise * random.normal(size=count), -1, 1)
    train = slice(0, size)
    x = (x - x[train].mean(0)) / x[train].std(0)
    generators = GeneratorOptions()
    generators.crossfit.steps //= 3
    names = list(WEIGHTS)
    inputs = LabelInputs(
        y=noisy[train], groups=[str(row // 4) for row in range(size)], representations={}, projected={},
        descriptors={name: x[train, place] for place, name in enumerate(names)},
        present={name: np.ones(size, bool) for name in names}, seed=seed,
    )  # fmt: skip
    learned = make_generator("mucn-crossfit", generators)(inputs).labels
    labels = {"copy": np.tile(noisy[train], (3, 1)), "mucn-crossfit": np.stack([learned[name] for name in names]), "true": scores[train].T}
    return {"x": x, "y": np.concatenate([noisy[: size + size // 4], clean[size + size // 4 :]]), "labels": labels, "size": size}


def train(corpora: list[dict[str, Any]], seeds: list[int]) -> Any:
    """Test MAE [corpora, models] at the best checkpoint; every model of every corpus is one slice of stacked tensors."""
    import numpy as np
    import torch

    size, groups, models = corpora[0]["size"], len(corpora), len(MODELS)
    x = torch.tensor(np.stack([c["x"] for c in corpora]), dtype=torch.float32).transpose(1, 2)  # [G, 3, N, D]
    y = torch.tensor(np.stack([c["y"] for c in corpora]), dtype=torch.float32)
    nothing = np.zeros((3, size))
    labels = torch.tensor(
        np.stack([[c["labels"].get(name, nothing) for name in MODELS] for c in corpora]), dtype=torch.float32
    )  # [G, M, 3, N]
    taught = torch.tensor([float(name != "none") for name in MODELS])[None, :, None]
    streams = [torch.Generator().manual_seed(seed) for seed in seeds]

    def started(*shape: int) -> torch.Tensor:
        weights = torch.stack([(torch.rand(shape, generator=stream) * 2 - 1) / shape[-2] ** 0.5 for stream in streams])
        return weights.unsqueeze(1).repeat(1, models, *[1] * len(shape)).requires_grad_()

    first, gather, heads = started(3, WIDTH, DIM), started(3, DIM, DIM), started(4, DIM, 1)
    biases = [torch.zeros(groups, models, n, 1, d, requires_grad=True) for n, d in ((3, DIM), (1, DIM), (4, 1))]
    parameters = [first, gather, heads, *biases]

    def predict(batch: torch.Tensor, kept: torch.Tensor | float) -> torch.Tensor:
        """[G, 3, B, D] to predictions [G, M, 4, B]: words, voice, face, fused."""
        hidden = torch.relu(batch.unsqueeze(1) @ first + biases[0])
        fused = torch.relu(((hidden * kept) @ gather).sum(2, keepdim=True) + biases[1])
        return (torch.cat([hidden, fused], 2) @ heads + biases[2]).squeeze(-1)

    optimiser = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.01)
    best, result = torch.full((groups, models), torch.inf), torch.zeros(groups, models)
    order, rest = [torch.empty(0, dtype=torch.long)] * groups, slice(size, None)
    for step in range(1, BATCHES + 1):
        if len(order[0]) < BATCH:
            order = [torch.randperm(size, generator=stream) for stream in streams]
        rows = torch.stack([each[:BATCH] for each in order])
        order = [each[BATCH:] for each in order]
        batch = x.gather(2, rows[:, None, :, None].expand(-1, 3, -1, WIDTH))
        kept = torch.stack([(torch.rand((1, 3, BATCH, DIM), generator=s) >= DROPOUT).float() for s in streams]) / (1 - DROPOUT)
        found = predict(batch, kept)
        target = y.gather(1, rows)[:, None]
        own = labels.gather(3, rows[:, None, None].expand(-1, models, 3, -1))
        loss = (found[:, :, 3] - target).abs().mean(-1) + (taught * (found[:, :, :3] - own).abs().mean(-1)).sum(2)
        optimiser.zero_grad()
        loss.sum().backward()
        optimiser.step()
        if step % EVERY == 0:
            with torch.no_grad():
                error = (predict(x[:, :, rest], 1.0)[:, :, 3] - y[:, None, rest]).abs()
            held_out, test = error[..., : size // 4].mean(-1), error[..., size // 4 :].mean(-1)
            better = held_out < best
            best, result = torch.where(better, held_out, best), torch.where(better, test, result)
    return result.numpy()


def compared(cell: dict[str, Any], first: str, second: str) -> tuple[float, bool, float]:
    """MAE of `first` minus that of `second`, whether it is clear, and the smallest difference that the test could have shown."""
    from finetune.significance import SIGNIFICANCE, paired_over_seeds

    found = paired_over_seeds(cell["MAE"][first], cell["MAE"][second])
    if found is None:
        return 0.0, False, float("nan")
    return found["difference"], found["p"] < SIGNIFICANCE and abs(found["difference"]) >= MARGIN, found["detectable"]


COMPARISONS = (
    ("copy", "mucn-crossfit", "copy − crossfit"),
    ("copy", "true", "copy − true"),
    ("none", "copy", "none − copy"),
    ("none", "true", "none − true"),
)


def markdown(cells: list[dict[str, Any]]) -> str:
    """The table; differences in bold are clear."""
    from statistics import fmean

    from skesl_mug.wording import signed

    heads = [
        "labels",
        "contradiction",
        "noise",
        "MAE none",
        "copy",
        "crossfit",
        "true",
        *(title for *_, title in COMPARISONS),
        "detectable",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for cell in cells:
        found = [compared(cell, first, second) for first, second, _ in COMPARISONS]
        differences = [f"**{signed(value, 3)}**" if clear else signed(value, 3) for value, clear, _ in found]
        maes = [f"{fmean(cell['MAE'][name]):.3f}" for name in MODELS]
        row = [str(cell["size"]), f"{cell['contradiction']:g}", f"{cell['noise']:g}", *maes, *differences, f"{found[0][2]:.3f}"]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def draw(cells: list[dict[str, Any]], options: MapOptions, path: Path) -> None:
    """Heat maps of two comparisons by number of labels; a star marks clear differences."""
    import matplotlib
    import numpy as np

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from skesl_mug.wording import signed

    shown = COMPARISONS[:2]
    figure, axes = plt.subplots(len(shown), len(options.sizes), figsize=(3.1 * len(options.sizes) + 1, 2.9 * len(shown)), squeeze=False)
    by_place = {(cell["size"], cell["contradiction"], cell["noise"]): cell for cell in cells}
    limit = max(abs(compared(cell, first, second)[0]) for cell in cells for first, second, _ in shown) or 1.0
    image = None
    for row, (first, second, _) in enumerate(shown):
        for column, size in enumerate(options.sizes):
            axis = axes[row, column]
            found = [[compared(by_place[size, s, n], first, second) for n in options.noise] for s in options.contradiction]
            image = axis.imshow(np.array([[f[0] for f in line] for line in found]), cmap="RdBu", vmin=-limit, vmax=limit, origin="lower")
            for i, line in enumerate(found):
                for j, (value, clear, _) in enumerate(line):
                    colour = "white" if abs(value) > 0.6 * limit else "black"
                    axis.text(j, i, signed(value, 3) + ("*" if clear else ""), ha="center", va="center", fontsize=8, color=colour)
            axis.set_xticks(range(len(options.noise)), [f"{n:g}" for n in options.noise])
            axis.set_yticks(range(len(options.contradiction)), [f"{s:g}" for s in options.contradiction])
            axis.set_title(f"{size} labels: {first} − {second}", fontsize=8)
            axis.set_xlabel("noise of y", fontsize=8)
            if column == 0:
                axis.set_ylabel("share of contradictions", fontsize=8)
    assert image is not None
    figure.tight_layout()
    figure.colorbar(image, ax=axes, shrink=0.7, label="difference in MAE; blue: the second labels are better; *: clear")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    run_command(MapOptions, main)
