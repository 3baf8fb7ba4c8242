"""README's commands are ones that the toolkit understands."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    blocks = re.findall(r"```\n(.*?)```", README, flags=re.DOTALL)
    lines = [line.split("  #")[0] for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line) for line in lines if re.search(r"(preprocessing|pretrain|finetune)/\w+\.py", line)]


def options_of(script: str) -> type:
    if script == "preprocessing/run.py":
        from preprocessing.run import Options

        return Options
    if script == "pretrain/run.py":
        from pretrain.options import PretrainOptions

        return PretrainOptions
    if script == "finetune/predict.py":
        from finetune.predict import Options as PredictOptions

        return PredictOptions
    if script == "finetune/web.py":
        from finetune.web import Options as WebOptions

        return WebOptions
    from finetune.options import MugOptions

    assert script == "finetune/run_mug.py", f"{script}: README names a script that this test does not know"
    return MugOptions


def test_readme_names_the_steps() -> None:
    scripts = {word for command in commands() for word in command if word.endswith(".py")}
    assert scripts == {"preprocessing/run.py", "pretrain/run.py", "finetune/run_mug.py", "finetune/predict.py", "finetune/web.py"}


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_parses(command: list[str]) -> None:
    from preprocessing.console import parse_options

    place = next(number for number, word in enumerate(command) if word.endswith(".py"))
    assert (ROOT / command[place]).is_file()
    parse_options(options_of(command[place]), command[place + 1 :])
    for word in command[:place]:
        if word.endswith(".yaml"):
            assert (ROOT / word).is_file(), word


def test_files_that_readme_links_to_are_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).is_file(), target


def test_make_targets_that_readme_names_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
