"""What each part of the fine-tuning recipe is worth on CMU-MOSI: one run of `run_mug.py` per row, and a table of docs/results.md.

    MSA_DATA=FOLDER python -m benchmarks.mosi_recipe --output RUNS --table docs/results.md

Every row is the first row's command with the flags that the table shows; differences are paired by seed. All rows are reported on `valid`,
on which nothing was chosen; the flags were chosen by cross-validation over the videos of train. Finished runs are only read.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.page_blocks import machine, write_block
from benchmarks.results import ROOT, version
from skesl_mug.console import CommandOptions, run_command
from skesl_mug.errors import UserError

MOSI = Path(os.environ.get("MSA_DATA", "")) / "mosi" / "mosi_text_audio_train_valid.pkl"
RECIPE = "--dev-share 0.02 --compare-labels"
FULL = "--average-seeds --controls constant text-only permuted"
PARTS = {
    "full": ("Full recipe", FULL),
    "cold": (
        "− warm start",
        "--training.align-epochs 4 --training.joint-epochs 4 --training.keep last --training.batch-size 16 --training.lr 1e-3 "
        "--training.encoder-lr 1e-4 --training.lm-lr 1e-4 --model.dropout 0.1",
    ),
    "one-stage": ("− stage 1", "--training.align-epochs 0 --training.joint-epochs 8"),
    "copy": ("− learned labels (y copied)", "--labels copy"),
    "no-tasks": ("− unimodal tasks", "--labels none"),
    "no-anchors": ("− anchors", "--generators.crossfit.anchors none"),
    "gates": ("− gates", "--model.gates none"),
    "averaging": ("+ weight averaging", "--training.average-epochs 2"),
    "context": ("+ context of 2", "--context 2"),
}
"""Rows by folder: the name, and the flags that follow the common ones."""
METRICS = ("MAE", "Corr", "Has0_acc_2", "Non0_acc_2", "Mult_acc_7")


@dataclass(kw_only=True)
class MosiRecipeOptions(CommandOptions):
    """What each part of the fine-tuning recipe is worth on CMU-MOSI."""

    output: Path
    """Folder of the runs, one below it per row; finished ones are only read."""
    mosi: Path = MOSI
    """CMU-MOSI as an MMSA pickle (default: in the folder that MSA_DATA names)."""
    lm: str = "embedded"
    """The starter's language model; its name in the table."""
    encoder: str | None = None
    """A pretraining run to start from instead of `starter:LM`."""
    rows: list[str] = field(default_factory=lambda: list(PARTS))
    """Rows to run and show; `full` is the one that the others are compared with."""
    seeds: list[int] = field(default_factory=lambda: [1111, 1112, 1113, 1114, 1115])
    """Seeds of every row."""
    workers: int = 1
    """Seeds to train in parallel, per row."""
    jobs: int = 1
    """Rows to run in parallel."""
    table: Path | None = None
    """A Markdown file: its block `mosi-recipe-LM` is replaced."""
    measured: str | None = None
    """Version and machine of the runs, if they were made elsewhere."""

    def __post_init__(self) -> None:
        """Validate the options."""
        unknown = sorted(set(self.rows) - set(PARTS))
        if unknown:
            raise UserError(f"--rows {unknown[0]}: choose from {', '.join(PARTS)}")
        if not self.mosi.is_file():
            raise UserError(f"--mosi {self.mosi}: does not exist; pass CMU-MOSI as an MMSA pickle, or set MSA_DATA")


def command_of(options: MosiRecipeOptions, row: str) -> list[str]:
    """The arguments of a row's run."""
    start = ["--lm", options.lm] if row == "cold" else ["--encoder", options.encoder or f"starter:{options.lm}"]
    flags = PARTS[row][1].split() + ([] if row == "full" else ["--controls"])
    seeds = ["--seeds", *map(str, options.seeds), "--workers", str(options.workers)]
    return [
        "--dataset",
        "mosi",
        "--data",
        str(options.mosi),
        *start,
        *seeds,
        *RECIPE.split(),
        *flags,
        "--output",
        str(options.output / row),
    ]


def run(options: MosiRecipeOptions, row: str) -> None:
    """Train a row; its log is beside its folder.

    Raises:
        UserError: the run failed.
    """
    if (options.output / row / "results.json").is_file():
        return
    with (options.output / f"{row}.log").open("w") as log:
        command = [sys.executable, str(ROOT / "finetune" / "run_mug.py"), *command_of(options, row)]
        if subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL).returncode:
            raise UserError(f"{row}: failed; see {options.output / row}.log")
    print(f"{row}: done", flush=True)


def cells(mean: dict[str, Any], std: dict[str, Any]) -> list[str]:
    """MAE, Corr, Acc2 (has0 / non0) and Acc7, with the deviation where there is one."""

    def one(key: str) -> str:
        scale, digits = (100, 1) if "acc" in key else (1, 3)
        parts = [values[key] for values in (mean, std) if values.get(key) is not None]
        return " ± ".join(f"{scale * part:.{digits}f}" for part in parts) or "–"

    return [one("MAE"), one("Corr"), f"{one('Has0_acc_2')} / {one('Non0_acc_2')}", one("Mult_acc_7")]


def table_of(options: MosiRecipeOptions) -> str:
    """Markdown: every row, the paired difference in MAE to the first, and the flags."""
    from finetune.significance import paired_over_seeds
    from finetune.training.variants import humanise

    found = {row: json.loads((options.output / row / "results.json").read_text(encoding="utf-8")) for row in options.rows}

    def maes(row: str) -> list[float]:
        return [found[row]["metrics"][str(seed)]["MAE"] for seed in options.seeds]

    def difference(ours: list[float]) -> str:
        paired = paired_over_seeds(ours, maes("full"))
        if paired is None:
            return ""
        p = f"p = {paired['p']:.2g}" if paired["p"] >= 0.001 else "p < .001"
        return f"{paired['difference']:+.3f} ({p})".replace("-", "−")

    lines = ["| | MAE | Corr | Acc2 has0 / non0 | Acc7 | Δ MAE |", "|---|---|---|---|---|---|"]
    for row, results in found.items():
        change = "" if row == "full" or "full" not in found else difference(maes(row))
        lines.append("| " + " | ".join([PARTS[row][0], *cells(results["metrics"]["mean"], results["metrics"]["std"]), change]) + " |")
    for row in [row for row in ("full", "no-tasks") if found.get(row, {}).get("seeds_averaged")]:
        averaged = found[row]["seeds_averaged"]
        lines.append("| " + " | ".join([averaged["name"], *cells(averaged["mean"], {}), ""]) + " |")
    for name, entry in found.get("full", {}).get("controls", {}).items():
        lines.append("| " + " | ".join([humanise(name), *cells(entry["mean"], {} if name == "constant" else entry["std"]), ""]) + " |")
    return "\n".join(lines)


def main(options: MosiRecipeOptions) -> None:
    """Run what is missing and print the table."""
    options.output.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda row: run(options, row), options.rows))
    table = table_of(options)
    print(table)
    if options.table is not None:
        flags = f"Flags of every row: `{RECIPE}`, and\n\n" + "\n".join(f"- {PARTS[row][0]}: `{PARTS[row][1]}`" for row in options.rows)
        head = f"Data: real. {len(options.seeds)} seeds. {options.measured or f'Version {version()}; {machine()}'}."
        write_block(options.table, f"mosi-recipe-{options.lm}", f"{head}\n\n{table}\n\n{flags}", f"CMU-MOSI, recipe ({options.lm})")


if __name__ == "__main__":
    run_command(MosiRecipeOptions, main)
