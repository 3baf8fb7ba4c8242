"""Sentiment word masking: which words of a transcript pretraining hides, and what it has to say about them.

The intensity is the lexicon's own score of the word (SKESL, step 2): in "not good" the mask is "good" with good's score, for the paper
knows neither negation nor degree words. `context_intensity` is kept free for a score that does.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from lexicons.function_words import is_content_word
from lexicons.lexicon import Lexicon
from preprocessing.schema import Mask, Word


def find_masks(words: Sequence[Word], lexicon: Lexicon, rng: np.random.Generator, language: str = "en") -> list[Mask]:
    """The spans that may be masked, by falling |intensity|, the earlier first on a tie: the first is the paper's mask.

    Where no word is in the lexicon: one random content word with intensity 0 and `from_lexicon=False` (any word where none carries
    content). Without words the list is empty.
    """
    if not words:
        return []
    found = [
        Mask(words[match.first].start_char, words[match.last - 1].end_char, match.intensity)
        for match in lexicon.matches([word.text for word in words])
    ]
    if found:
        return sorted(found, key=lambda mask: -abs(mask.intensity))  # sorted() is stable: the earliest on a tie
    candidates = [word for word in words if is_content_word(word.text, language)] or list(words)
    word = candidates[int(rng.integers(len(candidates)))]
    return [Mask(word.start_char, word.end_char, 0.0, from_lexicon=False)]


def generator_for(clip_id: str, seed: int) -> np.random.Generator:
    """A random generator of a clip's own: the same whatever the order, the process or the number of clips."""
    digest = hashlib.sha256(f"{seed}/{clip_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))
