"""Sentiment word masking: which words of a transcript pretraining masks, and the intensities it predicts for them.

`intensity` is the lexicon's score of the word (SKESL, step 2): in "not good" the mask is "good" with good's score, because the paper
considers neither negation nor degree words. `context_intensity`, if requested, considers both, by VADER's published rules (English) or by
rules of their kind for Chinese.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from lexicons.context import LANGUAGES, VADER_LIMIT, context_intensity
from lexicons.context_zh import MODIFIERS, intensity_in_clause, split_glued
from lexicons.lexicon import UNSPACED, Lexicon, Match
from lexicons.words import is_content_word, simplified, word_spans
from preprocessing.schema import Mask, Word


def find_masks(
    words: Sequence[Word], lexicon: Lexicon, rng: np.random.Generator, language: str = "en", text: str | None = None, context: bool = False
) -> list[Mask]:
    """The spans that may be masked, by decreasing |intensity|, the earlier first on a tie: the first is the paper's mask.

    If no word is in the lexicon: one random content word (any word if there is none) with intensity 0 and `from_lexicon=False`. Without
    words the list is empty. With `context`, English and Chinese masks get their `context_intensity`. With `text`, Chinese is segmented into
    words in place of the pieces that speech recognition returns; with `context`, modifiers are cut off a word (不太好, 太好了).
    """
    chinese = context and text is not None and language == lexicon.language == "zh"
    if text is not None and language in UNSPACED:
        text = simplified(text)
        spans = word_spans(text, language)
        if chinese:
            spans = [part for span in spans for part in split_glued(text, span, lexicon.scores)]
        words = [Word(text[start:end], start, end) for start, end in spans]
    if not words:
        return []
    spoken = [word.text for word in words]
    ruled = context and language in LANGUAGES and lexicon.language in LANGUAGES
    matches = lexicon.matches(spoken)
    adjusted: list[float] | list[None] = [None] * len(matches)
    if ruled:
        adjusted = [context_intensity(spoken, match, lexicon) for match in matches]
    elif chinese and text is not None:
        adjusted = _chinese_intensities(text, words, matches, lexicon)
    found = [
        Mask(words[match.first].start_char, words[match.last - 1].end_char, match.intensity, value)
        for match, value in zip(matches, adjusted, strict=True)
    ]
    if found:
        return sorted(found, key=lambda mask: -abs(mask.intensity))  # sorted() is stable: the earliest on a tie
    candidates = [word for word in words if is_content_word(word.text, language)] or list(words)
    word = candidates[int(rng.integers(len(candidates)))]
    return [Mask(word.start_char, word.end_char, 0.0, 0.0 if ruled or chinese else None, from_lexicon=False)]


def _chinese_intensities(text: str, words: Sequence[Word], matches: Sequence[Match], lexicon: Lexicon) -> list[float]:
    """The intensity of each entry in its clause, clipped to the range of the lexicon. Entries that are modifiers do not separate others."""
    low, high = lexicon.range
    spans = [(words[match.first].start_char, words[match.last - 1].end_char) for match in matches]
    bounds = [span for span in spans if text[slice(*span)] not in MODIFIERS]
    found = []
    for (start, end), match in zip(spans, matches, strict=True):
        before = text[max((other for _, other in bounds if other <= start), default=0) : start]
        after = text[end : min((other for other, _ in bounds if other >= end), default=len(text))]
        value = intensity_in_clause(before, text[start:end], after, match.intensity, (high - low) / 2 / VADER_LIMIT)
        found.append(float(min(max(value, low), high)))
    return found


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
