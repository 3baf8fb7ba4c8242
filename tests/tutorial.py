"""The commands of docs/tutorial.md, and what makes them small enough for a test."""

import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
SMALL = {
    "preprocessing/sample_corpus.py": ["--clips", "6", "--workers", "1"],
    "preprocessing/run.py": ["--workers", "1", "--reference-transcripts", "corpus/truth.csv"],
    "pretrain/run.py": ["--all-splits", "--epochs", "1", "--data", "data/unlabelled", "data/labelled"],
    "finetune/run_mug.py": [
        "--seeds", "1", "--compare-labels", "copy", "--controls", "constant", "permuted", "no-pretraining",
        "--generators.crossfit.folds-by", "utterance", "--training.align-epochs", "1", "--training.joint-epochs", "1",
    ],
}  # fmt: skip
"""Added to a step; the last of two equal flags counts."""
HAS_ONNX = all(find_spec(name) is not None for name in ("onnx", "onnxruntime"))


def tutorial_commands() -> list[list[str]]:
    """The commands in order, as words."""
    return [shlex.split(line) for block in re.findall(r"```\n(.*?)```", TUTORIAL, flags=re.DOTALL) for line in block.splitlines()]


def script_of(command: list[str]) -> str:
    """The script or module that a command runs."""
    return next((word for word in command if word.endswith(".py")), command[2])


def run_tutorial(folder: Path) -> None:
    """Every step as typed, in a folder that sees the checkout; step 9 waits for a browser and is tested in test_finetune_web.py."""
    for room in ("preprocessing", "pretrain", "finetune", "lexicons"):
        (folder / room).symlink_to(ROOT / room)
    for command in tutorial_commands():
        script = script_of(command)
        if script == "finetune/web.py" or (script == "finetune.export" and not HAS_ONNX):
            continue
        words = ["-m", "accelerate.commands.launch", *command[2:]] if command[0] == "accelerate" else command[1:]
        done = subprocess.run(
            [sys.executable, *words, *SMALL.get(script, [])], cwd=folder, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr[-2000:]}"
        assert "Traceback" not in done.stderr
