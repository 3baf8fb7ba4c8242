"""Transcripts that a corpus brings: their words, as speech recognition would give them."""

from lexicons.words import word_spans
from preprocessing.schema import Word


def split_words(text: str, language: str) -> list[Word]:
    """The words of a text with their places in it and without times. Chinese is segmented by jieba.

    Raises:
        UserError: the text is Chinese and jieba is not installed.
    """
    return [Word(text[start:end], start, end) for start, end in word_spans(text, language)]
