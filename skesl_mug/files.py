"""Files that are written completely or not at all."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skesl_mug.errors import UserError
from skesl_mug.wording import shortened


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file completely or not at all: `write(temporary)`, fsync, rename to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{shortened(path.name)}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, entries: Any) -> None:
    """Write indented JSON completely or not at all."""
    text = json.dumps(entries, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> Any:
    """Read a JSON file that `write_json` wrote.

    Raises:
        UserError: the file is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is damaged ({error}); delete it and run the same command again to write a new one") from error
