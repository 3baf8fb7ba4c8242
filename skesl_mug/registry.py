"""Extension points: new label generators, corpus layouts, features, alignments and studies register under a name.

A plugin is a module that registers its parts when it is imported. It is loaded by `--plugin MODULE` on the command line, by the entry
point group `skesl_mug.plugins` of an installed package, or by importing it in Python. docs/extending.md has an example of each kind.
"""

import ast
import hashlib
import inspect
import os
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from skesl_mug.errors import UserError

ENTRY_POINTS = "skesl_mug.plugins"
PLUGIN_VARIABLE = "SKESL_MUG_PLUGINS"
"""Environment variable with the plugins of this command, comma-separated: worker processes inherit it."""
TOOLKIT = frozenset({"skesl_mug", "lexicons", "preprocessing", "pretrain", "finetune"})
Registered = TypeVar("Registered")
_loaded: set[str] = set()


class Registry:
    """Names of one kind of extension, in order of registration.

    Args:
        kind: what is registered, as error messages call it ("label generator").
        flag: the command-line option that selects one.
        built_in: the toolkit's own, each as "module:attribute" and imported when first used, so that listing the names is cheap.
        optional: whether the option may be `none`.
        takes: names that are followed by a colon and an argument, with what the argument is (`{"hf": "NAME_OR_DIR"}` for `hf:gpt2`).
    """

    def __init__(
        self,
        kind: str,
        flag: str,
        built_in: dict[str, str] | None = None,
        optional: bool = False,
        takes: dict[str, str] | None = None,
    ):
        self.kind, self.flag, self.optional, self.takes = kind, flag, optional, takes or {}
        self._found: dict[str, Any] = dict(built_in or {})
        self._lazy = set(self._found)
        self.built_in = tuple(map(self._shown, self._found))

    def register(self, name: str) -> Callable[[Registered], Registered]:
        """A decorator that registers what it decorates as `name` (letters, digits, `-` and `_`).

        Raises:
            ValueError: the name is already taken by something else.
        """

        def decorate(registered: Registered) -> Registered:
            taken = self._found.get(name)
            if self.optional and name == "none":
                raise ValueError(f"{self.kind} {name!r}: this name stands for no {self.kind}; choose another name")
            if taken is not None and not (_same(taken, registered) and name not in self._lazy):
                raise ValueError(f"{self.kind} {name!r} is already registered; choose another name")
            if not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(f"{self.kind} {name!r}: a name consists of letters, digits, - and _")
            self._found[name] = registered
            return registered

        return decorate

    def names(self) -> list[str]:
        """All names, plugins included; `name:ARGUMENT` for those that take one."""
        load_plugins()
        return list(map(self._shown, self._found))

    def _shown(self, name: str) -> str:
        return f"{name}:{self.takes[name]}" if name in self.takes else name

    def check(self, name: str) -> str:
        """The name itself.

        Raises:
            UserError: nothing is registered under it, or its argument is missing.
        """
        base, _, argument = name.partition(":")
        if base in self.takes:
            if not argument:
                raise UserError(f"{self.flag} {name}: needs an argument: {base}:{self.takes[base]}")
        elif name not in self.names() and not (self.optional and name == "none"):
            choices = [*self.names(), *(["none"] if self.optional else [])]
            raise UserError(
                f"{self.flag} {name}: unknown {self.kind}; choose from {', '.join(choices)}, or load the module that registers it "
                "with --plugin MODULE"
            )
        return name

    def get(self, name: str) -> Any:
        """What is registered under the name; for `name:ARGUMENT` a partial with the argument as the first one.

        Raises:
            UserError: nothing is.
        """
        self.check(name)
        argument = None
        if name.partition(":")[0] in self.takes:
            name, _, argument = name.partition(":")
        if name in self._lazy:
            module, _, attribute = self._found[name].partition(":")
            self._found[name] = getattr(import_module(module), attribute)
            self._lazy.discard(name)
        return self._found[name] if argument is None else partial(self._found[name], argument)

    def __contains__(self, name: object) -> bool:
        return name in self.names() or str(name).partition(":")[0] in self.takes


