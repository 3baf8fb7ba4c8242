"""The commands of docs/tutorial.md, and options that make them small enough for a test."""

import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
SMALL = {
    "sample": ["--clips", "6", "--workers", "1"],
    "preprocess": ["--workers", "1", "--reference-transcripts", "corpus/truth.csv"],
    "pretrain": ["--all-splits", "--epochs", "1", "--data", "data/unlabelled", "data/labelled"],
    "finetune": [
        "--seeds", "1", "--compare-labels", "copy", "--controls", "constant", "permuted", "no-pretraining",
        "--generators.crossfit.folds-by", "utterance", "--training.align-epochs", "1", "--training.joint-epochs", "1",
    ],
}  # fmt: skip
"""Appended to a command; of two equal flags the last counts."""
HAS_ONNX = all(find_spec(name) is not None for name in ("onnx", "onnxruntime"))
SKESL_MUG = [sys.executable, "-c", "import sys; sys.argv[0] = 'skesl-mug'; from skesl_mug.commands import main; main()"]


def commands_of(page: str) -> list[list[str]]:
    """The `skesl-mug` commands of a Markdown page as words, without `skesl-mug` itself."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    indented = re.findall(r"(?:^    .*\n)+", page, flags=re.MULTILINE)
    blocks = [*(text for language, text in fenced if language in ("", "bash")), *indented]
    lines = [line.split("  #")[0].strip(" .") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("skesl-mug ")]


def tutorial_commands() -> list[list[str]]:
    """The tutorial's commands in order."""
    return commands_of(TUTORIAL)


def run_tutorial(folder: Path) -> None:
    """Every step as typed, in a folder with the checkout's packages; step 9 waits for a browser and is tested in test_finetune_web.py."""
    for room in ("skesl_mug", "preprocessing", "pretrain", "finetune", "lexicons"):
        (folder / room).symlink_to(ROOT / room)
    for command in tutorial_commands():
        if command[0] == "web" or (command[0] == "export" and not HAS_ONNX):
            continue
        done = subprocess.run(
            [*SKESL_MUG, *command, *SMALL.get(command[0], [])], cwd=folder, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr[-2000:]}"
        assert "Traceback" not in done.stderr
