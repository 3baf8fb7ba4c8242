"""Transcripts as files give them: missing ones are absent text, and control characters are removed."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from skesl_mug.errors import UserError
from skesl_mug.wording import a_kind

EMPTY = "empty transcripts"
CONTROLS = "transcripts with control characters or damaged letters, cleaned"
FROM_FLOAT = "transcripts `nan` in a text array of numpy at least 32 wide, as it makes of floats: taken as missing; use a list for the word"
NAN_WORD = "transcripts that are the word `nan`, kept as text; leave them empty if they are missing"
FLOAT_WIDTH = 32  # characters of a text array of numpy that was made of texts and floats
PAUSES = {"sp", "sil"}
"""What CMU's word alignments have in place of a word where nobody speaks."""
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


def as_text(value: Any, place: str) -> str:
    """A value as text, before `clean_text`: bytes are UTF-8, a missing value is empty, and lists of words are joined.

    Raises:
        UserError: it is a container of something else; `place` is what messages call it.
    """
    if isinstance(value, np.ndarray):
        value = value.item() if value.size == 1 else list(value.ravel())
    if isinstance(value, (list, tuple)):
        return as_text(value[0], place) if len(value) == 1 and not is_listed(value[0]) else join_words(value, place)
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if is_listed(value):
        raise UserError(f"{place} is {a_kind(value)}, not text or a list of words")
    return "" if is_missing(value) else str(value)


def is_listed(value: Any) -> bool:
    """Whether a value holds others."""
    return isinstance(value, (list, tuple, dict, set, frozenset)) or (isinstance(value, np.ndarray) and value.ndim > 0)


def join_words(words: Any, place: str) -> str:
    """A transcript from a word, or a list or array of words (text or bytes), without the marks of pauses.

    Raises:
        UserError: it contains something else; `place` is what messages call it.
    """
    words = list(words.ravel()) if isinstance(words, np.ndarray) else words
    texts = []
    for word in words if isinstance(words, (list, tuple)) else [words]:
        if not isinstance(word, (str, bytes)) and not is_missing(word):
            raise UserError(f"{place} contains {a_kind(word)} where a word is expected")
        texts.append(as_text(word, place).strip())
    return " ".join(text for text in texts if text and text not in PAUSES)


def read_transcripts(values: Iterable[Any], place: str = "the transcripts") -> tuple[list[str], Counter[str]]:
    """The texts of a column, "" where it has none, and how many were absent or changed, by what is said about them.

    A word `nan` is text, except in a text array of numpy that is as wide as numpy makes it for floats: there it is taken for a NaN.

    Raises:
        UserError: one is neither text nor a list of words; `place` is what messages call the column.
    """
    width = 0
    if isinstance(values, np.ndarray) and values.dtype.kind in "SU":
        width = values.dtype.itemsize // (4 if values.dtype.kind == "U" else 1)
    from_floats = width >= FLOAT_WIDTH
    counts: Counter[str] = Counter()
    texts = []
    for number, value in enumerate(values):
        given = str(value) if isinstance(value, str) else as_text(value, f"{place}: sample {number}")
        text = clean_text(given)
        counts[CONTROLS] += text != given
        if text == "nan":
            counts[FROM_FLOAT if from_floats else NAN_WORD] += 1
            text = "" if from_floats else text
        counts[EMPTY] += not text.strip()
        texts.append(text)
    return texts, +counts
