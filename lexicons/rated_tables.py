"""Rated texts in a csv or tsv file of any delimiter, encoding and scale."""

import csv
import io
import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lexicons.rated_texts import RatedTexts, join_groups, text_key
from skesl_mug.errors import UserError
from skesl_mug.pip_files import hash_of

TEXT_COLUMNS = ("text", "sentence", "transcript", "review", "utterance", "tweet", "comment", "content", "raw_text")
SCORE_COLUMNS = ("score", "rating", "label", "sentiment", "stars", "mean", "mean_rating", "polarity", "valence", "intensity")
SPREAD_COLUMNS = ("spread", "std", "sd")
GROUP_COLUMNS = ("group", "document", "video_id", "review_id")
DELIMITERS = (",", "\t", ";", "|")
LEAST_ROWS = 20
"""Distinct texts below which no regression on a text's features says anything: it has hundreds of them."""
SCRIPT_SHARE = 0.01  # of the texts, in another script than most, from which a note is worth reading
WIDTH = 3.0


def read_rated_table(path: Path, score_range: tuple[float, float] | None = None) -> RatedTexts:
    """Texts and scores of a csv or tsv file, the scores mapped to [-3, 3].

    Columns are known by name, in any capitals: texts (`TEXT_COLUMNS`), scores (`SCORE_COLUMNS`), and, where there are any, the raters'
    standard deviation (`SPREAD_COLUMNS`) and the document (`GROUP_COLUMNS`). `score_range` is mapped linearly to [-3, 3]; without it,
    scores of both signs are divided by their largest magnitude / 3, others mapped from their lowest and highest.
    A text that is there more than once is kept once, with the mean of its scores.

    Raises:
        UserError: the file is no table, columns are missing, the scores say nothing, or fewer than `LEAST_ROWS` texts are left.
    """
    table, notes = _read_table(path)
    columns = {_plain(name): name for name in reversed([str(column) for column in table.columns])}
    text_column = next((columns[name] for name in TEXT_COLUMNS if name in columns), None)
    score_columns = [columns[name] for name in SCORE_COLUMNS if name in columns]
    if text_column is None or not score_columns:
        wanted = (("text (or sentence, review)", text_column is None), ("score (or rating, label)", not score_columns))
        missing = " and ".join(what for what, absent in wanted if absent)
        found = ", ".join(str(column)[:40] for column in table.columns[:12])
        raise UserError(f"--rated {path}: has no column {missing}; found: {found or 'none'}; name the columns in its first line")
    numbers = [_numbers(table[column]) for column in score_columns]
    # `sentiment` may hold words beside a `score` of numbers
    best = next((place for place, column in enumerate(numbers) if np.isfinite(column).any()), 0)
    raw, score_column = numbers[best], score_columns[best]
    texts = [str(text).strip() for text in table[text_column]]
    _check_words(path, table, score_column, raw)
    usable = np.array([bool(text) for text in texts], dtype=bool) & np.isfinite(raw)
    for count, what in (
        (sum(not text for text in texts), "an empty text"),
        (int((np.isfinite(raw) == 0).sum()), f"a {score_column} that is no number"),
    ):
        if count:
            notes.append(f"{count:,} of {len(texts):,} rows skipped: {what}")
    if usable.sum() < LEAST_ROWS:
        raise _too_few(path, int(usable.sum()), len(texts))
    scores, factor, mapping = _scale(path, raw[usable], score_range)
    notes.append(mapping)
    spreads = np.full(len(texts), np.nan)
    spread_column = next((columns[name] for name in SPREAD_COLUMNS if name in columns), None)
    if spread_column is not None:
        spreads = _numbers(table[spread_column])
        spreads = np.where(np.isfinite(spreads) & (spreads >= 0), spreads, np.nan)
    groups = _groups(table, columns, path.stem)
    kept = np.flatnonzero(usable)
    return _merged(path, [texts[row] for row in kept], scores, spreads[kept] * factor, [groups[row] for row in kept], notes)


def _plain(name: str) -> str:
    return "_".join(name.strip().casefold().replace("-", " ").split())


