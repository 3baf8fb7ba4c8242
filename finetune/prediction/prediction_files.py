"""Predictions as files: JSON with everything, CSV with a row an utterance, WebVTT subtitles with the score."""

import csv
import io
import json
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from finetune.prediction.predictions import RecordingPrediction, UtterancePrediction, in_words
from finetune.prediction.recipe import Recipe
from pretrain.starter import STARTER, starter_lm
from skesl_mug.files import write_atomically
from skesl_mug.wording import signed

COLUMNS = ("start", "end", "score", "sentiment", "score_text", "score_audio", "score_vision", "used", "disagree", "language", "text")
DIGITS = 4


def write_files(folder: Path, stem: str, recording: RecordingPrediction, about: dict[str, Any]) -> list[Path]:
    """Write `<stem>.json`, `<stem>.csv` and `<stem>.vtt` into a folder; `about` (model, recipe, notes) goes into the JSON."""
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
    """What the JSON says of the model: its name, what it was trained on, what differs here from training."""
    lm = starter_lm(name)
    return {
        "model": Path(name).name if lm is None else f"{STARTER}:{Path(lm).name}",
        "trained_on": recipe.source,
        "trained_on_made_data": recipe.made,
        "label_range": list(recipe.label_range),
        "notes": notes,
    }


def as_json(recording: RecordingPrediction) -> dict[str, Any]:
    """A recording as dicts and lists; scores rounded to 4 digits, not clipped to the label range (they are what evaluation scores)."""
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
        "utterances": rows,
        "skipped": [asdict(stretch) for stretch in recording.skipped],
    }


def _rounded(value: Any) -> Any:
    return round(value, DIGITS) if isinstance(value, float) else value


def as_csv(recording: RecordingPrediction) -> str:
    """A row an utterance; empty where a score is absent."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in recording.utterances:
        entry = {**vars(row), "used": " ".join(row.used), "disagree": " ".join(row.disagreement() or ())}
        writer.writerow(["" if entry[name] is None else _rounded(entry[name]) for name in COLUMNS])
    return text.getvalue()


def as_webvtt(recording: RecordingPrediction) -> str:
    """Subtitles: each utterance with its score in label units and in words."""
    cues = [f"{_clock(row.start)} --> {_clock(row.end)}\n{escape(row.text, quote=False)}\n{caption(row)}" for row in recording.utterances]
    return "\n\n".join(["WEBVTT", *cues]) + "\n"


def caption(row: UtterancePrediction) -> str:
    """`+1.3 slightly positive (T +2.1, A −0.4, V +0.9)`."""
    parts = ", ".join(f"{name[0].upper()} {figure(value, row.label_range)}" for name, value in row.unimodal().items())
    return f"{figure(row.score, row.label_range)} {in_words(row.score, row.label_range)}" + (f" ({parts})" if parts else "")


def figure(value: float, label_range: tuple[float, float]) -> str:
    """A score as people read it: signed, and within the label range (files hold it as it is)."""
    low, high = label_range
    return signed(min(high, max(low, value)))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}.{rest % 1000:03d}"
