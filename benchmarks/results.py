"""The numbers of docs/results.md made again, each with its command: `make results`, or `python -m benchmarks.results`.

    python -m benchmarks.results                       # the sample corpus alone: it is made, and needs nothing
    MSA_DATA=FOLDER python -m benchmarks.results       # the real corpora too: FOLDER/mosi, FOLDER/sims, FOLDER/reviews
    python -m benchmarks.results --only mosi           # one of them; finished runs are only read

Runs lie under --runs and go on where they stopped; a whole set takes hours on two cores. Each finished run's table is written into the
page between its marks, with the command, whether its data are real or made, seeds, seconds and the machine.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.page_blocks import machine, write_block

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results.md"
FAST = (
    "--freeze-lm --training.align-epochs 6 --training.joint-epochs 6 --training.keep last --training.precision bf16 --seeds 1111 1112 1113"
)
MOSI = "--dataset mosi --data $MSA_DATA/mosi/mosi_text_audio_train_valid.pkl --lm embedded"
SIMS = "--dataset sims --data $MSA_DATA/sims/sims_made_av_train_valid.pkl --made --lm $CHINESE_LM"


@dataclass(frozen=True)
class Experiment:
    """A run and the page's block that is made of it."""

    name: str
    command: str
    report: str
    needs: tuple[str, ...] = ()


EXPERIMENTS = [
    Experiment("demo", "make demo DEMO=$RUN", "mug/report.md"),
    Experiment(
        "mosi",
        f"python finetune/run_mug.py {MOSI} --seeds 1111 1112 1113 1114 1115 --compare-labels --controls constant text-only permuted "
        "--training.align-epochs 8 --training.joint-epochs 4 --training.keep last --dev-share 0.02 --training.batch-size 16 "
        "--training.lm-lr 1e-4 --training.precision bf16 --output $RUN",
        "report.md",
        ("MSA_DATA",),
    ),
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
"""What `$CHINESE_LM` names is a folder or hub name of a language model that reads Chinese."""


def run(experiment: Experiment, folder: Path) -> None:
    """Run an experiment's command where its report is not there yet."""
    if (folder / experiment.report).is_file():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "RUN": str(folder), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if subprocess.run(experiment.command, shell=True, cwd=ROOT, env=environment).returncode:
        raise SystemExit(f"{experiment.name}: its command failed; nothing was written. Mend what it says and run this again")


def block_of(experiment: Experiment, folder: Path) -> str:
    """The first section of the run's report, under its command and circumstances."""
    report = folder / experiment.report
    sections = report.read_text(encoding="utf-8").split("\n## ")
    table = [line for line in sections[1].splitlines()[1:] if not line.startswith(("![", "*"))]
    said = sections[0].split("\n\n")[2:]  # without the heading and the line under it
    facts = json.loads((report.parent / ("study.json" if report.name == "study.md" else "results.json")).read_text(encoding="utf-8"))
    made = "made, or partly made" if facts["data"]["made"] else "real"
    spent = f"{facts['seconds']['whole run'] / 60:.0f} minutes of fine-tuning; " if "seconds" in facts else ""
    head = f"    {experiment.command}\n\nData: {made}. Seeds: {len(facts['seeds'])}. {spent}{machine()}."
    return re.sub(r"\n{3,}", "\n\n", "\n\n".join([head, *said, "\n".join(table).strip()]))


def main() -> None:
    """Run and write what was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.results", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[e.name for e in EXPERIMENTS], choices=[e.name for e in EXPERIMENTS], metavar="NAME")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "results", help="where the runs lie (default: runs/results)")
    options = parser.parse_args()
    for experiment in (e for e in EXPERIMENTS if e.name in options.only):
        absent = [name for name in experiment.needs if not os.environ.get(name)]
        folder = options.runs / experiment.name
        if absent and not (folder / experiment.report).is_file():
            print(f"{experiment.name}: left out; set {' and '.join(absent)}", flush=True)
            continue
        print(f"== {experiment.name}", flush=True)
        run(experiment, folder)
        write_block(PAGE, experiment.name, block_of(experiment, folder), experiment.name)


if __name__ == "__main__":
    main()
