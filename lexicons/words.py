"""Splitting a text into words, and telling content words from function words."""

import re
from functools import lru_cache
from typing import Any

from lexicons.lexicon import UNSPACED, bare_span, normalise
from skesl_mug.errors import UserError


def word_spans(text: str, language: str) -> list[tuple[int, int]]:
    """Start and end (exclusive) of each word of a text, without surrounding punctuation.

    Chinese is segmented by jieba with its own dictionary; other languages are split at white space.

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
    """jieba's segmenter (MIT), without its log messages.

    Raises:
        UserError: jieba is not installed.
    """
    try:
        import jieba
    except ImportError as error:
        raise UserError("Chinese text needs the segmenter jieba: `pip install jieba` (extra `lexicons`)") from error
    jieba.setLogLevel(60)
    return jieba.Tokenizer()


def simplified(text: str) -> str:
    """A text with traditional Chinese characters simplified, as in lexicons; unchanged without opencc or if its length would change."""
    converter = _converter()
    converted = str(converter.convert(text)) if converter is not None and not text.isascii() else text
    return converted if len(converted) == len(text) else text


@lru_cache(maxsize=1)
def _converter() -> Any:
    try:
        from opencc import OpenCC
    except ImportError:
        return None
    return OpenCC("t2s")


_ENGLISH = """
a about above after again against all also am an and another any anybody anyone anything are aren't around as at be because been
before being below between both but by can can't cannot could couldn't did didn't do does doesn't doing don't down during each either
else ever every everybody everyone everything few for from further gonna gotta had hadn't has hasn't have haven't having he he'd he'll
he's her here here's hers herself him himself his how how's however i i'd i'll i'm i've if in into is isn't it it'd it'll it's its
itself just let's may me might mine more most much must mustn't my myself neither no nobody none nor not nothing now of off oh okay on
once one only or other others ought our ours ourselves out over own per quite rather really same shall she she'd she'll she's should
shouldn't since so some somebody someone something still such than that that's the their theirs them themselves then there there's
these they they'd they'll they're they've this those though through to too uh um under until up upon us very was wasn't we we'd we'll
we're we've well were weren't what what's when when's where where's whether which while who who's whom whose why why's will with
within without won't would wouldn't yes yet you you'd you'll you're you've your yours yourself yourselves
"""

FUNCTION_WORDS: dict[str, frozenset[str]] = {"en": frozenset(_ENGLISH.split())}
"""Articles, pronouns, prepositions, auxiliaries and the like, by language code. In other languages every word counts as content."""


def is_content_word(word: str, language: str) -> bool:
    """Whether a word has a letter and is not a function word of its language."""
    form = normalise(word)
    return any(character.isalpha() for character in form) and form not in FUNCTION_WORDS.get(language, frozenset())
