"""The transcript as HTML: words tinted by their lexicon intensity, utterances by their score, disagreements marked."""

from html import escape

from finetune.modalities import LETTERS, MODALITIES
from finetune.prediction.prediction_files import figure
from finetune.prediction.predictions import PredictedWord, RecordingPrediction, UtterancePrediction, in_words, sentiment_class
from finetune.prediction.terminal_table import minutes
from skesl_mug.wording import counted, signed

GREEN, RED = "30, 140, 90", "195, 70, 45"
STRONGEST = 0.55  # opacity of the most intense word


def tint(value: float, largest: float) -> str:
    """A CSS colour: green above zero, red below, the stronger the further from it."""
    share = min(1.0, abs(value) / largest) if largest else 0.0
    return f"rgba({GREEN if value > 0 else RED}, {share * STRONGEST:.2f})"


def transcript(recording: RecordingPrediction, before: RecordingPrediction | None = None) -> str:
    """All utterances; with `before` (the prediction with every modality) each one's change is shown."""
    earlier = before.by_start() if before is not None else {}
    rows = [utterance(row, earlier.get(row.start), place) for place, row in enumerate(recording.utterances)]
    rows += [
        f'<p class="gap" data-seek="{gap.start:.2f}">{minutes(gap.start)} to {minutes(gap.end)}: {escape(_gap(gap.reason, gap.detail))}</p>'
        for gap in recording.skipped
    ]
    if not rows:
        rows = ['<p class="gap">Nobody speaks in this recording, and no face could be judged without words.</p>']
    return f'<div class="transcript">{"".join(rows)}</div>'


def _gap(reason: str, detail: str) -> str:
    return f"no prediction ({reason.replace('_', ' ')}{': ' + detail if detail else ''})"


def utterance(row: UtterancePrediction, before: UtterancePrediction | None, place: int) -> str:
    """One utterance: time, score in numbers and words, single scores, words."""
    low, high = row.label_range
    lean = sentiment_class(row.score, row.label_range)
    kind = "positive" if lean > 0 else "negative" if lean < 0 else "neutral"
    scores = {name: figure(value, row.label_range) for name, value in row.unimodal().items()}
    singles = "".join(
        f'<span class="single {name}" title="{name} alone">{LETTERS[name]} {scores.get(name, "–")}</span>'
        for name in (MODALITIES if scores else ())
    )
    change = ""
    if before is not None and row.used != before.used:
        full = figure(before.score, row.label_range)
        change = f'<span class="change" title="with every modality: {full}">{signed(row.score - before.score)} changed</span>'
    apart = row.disagreement()
    mark = f'<span class="apart">{apart[0]} says {_word(row, apart[0])}, {apart[1]} {_word(row, apart[1])}</span>' if apart else ""
    words = tinted_words(row, max(abs(low), abs(high))) or '<i class="gap">no words: no sound</i>'
    return (
        f'<div class="utterance {kind}" data-place="{place}" data-from="{row.start:.2f}" data-to="{row.end:.2f}">'
        f'<button class="when" data-seek="{row.start:.2f}" title="play from here">{minutes(row.start)}</button>'
        f'<div><p class="said">{words}</p><p class="scores"><b class="score">{figure(row.score, row.label_range)}</b> '
        f'<span class="sentiment">{row.sentiment}</span>{change}{singles}{mark}</p></div></div>'
    )


def _figure(row: UtterancePrediction, modality: str) -> str:
    return f"{modality} {figure(row.unimodal()[modality], row.label_range)}"


def _word(row: UtterancePrediction, modality: str) -> str:
    return in_words(row.unimodal()[modality], row.label_range)


def tinted_words(row: UtterancePrediction, largest: float) -> str:
    """The text of an utterance with its lexicon words tinted; each word can be clicked to hear it."""
    html, at = "", 0
    for word in row.words:
        place = row.text.find(word.text, at)
        if place < 0:
            continue
        html += escape(row.text[at:place]) + _word_html(word, largest)
        at = place + len(word.text)
    return html + escape(row.text[at:])


def _word_html(word: PredictedWord, largest: float) -> str:
    seek = f' data-seek="{word.start:.2f}"' if word.start is not None else ""
    if word.intensity is None:
        return f"<span{seek}>{escape(word.text)}</span>"
    label = f"lexicon intensity {signed(word.intensity)}"
    return f'<mark{seek} style="background:{tint(word.intensity, largest)}" title="{label}">{escape(word.text)}</mark>'


def disagreements(recording: RecordingPrediction) -> str:
    """The moments where one modality is positive and another negative, as a list to click on."""
    items = []
    for row in recording.utterances:
        apart = row.disagreement()
        if apart is not None:
            items.append(
                f'<li><button class="when" data-seek="{row.start:.2f}">{minutes(row.start)}</button> '
                f"{_figure(row, apart[0])}, {_figure(row, apart[1])}: {escape(row.text)}</li>"
            )
    if not items:
        return '<p class="gap">Nowhere is one modality positive and another negative.</p>'
    return f'<ul class="moments">{"".join(items)}</ul>'


def headline(recording: RecordingPrediction, notes: list[str]) -> str:
    """Length, number of utterances, mean score, modalities, and what the user has to know."""
    mean = recording.mean_score()
    facts = [minutes(recording.seconds), counted(len(recording.utterances), "utterance")]
    if mean is not None:
        facts.append(f"<b>mean {figure(mean, recording.label_range)}, {in_words(mean, recording.label_range)}</b>")
    used = [name for name in MODALITIES if any(name in row.used for row in recording.utterances)]
    listed = f"{', '.join(used[:-1])} and {used[-1]}" if len(used) > 1 else "".join(used) or "nothing"
    facts.append(f"scores rest on {listed}")
    notes = [*notes, *filter(None, [recording.seen_note()])]
    told = "".join(f'<p class="warning">{escape(note)}</p>' for note in notes)
    return f'<p class="facts">{" · ".join(facts)}</p>{told}'
