"""The help of every command: no line too long, no default that says nothing, and the advanced options by --help-all."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import tyro

from finetune.options import MugOptions
from finetune.options_reference import COMMANDS
from skesl_mug.console import CommandOptions, parse_options
from skesl_mug.help_text import help_text, options_of


@dataclass
class Inner:
    """A group of options."""

    rate: float | None = None
    """Its rate."""
    on: bool = True
    """Whether it is on."""


@dataclass(kw_only=True)
class Synthetic(CommandOptions):
    """Do something.

    Example: python -m something --output out
    """

    ADVANCED: ClassVar[frozenset[str]] = frozenset({"count", "plugin"})

    files: tyro.conf.Positional[list[Path]] = field(default_factory=list)
    """What to read."""
    output: Path
    """Where to write."""
    count: int = 3
    """How many."""
    kinds: list[Literal["a-long-choice", "another-long-choice", "a-third-long-choice"]] = field(default_factory=list)
    """Which kinds."""
    inner: Inner = field(default_factory=Inner)


@dataclass(kw_only=True)
class Derived(Synthetic):
    """Do it differently."""

    ADVANCED: ClassVar[frozenset[str]] = frozenset({"inner"})


def test_help_says_what_can_be_given() -> None:
    text = help_text(Synthetic, "python x.py", width=80)
    assert text.startswith("usage: python x.py [FILES ...] [OPTIONS]\n\nDo something.\n")
    assert "  --output PATH             Where to write. [required]\n" in text
    assert "  --inner.rate FLOAT        Its rate.\n" in text
    assert "[default: on; --inner.no-on turns it off]" in " ".join(text.split())
    assert "--kinds NAME ...          Which kinds. Choices: a-long-choice," in text
    assert "inner options: a group of options\n" in text
    assert "--count" not in text
    assert "--help-all                Show all 10 options." in text
    assert "  --count INT               How many. [default: 3]\n" in help_text(Synthetic, "x", all_options=True, width=80)
    assert "None" not in text


def test_advanced_options_are_inherited_and_groups_can_be_hidden() -> None:
    assert {option.flag for option in options_of(Derived) if option.advanced} == {"--count", "--plugin", "--inner.rate", "--inner.on"}
    assert "inner" not in help_text(Derived, "x")


@pytest.mark.parametrize("place", COMMANDS.values())
@pytest.mark.parametrize("width", [80, 120])
def test_the_help_of_every_command_reads_well(place: str, width: int) -> None:
    module, _, name = place.partition(":")
    options = getattr(__import__(module, fromlist=[name]), name)
    for everything in (False, True):
        text = help_text(options, "skesl-mug x", everything, width)
        assert max(map(len, text.splitlines())) <= width
        for unwanted in ("{None}", "default: None", "default: ]", "default: False", "STR"):
            assert unwanted not in text
    assert all(option.help for option in options_of(options)), [option.flag for option in options_of(options) if not option.help]


def test_the_help_of_fine_tuning_is_short_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    options = options_of(MugOptions)
    assert len([option for option in options if not option.advanced]) <= 36
    for flag, shown in (("--help", False), ("-h", False), ("--help-all", True)):
        with pytest.raises(SystemExit) as ended:
            parse_options(MugOptions, ["--dataset", "mosi", flag])
        assert ended.value.code == 0
        assert ("--av-margin" in capsys.readouterr().out) == shown


@pytest.mark.parametrize("module", ["preprocessing.run", "pretrain.run", "finetune.run_mug", "finetune.predict"])
def test_short_help_shows_how_plugins_are_loaded(module: str) -> None:
    from importlib import import_module

    found = import_module(module)
    text = help_text(getattr(found, "MugOptions", None) or getattr(found, "PretrainOptions", None) or found.Options, "x")
    shown = ["--plugin TEXT ..."] + ["--plugin-options TEXT ...", "--mechanisms TEXT ..."] * (module == "finetune.run_mug")
    assert all(f"  {flag}" in text for flag in shown)
