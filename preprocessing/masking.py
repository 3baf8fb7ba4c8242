"""Sentiment word masking: which words of a transcript pretraining hides, and what it has to say about them.

`intensity` is the lexicon's own score of the word (SKESL, step 2): in "not good" the mask is "good" with good's score, for the paper
knows neither negation nor degree words. `context_intensity` is the score with both, by VADER's published rules, where it is asked for.
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
    """The spans that may be masked, by falling |intensity|, the earlier first on a tie: the first is the paper's mask.

    Where no word is in the lexicon: one random content word with intensity 0 and `from_lexicon=False` (any word where none carries
    content). Without words the list is empty. With `context` English masks get their `context_intensity`.
    With `text` the words of Chinese are those of a segmenter, not the pieces that speech recognition times.
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
    """A random generator of a clip's own: the same whatever the order, the process or the number of clips."""
    return np.random.default_rng(clip_number(clip_id, seed))


def clip_number(clip_id: str, seed: int) -> int:
    """A number below 2^64 that a clip and a seed determine, as good as drawn at random."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{clip_id}".encode()).digest()[:8], "little")


def over_the_cap(without_word: Sequence[str], with_word: int, share: float, seed: int) -> set[str]:
    """Which of the utterances without any word of the lexicon are to lose their mask, so that at most `share` of those masked are such.

    Args:
        without_word: ids of the utterances whose mask is the random word of intensity 0.
        with_word: the number of the others.
        share: 0 to 1.
        seed: which of them is drawn; the same for every order of the ids.
    """
    if share >= 1.0:
        return set()
    allowed = int(share * with_word / (1.0 - share) + 1e-9)
    drawn = sorted(without_word, key=lambda clip_id: clip_number(clip_id, seed))
    return set(drawn[allowed:])
