"""README's Python, commands, links and make targets work."""

import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_docs import options_of

from skesl_mug.console import parse_options

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUICK_START = (ROOT / "docs" / "quick_start.md").read_text(encoding="utf-8")


def blocks_of(language: str, page: str = README) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    return [block for name, block in fenced if name == language]


def commands(page: str = README) -> list[list[str]]:
    lines = [line.split("  #")[0] for block in blocks_of("", page) for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("skesl-mug ")]


def test_readme_fits_one_screen() -> None:
    assert len(README.splitlines()) < 80
    assert [command[0] for command in commands()] == ["preprocess", "pretrain", "finetune", "predict"]


@pytest.mark.parametrize("command", [*commands(), *commands(QUICK_START)], ids=" ".join)
def test_every_command_parses(command: list[str]) -> None:
    options = options_of(command[0])
    assert options is not None
    parse_options(options, command[1:])


@pytest.mark.parametrize("page", [README, QUICK_START], ids=["README", "quick start"])
def test_the_python_runs(page: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import skesl_mug

    class StandIn:
        """In place of the starter, whose training takes minutes."""

        def predict(self, source: str) -> list[SimpleNamespace]:
            return [SimpleNamespace(start=0.5, score=1.25, text=source)]

        def predict_texts(self, texts: list[str]) -> list[SimpleNamespace]:
            return [SimpleNamespace(score=float(len(text)), text=text) for text in texts]

    monkeypatch.setattr(skesl_mug.SentimentModel, "starter", classmethod(lambda cls, lm="embedded": StandIn()))
    assert blocks_of("python", page)
    for block in blocks_of("python", page):
        exec(compile(block, "page", "exec"), {})
    assert capsys.readouterr().out.startswith("0.5 1.25 ")


def test_the_model_has_what_the_stand_in_has() -> None:
    from dataclasses import fields
    from typing import get_args, get_type_hints

    from skesl_mug import SentimentModel

    (prediction,) = get_args(get_type_hints(SentimentModel.predict_texts)["return"])
    assert {"start", "score", "text"} <= {field.name for field in fields(prediction)}
    assert {"starter", "predict"} <= set(dir(SentimentModel))


def test_files_that_readme_links_to_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", README):
        assert (ROOT / target).is_file(), target


def test_make_targets_that_readme_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"`make (\w+)`", README)
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
