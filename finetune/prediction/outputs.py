"""Predictions as files and on the terminal: JSON, CSV, WebVTT subtitles, a table, and a chart of sentiment over time."""

import csv
import io
import json
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from finetune.modalities import AUDIO, LETTERS, MODALITIES, TEXT, VISION
from finetune.prediction.intervals import ScoreInterval
from finetune.prediction.predictions import RecordingPrediction, UtterancePrediction, in_words, sentiment_class
from finetune.prediction.recipe import Recipe
from pretrain.starter import STARTER, starter_lm
from skesl_mug.files import write_atomically
from skesl_mug.wording import counted, signed

COLUMNS = (
    "start",
    "end",
    "speaker",
    "score",
    "low",
    "high",
    "sentiment",
    "score_text",
    "score_audio",
    "score_vision",
    "used",
    "disagree",
    "language",
    "text",
)
DIGITS = 4


def write_files(folder: Path, stem: str, recording: RecordingPrediction, about: dict[str, Any]) -> list[Path]:
    """Write `<stem>.json`, `<stem>.csv` and `<stem>.vtt` into a folder; the JSON includes `about` (see `about_model`)."""
    contents = {
        ".json": json.dumps({**about, **as_json(recording)}, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        ".csv": as_csv(recording),
        ".vtt": as_webvtt(recording),
    }
    paths = []
    for suffix, text in contents.items():
        path = folder / f"{stem}{suffix}"
        write_atomically(path, lambda temporary, text=text: temporary.write_text(text, encoding="utf-8"))  # type: ignore[misc]
        paths.append(path)
    return paths


def about_model(name: str, recipe: Recipe, notes: list[str]) -> dict[str, Any]:
    """The model in the JSON file: its name, its training data, and differences in the features from training."""
    lm = starter_lm(name)
    return {
        "model": Path(name).name if lm is None else f"{STARTER}:{Path(lm).name}",
        "trained_on": recipe.source,
        "trained_on_made_data": recipe.synthetic,
        "label_range": list(recipe.label_range),
        "interval": None if recipe.interval is None else asdict(recipe.interval),
        "notes": notes,
    }


def as_json(recording: RecordingPrediction) -> dict[str, Any]:
    """A recording as dicts and lists; scores are rounded to 4 decimals and not clipped to the label range, as in evaluation.

    The mean scores have no interval: how the errors of a recording's utterances depend on each other is not known.
    """
    mean = recording.mean_score()
    rows = []
    for row in recording.utterances:
        entry = {name: _rounded(value) for name, value in asdict(row).items() if name not in ("source", "label_range")}
        rows.append(entry | {"disagree": list(row.disagreement() or ())})
    return {
        "source": recording.source,
        "seconds": round(recording.seconds, 3),
        "seen_in": recording.seen_in,
        "mean_score": _rounded(mean),
        "mean_score_by_speaker": {name: _rounded(recording.of(name).mean_score()) for name in recording.speakers},
        "utterances": rows,
        "skipped": [asdict(stretch) for stretch in recording.skipped],
        "recording_notes": recording.notes,
        **({"faults": recording.faults.as_dict()} if recording.faults else {}),
    }


def _rounded(value: Any) -> Any:
    return round(value, DIGITS) if isinstance(value, float) else value


def as_csv(recording: RecordingPrediction) -> str:
    """One row per utterance; missing scores are empty."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in recording.utterances:
        entry = {**vars(row), "used": " ".join(row.used), "disagree": " ".join(row.disagreement() or ())}
        writer.writerow(["" if entry[name] is None else _rounded(entry[name]) for name in COLUMNS])
    return text.getvalue()


def as_webvtt(recording: RecordingPrediction) -> str:
    """Subtitles: each utterance with its score in label units and in words. Speakers are voices (`<v left>`), and named: few players show
    voices."""
    cues = [  # an empty line would end the cue
        "\n".join(filter(None, [f"{_clock(row.start)} --> {_clock(row.end)}", _spoken(row), caption(row)])) for row in recording.utterances
    ]
    return "\n\n".join(["WEBVTT", *cues]) + "\n"


def _spoken(row: UtterancePrediction) -> str:
    text = escape(row.text, quote=False)
    return f"<v {row.speaker}>{row.speaker}: {text or '(no words)'}</v>" if row.speaker else text


def caption(row: UtterancePrediction) -> str:
    """`+1.3 slightly positive (T +2.1, A −0.4, V +0.9)`."""
    parts = ", ".join(f"{name[0].upper()} {figure(value, row.label_range)}" for name, value in row.unimodal().items())
    return f"{figure(row.score, row.label_range)} {in_words(row.score, row.label_range)}" + (f" ({parts})" if parts else "")


def figure(value: float, label_range: tuple[float, float]) -> str:
    """A score for display: signed and clipped to the label range."""
    low, high = label_range
    return signed(min(high, max(low, value)))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}.{rest % 1000:03d}"


BAR = 13  # characters, odd: the middle one is zero
MIN_TEXT = 24
ANSI = {-1: "\x1b[31m", 0: "", 1: "\x1b[32m"}
END = "\x1b[0m"


def table(recording: RecordingPrediction, width: int = 100, colour: bool = False, modalities: Sequence[str] = MODALITIES) -> str:
    """The utterances of a recording: time, a bar from negative to positive, the score in numbers and words, T, A, V, and the text.

    Args:
        recording: the prediction.
        width: characters per line of the terminal.
        colour: use red and green.
        modalities: those of the model; with a single one, the columns T, A, V are left out.
    """
    lines = [headline(recording, modalities)]
    lines += [line for row in recording.utterances for line in _rows(row, width, colour, len(modalities) > 1)]
    shown = [f"  {minutes(gap.start)} to {minutes(gap.end)}  skipped: {gap.explanation()}" for gap in recording.skipped]
    if not recording.utterances and not recording.skipped:
        shown = ["  no speech found"]
    return "\n".join([*lines, *shown, *(f"  note: {note}" for note in recording.notes)])


def headline(recording: RecordingPrediction, modalities: Sequence[str] = MODALITIES) -> str:
    """Name, length, number of utterances and mean score."""
    count = len(recording.utterances)
    mean = recording.mean_score()
    text = f"{recording.source}  {minutes(recording.seconds)}, {counted(count, 'utterance')}"
    if mean is not None:
        text += f", mean {figure(mean, recording.label_range)} {in_words(mean, recording.label_range)}"
    means = [(name, recording.of(name).mean_score()) for name in recording.speakers]
    text += "".join(f"; {name} {figure(value, recording.label_range)}" for name, value in means if value is not None)
    missing = [name for name in modalities if count and not any(name in row.used for row in recording.utterances)]
    text += f"; without {' and '.join(missing)}" if missing else ""
    return text + (f"; * in the model's {recording.seen_in} split" if recording.seen_in else "")


def legend(label_range: tuple[float, float], modalities: Sequence[str] = MODALITIES, interval: ScoreInterval | None = None) -> str:
    """A line that explains the table's columns, and one on the interval around the scores."""
    low, high = label_range
    ends = f"{signed(low, 0)} to {signed(high, 0)}"
    if len(modalities) == 1:
        text = f"Scores from {ends}, based on {modalities[0]} only."
    else:
        text = f"Scores from {ends}; T, A, V: text, audio, vision only (–: missing or not trained); !: they disagree."
    return "\n".join(filter(None, [text, interval.sentence() if interval is not None else ""]))


def _rows(row: UtterancePrediction, width: int, colour: bool, unimodal: bool) -> list[str]:
    lean = sentiment_class(row.score, row.label_range)
    paint = (ANSI[(lean > 0) - (lean < 0)], END) if colour and lean else ("", "")
    scores = {name: figure(value, row.label_range) for name, value in row.unimodal().items()}
    single = "  ".join(f"{LETTERS[name]} {scores.get(name, '–'):>4}" for name in (TEXT, AUDIO, VISION))
    mark = " !" if row.disagreement() else "  "
    head = f"  {minutes(row.start):>7}  {bar(row.score, row.label_range)}  {figure(row.score, row.label_range):>4} {row.sentiment:<17}"
    tail = f"  {single}{mark}  " if unimodal else "  "
    room = width - len(head) - len(tail)
    text = (f"{row.speaker}: " if row.speaker else "") + (row.text or "(no words)")
    if room < MIN_TEXT:
        return [f"{paint[0]}{head}{paint[1]}{tail}".rstrip(), *(f"           {line}" for line in wrap(text, max(MIN_TEXT, width - 11)))]
    first, *others = wrap(text, room)
    return [f"{paint[0]}{head}{paint[1]}{tail}{first}", *(" " * (len(head) + len(tail)) + line for line in others)]


def wrap(text: str, room: int) -> list[str]:
    """Lines of at most `room` columns; Chinese and similar characters take two columns and can be split anywhere."""
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
    """A score as a bar around the middle: `······┃███···`."""
    low, high = label_range
    half = BAR // 2
    share = max(-1.0, min(1.0, (value - (low + high) / 2) / ((high - low) / 2)))
    filled = round(abs(share) * half)
    left = "·" * (half - filled) + "█" * filled if share < 0 else "·" * half
    right = "█" * filled + "·" * (half - filled) if share > 0 else "·" * half
    return f"{left}┃{right}"


def minutes(seconds: float) -> str:
    """`1:02.5`, or `1:01:02.5` from one hour."""
    whole, tenths = divmod(round(seconds * 10), 10)
    hours, rest = divmod(whole, 3600)
    start = f"{hours}:{rest // 60:02d}" if hours else f"{rest // 60}"
    return f"{start}:{rest % 60:02d}.{tenths}"


COLOURS = {TEXT: "#0072b2", AUDIO: "#d55e00", VISION: "#009e73"}
INK, QUIET, BAND = "#26262e", "#6d6d78", "#dcd9e6"
SECONDS_PER_INCH = 9.0
MIN_WIDTH, MAX_WIDTH = 9.0, 40.0  # inches


def draw_timeline(recording: RecordingPrediction, label_range: tuple[float, float]) -> bytes:
    """Scores over time as PNG: multimodal as bars, single modalities as lines, marks where they disagree; one chart per speaker."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    width = min(MAX_WIDTH, max(MIN_WIDTH, recording.seconds / SECONDS_PER_INCH))
    speakers = recording.speakers or [""]
    figure = Figure(figsize=(width, 4.2 * len(speakers)), dpi=110, layout="constrained")
    for axes, speaker in zip(figure.subplots(len(speakers), squeeze=False)[:, 0], speakers, strict=True):
        _draw(axes, recording.of(speaker), label_range)
        mean = recording.of(speaker).mean_score()
        title = f"{recording.source}, {speaker}" if speaker else recording.source
        title += f": mean {signed(mean)}, {in_words(mean, label_range)}" if mean is not None else ": no utterances"
        axes.set_title(title, loc="left", fontsize=11, color=INK, pad=14)
    raw = io.BytesIO()
    figure.savefig(raw, format="png")
    return raw.getvalue()


def _draw(axes: Any, recording: RecordingPrediction, label_range: tuple[float, float]) -> None:
    from matplotlib.ticker import FuncFormatter

    low, high = label_range
    middle = (low + high) / 2
    ranged = [row for row in recording.utterances if row.low is not None]
    for row in recording.utterances:
        shown = min(high, max(low, row.score))
        colour = "#2a9d63" if shown > middle else "#c8553d"
        axes.fill_between([row.start, row.end], middle, shown, color=colour, alpha=0.28, linewidth=0)
        if row.low is not None and row.high is not None:
            label = "interval" if row is ranged[0] else None
            axes.fill_between([row.start, row.end], row.low, row.high, color=BAND, alpha=0.7, linewidth=0, zorder=0.5, label=label)
        axes.plot([row.start, row.end], [shown, shown], color=colour, linewidth=2.2, solid_capstyle="butt", clip_on=False)
        if row.disagreement():
            axes.plot([(row.start + row.end) / 2], [high * 1.04 - middle * 0.04], marker="v", color=INK, markersize=5, clip_on=False)
    for name, colour in COLOURS.items():
        rows = [row for row in recording.utterances if name in row.unimodal()]
        points = [((row.start + row.end) / 2, min(high, max(low, row.unimodal()[name]))) for row in rows]
        if points:
            axes.plot(
                *zip(*points, strict=True), color=colour, linewidth=1.0, marker="o", markersize=3.2, label=name, alpha=0.9, clip_on=False
            )
    axes.axhline(middle, color=INK, linewidth=0.8)
    axes.set(xlim=(0, max(recording.seconds, 0.1)), ylim=(low, high))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: minutes(seconds).split(".")[0]))
    ticks = [low + (high - low) * step / 6 for step in range(7)]
    axes.set_yticks(ticks, [f"{signed(tick)}  {in_words(tick, label_range)}" for tick in ticks])
    axes.grid(axis="y", color="#e4e2dd", linewidth=0.7)
    axes.tick_params(colors=QUIET, labelsize=8.5, length=0)
    axes.tick_params(axis="x", pad=9)  # clear of the lowest label
    for side in axes.spines.values():
        side.set_visible(False)
    if ranged or any(row.unimodal() for row in recording.utterances):
        axes.legend(loc="upper right", bbox_to_anchor=(1, 1.13), ncols=4, frameon=False, fontsize=8.5, title=None)
