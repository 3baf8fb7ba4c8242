"""README's commands are ones that the toolkit understands."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks_of(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
    return [block for name, block in fenced if name == language]


def commands() -> list[list[str]]:
    blocks = blocks_of("")
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
    from skesl_mug.console import parse_options

    place = next(number for number, word in enumerate(command) if word.endswith(".py"))
    assert (ROOT / command[place]).is_file()
    parse_options(options_of(command[place]), command[place + 1 :])
    for word in command[:place]:
        if word.endswith(".yaml"):
            assert (ROOT / word).is_file(), word


def installed_commands() -> list[list[str]]:
    lines = [line.split("  #")[0] for block in blocks_of("") for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("skesl-mug ")]


@pytest.mark.parametrize("command", installed_commands(), ids=" ".join)
def test_every_installed_command_parses(command: list[str]) -> None:
    from importlib import import_module

    from skesl_mug.commands import COMMANDS
    from skesl_mug.console import parse_options

    place, _, entry = COMMANDS[command[0]][0].partition(":")
    parse_options(getattr(import_module(place), entry), command[1:])


def test_readmes_python_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from finetune.prediction.sentiment_model import SentimentModel

    class Stand:
        def score_texts(self, texts: list[str]) -> list[float]:
            return [float(len(text)) for text in texts]

    monkeypatch.setattr(SentimentModel, "starter", classmethod(lambda cls, lm="embedded": Stand()))
    assert blocks_of("python")
    for block in blocks_of("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("[18.0, ")


def test_files_that_readme_links_to_are_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).is_file(), target


def test_make_targets_that_readme_names_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
