"""Times for the words of a given text, from the pieces that forced alignment gives."""

from collections.abc import Sequence
from dataclasses import replace

from preprocessing.schema import Word
from preprocessing.transcription.protocol import SpokenWord


def times_of_words(text: str, words: Sequence[Word], spoken: Sequence[SpokenWord]) -> list[Word]:
    """The words with the times of the aligned pieces that lie on them; their probability is the mean of those pieces'.

    The pieces are the text again, cut in the recogniser's own way. They are laid on it character by character, blanks left out; from a
    place on at which they differ from the text, words keep no times.
    """
    places = [place for place, character in enumerate(text) if not character.isspace()]
    covered: list[tuple[int, int, SpokenWord]] = []
    count = 0
    for piece in spoken:
        letters = "".join(piece.text.split())
        found = "".join(text[place] for place in places[count : count + len(letters)])
        if found != letters:
            break
        if letters:
            covered.append((places[count], places[count + len(letters) - 1] + 1, piece))
        count += len(letters)
    return [_timed(word, [piece for start, end, piece in covered if start < word.end_char and word.start_char < end]) for word in words]


def _timed(word: Word, pieces: list[SpokenWord]) -> Word:
    if not pieces:
        return word
    probability = sum(piece.probability for piece in pieces) / len(pieces)
    return replace(word, start=pieces[0].start, end=pieces[-1].end, probability=probability)
