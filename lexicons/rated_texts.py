"""Texts with people's ratings: the type, texts that belong together, and reading them from csv or tsv files."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skesl_mug.errors import UserError
from skesl_mug.pip_files import hash_of
from skesl_mug.tables import Table, excerpt, parse_number, read_table
from skesl_mug.transcripts import EMPTY, read_transcripts

TEXT_COLUMNS = ("text", "sentence", "transcript", "review", "utterance", "tweet", "comment", "content", "raw_text")
SCORE_COLUMNS = ("score", "rating", "label", "sentiment", "stars", "mean", "mean_rating", "polarity", "valence", "intensity")
SPREAD_COLUMNS = ("spread", "std", "sd")
GROUP_COLUMNS = ("group", "document", "video_id", "review_id")
LEAST_ROWS = 20
"""Minimum number of different texts, so that some can be held out."""
SCRIPT_SHARE = 0.01  # share of texts in another script from which a note is given
WIDTH = 3.0
Floats = NDArray[np.float64]
IDEOGRAMS = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # written without spaces: each counts as a word
_WORDS = re.compile(rf"[{IDEOGRAMS}]|[^\W{IDEOGRAMS}]+")


@dataclass(frozen=True)
class RatedTexts:
    """N texts with mean ratings on the scale of MOSI's labels."""

    name: str
    """Their source, as reports name it."""
    texts: list[str]
    scores: NDArray[np.float32]
    """[N] mean rating, on [-3, 3]."""
    spreads: NDArray[np.float32]
    """[N] standard deviation of the raters' ratings, in the same units; NaN where unknown."""
    groups: list[str]
    """Document (review, article) of each text; a group must not be split between training and validation."""
    sha256: str
    """Hash of the source file."""
    notes: tuple[str, ...] = ()
    """Notes for the user: number of skipped rows, mapping of the scores."""

    def __len__(self) -> int:
        """The number of texts."""
        return len(self.texts)


def text_key(text: str) -> str:
    """A key that ignores case, spaces and punctuation: the words of a text, or all its characters if it has no words."""
    return " ".join(_WORDS.findall(text.casefold())) or "".join(text.split())


