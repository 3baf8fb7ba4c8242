"""What the page shows before the first upload: what to do, and a made-up example of what comes back."""

from collections.abc import Sequence

from finetune.modalities import AUDIO, MODALITIES, TEXT, VISION
from finetune.prediction.predictions import PredictedWord, RecordingPrediction, UtterancePrediction, in_words
from finetune.web_page.chart import chart
from finetune.web_page.marks import transcript

FIRST = (
    "Drop a video of somebody talking into the field on the left and press <b>Predict</b>. You get the transcript "
    "with a score for each utterance and the scores over time{disagree}. Up to {minutes:g} minutes "
    "a recording; nothing leaves this machine, and what you upload is deleted."
)
# start, end, words with their lexicon intensity, and the scores of text, audio, vision and all of them as shares of the label range
EXAMPLE = (
    (0.4, 3.2, (("The", None), ("food", None), ("was", None), ("wonderful.", 2.0)), (0.75, 0.35, 0.5, 0.6)),
    (3.8, 6.9, (("We", None), ("waited", None), ("an", None), ("hour", None), ("for", None), ("it.", None)), (-0.2, -0.4, -0.1, -0.35)),
    (7.5, 9.6, (("Great", 2.3), ("service,", None), ("really.", None)), (0.6, -0.55, -0.45, -0.3)),
)


def welcome(minutes: float, modalities: Sequence[str] = MODALITIES) -> str:
    """The first words of the page."""
    disagree = ", and where words, voice and face disagree" if len(modalities) > 1 else ", from the words alone"
    return f'<p class="welcome">{FIRST.format(minutes=minutes, disagree=disagree)}</p>'


def example(label_range: tuple[float, float], modalities: list[str]) -> tuple[str, str]:
    """A made-up prediction as transcript and chart, in the label range and with the modalities of the model."""
    recording = made_up(label_range, modalities)
    note = '<p class="gap">So it will look (an example made up by hand, no prediction of this model):</p>'
    return f'{note}<div class="example">{transcript(recording)}</div>', f'<div class="example">{chart(recording, label_range)}</div>'


def made_up(label_range: tuple[float, float], modalities: list[str]) -> RecordingPrediction:
    """The example as a prediction."""
    low, high = label_range
    rows = []
    for start, end, words, shares in EXAMPLE:
        scores = [(low + high) / 2 + share * (high - low) / 2 for share in shares]
        single = {name: scores[place] for place, name in enumerate(MODALITIES) if name in modalities}
        text, length = " ".join(word for word, _ in words), (end - start) / len(words)
        times = [start + place * length for place in range(len(words))]
        said = [PredictedWord(word, at, at + length, 0.9, value) for at, (word, value) in zip(times, words, strict=True)]
        rows.append(
            UtterancePrediction(
                "example", start, end, text, "en", scores[3], in_words(scores[3], label_range), single.get(TEXT), single.get(AUDIO),
                single.get(VISION), list(modalities), 1.0, label_range, said,
            )
        )  # fmt: skip
    return RecordingPrediction("example", 10.0, rows)
