"""The pages say what is there: the tutorial's commands parse (test_whole_path.py runs them), links lead somewhere, no option is missing."""

import re
from pathlib import Path

import pytest
from tutorial import TUTORIAL, script_of, tutorial_commands

from finetune.options_reference import COMMANDS, reference
from skesl_mug.console import parse_options

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


def test_the_tutorial_has_ten_commands_that_parse() -> None:
    commands = tutorial_commands()
    assert len(commands) == 10
    assert [int(step) for step in re.findall(r"^\*\*(\d+)\.", TUTORIAL, flags=re.MULTILINE)] == list(range(1, 11))
    known = {name.split(" ")[-1]: place for name, place in COMMANDS.items()}
    for command in commands:
        module, _, name = known[script_of(command)].partition(":")
        options = getattr(__import__(module, fromlist=[name]), name)
        parse_options(options, command[command.index(script_of(command)) + 1 :])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_reference_names_every_option() -> None:
    stored = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert stored == reference(), "run `python -m finetune.options_reference --output docs/options.md`"
    for flag in (
        "--asr.model",
        "--model.fusion",
        "--segments",
        "--max-minutes",
        "--objective.masks",
        "`VIDEOS`",
        "`--neighbours`",
        "`--trials`",
    ):
        assert flag in stored


def test_the_picture_of_the_house_is_drawn_from_this_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import draw_architecture

    assert draw_architecture.PICTURE.read_text(encoding="utf-8") == draw_architecture.draw(), "run `python docs/draw_architecture.py`"
