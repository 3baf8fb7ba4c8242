"""Compare lexicons on a corpus: coverage, agreement, and the words on which they differ most."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: import from the checkout, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING

import tyro

from skesl_mug.console import CommandOptions, run_command
from skesl_mug.errors import UserError
from skesl_mug.tables import read_table
from skesl_mug.text_files import print_notes, read_text

if TYPE_CHECKING:
    from lexicons.lexicon import Lexicon

TEXT_COLUMNS = ("text", "transcript", "true_text", "raw_text", "sentence")
MIN_SHARED = 3  # number of shared entries needed for a correlation


@dataclass(kw_only=True)
class CompareOptions(CommandOptions):
    """Compare lexicons on the texts of a corpus: coverage, agreement, and the words on which two lexicons differ most."""

    texts: tyro.conf.Positional[Path]
    """Utterance dataset, csv file with a column text, or text file with one sentence per line."""
    lexicons: list[str] = field(default_factory=lambda: ["vader", "afinn"])
    """Lexicons by name (vader, afinn, senticnet, labmt; senticnet-zh, emobank-zh, labmt-zh) or file, all of one language."""
    words: int = 10
    """Number of words to list for each pair."""


@dataclass
class Coverage:
    """Sentences with an entry, words that belong to one, and the count and intensity of each entry found."""

    sentences: int = 0
    covered: int = 0
    words: int = 0
    matched: int = 0
    entries: Counter[str] = field(default_factory=Counter)
    values: dict[str, float] = field(default_factory=dict)

    @property
    def sentence_share(self) -> float:
        """Share of sentences with at least one entry; in the others a word of intensity 0 is masked."""
        return self.covered / self.sentences if self.sentences else 0.0

    @property
    def word_share(self) -> float:
        """Share of words that belong to an entry."""
        return self.matched / self.words if self.words else 0.0


@dataclass
class Agreement:
    """Agreement of two lexicons on the entries that both find in a corpus, each counted once."""

    shared: int
    correlation: float | None
    same_sign: float | None
    difference: float | None
    furthest: list[tuple[str, float, float]]


def read_texts(path: Path) -> Iterator[str]:
    """The texts of an utterance dataset, a csv file or a text file.

    Raises:
        UserError: the path is none of these, or cannot be read.
    """
    if path.is_dir():
        shards = sorted((path / "data").glob("*.parquet"))
        if not shards:
            raise UserError(f"{path}: is not an utterance dataset (no data/*.parquet)")
        yield from _texts_of(shards)
    elif path.suffix.lower() in (".csv", ".tsv"):
        table = read_table(path, TEXT_COLUMNS, quiet=False)
        column = table.column_named(*TEXT_COLUMNS)
        if column is None:
            raise UserError(f"{path}: has none of the columns {', '.join(TEXT_COLUMNS)}")
        yield from table.columns[column]
    else:
        text, notes = read_text(path)
        print_notes(path, notes)
        yield from text.splitlines()


def _texts_of(shards: Sequence[Path]) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    for shard in shards:
        try:
            yield from pyarrow.parquet.read_table(shard, columns=["text"])["text"].to_pylist()
        except (pyarrow.ArrowException, KeyError) as error:
            raise UserError(f"{shard}: is not a readable shard of an utterance dataset ({error}); run preprocessing again") from error


def cover(texts: Sequence[str], lexicon: "Lexicon") -> Coverage:
    """Look up all words of some texts."""
    from lexicons.lexicon import normalise
    from lexicons.words import word_spans

    found = Coverage()
    for text in texts:
        words = [text[start:end] for start, end in word_spans(text, lexicon.language)]
        if not words:
            continue
        matches = lexicon.matches(words)
        found.sentences += 1
        found.covered += bool(matches)
        found.words += len(words)
        for match in matches:
            found.matched += match.last - match.first
            joiner = "" if lexicon.language == "zh" else " "
            entry = joiner.join(normalise(word) for word in words[match.first : match.last])
            found.entries[entry] += 1
            found.values[entry] = match.intensity
    return found


def agree(first: Coverage, second: Coverage, words: int) -> Agreement:
    """Compare the intensities of shared entries; `words` is the number of largest differences to keep."""
    import numpy as np

    shared = sorted(set(first.values) & set(second.values))
    if not shared:
        return Agreement(0, None, None, None, [])
    left = np.array([first.values[entry] for entry in shared])
    right = np.array([second.values[entry] for entry in shared])
    correlation = None
    if len(shared) >= MIN_SHARED and left.std() > 0 and right.std() > 0:
        correlation = float(np.corrcoef(left, right)[0, 1])
    order = np.argsort(-np.abs(left - right), kind="stable")[:words]
    furthest = [(shared[place], float(left[place]), float(right[place])) for place in order]
    return Agreement(
        len(shared), correlation, float((np.sign(left) == np.sign(right)).mean()), float(np.abs(left - right).mean()), furthest
    )


def main(options: CompareOptions) -> None:
    """Print coverage, agreement and the largest differences.

    Raises:
        UserError: a lexicon or the texts cannot be read, or the lexicons are of different languages.
    """
    from lexicons.sources import load_lexicon

    lexicons = [load_lexicon(name) for name in options.lexicons]
    languages = sorted({lexicon.language for lexicon in lexicons})
    if len(languages) > 1:
        raise UserError(f"--lexicons: different languages ({', '.join(languages)}); choose lexicons of one")
    texts = [text for text in read_texts(options.texts) if text and text.strip()]
    found = [cover(texts, lexicon) for lexicon in lexicons]
    print(f"{options.texts}: {found[0].sentences} sentences, {found[0].words} words ({languages[0]}); intensities in [-3, 3]\n")
    print(f"{'lexicon':16s} {'entries':>8s} {'sentences':>10s} {'words':>7s} {'distinct':>9s} {'mean':>6s}  most frequent")
    for lexicon, coverage in zip(lexicons, found, strict=True):
        total = sum(coverage.entries.values())
        mean = sum(coverage.values[entry] * count for entry, count in coverage.entries.items()) / total if total else 0.0
        frequent = ", ".join(f"{entry} {coverage.values[entry]:+.1f}" for entry, _ in coverage.entries.most_common(5))
        print(
            f"{lexicon.name:16s} {len(lexicon):8d} {coverage.sentence_share:10.1%} {coverage.word_share:7.1%} "
            f"{len(coverage.values):9d} {mean:+6.2f}  {frequent}"
        )
    for (left, one), (right, other) in combinations(zip(lexicons, found, strict=True), 2):
        agreement = agree(one, other, options.words)
        print(f"\n{left.name} and {right.name}: {agreement.shared} entries in common", end="")
        if agreement.same_sign is None:
            print()
            continue
        correlation = f", correlation {agreement.correlation:.2f}" if agreement.correlation is not None else ""
        print(f"{correlation}, same sign {agreement.same_sign:.0%}, mean difference {agreement.difference:.2f}; largest differences:")
        for entry, value, rival in agreement.furthest:
            print(f"  {entry:24s} {value:+6.2f} {rival:+6.2f}")


if __name__ == "__main__":
    run_command(CompareOptions, main)
