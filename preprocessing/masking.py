"""Sentiment word masking: which words of a transcript pretraining masks, and the intensities it predicts for them.

`intensity` is the lexicon's score of the word (SKESL, step 2): in "not good" the mask is "good" with good's score, because the paper
considers neither negation nor degree words. `context_intensity`, if requested, considers both, by VADER's published rules.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from lexicons.context import LANGUAGES, context_intensity
from lexicons.lexicon import UNSPACED, Lexicon
from lexicons.words import is_content_word, word_spans
from preprocessing.schema import Mask, Word


def find_masks(
    words: Sequence[Word], lexicon: Lexicon, rng: np.random.Generator, language: str = "en", text: str | None = None, context: bool = False
) -> list[Mask]:
    """The spans that may be masked, by decreasing |intensity|, the earlier first on a tie: the first is the paper's mask.

    If no word is in the lexicon: one random content word (any word if there is none) with intensity 0 and `from_lexicon=False`. Without
    words the list is empty. With `context`, English masks get their `context_intensity`. With `text`, Chinese is segmented into words
    in place of the pieces that speech recognition returns.
    """
    if text is not None and language in UNSPACED:
        words = [Word(text[start:end], start, end) for start, end in word_spans(text, language)]
    if not words:
        return []
    spoken = [word.text for word in words]
    ruled = context and language in LANGUAGES and lexicon.language in LANGUAGES
    found = [
        Mask(
            words[match.first].start_char,
            words[match.last - 1].end_char,
            match.intensity,
            context_intensity(spoken, match, lexicon) if ruled else None,
        )
        for match in lexicon.matches(spoken)
    ]
    if found:
        return sorted(found, key=lambda mask: -abs(mask.intensity))  # sorted() is stable: the earliest on a tie
    candidates = [word for word in words if is_content_word(word.text, language)] or list(words)
    word = candidates[int(rng.integers(len(candidates)))]
    return [Mask(word.start_char, word.end_char, 0.0, 0.0 if ruled else None, from_lexicon=False)]


def generator_for(clip_id: str, seed: int) -> np.random.Generator:
    """A random generator per clip: independent of the order, the process and the number of clips."""
    return np.random.default_rng(clip_number(clip_id, seed))


def clip_number(clip_id: str, seed: int) -> int:
    """A pseudorandom number below 2^64, determined by clip and seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{clip_id}".encode()).digest()[:8], "little")


def over_the_cap(without_word: Sequence[str], with_word: int, share: float, seed: int) -> set[str]:
    """Which utterances without a lexicon word lose their mask, so that these are at most `share` of the masked ones.

    Args:
        without_word: ids of the utterances whose mask is a random word of intensity 0.
        with_word: the number of the others.
        share: 0 to 1.
        seed: of the draw, which does not depend on the order of the ids.
    """
    if share >= 1.0:
        return set()
    allowed = int(share * with_word / (1.0 - share) + 1e-9)
    drawn = sorted(without_word, key=lambda clip_id: clip_number(clip_id, seed))
    return set(drawn[allowed:])
