"""The page of every option, made from the dataclasses: `python -m finetune.options_reference --output docs/options.md`."""

import dataclasses
import inspect
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from finetune.options import TrainOptions
from finetune.studies import QUESTIONS
from finetune.studies.search import SearchOptions
from finetune.studies.study import StudyOptions, find_study
from skesl_mug.console import CommandOptions, run_command
from skesl_mug.files import write_atomically
from skesl_mug.help_text import Option, options_of

COMMANDS = {
    "python preprocessing/run.py": "preprocessing.run:Options",
    "python -m preprocessing.remask": "preprocessing.remask:Options",
    "python -m preprocessing.show": "preprocessing.show:Options",
    "python preprocessing/sample_corpus.py": "preprocessing.sample_corpus:SampleOptions",
    "accelerate launch pretrain/run.py": "pretrain.options:PretrainOptions",
    "python finetune/run_mug.py": "finetune.options:MugOptions",
    "python finetune/predict.py": "finetune.predict:Options",
    "python finetune/web.py": "finetune.web:Options",
    "python -m finetune.export": "finetune.export:Options",
}
HEAD = """# Every option

Made by `python -m finetune.options_reference --output docs/options.md` from the commands' own help; a test holds it to them.
Every command also takes `--config FILE.yaml` (flags win over it), `--print-config` and `--debug`.
"""
STUDIES_HEAD = """# Studies and the search

The commands below also take the options of `python finetune/run_mug.py` from `--dataset` to `--generators…`; these are their own.
"""


@dataclass(kw_only=True)
class Options(CommandOptions):
    """Write the page of every command's options."""

    output: Path
    """The Markdown file to write."""


def main(options: Options) -> None:
    """Write the page."""
    text = reference()
    write_atomically(options.output, lambda path: path.write_text(text, encoding="utf-8"))


def reference() -> str:
    """The whole page as Markdown."""
    parts = [HEAD]
    for command, place in COMMANDS.items():
        module, _, name = place.partition(":")
        options = getattr(__import__(module, fromlist=[name]), name)
        parts.append(section(command, options, rows_of(options)))
    parts += [STUDIES_HEAD, section("python -m finetune.studies NAME", StudyOptions, beyond(TrainOptions, StudyOptions))]
    for name in QUESTIONS:
        options = find_study(name).options
        parts.append(section(f"python -m finetune.studies {name}", options, beyond(StudyOptions, options)))
    parts.append(section("python -m finetune.studies search", SearchOptions, beyond(TrainOptions, SearchOptions)))
    return "\n".join(parts)


def section(command: str, options: type, rows: list[tuple[str, str, str, str]]) -> str:
    """A command's heading, what it does, and the table of its options."""
    about = " ".join((inspect.getdoc(options) or "").split("\n\n")[0].split())
    rows = [(*row[:3], row[3].replace("<", "&lt;")) for row in rows]  # a browser would read <video> as a tag
    table = [f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in rows]
    return "\n".join([f"## `{command}`", "", about, "", "| option | values | default | what it does |", "|---|---|---|---|", *table, ""])


def beyond(shared: type, options: type) -> list[tuple[str, str, str, str]]:
    """The rows of a dataclass whose options it has beyond those of another."""
    known = {row[0] for row in rows_of(shared)}
    return [row for row in rows_of(options) if row[0] not in known]


def rows_of(options: type) -> list[tuple[str, str, str, str]]:
    """Flag, values, default and help of each option of a command, without those that all commands have."""
    common = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(CommandOptions)}
    rows = []
    for option in options_of(options):
        if option.flag not in common:
            shown = "" if option.flag == "--workers" and option.default is None else default(option)
            rows.append((f"`{option.flag}`", values(option.hint), shown, option.help))
    return rows


def values(hint: Any) -> str:
    """What an option takes, in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin is list:
        return f"some of {values(arguments[0])}" if typing.get_origin(arguments[0]) is Literal else f"{values(arguments[0])}, several"
    if origin is tuple:
        return " ".join(values(kind) for kind in arguments if kind is not Ellipsis)
    names = {bool: "yes or no", int: "whole number", float: "number", str: "text", Path: "path"}
    return names.get(hint, str(getattr(hint, "__name__", hint)))


def default(option: Option) -> str:
    """A default as it would be typed."""
    value = option.default
    if option.required:
        return "required"
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return " ".join(f"`{item}`" for item in value)
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    run_command(Options, main)
