"""The sentences of the sample corpus: opinions about films, food, phones and hotels, each with its intended intensity.

Each labelled split has its own vocabulary of sentiment words; no two inflections of a stem are in different ones. Scores are VADER's
(Hutto and Gilbert 2014) on [-4, 4], copied here so that the plan of a corpus is a pure function (a test compares them with the lexicon).
The words were chosen so that tiny.en recognises them when spoken by hibari.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

ItemT = TypeVar("ItemT")
LABEL_SCALE = 0.75  # from VADER's [-4, 4] to the corpus's label range [-3, 3], as SKESL scales its masks


@dataclass(frozen=True)
class SentimentWord:
    """A word with its VADER score; `kind` is its slot in the grammar: `adjective`, `noun`, `verb` (past), `feeling`."""

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

# Topics (keys of ASPECTS) of the more specific adjectives; the others fit all topics.
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

LIMIT = 3.0

ASPECTS = {
    "film": ("story", "ending", "acting", "music", "script", "opening", "cast", "dialogue", "soundtrack", "scenery"),
    "food": ("food", "soup", "pasta", "dessert", "lunch", "coffee", "chicken", "salad", "fish", "breakfast"),
    "phone": ("camera", "battery", "screen", "sound", "keyboard", "charger", "update", "menu", "flashlight", "microphone"),
    "hotel": ("room", "staff", "bathroom", "view", "entrance", "bed", "garden", "reception", "kitchen", "balcony"),
    "service": ("waiter", "staff", "manager", "cook", "guide", "owner", "porter", "driver"),
}
# "service": people in hotels and restaurants, who are described by other words than rooms and soups
THINGS = {
    "film": ("film", "movie", "documentary", "show"),
    "food": ("dinner", "restaurant", "meal", "cafe"),
    "phone": ("phone", "tablet", "laptop", "device"),
    "hotel": ("hotel", "place", "apartment", "resort"),
    "service": ("restaurant", "hotel", "cafe", "place"),
}
PEOPLE = ("sister", "brother", "mother", "father", "neighbor", "cousin", "daughter", "uncle")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("January", "March", "April", "June", "July", "August", "October", "November")

ONE_WORD = {
    "adjective": (
        "I have to say the {aspect} of that {thing} was {degree}{word}.",
        "When we went there in {month} the {aspect} was {degree}{word}.",
        "My {person} told me on {day} that the {aspect} was {degree}{word}.",
        "I think the {aspect} was {degree}{word} from the beginning.",
        "It was {degree}{a_word} {thing} and we talked about it later.",
        "This was {degree}{a_word} {thing} and my {person} said the same.",
        "We talked about the {aspect} and it was {degree}{word}.",
    ),
    "noun": (
        "In the end the {aspect} of that {thing} was {a_word}.",
        "I told my {person} on {day} that the {aspect} was {a_word}.",
        "My {person} thinks that the whole {thing} was {a_word}.",
    ),
    "verb": (
        "My {person} and I {word} the {aspect} of this {thing}.",
        "I {word} the {aspect} when we were there in {month}.",
        "We {word} that {thing} and told my {person} about it.",
    ),
    "feeling": (
        "I was {degree}{word} about the {aspect} when we came home.",
        "The {aspect} of this {thing} made my {person} {degree}{word}.",
        "We were all {degree}{word} after the {thing} in {month}.",
    ),
}
TWO_WORDS = (
    "The {aspect} was {degree}{word} and the {aspect2} was {word2}.",
    "I found the {aspect} {degree}{word} and the {aspect2} was {word2}.",
    "It was {a_word} {thing} and the {aspect} was {word2} too.",
)
CONTRAST = (
    "The {aspect} was {word} but the {aspect2} was {degree}{word2}.",
    "They say the {aspect} was {word} but the {aspect2} {degree}{word2}.",
    "It was {a_word} {thing} but the {aspect} was {degree}{word2}.",
)
NEUTRAL = {
    "film": (
        "The {thing} starts at eight on {day} and lasts about an hour.",
        "We saw that {thing} with my {person} in {month}.",
        "They worked on the {aspect} of this {thing} until {month}.",
    ),
    "food": (
        "My {person} ordered the {aspect} and I took the {aspect2}.",
        "They serve the {aspect} and the {aspect2} until nine on {day}.",
        "The {aspect} comes with rice and bread on {day}.",
    ),
    "phone": (
        "The {thing} of my {person} came in {month} in a white box.",
        "My {person} bought this {thing} in {month} with the {aspect}.",
        "I looked at the {aspect} and the {aspect2} of the {thing}.",
    ),
    "hotel": (
        "We took the bus to the {thing} on {day} with my {person}.",
        "They showed us the {aspect} and the {aspect2} on {day}.",
        "We arrived in {month} and asked about the {aspect} and the {aspect2}.",
    ),
    "service": (
        "The {aspect} of the {thing} spoke to my {person} on {day}.",
        "My {person} asked the {aspect} and the {aspect2} about the {thing}.",
        "We met the {aspect} of this {thing} with my {person} in {month}.",
    ),
}
DEGREES = (("", 1.0, 0.64), ("really ", 1.2, 0.24), ("rather ", 0.7, 0.12))  # text, factor on the intensity, share of the sentences


@dataclass(frozen=True)
class Sentence:
    """A sentence, its sentiment words in order, and its intended intensity in label units, [-3, 3]."""

    text: str
    words: tuple[str, ...]
    intensity: float


def make_sentence(vocabulary: Sequence[SentimentWord], polarity: str, rng: np.random.Generator) -> Sentence:
    """Draw a sentence of 8 to 12 words.

    The intensity of one word is its own, times 1.2 after "really" and 0.7 after "rather"; of two words of one sign, the stronger plus a
    quarter of the weaker; with "but", 0.4 times the first plus 0.7 times the second; of a neutral sentence, 0.

    Args:
        vocabulary: sentiment words of the split.
        polarity: `positive`, `negative`, `mixed` (a contrast with "but") or `neutral`.
        rng: the only source of randomness.
    """
    topic = _choose(rng, tuple(ASPECTS))
    slots = _fill_slots(topic, rng)
    if polarity == "neutral":
        return Sentence(_choose(rng, NEUTRAL[topic]).format(**slots), (), 0.0)
    fitting = [word for word in vocabulary if _fits(word, topic)]
    positive = [word for word in fitting if word.score > 0]
    negative = [word for word in fitting if word.score < 0]
    degree, factor = _draw_degree(rng)
    slots["degree"] = degree
    if polarity == "mixed":
        first, second = (positive, negative) if rng.random() < 0.5 else (negative, positive)
        word, word2 = _choose(rng, _adjectives(first)), _choose(rng, _adjectives(second))
        text = _choose(rng, CONTRAST)
        return _finish(text, slots, (word, word2), 0.4 * word.intensity + 0.7 * factor * word2.intensity)
    words = positive if polarity == "positive" else negative
    adjectives = _adjectives(words)
    if rng.random() < 0.3 and len(adjectives) > 1:
        word, word2 = (adjectives[int(place)] for place in rng.choice(len(adjectives), 2, replace=False))
        text = _choose(rng, TWO_WORDS)
        parts = sorted((word.intensity * (factor if "{degree}" in text else 1.0), word2.intensity), key=abs)
        return _finish(text, slots, (word, word2), parts[1] + 0.25 * parts[0])
    word = _choose(rng, words)
    text = _choose(rng, ONE_WORD[word.kind])
    return _finish(text, slots, (word,), word.intensity * (factor if "{degree}" in text else 1.0))


def _fill_slots(topic: str, rng: np.random.Generator) -> dict[str, str]:
    aspects = ASPECTS[topic]
    first, second = (aspects[int(place)] for place in rng.choice(len(aspects), 2, replace=False))
    return {
        "aspect": first,
        "aspect2": second,
        "thing": _choose(rng, THINGS[topic]),
        "person": _choose(rng, PEOPLE),
        "day": _choose(rng, DAYS),
        "month": _choose(rng, MONTHS),
    }


def _draw_degree(rng: np.random.Generator) -> tuple[str, float]:
    place = int(rng.choice(len(DEGREES), p=[share for _, _, share in DEGREES]))
    return DEGREES[place][0], DEGREES[place][1]


def _finish(text: str, slots: dict[str, str], words: tuple[SentimentWord, ...], intensity: float) -> Sentence:
    slots["word"], slots["word2"] = words[0].text, words[-1].text
    article = "an" if words[0].text[0] in "aeiou" and not words[0].text.startswith("use") else "a"  # "a useful phone"
    if "{degree}{a_word}" in text and slots["degree"]:  # "really an amazing film", but "a rather ugly phone"
        really = slots["degree"] == "really "
        slots["a_word"] = f"{article} {words[0].text}" if really else words[0].text
        slots["degree"] = "really " if really else "a rather "
    else:
        slots["a_word"] = f"{article} {words[0].text}"
    clipped = float(np.clip(intensity, -LIMIT, LIMIT))
    return Sentence(text.format(**slots), tuple(word.text for word in words), clipped)


def _fits(word: SentimentWord, topic: str) -> bool:
    """Whether the word fits a topic: soup cannot be rude, and people are not masterpieces."""
    return topic in TOPICS_OF_WORD.get(word.text, ASPECTS) and not (word.kind == "noun" and topic == "service")


def _adjectives(words: Sequence[SentimentWord]) -> list[SentimentWord]:
    return [word for word in words if word.kind == "adjective"]


def _choose(rng: np.random.Generator, options: Sequence[ItemT]) -> ItemT:
    return options[int(rng.integers(len(options)))]
