"""Make the tables of docs/results.md: `make results`, or `python -m benchmarks.results`.

    python -m benchmarks.results                       # the sample corpus only, which needs no data
    MSA_DATA=FOLDER python -m benchmarks.results       # the real corpora too: FOLDER/mosi, FOLDER/sims, FOLDER/reviews
    python -m benchmarks.results --only mosi           # one of them; finished runs are only read

Runs are kept under --runs and resume. All of them take hours on two cores. Each finished run's main table is written into the page between
its marks, with the command, the data (real or synthetic), seeds, time, version and machine.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from importlib import metadata
from itertools import takewhile
from pathlib import Path

from benchmarks.page_blocks import machine, write_block

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results.md"
FAST = (
    "--freeze-lm --training.align-epochs 6 --training.joint-epochs 6 --training.keep last --training.precision bf16 --seeds 1111 1112 1113"
)
MOSI = "--dataset mosi --data $MSA_DATA/mosi/mosi_text_audio_train_valid.pkl --lm embedded"
SIMS = "--dataset sims --data $MSA_DATA/sims/sims_made_av_train_valid.pkl --synthetic --lm $CHINESE_LM"


@dataclass(frozen=True)
class Experiment:
    """A run and its block on the page."""

    name: str
    command: str
    report: str
    needs: tuple[str, ...] = ()


EXPERIMENTS = [
    Experiment("demo", "make demo DEMO=$RUN", "mug/report.md"),
    Experiment(
        "sims",
        f"python finetune/run_mug.py {SIMS} --freeze-lm --seeds 1 2 3 4 5 6 7 8 9 10 --compare-labels copy shuffled human "
        "--controls constant permuted --training.align-epochs 10 --training.joint-epochs 10 --training.keep last "
        "--training.precision bf16 --output $RUN",
        "report.md",
        ("MSA_DATA", "CHINESE_LM"),
    ),
    *(
        Experiment(f"{corpus}-{study}", f"python -m finetune.studies {study} {options} {FAST} --output $RUN", "study.md", needs)
        for corpus, options, needs in (("mosi", MOSI, ("MSA_DATA",)), ("sims", SIMS, ("MSA_DATA", "CHINESE_LM")))
        for study in ("ablation", "label_source", "label_noise", "missing_modality", "data_size", "interaction")
    ),
    *(
        Experiment(
            f"sims-{study}", f"python -m finetune.studies {study} {SIMS} {FAST} --output $RUN", "study.md", ("MSA_DATA", "CHINESE_LM")
        )
        for study in ("label_quality", "label_ambiguity")
    ),
]
"""`$CHINESE_LM` is the folder or hub name of a language model for Chinese."""


def run(experiment: Experiment, folder: Path) -> None:
    """Run an experiment's command unless its report exists."""
    if (folder / experiment.report).is_file():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "RUN": str(folder), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if subprocess.run(experiment.command, shell=True, cwd=ROOT, env=environment).returncode:
        raise SystemExit(f"{experiment.name}: its command failed and nothing was written; fix the error above and run this again")


def block_of(experiment: Experiment, folder: Path) -> str:
    """The command, its circumstances, the verdicts, and the first table of the run's report."""
    report = folder / experiment.report
    lines = report.read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    table = list(takewhile(lambda line: line.startswith("|"), lines[first:]))
    verdicts = [line for line in lines[:first] if line.startswith(("- ✓", "- ✗", "- ≈"))]
    facts = json.loads((report.parent / ("study.json" if report.name == "study.md" else "results.json")).read_text(encoding="utf-8"))
    data = "synthetic, or partly synthetic" if facts["data"].get("synthetic", facts["data"].get("made")) else "real"
    spent = f" {facts['seconds']['whole run'] / 60:.0f} minutes of fine-tuning." if "seconds" in facts else ""
    head = f"    {experiment.command}\n\nData: {data}. {len(facts['seeds'])} seeds.{spent} Version {version()}; {machine()}."
    return "\n\n".join([head, *(["\n".join(verdicts)] if verdicts else []), "\n".join(round_table(table))])


def version() -> str:
    """The measured commit, or the package's version outside a repository."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or metadata.version("skesl-mug")


def round_table(table: list[str]) -> list[str]:
    """A report's table without digits that the seeds do not support: three decimals become two, percentages keep one.

    Where the method's own row varies by less than .01 in the first column (scales such as CH-SIMS's -1 to 1), three decimals stay. P values
    get two significant digits.
    """
    deviations = [float(found) for line in table[2:3] for found in re.findall(r"± (\d\.\d{3})\b", line)]
    keep = 3 if deviations and deviations[0] < 0.0095 else 2

    def shorten(found: re.Match[str]) -> str:
        digits = keep if len(found["decimals"]) == 3 else 1
        return f"{found['sign']}{Decimal(found['number']).quantize(Decimal(10) ** -digits, ROUND_HALF_UP)}"

    rounded = []
    for line in table:
        line = re.sub(r"p = (\d\.\d+)", lambda found: f"p = {float(found[1]):.2g}" if float(found[1]) >= 0.001 else "p < .001", line)
        parts = re.split(r"(p (?:[=<] )?[\d.e-]+)", line)
        number = r"(?P<sign>[+−-]?)(?P<number>\d+\.(?P<decimals>\d{2,3}))\b"
        parts[::2] = [re.sub(number, shorten, part) for part in parts[::2]]
        rounded.append(re.sub(r"[−-](0\.0+)\b", r"\1", "".join(parts)))
    return rounded


def main() -> None:
    """Run the chosen experiments and write their tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.results", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[e.name for e in EXPERIMENTS], choices=[e.name for e in EXPERIMENTS], metavar="NAME")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "results", help="folder of the runs (default: runs/results)")
    options = parser.parse_args()
    for experiment in (e for e in EXPERIMENTS if e.name in options.only):
        absent = [name for name in experiment.needs if not os.environ.get(name)]
        folder = options.runs / experiment.name
        if absent and not (folder / experiment.report).is_file():
            print(f"{experiment.name}: skipped; set {' and '.join(absent)}", flush=True)
            continue
        print(f"== {experiment.name}", flush=True)
        run(experiment, folder)
        write_block(PAGE, experiment.name, block_of(experiment, folder), experiment.name)


if __name__ == "__main__":
    main()
