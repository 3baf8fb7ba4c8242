"""What every command of the toolkit shares: configs from YAML and flags, error lines, exit status, quiet libraries."""

import atexit
import difflib
import errno
import gc
import io
import logging
import os
import re
import shlex
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import Enum
from itertools import takewhile
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from skesl_mug.errors import DamagedError, UserError
from skesl_mug.help_text import HELP_FLAGS, help_text
from skesl_mug.interruption import INTERRUPTED
from skesl_mug.registry import use_plugins, values_of, without_swallowed
from skesl_mug.renamed import with_new_names
from skesl_mug.wording import printable

OptionsT = TypeVar("OptionsT", bound="CommandOptions")


@dataclass(kw_only=True)
class CommandOptions:
    """Options that every command understands; the dataclass of a command inherits them."""

    config: Path | None = None
    """YAML file of options (nested as `--print-config` prints them); flags on the command line win over it."""
    print_config: bool = False
    """Print the resolved options as YAML and stop."""
    plugin: list[str] = field(default_factory=list)
    """Modules that register your extensions, such as a label generator: names, or paths of .py files (docs/extending.md)."""
    debug: bool = False
    """Show stack traces and the libraries' own messages."""


def run_command(options_class: type[OptionsT], main: Callable[[OptionsT], object], argv: Sequence[str] | None = None) -> NoReturn:
    """Parse the options, call `main(options)` and exit: 0 done, 2 user error, 130 interrupted.

    The help text comes from the docstring of `options_class` and from the docstrings under its fields.
    """
    line_by_line()
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    options = None
    try:
        options = parse_options(options_class, arguments)
        if options.print_config:
            print(yaml.safe_dump(to_plain(options, leave_out=COMMAND_FIELDS), sort_keys=False, allow_unicode=True), end="")
            sys.exit(0)
        debug = options.debug
        if not debug:
            quiet_libraries()
        main(options)
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # all is done; libraries take a moment to exit
        atexit.register(gc.freeze)  # collecting the libraries' objects would take seconds
        sys.exit(0)
    except KeyboardInterrupt:
        if debug:
            traceback.print_exc()
        print(INTERRUPTED, file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        leave_unread()
    except (UserError, OSError) as error:
        if debug:
            traceback.print_exc()
        print(f"error: {one_line(format_error(error, getattr(options, 'output', None)))}", file=sys.stderr)
        sys.exit(2)


def leave_unread() -> NoReturn:
    """Exit if the reader of our output has closed it (`| head`): not an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def print_and_leave(text: str) -> NoReturn:
    """Print a text and exit."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        leave_unread()
    sys.exit(0)


_ADVICE = {
    errno.EACCES: "; choose a location you can access",
    errno.EEXIST: "; choose a folder",
    errno.ENOTDIR: "; choose a folder",
    errno.EROFS: "; choose a writable location",
    errno.ENOSPC: "; free some space, then run the same command again to resume",
    errno.EDQUOT: "; free some space, then run the same command again to resume",
    errno.EFBIG: "; free some space, then run the same command again to resume",
}


def format_error(error: Exception, output: object = None) -> str:
    """The message of an error for the terminal. System errors start with their file, or with `output` if they do not name one."""
    if isinstance(error, OSError) and error.strerror and (error.filename is not None or output is not None):
        place = f"--output {output}" if error.filename is None else os.fsdecode(error.filename)
        return f"{place}: cannot be used ({error.strerror}){_ADVICE.get(error.errno or 0, '')}"
    return str(error)


# without a home folder for its cache it warns when imported, which may be before the options are read
logging.getLogger("matplotlib").setLevel(logging.ERROR)

COMMAND_FIELDS = frozenset({"config", "print_config", "debug"})

_given_flags: ContextVar[frozenset[str]] = ContextVar("given_flags", default=frozenset())


def given_flags() -> frozenset[str]:
    """The flags (`--training.batch-size`) of the command line and of --config, while the options are made from them."""
    return _given_flags.get()


def parse_options(options_class: type[OptionsT], arguments: Sequence[str]) -> OptionsT:
    """Read the options of a command: the YAML file of `--config` first, then the command line.

    The file's entries become flags, so that a wrong type or a misspelt name gets the same message in both.
    """
    prog = program_name()
    asked = next((flag for flag in arguments if flag in HELP_FLAGS), None)
    if asked is not None:
        print_and_leave(help_text(options_class, prog, all_options=asked == "--help-all"))
    import tyro  # not before: help takes no time

    everything = all_flags(arguments)
    use_plugins(plugins := values_of("--plugin", everything))
    token = _given_flags.set(frozenset(flag.split("=")[0].replace("_", "-") for flag in everything if flag.startswith("--")))
    try:
        options = tyro.cli(options_class, args=everything, prog=prog)
        options.plugin = plugins  # a repeated --plugin adds to the first
        return options
    finally:
        _given_flags.reset(token)


def all_flags(arguments: Sequence[str]) -> list[str]:
    """The entries of the YAML file of `--config` as flags, then the arguments.

    Raises:
        UserError: the file cannot be read.
    """
    arguments = without_swallowed(arguments)
    from_file: list[str] = []
    for place, argument in enumerate(arguments):
        if argument == "--config" and place + 1 < len(arguments):
            from_file = read_yaml_flags(Path(arguments[place + 1]))
        elif argument.startswith("--config="):
            from_file = read_yaml_flags(Path(argument.removeprefix("--config=")))
    leading = list(takewhile(lambda argument: not argument.startswith("-"), arguments))  # positional ones: not values of the file's lists
    return [*leading, *from_file, *arguments[len(leading) :]]


def program_name() -> str:
    """What was typed to start this command: `skesl-mug NAME`, or `python FOLDER/FILE.py`."""
    program = Path(sys.argv[0])
    return f"python {program.parent.name}/{program.name}" if program.suffix == ".py" else program.name


def make_options(options_class: type[OptionsT], values: dict[str, Any]) -> OptionsT:
    """The options of a command from Python values, such as the arguments of a function.

    Nested groups may be dicts (`training={"epochs": 3}`); a path may be a string; None leaves an option at its default.

    Raises:
        UserError: an option is unknown or has a wrong value; the message names the argument.
    """
    use_plugins(_typed(list[str], values.get("plugin") or [], "plugin"))
    given = {name: value for name, value in values.items() if value is not None}
    if file := next((name for name in ("config", "print_config") if given.get(name)), None):
        raise UserError(f"{file}: is for the command line; pass the options as arguments")
    token = _given_flags.set(frozenset(argument for argument in _flags(to_plain(given), "") if argument.startswith("--")))
    try:
        return options_class(**_typed_values(options_class, given, ""))
    except UserError as error:  # from the checks of the class, which name flags
        raise UserError(re.sub(r"--([a-z][a-z0-9.-]*)", lambda flag: flag[1].replace("-", "_"), str(error))) from error
    finally:
        _given_flags.reset(token)


def _typed_values(options_class: type[Any], values: dict[str, Any], prefix: str) -> dict[str, Any]:
    hints, known = get_type_hints(options_class), {field.name: field for field in fields(options_class)}
    typed_values: dict[str, Any] = {}
    for given, value in values.items():
        name = given.replace("-", "_")
        flag = prefix + name
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            raise UserError(f"{flag}: unknown option" + (f"; did you mean {close[0]}?" if close else ""))
        typed_values[name] = _typed(hints[name], value, flag)
    return typed_values


def _typed(hint: Any, value: Any, flag: str) -> Any:
    """A value as the command line's parser would give it.

    Raises:
        UserError: it has another type than its option, or is not one of its choices.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _typed(arguments[0], value, flag)
    if origin in (Union, UnionType):
        return None if value is None else _typed(next(kind for kind in arguments if kind is not NoneType), value, flag)
    if origin is list:
        if isinstance(value, Mapping) and arguments == (str,):  # such as plugin_options={"mine": {"strength": 3}}
            value = [f"{key}={item}" for key, item in _leaves(value)]
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise UserError(f"{flag} {value}: must be a list")
        return [_typed(arguments[0], item, flag) for item in value]
    if origin is Literal:
        if value not in arguments:
            raise UserError(f"{flag} {value}: choose from {', '.join(map(str, arguments))}")
    elif isinstance(hint, type) and is_dataclass(hint) and isinstance(value, dict):
        return replace(hint(), **_typed_values(hint, value, f"{flag}."))
    elif hint in (Path, str) and isinstance(value, (str, Path)):
        return hint(value)
    elif hint is str and isinstance(value, int) and not isinstance(value, bool):  # as from the command line and from YAML
        return str(value)
    elif hint in _NUMBERS:
        kind, name = _NUMBERS[hint]
        if not isinstance(value, kind) or isinstance(value, bool) != (hint is bool):
            raise UserError(f"{flag} {value!r}: must be {name}")
        return hint(value)
    elif origin is tuple:
        items = [] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
        if len(items) != len(arguments):
            raise UserError(f"{flag} {value!r}: must be {len(arguments)} values")
        return tuple(_typed(kind, item, flag) for kind, item in zip(arguments, items, strict=True))
    elif hint in (Path, str) or (is_dataclass(hint) and not isinstance(value, hint)):  # type: ignore[arg-type]
        raise UserError(f"{flag} {value!r}: must be " + ("a text or a path" if hint in (Path, str) else "a dict of options"))
    return value


def _leaves(entries: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The innermost entries of nested dicts, with dotted names."""
    for key, value in entries.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


_NUMBERS: dict[Any, tuple[Any, str]] = {bool: (bool, "True or False"), int: (Integral, "a whole number"), float: (Real, "a number")}


def read_yaml_flags(path: Path) -> list[str]:
    """The entries of a YAML file as command-line flags.

    Raises:
        UserError: the file does not exist, is not YAML, or is not a mapping of options.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(entries, dict):
            raise UserError(f"--config {path}: holds no options; write lines such as `output: my_run` (see --print-config)")
        entries, notes = with_new_names(entries)
        if notes:
            print(f"note: --config {path}: was written for an earlier version: {'; '.join(notes)}", file=sys.stderr)
        return list(_flags(entries, ""))
    except OSError as error:
        raise UserError(f"--config {path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # ValueError: not UTF-8, or a date such as 2024-99-99
        raise UserError(f"--config {path}: is not YAML ({error})") from error
    except RecursionError as error:
        raise UserError(f"--config {path}: is nested too deep, or contains itself") from error


def read_stored_options(path: Path) -> dict[str, Any]:
    """The options that an earlier command wrote into its output folder; {} if the file is empty.

    Raises:
        UserError: the file is damaged.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if not isinstance(entries, dict):
            raise ValueError("it holds no options")
        return entries
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path}: is damaged ({error}); restore it, or choose another folder") from error


