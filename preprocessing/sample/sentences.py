"""The grammar of the sample corpus: opinions about films, food, phones and hotels, each with its intended intensity."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from preprocessing.sample.words import TOPICS_OF_WORD, SentimentWord

ItemT = TypeVar("ItemT")
LIMIT = 3.0

ASPECTS = {
    "film": ("story", "ending", "acting", "music", "script", "opening", "cast", "dialogue", "soundtrack", "scenery"),
    "food": ("food", "soup", "pasta", "dessert", "lunch", "coffee", "chicken", "salad", "fish", "breakfast"),
    "phone": ("camera", "battery", "screen", "sound", "keyboard", "charger", "update", "menu", "flashlight", "microphone"),
    "hotel": ("room", "staff", "bathroom", "view", "entrance", "bed", "garden", "reception", "kitchen", "balcony"),
    "service": ("waiter", "staff", "manager", "cook", "guide", "owner", "porter", "driver"),
}
# "service": the people of hotels and restaurants, of whom other things are said than of rooms and soups
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
    """A sentence, its sentiment words in their order, and its intended intensity in label units, [-3, 3]."""

    text: str
    words: tuple[str, ...]
    intensity: float


def make_sentence(vocabulary: Sequence[SentimentWord], polarity: str, rng: np.random.Generator) -> Sentence:
    """Draw a sentence of 8 to 12 words.

    The intensity is composed simply: one word gives its own, times 1.2 after "really" and 0.7 after "rather"; two words of one sign
    give the stronger plus a quarter of the weaker; after "but" the second word weighs 0.7 and the first 0.4; a neutral sentence has 0.

    Args:
        vocabulary: the sentiment words of the sentence's split.
        polarity: `positive`, `negative`, `mixed` (a contrast with "but") or `neutral`.
        rng: the only source of chance.
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
    """Whether the word can be said of a topic: no soup is rude, and nobody is a masterpiece."""
    return topic in TOPICS_OF_WORD.get(word.text, ASPECTS) and not (word.kind == "noun" and topic == "service")


def _adjectives(words: Sequence[SentimentWord]) -> list[SentimentWord]:
    return [word for word in words if word.kind == "adjective"]


def _choose(rng: np.random.Generator, options: Sequence[ItemT]) -> ItemT:
    return options[int(rng.integers(len(options)))]