def _same(one: Any, other: Any) -> bool:
    """Whether both are the same object, or the same definition imported again under another module name (`__main__` in a worker)."""
    return one is other or (getattr(one, "__qualname__", 1) == getattr(other, "__qualname__", 2))


def _definition(registered: Any) -> Any:
    """The function or class behind what is registered: of an instance its class, of a partial its function."""
    registered = inspect.unwrap(getattr(registered, "func", registered))
    return registered if hasattr(registered, "__qualname__") else type(registered)


def module_of(registered: Any) -> str:
    """The module of a function, class or instance: `__main__` for a script, also in its worker processes."""
    module = str(_definition(registered).__module__)
    return "__main__" if module == "__mp_main__" else module


def definition_name(registered: Any) -> str:
    """`module.function` or `module.Class`."""
    return f"{module_of(registered)}.{_definition(registered).__qualname__}"


def is_plugin(registered: Any) -> bool:
    """Whether a function, class or instance is not the toolkit's own."""
    return module_of(registered).partition(".")[0] not in TOOLKIT


def fingerprint(registered: Any) -> str | None:
    """SHA-256 of the source of a plugin's function or class and of the functions, classes and constants of its module that it uses.

    Other parts of the module, and what it imports, may change. None for the toolkit's own parts and where there is no source
    (definitions typed into an interpreter).
    """
    if not is_plugin(registered):
        return None
    definition = _definition(registered)
    try:
        source = inspect.getsource(definition)
        module = Path(inspect.getsourcefile(definition) or "").read_text(encoding="utf-8")
        statements = ast.parse(module).body
    except (OSError, TypeError, ValueError, SyntaxError):
        return None
    defined = {name: statement for statement in statements for name in _defined(statement)}
    used = {str(definition.__qualname__).partition(".")[0]: None} | dict.fromkeys(_names(source))
    parts, waiting = {source}, [name for name in used if name in defined]
    while waiting:
        statement = defined.pop(waiting.pop(), None)
        if statement is not None:
            first = min([statement.lineno, *(each.lineno for each in getattr(statement, "decorator_list", ()))])
            text = "\n".join(module.splitlines()[first - 1 : statement.end_lineno])
            parts.add(text)
            waiting += [name for name in _names(text) if name in defined]
    return hashlib.sha256("\0".join(sorted(part.strip() for part in parts)).encode()).hexdigest()


def _defined(statement: ast.stmt) -> list[str]:
    """The names that a statement of a module defines, without imports."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        return [node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    return []


def _names(source: str) -> set[str]:
    """The names that a piece of source uses; empty if it is only part of a statement (a lambda)."""
    try:
        return {node.id for node in ast.walk(ast.parse(textwrap.dedent(source))) if isinstance(node, ast.Name)}
    except SyntaxError:
        return set()


def plugin_failure(registered: Any, error: BaseException) -> str:
    """One line about an exception in a plugin: `plugin my_module.ratings failed: KeyError: 'rating' (my_module.py line 12)`."""
    definition = _definition(registered)
    try:
        own = inspect.getsourcefile(definition)
    except TypeError:
        own = None
    frames = traceback.extract_tb(error.__traceback__)
    place = next((frame for frame in reversed(frames) if frame.filename == own), frames[-1] if frames else None)
    where = f" ({Path(place.filename).name} line {place.lineno})" if place is not None else ""
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"plugin {definition_name(registered)} failed: {what}{where}"


@contextmanager
def plugin_errors(registered: Any) -> Iterator[None]:
    """Around a call of a registered function, class or instance: a plugin's exception becomes a `UserError` of one line.

    Exceptions in the toolkit's own parts, and a plugin's own `UserError`, stay as they are.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not is_plugin(registered):
            raise
        raise UserError(f"{plugin_failure(registered, error)}; --debug shows the traceback") from error


