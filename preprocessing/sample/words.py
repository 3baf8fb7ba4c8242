"""The sentiment words of the sample corpus: three disjoint vocabularies, one for each labelled split.

The scores are VADER's (Hutto and Gilbert 2014), on [-4, 4], written out here so that the plan of a corpus is a pure function; a test
holds them against the lexicon itself. The words were chosen so that tiny.en hears them when hibari says them, and inflections of one
stem stay in one vocabulary.
"""

from dataclasses import dataclass

LABEL_SCALE = 0.75  # VADER's [-4, 4] on the corpus's label range [-3, 3], as SKESL scales its masks


@dataclass(frozen=True)
class SentimentWord:
    """A word with its VADER score; `kind` says where the grammar may put it: `adjective`, `noun`, `verb` (past), `feeling`."""

    text: str
    score: float
    kind: str

    @property
    def intensity(self) -> float:
        """The score in label units, [-3, 3]."""
        return self.score * LABEL_SCALE


def _words(kind: str, listing: str) -> tuple[SentimentWord, ...]:
    pairs = (entry.split(":") for entry in listing.split())
    return tuple(SentimentWord(text, float(score), kind) for text, score in pairs)


TRAIN = (
    _words(
        "adjective",
        """amazing:2.8 wonderful:2.7 perfect:2.7 great:3.1 excellent:2.7 gorgeous:3.0 beautiful:2.9 good:1.9 nice:1.8 funny:1.9
        enjoyable:1.9 friendly:2.2 comfortable:2.3 exciting:2.2 clean:1.7 fresh:1.3 fine:0.8 useful:1.9 clever:2.0
        impressive:2.3 horrible:-2.5 bad:-2.5 pathetic:-2.7 disgusting:-2.4 stupid:-2.4 ugly:-2.3 disappointing:-2.2 broken:-2.1
        terrible:-2.1 rude:-2.0 dirty:-1.9 frustrating:-1.9 useless:-1.8 annoying:-1.7 uncomfortable:-1.6 messy:-1.5
        lazy:-1.5 boring:-1.3 confusing:-0.9 noisy:-0.7 awkward:-0.6""",
    )
    + _words("noun", "disaster:-3.1 mess:-1.5 waste:-1.8 treasure:1.2")
    + _words("verb", "loved:2.9 enjoyed:2.3 hated:-3.2")
    + _words("feeling", "happy:2.7 excited:1.4 angry:-2.3 disappointed:-2.1 bored:-1.1 confused:-1.3")
)

VALID = (
    _words(
        "adjective",
        """brilliant:2.8 delightful:2.8 cheerful:2.5 pleasant:2.3 elegant:2.1 helpful:1.8 interesting:1.7 cool:1.3 violent:-2.9
        nasty:-2.6 unpleasant:-2.1 dangerous:-2.1 ridiculous:-1.5 strange:-0.8""",
    )
    + _words("noun", "miracle:2.8 tragedy:-3.4 failure:-2.3")
    + _words("verb", "admired:2.3")
    + _words("feeling", "glad:2.0 sad:-2.1 tired:-1.9 upset:-1.6 nervous:-1.1")
)

TEST = (
    _words(
        "adjective",
        """awesome:3.1 superb:3.1 outstanding:3.0 magnificent:2.9 delicious:2.7 lovely:2.8 fantastic:2.6
        remarkable:2.6 fascinating:2.5 fabulous:2.4 generous:2.3 strong:2.3 relaxing:2.2 peaceful:2.2 thrilling:2.1 sweet:2.0
        entertaining:1.9 creative:1.9 bright:1.9 popular:1.8 smart:1.7 special:1.7 original:1.3 warm:0.9 surprising:1.1 solid:0.6
        horrific:-3.4 brutal:-3.1 dishonest:-2.7 rotten:-2.3 miserable:-2.2 shameful:-2.2 poor:-2.1 wrong:-2.1 awful:-2.0
        offensive:-2.0 hopeless:-2.0 painful:-1.9 dreadful:-1.9 worthless:-1.9 bitter:-1.8 shocking:-1.7
        depressing:-1.6 embarrassing:-1.6 careless:-1.5 crazy:-1.4 faulty:-1.3 risky:-0.8 weird:-0.7 gloomy:-0.6""",
    )
    + _words("noun", "masterpiece:3.1 winner:2.8 pleasure:2.7 catastrophe:-3.4 problem:-1.7 mistake:-1.4")
    + _words("verb", "adored:1.8")
    + _words("feeling", "thankful:2.7 grateful:2.0 satisfied:1.8 worried:-1.2")
)

# What the more particular adjectives can be said of (see ASPECTS in sentences.py); the others can be said of anything.
_TOPICS_OF_WORDS = {
    "food": "delicious rotten bitter fresh sweet",
    "film": "funny exciting boring violent interesting fascinating thrilling entertaining creative original brutal painful crazy",
    "phone": "useful clever solid wrong",
    "service": "friendly rude lazy helpful generous dishonest careless",
    "film service": "stupid ridiculous offensive embarrassing cheerful",
    "film hotel": "peaceful relaxing shocking depressing gloomy",
    "film phone": "confusing useless worthless",
    "film food": "surprising",
    "film food hotel": "enjoyable popular",
    "film hotel phone": "beautiful gorgeous lovely",
    "food hotel": "dirty messy clean disgusting",
    "food hotel service": "warm",
    "food phone": "strong risky",
    "food hotel phone": "poor",
    "hotel phone": "comfortable uncomfortable noisy elegant broken faulty dangerous bright ugly",
    "phone service": "smart hopeless",
    "film phone service": "awkward",
}
TOPICS_OF_WORD = {word: frozenset(topics.split()) for topics, words in _TOPICS_OF_WORDS.items() for word in words.split()}

VOCABULARIES = {"train": TRAIN, "valid": VALID, "test": TEST, "unlabelled": TRAIN + VALID + TEST}
