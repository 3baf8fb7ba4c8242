"""Extension points: new label generators, corpus layouts, features, alignments and studies register under a name.

A plugin is a module that registers its parts when it is imported. It is loaded by `--plugin MODULE` on the command line, by the entry
point group `skesl_mug.plugins` of an installed package, or by importing it in Python. docs/extending.md has an example of each kind.
"""

import os
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TypeVar

from skesl_mug.errors import UserError

ENTRY_POINTS = "skesl_mug.plugins"
PLUGIN_VARIABLE = "SKESL_MUG_PLUGINS"
"""Environment variable with the plugins of this command, comma-separated: worker processes inherit it."""
Registered = TypeVar("Registered")
_loaded: set[str] = set()


class Registry:
    """Names of one kind of extension, in order of registration.

    Args:
        kind: what is registered, as error messages call it ("label generator").
        flag: the command-line option that selects one.
        built_in: the toolkit's own, each as "module:attribute" and imported when first used, so that listing the names is cheap.
    """

    def __init__(self, kind: str, flag: str, built_in: dict[str, str] | None = None):
        self.kind, self.flag = kind, flag
        self._found: dict[str, Any] = dict(built_in or {})
        self._lazy = set(self._found)
        self.built_in = tuple(self._found)

    def register(self, name: str) -> Callable[[Registered], Registered]:
        """A decorator that registers what it decorates as `name` (letters, digits, `-` and `_`).

        Raises:
            ValueError: the name is already taken by something else.
        """

        def decorate(registered: Registered) -> Registered:
            taken = self._found.get(name)
            if taken is not None and not (_same(taken, registered) and name not in self._lazy):
                raise ValueError(f"{self.kind} {name!r} is already registered; choose another name")
            if not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(f"{self.kind} {name!r}: a name consists of letters, digits, - and _")
            self._found[name] = registered
            return registered

        return decorate

    def names(self) -> list[str]:
        """All names, plugins included."""
        load_plugins()
        return list(self._found)

    def check(self, name: str) -> str:
        """The name itself.

        Raises:
            UserError: nothing is registered under it.
        """
        if name not in self.names():
            raise UserError(
                f"{self.flag} {name}: unknown {self.kind}; choose from {', '.join(self._found)}, or load the module that registers it "
                "with --plugin MODULE"
            )
        return name

    def get(self, name: str) -> Any:
        """What is registered under the name.

        Raises:
            UserError: nothing is.
        """
        self.check(name)
        if name in self._lazy:
            module, _, attribute = self._found[name].partition(":")
            self._found[name] = getattr(import_module(module), attribute)
            self._lazy.discard(name)
        return self._found[name]

    def __contains__(self, name: object) -> bool:
        return name in self.names()


def _same(one: Any, other: Any) -> bool:
    """Whether both are the same object, or the same definition imported again under another module name (`__main__` in a worker)."""
    return one is other or (getattr(one, "__qualname__", 1) == getattr(other, "__qualname__", 2))


def use_plugins(modules: Iterable[str]) -> None:
    """Load plugins by module name, now and in the worker processes to come.

    Raises:
        UserError: a module cannot be imported.
    """
    named = [name for name in os.environ.get(PLUGIN_VARIABLE, "").split(",") if name]
    os.environ[PLUGIN_VARIABLE] = ",".join(dict.fromkeys([*named, *modules]))
    load_plugins()


def load_plugins() -> None:
    """Import the plugins that the environment names and those of installed packages, each once.

    Raises:
        UserError: one of them cannot be imported.
    """
    for name in os.environ.get(PLUGIN_VARIABLE, "").split(","):
        if name and name not in _loaded:
            _loaded.add(name)
            _load(f"--plugin {name}", lambda name=name: _import_here(name))  # type: ignore[misc]
    if ENTRY_POINTS not in _loaded:
        _loaded.add(ENTRY_POINTS)
        for point in entry_points(group=ENTRY_POINTS):
            _load(f"plugin {point.name} ({point.value})", point.load)


def _import_here(name: str) -> None:
    """Import a module; the working folder counts too, as it does for `python -m`."""
    folder = os.getcwd()  # noqa: PTH109 - sys.path holds strings
    added = folder not in sys.path and "" not in sys.path
    if added:
        sys.path.append(folder)  # last, so that no file there hides a library
    try:
        import_module(name.removesuffix(".py").replace("/", "."))
    finally:
        if added:
            sys.path.remove(folder)


def _load(what: str, load: Callable[[], object]) -> None:
    try:
        load()
    except UserError:
        raise
    except Exception as error:  # a plugin is foreign code: whatever it raises is reported in one line
        raise UserError(f"{what}: cannot be imported ({type(error).__name__}: {error}); --debug shows where") from error
