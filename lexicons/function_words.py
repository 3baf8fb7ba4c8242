"""Function words (articles, pronouns, prepositions, auxiliaries...): words that carry grammar rather than content."""

from lexicons.lexicon import normalise

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
"""By language code; a language that is absent here has no list, and every word of it counts as content."""


def is_content_word(word: str, language: str) -> bool:
    """Whether a word carries content: it has a letter, and it is no function word of its language."""
    form = normalise(word)
    return any(character.isalpha() for character in form) and form not in FUNCTION_WORDS.get(language, frozenset())
