"""Help texts and option tables, from the dataclasses of the commands: the docstring under a field is its help.

A class may name options in `ADVANCED` (`ClassVar[frozenset[str]]`): `--help` leaves them out, `--help-all` shows them. For a nested group
of options, naming the field hides the complete group.
"""

import ast
import dataclasses
import inspect
import shutil
import textwrap
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union

HELP_FLAGS = ("-h", "--help", "--help-all")
_COLUMN = 28
"""Where the help begins, beside its flag."""
_LONGEST_CHOICES = 48
"""Longer lists of choices are part of the help."""
_TYPES = {bool: "", int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}


@dataclass(frozen=True)
class Option:
    """One option of a command. `flag` is complete (`--training.lr`, or `VIDEOS` if positional); `group` is the title of its group."""

    flag: str
    hint: Any
    default: Any
    help: str
    group: str
    advanced: bool
    positional: bool

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is dataclasses.MISSING


def options_of(options: type, prefix: str = "", group: str = "", advanced: bool = False) -> list[Option]:
    """All options of a dataclass, nested groups after the others."""
    hints, helps = typing.get_type_hints(options, include_extras=True), field_helps(options)
    hidden = {name for owner in options.__mro__ for name in getattr(owner, "ADVANCED", ())}
    own, nested = [], []
    for field in dataclasses.fields(options):
        name, hint, hides = field.name.replace("_", "-"), hints[field.name], advanced or field.name in hidden
        if dataclasses.is_dataclass(hint):
            assert isinstance(hint, type)
            about = (inspect.getdoc(hint) or "").splitlines()[0].rstrip(".")
            title = f"{prefix}{name} options: {about[:1].lower() + about[1:]}"
            nested += options_of(hint, f"{prefix}{name}.", title, hides)
            continue
        positional = typing.get_origin(hint) is typing.Annotated
        default = field.default
        if field.default_factory is not dataclasses.MISSING:  # the number of workers depends on the machine: its help says how
            default = None if name == "workers" else field.default_factory()
        flag = name.upper() if positional else f"--{prefix}{name}"
        own.append(Option(flag, _bare(hint), default, helps.get(field.name, ""), group, hides, positional))
    return own + nested


def field_helps(options: type) -> dict[str, str]:
    """The docstrings under the fields of a dataclass and of those it inherits from."""
    helps = {}
    for owner in reversed(options.__mro__):
        if not dataclasses.is_dataclass(owner):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(body, ast.ClassDef)
        for entry, after in zip(body.body, body.body[1:], strict=False):
            if isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name) and isinstance(after, ast.Expr):
                helps[entry.target.id] = " ".join(str(ast.literal_eval(after.value)).split())
    return helps


def help_text(options: type, program: str, all_options: bool = False, width: int | None = None) -> str:
    """The help of a command.

    Args:
        options: its dataclass.
        program: what was typed to start it.
        all_options: show the advanced ones too.
        width: columns of the text; None: those of the terminal, 120 at most.
    """
    width = width or max(60, min(120, shutil.get_terminal_size().columns))
    found = options_of(options)
    words = " ".join(_positional_usage(option) for option in found if option.positional)
    lines = [f"usage: {program} {words + ' ' if words else ''}[OPTIONS]", ""]
    for paragraph in (inspect.getdoc(options) or "").split("\n\n"):
        lines += [*textwrap.wrap(paragraph, width, subsequent_indent="  " * paragraph.startswith("Example:"), **_WHOLE_WORDS), ""]
    shown = [option for option in found if all_options or not option.advanced]
    common = [option for option in shown if option.flag in ("--config", "--print-config", "--plugin", "--debug")]
    for title in dict.fromkeys(option.group for option in shown):
        lines += textwrap.wrap(title or "options:", width, subsequent_indent="  ", **_WHOLE_WORDS)
        members = [option for option in shown if option.group == title and option not in common]
        for option in [*members, *(common if not title else [])]:
            lines += _lines(option, width)
        if not title:
            lines += _entry("-h, --help", "Show this help." if len(shown) == len(found) else "Show the main options.", width)
            if any(option.advanced for option in found):
                lines += _entry("--help-all", f"Show all {len(found)} options.", width)
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


_WHOLE_WORDS: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}


def _lines(option: Option, width: int) -> list[str]:
    text, metavar, shown = option.help, _metavar(option.hint), _shown_default(option)
    if len(metavar) > _LONGEST_CHOICES:
        text += f" Choices: {metavar.rstrip(' .').strip('{}').replace(',', ', ')}."
        metavar = "NAME ..." if typing.get_origin(option.hint) is list else "NAME"
    if option.hint is bool and option.default is True:
        group, _, name = option.flag.rpartition(".")
        flag = f"{group}.no-{name}" if group else f"--no-{name.removeprefix('--')}"
        text += f" [default: on; {flag} turns it off]"
    elif option.required and not option.positional:
        text += " [required]"
    elif shown:
        text += f" [default: {shown}]"
    return _entry(option.flag if option.positional else f"{option.flag} {metavar}".rstrip(), text, width)


def _entry(flag: str, text: str, width: int) -> list[str]:
    """A flag and its help beside it, or below it if the flag is long."""
    indent = " " * _COLUMN
    body = textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent, **_WHOLE_WORDS)
    head = textwrap.wrap(f"  {flag}", width, subsequent_indent="      ", **_WHOLE_WORDS)
    if len(head) == 1 and len(head[0]) <= _COLUMN - 2 and body:
        return [head[0].ljust(_COLUMN) + body[0].lstrip(), *body[1:]]
    return head + body


def _positional_usage(option: Option) -> str:
    word = f"{option.flag} ..." if typing.get_origin(option.hint) is list else option.flag
    return word if option.required else f"[{word}]"


def _metavar(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "{" + ",".join(map(str, arguments)) + "}"
    if origin is list:
        return f"{_metavar(arguments[0])} ..."
    if origin is tuple:
        return " ".join(_metavar(kind) for kind in arguments if kind is not Ellipsis)
    return _TYPES.get(hint, str(getattr(hint, "__name__", hint)).upper())


def _shown_default(option: Option) -> str:
    """A default as it would be typed; empty if nothing is set."""
    value = option.default
    if value is dataclasses.MISSING or value is None or isinstance(value, bool) or value in ([], "", ()):
        return ""
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _bare(hint: Any) -> Any:
    """A type without markers and without None."""
    if typing.get_origin(hint) is typing.Annotated:
        return _bare(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (Union, types.UnionType):
        return _bare(next(kind for kind in typing.get_args(hint) if kind is not type(None)))
    return hint