def use_plugins(modules: Iterable[str]) -> None:
    """Load plugins by module name or path, now and in the worker processes to come.

    Raises:
        UserError: a module cannot be imported.
    """
    named = [name for name in os.environ.get(PLUGIN_VARIABLE, "").split(",") if name]
    absolute = [name if (path := as_path(name)) is None else str(path) for name in modules]
    os.environ[PLUGIN_VARIABLE] = ",".join(dict.fromkeys([*named, *absolute]))
    try:
        load_plugins()
    except BaseException:
        os.environ[PLUGIN_VARIABLE] = ",".join(named)  # else worker processes would fail too
        raise


def load_plugins() -> None:
    """Import the plugins that the environment names and those of installed packages, each once.

    Raises:
        UserError: one of them cannot be imported.
    """
    for name in os.environ.get(PLUGIN_VARIABLE, "").split(","):
        if name and name not in _loaded:
            _load(f"--plugin {name}", lambda name=name: _import_here(name))  # type: ignore[misc]
            _loaded.add(name)
    if ENTRY_POINTS not in _loaded:
        _loaded.add(ENTRY_POINTS)
        for point in entry_points(group=ENTRY_POINTS):
            _load(f"plugin {point.name} ({point.value})", point.load)


def _import_here(name: str) -> None:
    """Import a module by its name, in the working folder too (as `python -m` does), or by its path.

    Raises:
        UserError: there is no such module.
    """
    path = as_path(name)
    folder = os.getcwd() if path is None else str(path.parent)  # noqa: PTH109 - sys.path holds strings
    module = plugin_name(name)
    if path is not None and not path.exists():
        raise UserError(f"--plugin {name}: no such file")
    added = folder not in sys.path and (path is not None or "" not in sys.path)
    if added:
        sys.path.append(folder)  # last, so that no file there hides a library
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # an import of the plugin's own
        raise UserError(
            f"--plugin {name}: no module named {module} in the working folder ({folder}) or among the installed packages; a path of a .py "
            "file works too"
        ) from error
    finally:
        if added and path is None:
            sys.path.remove(folder)
    if path is not None and Path(found.__file__ or "").resolve() not in (path, path / "__init__.py"):
        raise UserError(f"--plugin {name}: another module is named {module} ({found.__file__ or 'built in'}); rename the file")


def plugin_name(given: str) -> str:
    """The module name of a plugin that is given by its name or path."""
    path = as_path(given)
    return given if path is None else path.stem


def as_path(name: str) -> Path | None:
    """The file (or the folder of a package) of a plugin that is given by its path; None for a module name."""
    if not name.endswith(".py") and os.sep not in name:
        return None
    path = Path(name).resolve()
    return path.with_name(f"{path.name}.py") if path.suffix != ".py" and not path.is_dir() else path


def without_swallowed(arguments: Sequence[str]) -> list[str]:
    """Command-line arguments with the files and folders that follow the values of --plugin moved to the front: they are positional."""
    moved: list[str] = []
    others: list[str] = []
    state = "other"  # than a value of --plugin; "first", "plugins", then "inputs" after the first input
    for argument in arguments:
        if argument.startswith("-"):
            state = "first" if argument == "--plugin" else "other"
        elif state == "first":
            state = "plugins"
        elif state == "plugins" and _is_input(argument):
            state = "inputs"
        (moved if state == "inputs" else others).append(argument)
    return [*moved, *others]


def _is_input(argument: str) -> bool:
    """Whether an argument is an existing file or folder that cannot be a plugin."""
    path = Path(argument)
    if path.is_dir():
        return not (path / "__init__.py").exists() and not Path(f"{argument}.py").exists()
    return path.is_file() and path.suffix != ".py"


def _load(what: str, load: Callable[[], object]) -> None:
    try:
        load()
    except UserError:
        raise
    except Exception as error:  # a plugin is foreign code: whatever it raises is reported in one line
        raise UserError(f"{what}: cannot be imported ({type(error).__name__}: {error}); --debug shows where") from error


def values_of(flag: str, arguments: Sequence[str]) -> list[str]:
    """The values of a list option in unparsed arguments."""
    values: list[str] = []
    taking = False
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, value = argument.partition("=")
            taking = name == flag and not equals
            values += [value] if name == flag and equals else []
        elif taking:
            values.append(argument)
    return values
