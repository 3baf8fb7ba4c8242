"""Readers of lexicons: those of pip packages by name, and any TSV, CSV, YAML or JSON file of words and numbers."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from lexicons.errors import UserError
from lexicons.lexicon import Lexicon, build_lexicon
from lexicons.packages import PACKAGED

FILE_TYPES = (".tsv", ".txt", ".csv", ".yaml", ".yml", ".json")


def load_lexicon(
    name: str | Path, scale_to: float | None = 3.0, raw_range: tuple[float, float] | None = None, language: str = "en"
) -> Lexicon:
    """Load a lexicon by name (one of `PACKAGED`) or from a file, scaled to [-scale_to, scale_to] (None: the source's own numbers).

    A file holds words and numbers: two TAB-separated (.tsv, .txt) or comma-separated (.csv) columns, or a mapping (.yaml, .json).
    `raw_range` is the span of a file's scale, by default symmetric and as wide as its largest number; `language` is that of a file.
    cntext's form of Chinese EmoBank (a `Dictionary` of words with a `valence`) is known: Chinese, 1 to 9.

    Raises:
        UserError: the name is not known, or the file cannot be read.
    """
    if str(name) in PACKAGED:
        return _load_packaged(str(name), scale_to)
    path = Path(name)
    if path.suffix.lower() not in FILE_TYPES:
        raise UserError(
            f"--lexicon {name}: is not known; give {', '.join(PACKAGED)}, or a file ({', '.join(FILE_TYPES)}) of words and numbers"
        )
    raw = read_entries(path)
    if is_valence_file(path):
        raw_range, language = raw_range or (1.0, 9.0), "zh"
    widest = max((abs(value) for value in raw.values()), default=0.0)
    span = raw_range or (-widest, widest)
    if not span[0] < span[1]:
        raise UserError(f"{path}: the range of its numbers is empty ({span[0]:g} to {span[1]:g}); give words with numbers other than 0")
    return build_lexicon(
        raw,
        name=path.stem,
        language=language,
        raw_range=span,
        scale_to=scale_to,
        source=path.name,
        licence="as given by its authors",
    )


def is_valence_file(path: Path) -> bool:
    """Whether a YAML file has cntext's form: a `Dictionary` of words with `valence`."""
    if path.suffix.lower() not in (".yaml", ".yml"):
        return False
    text = path.read_text(encoding="utf-8-sig")
    return "\nDictionary:" in text and "valence:" in text


def _load_packaged(name: str, scale_to: float | None) -> Lexicon:
    packaged = PACKAGED[name]
    path = packaged.path(name)
    try:
        raw = packaged.read(path)
    except (OSError, ValueError, LookupError) as error:
        raise UserError(f"--lexicon {name}: {path.name} of {packaged.source} cannot be read ({error}); install it again") from error
    return build_lexicon(
        raw,
        name=name,
        language=packaged.language,
        raw_range=packaged.range,
        scale_to=scale_to,
        source=packaged.source,
        licence=packaged.licence,
    )


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
