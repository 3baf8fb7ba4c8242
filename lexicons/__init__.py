"""Sentiment intensities of words: loading lexicons and looking words up.

>>> load_lexicon("vader").most_intense("I am fed up with this phone".split())
Match(first=2, last=4, intensity=-1.35)
"""

from lexicons.lexicon import Lexicon, Match
from lexicons.sources import load_lexicon
from skesl_mug.errors import UserError

__all__ = ["Lexicon", "Match", "UserError", "load_lexicon"]