def join_groups(groups: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Merge groups that share a text (equal `text_key`) under the name of the first one; returns the group of each text."""
    first = {group: place for place, group in reversed(list(enumerate(groups)))}
    parent = dict(zip(groups, groups, strict=True))

    def root(group: str) -> str:
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    owner: dict[str, str] = {}
    for group, text in zip(groups, texts, strict=True):
        here, there = root(group), root(owner.setdefault(text_key(text), group))
        early, late = sorted((here, there), key=first.__getitem__)
        parent[late] = early
    return [root(group) for group in groups]


def _ngrams(text: str, n: int) -> Iterable[tuple[str, ...]]:
    words = _WORDS.findall(text.lower())
    return zip(*(words[start:] for start in range(n)), strict=False)


def shared_ngrams(texts: Sequence[str], others: Sequence[str], n: int = 6) -> NDArray[np.bool_]:
    """Whether each text shares `n` consecutive words with any of `others`, bool [len(texts)]; case and punctuation are ignored.

    An ideogram counts as a word; a text of fewer than `n` words shares none.

    Raises:
        ValueError: `n` is below 1.
    """
    if n < 1:
        raise ValueError(f"n = {n}: an n-gram has at least one word")
    known = {gram for other in others for gram in _ngrams(other, n)}
    return np.array([any(gram in known for gram in _ngrams(text, n)) for text in texts], dtype=bool)


def read_rated_table(path: Path, score_range: tuple[float, float] | None = None) -> RatedTexts:
    """Texts and scores of a csv or tsv file, with scores mapped to [-3, 3].

    Columns are found by name, ignoring case: text (`TEXT_COLUMNS`), score (`SCORE_COLUMNS`), and optionally the raters' standard
    deviation (`SPREAD_COLUMNS`) and the document (`GROUP_COLUMNS`). `score_range` is mapped linearly to [-3, 3]. Its default is the
    range of the scores; if some are negative, the symmetric range of their largest magnitude.
    A repeated text is kept once, with the mean of its scores and the spread of all its raters.

    Raises:
        UserError: the file is not a table, columns are missing, scores are words or all equal, or fewer than `LEAST_ROWS` texts are left.
    """
    cells = read_table(
        path, (*TEXT_COLUMNS, *SCORE_COLUMNS), place=f"--rated {path}", needed="choose a csv or tsv file with the columns text and score",
        long_rows="skip",
    )  # fmt: skip
    text_column, score_column, raw = _columns(path, cells)
    given, counts = read_transcripts(cells.columns[text_column])
    notes = [*cells.notes, *(f"{what}: {count:,}" for what, count in counts.items() if what != EMPTY)]
    texts = [text.strip() for text in given]
    has_text, has_score = np.array([bool(text) for text in texts], dtype=bool), np.isfinite(raw)
    usable = has_text & has_score
    for valid, reason in ((has_text, f"no {text_column}"), (has_score | ~has_text, f"a {score_column} that is not a number")):
        if not valid.all():
            notes.append(f"{int((~valid).sum()):,} of {len(texts):,} rows skipped: {reason}")
    if usable.sum() < LEAST_ROWS:
        raise _too_few(path, int(usable.sum()), len(texts))
    span, mapping = _span(path, raw[usable], score_range)
    notes.append(mapping)
    scores = np.clip(_stretch(raw[usable], span, origin=span[0]) - WIDTH, -WIDTH, WIDTH)
    spread_column = cells.column_named(*SPREAD_COLUMNS)
    spreads = np.full(len(texts), np.nan) if spread_column is None else _numbers(cells.columns[spread_column])
    spreads = _stretch(np.where(spreads >= 0, spreads, np.nan), span, origin=0.0)[usable]
    group_column = cells.column_named(*GROUP_COLUMNS)
    if group_column is None:
        notes.append("no column group (document, video_id, review_id): each text counts as its own document")
    documents = [""] * len(texts) if group_column is None else cells.columns[group_column]
    groups = [f"{path.stem}-{name.strip()}" if name.strip() else f"{path.stem}-row-{row}" for row, name in enumerate(documents, 1)]
    kept = np.flatnonzero(usable)
    return _each_once(path, [texts[row] for row in kept], scores, spreads, [groups[row] for row in kept], notes)


def _columns(path: Path, cells: Table) -> tuple[str, str, Floats]:
    """The text column, the score column and its numbers; a numeric column is preferred over one of words (`stars` over `sentiment`)."""
    text_column = cells.column_named(*TEXT_COLUMNS)
    candidates = [column for name in SCORE_COLUMNS if (column := cells.column_named(name)) is not None]
    if text_column is None or not candidates:
        wanted = (("text (or sentence, transcript, review)", text_column is None), ("score (or rating, label, stars)", not candidates))
        missing = " and no column ".join(what for what, absent in wanted if absent)
        found = ", ".join(excerpt(column) for column in list(cells.columns)[:12])
        raise UserError(f"--rated {path}: has no column {missing}; found: {found}; its first line must name the columns")
    numbers = {column: _numbers(cells.columns[column]) for column in candidates}
    best = next((column for column in candidates if np.isfinite(numbers[column]).any()), candidates[0])
    words = Counter(excerpt(cell.strip(), 20) for cell in cells.columns[best] if cell.strip())
    if words and not np.isfinite(numbers[best]).any():
        shown = ", ".join(word for word, _ in words.most_common(3))
        raise UserError(f"--rated {path}: its column {best} holds words ({shown}); it must hold a number for each text, such as -1, 0 or 1")
    return text_column, best, numbers[best]


def _numbers(column: Sequence[str]) -> Floats:
    """Cells as numbers [N], NaN where they are not; 3,5 is read as 3.5."""
    return np.array([math.nan if (number := parse_number(cell)) is None else number for cell in column], dtype=np.float64)


def _too_few(path: Path, usable: int, rows: int) -> UserError:
    return UserError(
        f"--rated {path}: has {usable} usable texts in {rows:,} rows; at least {LEAST_ROWS} different texts with a score are needed, "
        "so that some can be held out for validation"
    )


def _span(path: Path, raw: Floats, given: tuple[float, float] | None) -> tuple[tuple[float, float], str]:
    """Lowest and highest score of the scale, and a note on how it was determined."""
    low, high = float(raw.min()), float(raw.max())
    if low == high:
        raise UserError(f"--rated {path}: all its {len(raw):,} scores are {low:g}; choose texts with different scores")
    if given is not None:
        if not (all(math.isfinite(end) for end in given) and given[0] < given[1]):
            raise UserError(f"--rated {path}: the score range {given[0]:g} to {given[1]:g} is empty; pass the lowest score first")
        if low < given[0] or high > given[1]:
            raise UserError(
                f"--rated {path}: its scores, {low:g} to {high:g}, go beyond the score range {given[0]:g} to {given[1]:g}; "
                "pass the lowest and highest score of its scale"
            )
        span, why = given, "given"
    elif low < 0:
        widest = max(-low, high)
        span, why = (-widest, widest), "symmetric, as some scores are below 0"
    else:
        span, why = (low, high), "the lowest and highest found"
    return span, f"scores from {low:g} to {high:g}: the scale {span[0]:g} to {span[1]:g} ({why}) is mapped to -3 to 3"


def _stretch(values: Floats, span: tuple[float, float], origin: float) -> Floats:
    """Distances from `origin`, scaled so that `span` has width 6; safe for very large and very small floats."""
    widest = max(abs(span[0]), abs(span[1]))
    with np.errstate(over="ignore", invalid="ignore"):
        stretched: Floats = (values / widest - origin / widest) / (span[1] / widest - span[0] / widest) * 2 * WIDTH
    return np.where(np.abs(stretched) < np.finfo(np.float32).max, stretched, np.nan)


def _each_once(path: Path, texts: list[str], scores: Floats, spreads: Floats, groups: list[str], notes: list[str]) -> RatedTexts:
    """Merge repeated texts: mean score, and the spread over all raters, within and between rows."""
    groups = join_groups(groups, texts)
    place_of: dict[str, int] = {}
    place = np.array([place_of.setdefault(" ".join(text.casefold().split()), len(place_of)) for text in texts])
    first = np.unique(place, return_index=True)[1]
    count = np.bincount(place)
    mean = np.bincount(place, scores) / count
    variance = np.bincount(place, spreads**2 + (scores - mean[place]) ** 2) / count
    if len(first) < len(texts):
        differing = len(set(place[scores != scores[first[place]]].tolist()))
        notes.append(
            f"{len(texts) - len(first):,} of {len(texts):,} rows repeat a text: each is kept once, with its mean score "
            f"(texts with different scores: {differing:,})"
        )
    if len(first) < LEAST_ROWS:
        raise _too_few(path, len(first), len(texts))
    if np.ptp(mean) == 0:
        raise UserError(f"--rated {path}: all its texts have the same mean score; choose texts with different scores")
    kept = [texts[row] for row in first]
    return RatedTexts(
        name=path.name,
        texts=kept,
        scores=np.clip(mean, -WIDTH, WIDTH).astype(np.float32),
        spreads=np.sqrt(variance).astype(np.float32),
        groups=[groups[row] for row in first],
        sha256=hash_of(path),
        notes=(*notes, *_script_notes(kept)),
    )


@cache
def _script(letter: str) -> str:
    name = unicodedata.name(letter, "OTHER").split()[0]
    return {"HIRAGANA": "CJK", "KATAKANA": "CJK", "FULLWIDTH": "LATIN"}.get(name, name)


def script_of(text: str) -> str:
    """The script of most letters of a text; empty if it has no letters."""
    if text.isascii():
        return "LATIN" if any(map(str.isalpha, text)) else ""
    letters = Counter(_script(letter) for letter in text if letter.isalpha())
    return max(letters, key=letters.__getitem__, default="")


def _script_notes(texts: list[str]) -> list[str]:
    """A note if texts are written in several scripts."""
    scripts = Counter(script for text in texts if (script := script_of(text)))
    others = scripts.total() - max(scripts.values(), default=0)
    if others < max(1, SCRIPT_SHARE * len(texts)):
        return []
    return [f"{others:,} of {len(texts):,} texts are in another script than the rest; the language model must know both"]