def _flags(entries: dict[Any, Any], prefix: str) -> Iterator[str]:
    for key, value in entries.items():
        name = f"{prefix}{str(key).replace('_', '-')}"
        if isinstance(value, dict):
            yield from _flags(value, f"{name}.")
        elif isinstance(value, bool):
            last = name.rsplit(".", 1)
            yield f"--{name}" if value else "--" + ".".join([*last[:-1], f"no-{last[-1]}"])
        elif isinstance(value, list):
            yield f"--{name}"
            yield from (str(item) for item in value)
        else:
            yield f"--{name}"
            yield str(value)


def to_plain(value: Any, leave_out: frozenset[str] = frozenset()) -> Any:
    """A dataclass (also nested) as dicts, lists and scalars for YAML and JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value) if field.name not in leave_out}
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    return value


def one_line(text: str) -> str:
    """The text in one line, with single spaces and without control characters."""
    return printable(" ".join(text.split()))


def line_by_line() -> None:
    """Flush stdout after each line, in a log file too; characters that the terminal lacks become escapes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")


def say_loading(library: str) -> None:
    """Print one line on stderr before an import that takes seconds (longer from a cold disk), unless `library` is already imported."""
    if library not in sys.modules and os.environ.get("RANK", "0") == "0":
        print("Loading libraries …", file=sys.stderr, flush=True)


