"""Transcripts as files give them: missing ones are absent text, and control characters are removed."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

EMPTY = "empty transcripts"
CONTROLS = "transcripts with control characters or damaged letters, cleaned"
FROM_FLOAT = "transcripts `nan` in an array of numpy that held floats, taken as missing"
NAN_WORD = "transcripts that are the word `nan`, kept as text; leave them empty if they are missing"
FLOAT_WIDTH = 32  # characters of a text array of numpy that was made of texts and floats
_SPACES = re.compile("[\x0b\x0c\x1c-\x1f\x85\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufffe\uffff]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def is_missing(value: Any) -> bool:
    """Whether a value stands for a missing text: None, a NaN, or NA of pandas."""
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, (float, np.floating)) and value != value)


def clean_text(text: str) -> str:
    """A text without control characters (tabs and line ends stay) and lone surrogates; other texts are unchanged."""
    if text.isprintable():
        return text
    text = _CONTROLS.sub("", _SPACES.sub(" ", text))
    if _SURROGATES.search(text):  # pairs are one character, as JSON writes them
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def as_text(value: Any) -> str:
    """A value as text, before `clean_text`: bytes are UTF-8, and a missing value is empty."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return "" if is_missing(value) else str(value)


def read_transcripts(values: Iterable[Any]) -> tuple[list[str], Counter[str]]:
    """The texts of a column, "" where it has none, and how many were absent or changed, by what is said about them.

    A word `nan` is text, except in a text array of numpy that is as wide as numpy makes it for floats: there it comes from a NaN.
    """
    width = 0
    if isinstance(values, np.ndarray) and values.dtype.kind in "SU":
        width = values.dtype.itemsize // (4 if values.dtype.kind == "U" else 1)
    from_floats = width >= FLOAT_WIDTH
    counts: Counter[str] = Counter()
    texts = []
    for value in values:
        if isinstance(value, (list, tuple, np.ndarray)) and np.size(value) == 1 and np.ndim(value):
            value = value[0]
        given = as_text(value)
        text = clean_text(given)
        counts[CONTROLS] += text != given
        if text == "nan":
            counts[FROM_FLOAT if from_floats else NAN_WORD] += 1
            text = "" if from_floats else text
        counts[EMPTY] += not text.strip()
        texts.append(text)
    return texts, +counts
