"""Sentiment intensities of words: lexicon files and look-ups."""
