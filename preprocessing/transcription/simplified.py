"""Traditional Chinese characters to simplified ones, by OpenCC's tables (Apache-2.0)."""

from functools import lru_cache
from typing import Any

from preprocessing.transcription.protocol import SpokenWord

SIMPLIFIED = "simplified"
NOT_SIMPLIFIED = "as recognised, for the package opencc is not installed (extra `chinese`)"


@lru_cache(maxsize=1)
def _converter() -> Any:
    try:
        from opencc import OpenCC
    except ImportError:
        return None
    return OpenCC("t2s")


def how_written(wanted: str) -> str:
    """What `dataset.json` says of Chinese characters: `wanted`, or why it is not so."""
    return wanted if wanted != SIMPLIFIED or _converter() is not None else NOT_SIMPLIFIED


def simplify(spoken: list[SpokenWord]) -> list[SpokenWord]:
    """Spoken words in simplified characters, times and probabilities unchanged.

    The text is converted as a whole, for some characters depend on those around them; where that changes its length (OpenCC's table
    for mainland Chinese does so for single characters alone), word by word. Without OpenCC the words stay as they are.
    """
    if _converter() is None:
        return spoken
    texts = [word.text for word in spoken]
    whole = str(_converter().convert("".join(texts)))
    if len(whole) == sum(map(len, texts)):
        place = 0
        for number, text in enumerate(texts):
            texts[number] = whole[place : place + len(text)]
            place += len(text)
    else:
        texts = [str(_converter().convert(text)) for text in texts]
    return [SpokenWord(text, word.start, word.end, word.probability) for text, word in zip(texts, spoken, strict=True)]
