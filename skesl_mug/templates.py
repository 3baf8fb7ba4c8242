"""Pages and cards are Jinja2 templates beside the modules that fill them: `NAME.html.jinja`, `NAME.md.jinja`."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape


@cache
def templates(folder: Path) -> Environment:
    """The templates of a folder. Values in `.html.jinja` files are escaped; a missing value is an error.

    >>> environment = templates(Path("."))
    >>> environment.from_string("{{ name }}").render(name="MUG")
    'MUG'
    """
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=select_autoescape(("html.jinja",), default_for_string=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
