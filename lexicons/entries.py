"""The entries of a lexicon file: TSV, CSV, YAML or JSON of words and numbers, as they stand."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from skesl_mug.errors import UserError

FILE_TYPES = (".tsv", ".txt", ".csv", ".yaml", ".yml", ".json")


def read_entries(path: Path) -> dict[str, float]:
    """The entries of a lexicon file as they stand: text -> number.

    In tables the columns are TAB-separated (.tsv, .txt) or comma-separated (.csv), never split at blanks: "fed up" is one entry.
    A first line whose second column is no number is taken as a heading.

    Raises:
        UserError: the file cannot be read, or an entry has no number.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UserError(f"--lexicon {path}: cannot be read ({reason})") from error
    kind = path.suffix.lower()
    if kind in (".tsv", ".txt", ".csv"):
        # no quoting in TAB-separated files: VADER has entries such as `:'(` and `"` is a character there
        reader = csv.reader(io.StringIO(text)) if kind == ".csv" else (line.split("\t") for line in text.splitlines())
        try:
            return _from_table(reader, path)
        except csv.Error as error:
            raise UserError(f"--lexicon {path}: is no readable csv file ({error})") from error
    try:
        # plain strings: YAML would read the words `no`, `yes` and `on` as truth values
        entries = json.loads(text) if kind == ".json" else yaml.load(text, Loader=yaml.BaseLoader)
    except (ValueError, yaml.YAMLError, RecursionError, OverflowError) as error:
        raise UserError(f"--lexicon {path}: is no {kind.removeprefix('.').upper()} ({error})") from error
    return _from_mapping(entries, path)


def _from_table(rows: Iterable[list[str]], path: Path) -> dict[str, float]:
    entries: dict[str, float] = {}
    for number, row in enumerate(rows, start=1):
        if not any(cell.strip() for cell in row):
            continue
        value = _number(row[1]) if len(row) > 1 else None
        if value is not None:
            entries[row[0].strip()] = value
        elif number > 1:
            raise UserError(f"--lexicon {path}: line {number} has no number in its second column")
    return entries


def _from_mapping(entries: Any, path: Path) -> dict[str, float]:
    if not isinstance(entries, Mapping):
        raise UserError(f"--lexicon {path}: holds no mapping of words to numbers")
    if isinstance(entries.get("Dictionary"), Mapping):  # cntext: word -> {valence, arousal}
        rated = entries["Dictionary"]
        entries = {word: values.get("valence") if isinstance(values, Mapping) else values for word, values in rated.items()}
    found = {str(word): _number(value) for word, value in entries.items()}
    wrong = next((word for word, value in found.items() if value is None), None)
    if wrong is not None:
        raise UserError(f"--lexicon {path}: the entry {wrong!r} has no number")
    return {word: value for word, value in found.items() if value is not None}


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):  # OverflowError: a whole number of hundreds of digits
        return None
    return number if math.isfinite(number) else None


def is_valence_file(path: Path) -> bool:
    """Whether a YAML file has cntext's form: a `Dictionary` of words with `valence`."""
    if path.suffix.lower() not in (".yaml", ".yml"):
        return False
    text = path.read_text(encoding="utf-8-sig")
    return "\nDictionary:" in text and "valence:" in text
