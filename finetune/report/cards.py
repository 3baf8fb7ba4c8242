"""Example utterances: a frame, the words with the masked one highlighted, and the scores of every modality as small bars."""

import base64
from html import escape
from typing import Any

from finetune.report.document import Cards
from skesl_mug.wording import signed

ROWS = (("T", "text"), ("A", "audio"), ("V", "vision"), ("M", "multimodal"))


def cards_html(cards: Cards) -> str:
    """All examples as HTML."""
    return '<div class="cards">' + "".join(_card(entry, cards) for entry in cards.examples) + "</div>"


def _card(entry: dict[str, Any], cards: Cards) -> str:
    frame = cards.frames.get(str(entry.get("frame") or ""))
    picture = f'<img class="frame" alt="a frame of the clip" src="{data_uri(frame, str(entry["frame"]))}">' if frame else ""
    words = marked_text(entry, lambda text, kind, title: f'<span class="{kind}" title="{escape(title)}">{escape(text)}</span>', escape)
    quote = f"<blockquote>{words}</blockquote>" if words.strip() else '<blockquote class="none">no transcript</blockquote>'
    bars = "".join(_bar(letter, name, entry, cards.label_range) for letter, name in ROWS)
    classes = "card" if picture else "card bare"
    name = f'<p class="id">{escape(str(entry.get("id", "")))}</p>'
    return f'<article class="{classes}">{picture}<div>{quote}<div class="bars">{bars}</div>{name}</div></article>'


def marked_text(entry: dict[str, Any], mark: Any, plain: Any) -> str:
    """The text with `mark(text, kind, title)` around the masked span ("mask") and other words of the lexicon ("lexicon")."""
    text = str(entry.get("text") or "")
    spans: dict[tuple[int, int], tuple[str, str]] = {}
    for word in entry.get("words") or []:
        if word.get("intensity") is not None:
            spans[(int(word["start_char"]), int(word["end_char"]))] = ("lexicon", f"intensity {signed(word['intensity'], 2)}")
    if mask := entry.get("mask"):
        start, end = int(mask["start_char"]), int(mask["end_char"])
        spans = {span: value for span, value in spans.items() if span[1] <= start or span[0] >= end}
        title = "masked in pretraining" + (f", intensity {signed(mask['intensity'], 2)}" if mask.get("intensity") is not None else "")
        spans[(start, end)] = ("mask", title)
    parts, place = [], 0
    for (start, end), (kind, title) in sorted(spans.items()):
        if not place <= start < end <= len(text):
            continue
        parts += [plain(text[place:start]), mark(text[start:end], kind, title)]
        place = end
    return "".join([*parts, plain(text[place:])])


def _bar(letter: str, name: str, entry: dict[str, Any], label_range: tuple[float, float]) -> str:
    predicted, label = (entry.get("predicted") or {}).get(letter), (entry.get("label") or {}).get(letter)
    if predicted is None and label is None:
        return ""
    low, high = label_range
    zero = _percent(min(max(0.0, low), high), low, high)
    fill = ""
    if predicted is not None:
        place = _percent(predicted, low, high)
        fill = f'<i class="fill {name}" style="left:{min(zero, place):.1f}%;width:{abs(place - zero):.1f}%"></i>'
    known = (
        f'<i class="known" style="left:{_percent(label, low, high):.1f}%" title="label {signed(label, 2)}"></i>'
        if label is not None
        else ""
    )
    value = "–" if predicted is None else signed(min(high, max(low, predicted)), 2)
    axis = f'<i class="zero" style="left:{zero:.1f}%"></i>'
    return f'<div class="bar"><span>{name}</span><div class="track">{axis}{fill}{known}</div><b>{value}</b></div>'


def _percent(value: float, low: float, high: float) -> float:
    return 100.0 * (min(max(value, low), high) - low) / (high - low)


def cards_markdown(cards: Cards) -> str:
    """All examples as Markdown: the text, then predictions and labels as a table."""
    parts = []
    for entry in cards.examples:
        text = marked_text(entry, lambda text, kind, _: f"**{text}**" if kind == "mask" else text, str)
        lines = [f"> {text.strip() or '*no transcript*'}", "", "| | " + " | ".join(name for _, name in ROWS) + " |", "|---" * 5 + "|"]
        for kind, title in (("predicted", "predicted"), ("label", "label")):
            values = [(entry.get(kind) or {}).get(letter) for letter, _ in ROWS]
            if any(value is not None for value in values):
                lines.append(f"| {title} | " + " | ".join("–" if value is None else signed(value, 2) for value in values) + " |")
        if entry.get("frame") in cards.frames:
            lines = [f"![a frame of the clip](examples/{entry['frame']})", "", *lines]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def data_uri(raw: bytes, name: str) -> str:
    """A picture as text inside the page."""
    kind = "png" if name.lower().endswith(".png") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"
