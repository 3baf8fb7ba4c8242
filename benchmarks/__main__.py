"""Run all benchmarks and write their output into docs/performance.md: `make bench`, or `python -m benchmarks`.

    python -m benchmarks --model demo/mug            # a run of finetune/run_mug.py, for the prediction benchmark
    python -m benchmarks --only pretrain_step        # some of them; the others keep their output

Each benchmark runs in its own single-threaded process and interleaves what it compares. Use an otherwise idle machine: the load at the
start is printed with each block. `pretraining_gain.py` measures accuracy, takes hours, and is run separately.
"""

import argparse
import ast
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.page_blocks import machine, write_block

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
ARGUMENTS = {
    "preprocess": ["--clips", "60", "--processes", "2", "--memory"],
    "audio_features": [],
    "pretrain_step": ["--lengths", "realistic"],
    "reading": [],
    "pretrain_memory": ["--rows", "10000", "100000", "--steps", "200"],
    "finetune_step": [],
    "corpus_memory": ["--folder", "SCRATCH"],
    "predict": ["--model", "MODEL"],
}


def run(name: str, arguments: list[str]) -> str:
    """Run one benchmark, echo its output, and return it as a block of Markdown."""
    script = ROOT / "benchmarks" / f"{name}.py"
    command = " ".join(["python", f"benchmarks/{name}.py", *arguments])
    print(f"== {command}", flush=True)
    load, began, lines = os.getloadavg()[0], time.perf_counter(), []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with subprocess.Popen([sys.executable, str(script), *arguments], stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stdout or ():
            lines.append(line.rstrip())
            print(line, end="", flush=True)
    if process.returncode:
        raise SystemExit(f"{command}: ended with status {process.returncode}; docs/performance.md keeps its earlier lines")
    about = (ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    took = f"{machine()}; load {load:.1f} at the start, {time.perf_counter() - began:.0f} s in all."
    shown = re.sub(rf"{re.escape(tempfile.gettempdir())}/\S+", "SCRATCH", command)
    return f"{about}\n\n    {shown}\n\n{took}\n\n```\n" + "\n".join(lines) + "\n```\n"


def main() -> None:
    """Run what is asked for, one after the other; each block is written at once."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(ARGUMENTS), choices=list(ARGUMENTS))
    parser.add_argument("--model", type=Path, default=Path("demo/mug"), help="a run of finetune/run_mug.py (default: the demo's)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        known = {"SCRATCH": scratch, "MODEL": str(options.model)}
        for name in options.only:
            if name == "predict" and not (options.model / "results.json").is_file():
                print(f"== predict skipped: --model {options.model} is not a finished run; `make demo` makes one", flush=True)
                continue
            block = run(name, [known.get(argument, argument) for argument in ARGUMENTS[name]])
            write_block(PAGE, name, block)


if __name__ == "__main__":
    main()