def _decode(path: Path) -> tuple[str, str]:
    """A file's text, and the encoding it was read by."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"--rated {path}: cannot be read ({error.strerror or error})") from error
    if content.startswith(b"PK\x03\x04"):
        raise UserError(f"--rated {path}: is an Excel workbook or an archive; save it as a csv file (UTF-8)")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        order = ["utf-16"]
    else:
        head = content[:4096]
        zeros = (head[0::2].count(0), head[1::2].count(0))
        order = ["utf-16-be"] if zeros[0] > len(head) / 8 else ["utf-16-le"] if zeros[1] > len(head) / 8 else []
        order += ["utf-8-sig", *(["gb18030"] if _looks_chinese(content) else []), "cp1252", "latin-1"]
    for encoding in order:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text, encoding
    raise UserError(f"--rated {path}: is no text file; give a csv or tsv file with the columns text and score")


def _looks_chinese(content: bytes) -> bool:
    """Whether bytes above 127 come in pairs, as in GBK: accented letters of western encodings stand alone between letters."""
    high = pairs = place = 0
    while place < min(len(content), 1 << 20):
        if content[place] < 128:
            place += 1
            continue
        pair = place + 1 < len(content) and content[place + 1] > 128
        high, pairs, place = high + 1, pairs + pair, place + 1 + pair
    return pairs > 0.8 * high


def _read_table(path: Path) -> tuple[pd.DataFrame, list[str]]:
    text, encoding = _decode(path)
    notes = [] if encoding == "utf-8-sig" else [f"read as {encoding.removesuffix('-le').removesuffix('-be')}"]
    lines = text.lstrip("\r\n").splitlines()
    if not lines:
        raise UserError(f"--rated {path}: is empty; give a csv or tsv file with the columns text and score")
    delimiter = _delimiter(lines[0])
    # where no row is broken over lines, quotation marks of a TAB-separated file are characters of its texts
    plain = False
    if delimiter == "\t" and len({line.count("\t") for line in text.split("\n") if line.strip()}) == 1:
        plain = True
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            table = pd.read_csv(
                io.StringIO(text),
                sep=delimiter,
                dtype=str,
                keep_default_na=False,
                index_col=False,
                on_bad_lines="warn",
                quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL,
            ).fillna("")
        except (ValueError, pd.errors.ParserError) as error:
            raise UserError(f"--rated {path}: is no readable csv file ({' '.join(str(error).split())})") from error
    long = sum(str(warning.message).count("Skipping line") for warning in said if issubclass(warning.category, pd.errors.ParserWarning))
    if long:
        notes.append(f"{long:,} rows skipped: more cells than columns (a text with a delimiter needs quotation marks)")
    if plain:
        table = table.rename(columns=_unquote).map(_unquote)
    return table, notes


def _unquote(cell: str) -> str:
    whole = len(cell) > 1 and cell[0] == cell[-1] == '"'
    return cell[1:-1].replace('""', '"') if whole else cell


def _delimiter(header: str) -> str:
    """The delimiter under which a heading has the columns that are wanted, else the one with most columns."""

    def rank(delimiter: str) -> tuple[int, int]:
        names = {_plain(name) for name in next(csv.reader([header], delimiter=delimiter), [])}
        return (bool(names & set(TEXT_COLUMNS)) + bool(names & set(SCORE_COLUMNS)), len(names))

    return max(DELIMITERS, key=rank)


def _numbers(column: pd.Series) -> NDArray[np.float64]:
    """Cells as numbers, NaN where they are none; 3,5 is read as 3.5."""
    cells = [unicodedata.normalize("NFKC", str(cell)).strip().replace("\u2212", "-") for cell in column]
    values = pd.to_numeric(pd.Series(cells, dtype=object), errors="coerce")
    if values.isna().any():
        values = values.fillna(pd.to_numeric(pd.Series([cell.replace(",", ".") for cell in cells], dtype=object), errors="coerce"))
    numbers = values.to_numpy(dtype=np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _check_words(path: Path, table: pd.DataFrame, column: str, raw: NDArray[np.float64]) -> None:
    filled = [str(cell).strip() for cell in table[column] if str(cell).strip()]
    if len(filled) and not np.isfinite(raw).any():
        words = ", ".join(repr(word[:20]) for word, _ in Counter(filled).most_common(3))
        raise UserError(f"--rated {path}: its column {column} holds words ({words}); give each text a number, such as -1, 0 or 1")


def _too_few(path: Path, usable: int, rows: int) -> UserError:
    return UserError(
        f"--rated {path}: {usable} usable texts of {rows:,} rows; at least {LEAST_ROWS} different texts with a score are needed "
        "to learn anything from them"
    )


def _scale(path: Path, raw: NDArray[np.float64], given: tuple[float, float] | None) -> tuple[NDArray[np.float64], float, str]:
    """Scores on [-3, 3], the factor of their unit, and how they were mapped."""
    low, high = float(raw.min()), float(raw.max())
    if low == high:
        raise UserError(f"--rated {path}: all {len(raw):,} scores are {low:g}; there is nothing to learn from equal scores")
    how = f"its scores, {low:g} to {high:g}"
    if given is not None:
        if not (np.isfinite(given).all() and given[0] < given[1]):
            raise UserError(f"--rated {path}: the score range {given[0]:g} to {given[1]:g} is empty; give the lower number first")
        if low < given[0] or high > given[1]:
            raise UserError(f"--rated {path}: {how}, lie outside the score range {given[0]:g} to {given[1]:g}; give the range of its scale")
        span, why = given, "as given"
    elif low < 0:
        widest = max(-low, high)
        span, why = (-widest, widest), "symmetric, because some are below 0"
    else:
        span, why = (low, high), "the lowest and highest found"
    # halves, so that the width of the widest floats is finite
    share = (raw / 2 - span[0] / 2) / (span[1] / 2 - span[0] / 2)
    scores = np.clip(share * 2 * WIDTH - WIDTH, -WIDTH, WIDTH)
    factor = WIDTH / (span[1] / 2 - span[0] / 2)
    return scores, factor, f"{how}, mapped from [{span[0]:g}, {span[1]:g}] ({why}) to [-3, 3]"


def _groups(table: pd.DataFrame, columns: dict[str, str], stem: str) -> list[str]:
    """The document of each row; a row without one is a document of its own."""
    column = next((columns[name] for name in GROUP_COLUMNS if name in columns), None)
    given = [""] * len(table) if column is None else [str(cell).strip() for cell in table[column]]
    return [f"{stem}-{cell}" if cell else f"{stem}-row-{row}" for row, cell in enumerate(given, start=1)]


def _merged(
    path: Path,
    texts: list[str],
    scores: NDArray[np.float64],
    spreads: NDArray[np.float64],
    groups: Sequence[str],
    notes: list[str],
) -> RatedTexts:
    """Each text once, with the mean of its scores; its spread is that of all its raters (within and between its rows)."""
    groups = join_groups(groups, texts)
    keys = [text_key(text) for text in texts]
    _, first, where = np.unique(np.array(keys, dtype=object), return_index=True, return_inverse=True)
    count = np.bincount(where)
    mean = np.bincount(where, scores) / count
    variance = np.bincount(where, spreads**2 + (scores - mean[where]) ** 2) / count
    order = np.argsort(first)
    if len(first) < len(texts):
        differing = len({place for place, score in zip(where, scores, strict=True) if score != scores[first[place]]})
        notes.append(
            f"{len(texts) - len(first):,} rows repeat a text of another row: kept once, with the mean score (different scores: {differing:,})"
        )
    if len(first) < LEAST_ROWS:
        raise _too_few(path, len(first), len(texts))
    kept = [texts[row] for row in first[order]]
    notes += _script_notes(kept)
    return RatedTexts(
        name=path.name,
        texts=kept,
        scores=np.clip(mean[order], -WIDTH, WIDTH).astype(np.float32),
        spreads=np.sqrt(variance[order]).astype(np.float32),
        groups=[groups[row] for row in first[order]],
        sha256=hash_of(path),
        notes=tuple(notes),
    )


@cache
def _script(letter: str) -> str:
    name = unicodedata.name(letter, "OTHER").split()[0]
    return {"HIRAGANA": "CJK", "KATAKANA": "CJK", "FULLWIDTH": "LATIN"}.get(name, name)


def _script_notes(texts: list[str]) -> list[str]:
    """A note where texts are written in two scripts, each by most of its letters."""
    scripts = Counter[str]()
    for text in texts:
        letters = Counter(_script(letter) for letter in text if letter.isalpha())
        if letters:
            scripts[letters.most_common(1)[0][0]] += 1
    others = scripts.total() - max(scripts.values(), default=0)
    if others < SCRIPT_SHARE * len(texts) or not others:
        return []
    return [f"{others:,} of {len(texts):,} texts are written in another script than the rest; the language model has to know both"]
