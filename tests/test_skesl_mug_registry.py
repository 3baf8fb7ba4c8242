"""Plugins: the fingerprint of their source, and one line about their exceptions."""

import linecache
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from preprocessing.layouts.folder import find_folder
from skesl_mug.errors import UserError
from skesl_mug.registry import definition_name, fingerprint, plugin_errors

SOURCE = """
HOP = 320
OTHER = 1

def helper(sound):
    return sound[::HOP]

def loudness(sound):
    return helper(sound)

class Louder:
    def __call__(self, sound):
        return helper(sound)["rating"]
"""


def load(folder: Path, source: str, name: str = "loud_plugin") -> ModuleType:
    path = folder / f"{name}.py"
    path.write_text(source)
    linecache.checkcache()
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    exec(compile(source, str(path), "exec"), module.__dict__)
    return module


@pytest.mark.parametrize("name", ["loudness", "Louder"])
def test_the_fingerprint_follows_what_a_plugin_uses(tmp_path: Path, name: str) -> None:
    before = fingerprint(getattr(load(tmp_path, SOURCE), name))
    assert before is not None
    for old, new, same in (
        ("OTHER = 1", "OTHER = 2", True),
        ("HOP = 320", "HOP = 160", False),
        ("return sound[::HOP]", "return sound[1::HOP]", False),
        ("return helper(sound)", "return -helper(sound)", False),
    ):
        assert (fingerprint(getattr(load(tmp_path, SOURCE.replace(old, new)), name)) == before) is same, new


def test_the_toolkits_own_parts_and_definitions_without_source_have_no_fingerprint() -> None:
    assert fingerprint(find_folder) is None
    space: dict[str, object] = {"__name__": "typed_in"}
    exec("def typed(): pass", space)
    assert fingerprint(space["typed"]) is None


def test_a_script_has_one_name_in_all_processes(tmp_path: Path) -> None:
    tiny = load(tmp_path, SOURCE).loudness
    tiny.__module__ = "__mp_main__"
    assert definition_name(tiny) == definition_name(partial(tiny, 1)) == "__main__.loudness"


def test_an_exception_in_a_plugin_is_one_line(tmp_path: Path) -> None:
    plugin = load(tmp_path, SOURCE).Louder()
    message = r"plugin loud_plugin\.Louder failed: KeyError: 'rating' \(loud_plugin\.py line 13\); --debug shows the traceback"
    with pytest.raises(UserError, match=message), plugin_errors(plugin):
        plugin(Sliced())
    with pytest.raises(UserError, match=r"its own message$"), plugin_errors(plugin):
        raise UserError("its own message")
    with pytest.raises(KeyError), plugin_errors(find_folder):
        raise KeyError("a fault of the toolkit")


class Sliced:
    def __getitem__(self, key: object) -> dict[str, int]:
        return {}
