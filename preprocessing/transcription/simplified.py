"""Traditional Chinese characters to simplified ones, by OpenCC's tables (Apache-2.0)."""

from functools import lru_cache
from typing import Any

from lexicons.errors import UserError
from preprocessing.transcription.protocol import SpokenWord


@lru_cache(maxsize=1)
def _converter() -> Any:
    try:
        from opencc import OpenCC
    except ImportError as error:
        raise UserError(
            "--asr.chinese simplified: the package opencc is not installed; `pip install opencc`, or give --asr.chinese as-recognised"
        ) from error
    return OpenCC("t2s")


def simplify(spoken: list[SpokenWord]) -> list[SpokenWord]:
    """Spoken words in simplified characters, times and probabilities unchanged.

    The text is converted as a whole, for some characters depend on those around them; where that changes its length (OpenCC's table
    for mainland Chinese does so for single characters alone), word by word.

    Raises:
        UserError: OpenCC is not installed.
    """
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
