"""Words of a text as character spans: split at blanks, or by a segmenter where a language is written without them."""

import re
from functools import lru_cache
from typing import Any

from lexicons.lexicon import UNSPACED, bare_span
from skesl_mug.errors import UserError


def word_spans(text: str, language: str) -> list[tuple[int, int]]:
    """Start and end (exclusive) of each word of a text, without surrounding punctuation.

    Chinese is segmented by jieba with its own dictionary; every other language splits at blanks.

    Raises:
        UserError: the text is Chinese and jieba is not installed.
    """
    if language in UNSPACED:
        pieces = [(first, last) for _, first, last in segmenter().tokenize(text)]
    else:
        pieces = [match.span() for match in re.finditer(r"\S+", text)]
    spans = []
    for start, end in pieces:
        first, last = bare_span(text[start:end])
        if last > first:
            spans.append((start + first, start + last))
    return spans


@lru_cache(maxsize=1)
def segmenter() -> Any:
    """jieba's segmenter (MIT), with a quiet log.

    Raises:
        UserError: jieba is not installed.
    """
    try:
        import jieba
    except ImportError as error:
        raise UserError("Chinese text needs jieba to find its words; `pip install jieba` (extra `lexicons`)") from error
    jieba.setLogLevel(60)
    return jieba.Tokenizer()
