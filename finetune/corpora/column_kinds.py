"""What a column or an entry of a labelled pickle holds: texts, token ids, word indices or other sequences."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np

from skesl_mug.transcripts import is_missing

LOOKED_AT = 100
"""Samples that tell what a column holds."""


def are_texts(values: Any) -> bool:
    """Whether a column holds transcripts."""
    if isinstance(values, np.ndarray) and values.dtype.kind != "O":
        return values.dtype.kind in "SU"
    return any(isinstance(row, (str, bytes)) for row in as_sequence(values) or ())


def are_tokens(values: Any) -> bool:
    """Whether a column holds token ids as `text_bert` does: [N, 3, L], whose second row is a mask of 0 and 1."""
    if not isinstance(values, np.ndarray) or values.ndim != 3 or values.shape[1] != 3 or not len(values) or values.dtype.kind not in "iuf":
        return False
    first = values[0]
    return bool(np.isin(first[1], (0, 1)).all() and (first[0] == np.round(first[0])).all() and first[1].any())


def are_word_indices(values: Any) -> bool:
    """Whether a column holds a whole number for each word, [N, L], [N, 1, L] or [N, L, 1]. Floats are such numbers if they are not only 0
    and 1, and zeros are at the ends only, as padding is."""
    if as_sequence(values) is None:
        return False
    rows = []
    for value in islice(values, LOOKED_AT):
        try:
            row = np.asarray(value)
        except ValueError:
            return False
        if value is not None and (row.dtype.kind not in "iuf" or row.size != max(row.shape, default=0)):
            return False
        rows += [row.ravel()] if value is not None else []
    numbers = np.concatenate(rows) if rows else np.zeros(0)
    if numbers.dtype.kind in "iu" or not numbers.size:
        return numbers.size > 0
    whole = bool((numbers == np.round(numbers)).all()) and numbers.min() >= 0 and numbers.max() > 1
    return whole and all(np.trim_zeros(row).all() for row in rows)


def are_numbers(words: Any) -> bool:
    """Whether the words of a sample are numbers."""
    words = list(words.ravel()) if isinstance(words, np.ndarray) else words
    known = (int, float, np.number)
    return isinstance(words, (list, tuple)) and len(words) > 0 and all(isinstance(word, known) and not is_missing(word) for word in words)


def as_sequence(values: Any) -> Sequence[Any] | None:
    """The values if they are a sequence."""
    listed = isinstance(values, (list, tuple)) or (isinstance(values, np.ndarray) and values.ndim > 0)
    return values if listed else None


def plain_text(value: Any) -> str:
    """A key or an id as text; empty for None."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    text = "" if value is None else str(value)
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")  # half a character pair cannot be written to any file