def typed(program: str) -> str:
    """How to type `python` or another program of this environment: its path if the environment is not activated."""
    own = Path(sys.executable).with_name(program)
    if shutil.which(program) == str(own) or not own.exists():
        return program
    return str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own)


def next_command(name: str, script: str) -> str:
    """How to type another command: `skesl-mug NAME` if this one was started so, else `python SCRIPT`."""
    if sys.argv[0].startswith("skesl-mug "):
        return f"{typed('skesl-mug')} {name}"
    return f"{typed('python')} {script}"


def this_command(script: str) -> str:
    """How this command was typed: `skesl-mug NAME ...`, else `python SCRIPT ...`."""
    installed = sys.argv[0].startswith("skesl-mug ")
    return f"{sys.argv[0] if installed else f'python {script}'} {shlex.join(sys.argv[1:])}".rstrip()


def check_writable(folder: Path, flag: str = "--output") -> None:
    """Check that a folder can be written or created.

    Raises:
        UserError: it is a file, lies below one, or is not writable.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise UserError(f"{flag} {folder}: {there} is a file; choose a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{flag} {folder}: {there} is not writable; choose another folder, or change its permissions")


def quiet_libraries() -> None:
    """Silence the libraries' own messages; `--debug` leaves them on."""
    os.environ.setdefault("GLOG_minloglevel", "3")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # one line per retry without a network
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("DATASETS_VERBOSITY", "critical")  # a damaged shard is reported in our own line
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    warnings.filterwarnings("ignore")
