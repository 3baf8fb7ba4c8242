"""Does pretraining in bfloat16 match float32? Loss curves of both over seeds, on unlabelled text.

    MSA_DATA=FOLDER python benchmarks/precision_curves.py --output runs/precision

One line per epoch: training loss and validation MAE in both precisions (mean and standard deviation over the seeds), and the mean paired
difference with its standard error; `alike` if the difference is smaller than the deviation over seeds. The language model is trained.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.pretraining_gain import CORPORA, GainOptions, make_dataset, read_sentences
from skesl_mug.console import CommandOptions, run_command


@dataclass(kw_only=True)
class CurveOptions(CommandOptions):
    """Compare the loss curves of bfloat16 and float32 over seeds."""

    output: Path
    """Folder of the dataset and the runs; finished runs are only read."""
    sentences: Path = CORPORA / "reviews" / "sentences.txt"
    """Unlabelled sentences, one a line."""
    rows: int = 3000
    """How many of them."""
    epochs: int = 4
    """Passes."""
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    """Each decides the new weights, the order, the held-out part and dropout."""
    lm: str = "embedded"
    """The language model."""


def curve(options: CurveOptions, data: Path, precision: str, seed: int) -> list[dict[str, float]]:
    """The entries of one run, epoch by epoch."""
    from pretrain.options import PretrainOptions
    from pretrain.pretraining import run_pretraining

    run = options.output / f"{precision}_{seed}"
    if not (run / "results.json").is_file():
        run_pretraining(
            PretrainOptions(
                data=[str(data)], output=run, lm=options.lm, freeze_lm=False, epochs=options.epochs, patience=0, seed=seed,
                precision=precision, checkpoint_steps=0, lm_lr=5e-5, lr=1e-4, valid_share=0.1,  # type: ignore[arg-type]
            )
        )  # fmt: skip
    return list(json.loads((run / "results.json").read_text(encoding="utf-8"))["history"])


def main(options: CurveOptions) -> None:
    """Train what is missing, print the comparison."""
    import numpy as np

    gain = GainOptions(output=options.output, sentences=options.sentences, rows=options.rows)
    data = make_dataset(options.output / "data", read_sentences(gain), shuffled=False)
    curves = {name: [curve(options, data, name, seed) for seed in options.seeds] for name in ("fp32", "bf16")}
    for what in ("train_loss", "valid_MAE"):
        full, half = (np.array([[epoch[what] for epoch in run] for run in curves[name]]) for name in ("fp32", "bf16"))
        for epoch in range(full.shape[1]):
            apart = half[:, epoch] - full[:, epoch]
            spread = full[:, epoch].std(ddof=1)
            verdict = "alike" if abs(apart.mean()) < spread else "NOT alike"
            sides = [
                f"{name} {side.mean():.4f} ± {side.std(ddof=1):.4f}" for name, side in (("fp32", full[:, epoch]), ("bf16", half[:, epoch]))
            ]
            error = apart.std(ddof=1) / len(apart) ** 0.5
            print(f"{what} epoch {epoch + 1}: {'  '.join(sides)}  bf16 - fp32 {apart.mean():+.4f} ± {error:.4f}  {verdict}")


if __name__ == "__main__":
    run_command(CurveOptions, main)
