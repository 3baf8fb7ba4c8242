"""Absolute paths of a machine in what is shared: found in values and in sentences, and reduced to their last part. URLs stay."""

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

_CLOSING = r"[\"'`“”’»](?!\w)"
_PIECE = r"(?:[^\s/\\\"'`<>|:”’»]|(?<=\w)['’](?=\w))"
"""A character of a file's name."""
_FOLDER = rf"(?:[\w@+'’-]+(?: [\w@+'’-]+){{1,6}}(?=[/\\])|{_PIECE}+)"
"""A folder's name, in which there may be spaces where a slash follows."""
_ROOT = r"(?:~(?:[A-Za-z_][\w.-]*)?[/\\]|file:[/\\]+|[A-Za-z][A-Za-z0-9+.-]{1,30}:/{3,}|[A-Za-z]:[/\\]+|\\\\+)"
"""What an absolute path begins with, but for the single slash."""
_BEFORE = r"(?:^|(?<=[\s\"'`“‘«„(\[{<=:,;|@&（：，、]))"
_URL = r"(?!file:)[A-Za-z][A-Za-z0-9+.-]{1,30}://(?![/\s])(?:(?![,;|]+(?:[/~\\]|file:)|::[/~])[^\s\"'`<>])+"
_PATHS = re.compile(
    rf"(?P<url>{_URL})"
    rf"|(?<=[\"'`“‘«„])(?:{_ROOT}|/+(?=[^\s/\"'`]+/))(?:(?!://)(?!{_CLOSING})[^\n])*(?={_CLOSING})"  # in quotation marks
    rf"|{_BEFORE}(?:{_ROOT}(?:{_FOLDER}[/\\]+)*{_PIECE}*|/+(?:{_FOLDER}[/\\]+)+{_PIECE}+[/\\]*)",
    re.MULTILINE,
)


def without_paths(value: Any) -> Any:
    """JSON values in which absolute paths are replaced with their last part.

    >>> without_paths(["/home/ann/clips", "from 'C:/Users/ann/my clips/a.csv', see https://example.org/a/b"])
    ['clips', "from 'a.csv', see https://example.org/a/b"]
    """
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(item) for item in value]
    if not isinstance(value, str):
        return value
    if is_path(value):
        return _last(value)
    return _PATHS.sub(lambda found: found.group() if found["url"] else _last(found.group()), value)


def is_path(value: str) -> bool:
    """Whether a text is an absolute path of some system."""
    rest = value[found.end() :] if (found := re.match(_ROOT, value)) else value
    absolute = found is not None or PurePosixPath(value).is_absolute() or bool(PureWindowsPath(value).drive and "\\" in value)
    return absolute and "\n" not in value and "://" not in rest


def _last(path: str) -> str:
    return re.split(r"[/\\]+", path.rstrip("/\\"))[-1]
