"""The installed command: every name starts a command."""

import inspect
from importlib import import_module

import pytest

from finetune.options_reference import COMMANDS as REFERENCE
from skesl_mug import commands
from skesl_mug.console import CommandOptions


@pytest.mark.parametrize("name", list(commands.COMMANDS))
def test_every_name_has_options_or_a_start(name: str) -> None:
    place, _, entry = commands.COMMANDS[name][0].partition(":")
    found = getattr(import_module(place), entry)
    if isinstance(found, type):
        assert issubclass(found, CommandOptions)
        assert list(inspect.signature(import_module(place).main).parameters) == ["options"]
    else:
        assert not inspect.signature(found).parameters or all(
            parameter.default is not parameter.empty for parameter in inspect.signature(found).parameters.values()
        )


def test_names_and_unknown_names(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for words, status, told in (
        (["--help"], 0, "videos into an utterance dataset"),
        ([], 0, "usage:"),
        (["fly"], 2, "fly: unknown command"),
    ):
        monkeypatch.setattr("sys.argv", ["skesl-mug", *words])
        with pytest.raises(SystemExit) as ended:
            commands.main()
        assert ended.value.code == status
        out = capsys.readouterr()
        assert told in out.out + out.err


def test_a_name_reads_its_own_options(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["skesl-mug", "sample", "--output", "corpus", "--clips", "7", "--print-config"])
    with pytest.raises(SystemExit) as ended:
        commands.main()
    assert ended.value.code == 0
    assert "clips: 7" in capsys.readouterr().out


def test_what_has_a_page_of_options_has_a_name() -> None:
    named = {place.partition(":")[0] for place, _ in commands.COMMANDS.values()}
    assert {
        place.partition(":")[0].replace("pretrain.options", "pretrain.run").replace("finetune.options", "finetune.run_mug")
        for place in REFERENCE.values()
    } <= named
