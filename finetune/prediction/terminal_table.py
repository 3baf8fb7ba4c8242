"""Predictions as a table that reads well in a terminal."""

import textwrap
import unicodedata
from collections.abc import Sequence

from finetune.modalities import AUDIO, LETTERS, MODALITIES, TEXT, VISION
from finetune.prediction.prediction_files import figure
from finetune.prediction.predictions import RecordingPrediction, SkippedStretch, UtterancePrediction, in_words, sentiment_class
from skesl_mug.wording import counted, signed

BAR = 13  # characters, odd: the middle one is zero
LEAST_TEXT = 24
COLOURS = {-1: "\x1b[31m", 0: "", 1: "\x1b[32m"}
END = "\x1b[0m"


def table(recording: RecordingPrediction, width: int = 100, colour: bool = False, modalities: Sequence[str] = MODALITIES) -> str:
    """The utterances of a recording: time, a bar from negative to positive, score in numbers and words, T, A, V, and the words.

    Args:
        recording: what to show.
        width: of the terminal, characters.
        colour: red and green on a terminal that shows them.
        modalities: those that the model knows; one that knows a single modality has no columns T, A, V.
    """
    lines = [headline(recording, modalities)]
    lines += [line for row in recording.utterances for line in _rows(row, width, colour, len(modalities) > 1)]
    shown = [f"  {minutes(gap.start)} to {minutes(gap.end)}  skipped: {_why(gap)}" for gap in recording.skipped]
    if not recording.utterances and not recording.skipped:
        shown = ["  nobody speaks in it"]
    return "\n".join([*lines, *shown])


def _why(gap: SkippedStretch) -> str:
    return f"{gap.reason.replace('_', ' ')} {gap.detail}".rstrip()


def headline(recording: RecordingPrediction, modalities: Sequence[str] = MODALITIES) -> str:
    """Name, length, number of utterances and mean score."""
    count = len(recording.utterances)
    mean = recording.mean_score()
    text = f"{recording.source}  {minutes(recording.seconds)}, {counted(count, 'utterance')}"
    if mean is not None:
        text += f", mean {figure(mean, recording.label_range)} {in_words(mean, recording.label_range)}"
    lacking = [name for name in modalities if count and not any(name in row.used for row in recording.utterances)]
    text += f"; without {' and '.join(lacking)}" if lacking else ""
    return text + (f"; * in the model's {recording.seen_in} split" if recording.seen_in else "")


def legend(label_range: tuple[float, float], modalities: Sequence[str] = MODALITIES) -> str:
    """One line that explains the table's columns."""
    low, high = label_range
    ends = f"{signed(low, 0)} to {signed(high, 0)}"
    if len(modalities) == 1:
        return f"Scores from {ends}, from {modalities[0]} alone."
    return f"Scores from {ends}; T, A, V: text, audio, vision alone (–: absent or not trained); !: they disagree."


def _rows(row: UtterancePrediction, width: int, colour: bool, unimodal: bool) -> list[str]:
    lean = sentiment_class(row.score, row.label_range)
    paint = (COLOURS[(lean > 0) - (lean < 0)], END) if colour and lean else ("", "")
    scores = {name: figure(value, row.label_range) for name, value in row.unimodal().items()}
    single = "  ".join(f"{LETTERS[name]} {scores.get(name, '–'):>4}" for name in (TEXT, AUDIO, VISION))
    mark = " !" if row.disagreement() else "  "
    head = f"  {minutes(row.start):>7}  {bar(row.score, row.label_range)}  {figure(row.score, row.label_range):>4} {row.sentiment:<17}"
    tail = f"  {single}{mark}  " if unimodal else "  "
    room = width - len(head) - len(tail)
    said = row.text or "(no words)"
    if room < LEAST_TEXT:
        return [f"{paint[0]}{head}{paint[1]}{tail}".rstrip(), *(f"           {line}" for line in wrap(said, max(LEAST_TEXT, width - 11)))]
    first, *others = wrap(said, room)
    return [f"{paint[0]}{head}{paint[1]}{tail}{first}", *(" " * (len(head) + len(tail)) + line for line in others)]


def wrap(text: str, room: int) -> list[str]:
    """Lines of at most `room` columns; Chinese and the like are two columns wide and break anywhere."""
    if not any(unicodedata.east_asian_width(letter) in "WF" for letter in text):
        return textwrap.wrap(text, room) or [""]
    lines, line, used = [], "", 0
    for letter in text:
        columns = 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if used + columns > room:
            lines.append(line)
            line, used = "", 0
        line, used = line + letter, used + columns
    return [*lines, line]


def bar(value: float, label_range: tuple[float, float]) -> str:
    """A score as a bar from the middle: `······┃███···`."""
    low, high = label_range
    half = BAR // 2
    share = max(-1.0, min(1.0, (value - (low + high) / 2) / ((high - low) / 2)))
    filled = round(abs(share) * half)
    left = "·" * (half - filled) + "█" * filled if share < 0 else "·" * half
    right = "█" * filled + "·" * (half - filled) if share > 0 else "·" * half
    return f"{left}┃{right}"


def minutes(seconds: float) -> str:
    """`1:02.5`, or `1:01:02.5` from an hour on."""
    whole, tenths = divmod(round(seconds * 10), 10)
    hours, rest = divmod(whole, 3600)
    start = f"{hours}:{rest // 60:02d}" if hours else f"{rest // 60}"
    return f"{start}:{rest % 60:02d}.{tenths}"
