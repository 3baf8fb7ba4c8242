"""`summary.html` of an utterance dataset: what it holds, on one self-contained page."""

import base64
import csv
import html
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from preprocessing.histograms import SHARES, Bins, bins_between, bins_from_zero, bins_of_counts, histogram
from preprocessing.schema import DatasetInfo, Utterance
from preprocessing.store import SHARD_FOLDER, UtteranceDataset, read_info
from skesl_mug.files import write_atomically
from skesl_mug.wording import counted, signed

SUMMARY_FILE = "summary.html"
EXAMPLES = 10
MASKED_WORDS = 20
COLUMNS = ("id", "start", "end", "language", "text", "words", "masks", "face_rate", "label")
STYLE = """
body{margin:0;color:#26262e;font:17px/1.6 Charter,Cambria,"Noto Serif",Georgia,"Noto Serif CJK SC",serif}
main{max-width:960px;margin:0 auto;padding:48px 28px 80px} h1{font-size:32px;margin:0} h2{font-size:22px;margin:48px 0 12px}
.quiet,figcaption{color:#6d6d78;font:14px/1.5 system-ui,"Noto Sans","DejaVu Sans","Noto Sans CJK SC",sans-serif;margin:4px 0 0}
.banner{background:#fff4d6;border-left:5px solid #e0a100;padding:10px 16px;margin:18px 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:14px;margin:24px 0}
.tiles div{border-top:2px solid #26262e;padding-top:6px;font:14px/1.4 system-ui,"Noto Sans",sans-serif;color:#6d6d78}
.tiles b{display:block;font-size:25px;color:#26262e;font-weight:600}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(290px,1fr));gap:22px} figure{margin:0} img{max-width:100%;height:auto}
table{border-collapse:collapse;font:14px/1.4 system-ui,"Noto Sans","Noto Sans CJK SC",sans-serif;width:100%}
td,th{padding:5px 10px;text-align:left}
tr{border-bottom:1px solid #e4e2dd} td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.example{display:grid;grid-template-columns:150px 1fr;gap:18px;border-top:1px solid #e4e2dd;padding:14px 0;break-inside:avoid}
.example img,.blank{width:150px;border-radius:3px}
.blank{height:84px;background:#f3f1ec;font:13px/84px sans-serif;text-align:center;color:#6d6d78}
mark{background:#ffe08a;padding:0 3px;border-radius:3px} mark small{color:#6d6d78;font-size:12px} mark.none{background:#e4e2dd}
@media(max-width:520px){.example{grid-template-columns:1fr}}
"""


@dataclass
class Numbers:
    """What is counted over all shards, one shard in memory at a time."""

    ids: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    intensities: list[float] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    face_rates: list[float] = field(default_factory=list)
    labels: list[float] = field(default_factory=list)
    languages: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)
    masked_intensity: dict[str, float] = field(default_factory=dict)
    without_word: int = 0
    without_mask: int = 0

    def add(self, row: dict[str, Any]) -> None:
        """Count one utterance."""
        self.ids.append(row["id"])
        self.seconds.append(row["end"] - row["start"])
        self.words.append(len(row["words"] or []))
        self.languages[row["language"] or "unknown"] += 1
        sure = [word["probability"] for word in row["words"] or [] if word["probability"] is not None]
        if sure:
            self.confidences.append(sum(sure) / len(sure))
        if row["face_rate"] is not None:
            self.face_rates.append(row["face_rate"])
        if row["label"] is not None:
            self.labels.append(row["label"])
        if not row["masks"]:
            self.without_mask += 1
            return
        mask = row["masks"][0]
        self.intensities.append(mask["intensity"])
        if mask["from_lexicon"]:
            word = row["text"][mask["start_char"] : mask["end_char"]].casefold()
            self.masked[word] += 1
            self.masked_intensity[word] = mask["intensity"]
        else:
            self.without_word += 1


def count(folder: Path) -> Numbers:
    """The numbers of a dataset."""
    numbers = Numbers()
    for shard in sorted((folder / SHARD_FOLDER).glob("*.parquet")):
        for row in pq.read_table(shard, columns=list(COLUMNS)).to_pylist():
            numbers.add(row)
    return numbers


def write_summary(folder: Path) -> Path | None:
    """Write `summary.html` into a dataset's folder; None where the dataset has no utterance."""
    info, numbers = read_info(folder), count(folder)
    if not numbers.ids:
        return None
    page = render(folder, info, numbers)
    write_atomically(folder / SUMMARY_FILE, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return folder / SUMMARY_FILE


def render(folder: Path, info: DatasetInfo, numbers: Numbers) -> str:
    """The page."""
    name = html.escape(str(info.corpus.get("name")))
    made = '<p class="banner">Made data: these clips were synthesised by a program.</p>' if info.made else ""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{name}</title>'
        f"<style>{STYLE}</style><main><h1>{name}</h1><p class=quiet>Utterance dataset, {_how(info)}</p>{made}{_tiles(info, numbers)}"
        f"<h2>Distributions</h2><div class=figures>{''.join(_histograms(info, numbers))}</div>{_masked_words(numbers)}{_skips(info)}"
        f"<h2>Examples</h2>{_examples(folder, info, numbers)}</main></html>"
    )


def _how(info: DatasetInfo) -> str:
    parts = []
    if info.asr is not None:
        parts.append(f"words by {info.asr.get('engine')} {info.asr.get('model')}")
    parts += [f"{feature.extractor} ({feature.width} columns)" for feature in (info.audio, info.vision) if feature is not None]
    if info.lexicon is not None:
        parts.append(f"masks by {info.lexicon.get('name')}")
    return html.escape("; ".join(parts))


def _tiles(info: DatasetInfo, numbers: Numbers) -> str:
    hours = sum(numbers.seconds) / 3600
    skipped = sum(info.counts.get("skipped", {}).values())
    tiles = [
        (f"{len(numbers.ids):,}", "utterance" if len(numbers.ids) == 1 else "utterances"),
        (f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min", "of media"),
        (f"{skipped:,}", "clip skipped" if skipped == 1 else "clips skipped"),
        (f"{float(np.median(numbers.seconds)):.1f} s", "median length"),
        (f"{float(np.median(numbers.words)):.0f}", "words, median"),
        (f"{1 - (numbers.without_word + numbers.without_mask) / len(numbers.ids):.0%}", "with a word of the lexicon"),
    ]
    if numbers.face_rates:
        tiles.append((f"{np.mean(numbers.face_rates):.0%}", "of frames show a face"))
    rate = (info.asr or {}).get("word_error_rate")
    if rate:
        tiles.append((f"{rate['value']:.1%}", f"word error rate ({rate['utterances']} references)"))
    tiles.append(
        (
            ", ".join(language for language, _ in numbers.languages.most_common(3)),
            "language" if len(numbers.languages) == 1 else "languages",
        )
    )
    return "<div class=tiles>" + "".join(f"<div><b>{html.escape(value)}</b>{html.escape(what)}</div>" for value, what in tiles) + "</div>"


def _histograms(info: DatasetInfo, numbers: Numbers) -> list[str]:
    strongest = math.ceil(max(map(abs, numbers.intensities), default=0.0)) or 1
    kinds: list[tuple[str, Sequence[float], Bins]] = [
        ("length in seconds", numbers.seconds, bins_from_zero(numbers.seconds)),
        ("words an utterance", numbers.words, bins_of_counts(numbers.words)),
        ("label", numbers.labels, bins_between(*(info.label_range or (-1.0, 1.0)))),
        ("intensity of the masked word", numbers.intensities, bins_between(-strongest, strongest)),
        ("mean word probability of the recognition", numbers.confidences, SHARES),
        ("share of frames with a face", numbers.face_rates, SHARES),
    ]
    return [
        f'<figure><img alt="{name}" src="{picture_source(histogram(values, bins))}"><figcaption>{name}</figcaption></figure>'
        for name, values, bins in kinds
        if len(values)
    ]


def picture_source(content: bytes, kind: str = "png") -> str:
    """A picture as a `data:` address, so that the page needs no other file."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _masked_words(numbers: Numbers) -> str:
    if not numbers.masked:
        return ""
    rows = "".join(
        f"<tr><td>{html.escape(word)}<td class=n>{signed(numbers.masked_intensity[word], 2)}<td class=n>{times:,}"
        for word, times in numbers.masked.most_common(MASKED_WORDS)
    )
    without = counted(numbers.without_word, "utterance")
    note = f"{without} without a word of the lexicon (one drawn at random is masked, intensity 0)"
    if numbers.without_mask:
        note += f"; {numbers.without_mask:,} without a mask (--mask.max-zero-share)"
    return f"<h2>Most masked words</h2><table><tr><th>word<th class=n>intensity<th class=n>times{rows}</table><p class=quiet>{note}.</p>"


def _skips(info: DatasetInfo) -> str:
    skipped = info.counts.get("skipped", {})
    if not skipped:
        return "<h2>Skipped clips</h2><p>None.</p>"
    from preprocessing.pipeline import REASONS

    rows = "".join(
        f"<tr><td>{html.escape(reason.replace('_', ' '))}<td>{html.escape(REASONS.get(reason, ''))}<td class=n>{times:,}"
        for reason, times in skipped.items()
    )
    return f"<h2>Skipped clips</h2><table><tr><th>reason<th>meaning<th class=n>clips{rows}</table>"


def _examples(folder: Path, info: DatasetInfo, numbers: Numbers) -> str:
    data = UtteranceDataset(folder)
    places = np.unique(np.linspace(0, len(data) - 1, EXAMPLES).round().astype(int))
    chosen = [data[int(place)] for place in places]
    paths = clip_paths(folder, {utterance.id for utterance in chosen})
    return "".join(_example(utterance, info, paths.get(utterance.id)) for utterance in chosen)


def _example(utterance: Utterance, info: DatasetInfo, path: str | None) -> str:
    frame = _frame(Path(str(info.corpus.get("root", ""))) / path, utterance) if path else None
    image = f'<img alt="" src="{picture_source(frame, "jpeg")}">' if frame else "<div class=blank>no picture</div>"
    facts = [
        utterance.id,
        f"{utterance.end - utterance.start:.1f} s",
        *([f"speaker {utterance.speaker}"] if utterance.speaker != utterance.id else []),
    ]
    if utterance.label is not None:
        facts.append(f"label {signed(utterance.label, 2)}")
    if utterance.face_rate is not None:
        facts.append(f"face in {utterance.face_rate:.0%} of the frames")
    return (
        f"<div class=example><div>{image}</div><div>{marked_html(utterance)}<p class=quiet>{html.escape(' · '.join(facts))}</p></div></div>"
    )


def marked_html(utterance: Utterance) -> str:
    """The transcript with the paper's mask marked."""
    text = utterance.text
    if not utterance.masks:
        return html.escape(text)
    mask = utterance.masks[0]
    before, word, after = text[: mask.start_char], text[mask.start_char : mask.end_char], text[mask.end_char :]
    kind, value = ("", signed(mask.intensity, 2)) if mask.from_lexicon else (' class="none"', "not in the lexicon")
    if mask.context_intensity is not None and mask.context_intensity != mask.intensity:
        value += f", in context {signed(mask.context_intensity, 2)}"
    return f"{html.escape(before)}<mark{kind}>{html.escape(word)} <small>{value}</small></mark>{html.escape(after)}"


def clip_paths(folder: Path, ids: set[str]) -> dict[str, str]:
    """The paths below the corpus root of some clips, from the manifests."""
    found: dict[str, str] = {}
    for manifest in sorted(folder.glob("clips*.csv")):
        with manifest.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            found.update((row["id"], row["path"]) for row in csv.DictReader(file) if row["id"] in ids)
    return found


def _frame(path: Path, utterance: Utterance) -> bytes | None:
    """A small JPEG of the middle of an utterance; None where the file is not there or has no picture."""
    import cv2

    from preprocessing.media import MediaError, read_frame

    try:
        frame = read_frame(path, (utterance.start + utterance.end) / 2)
    except MediaError:
        return None
    width = 300
    small = cv2.resize(frame, (width, max(1, round(frame.shape[0] * width / frame.shape[1]))), interpolation=cv2.INTER_AREA)
    done, content = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    return content.tobytes() if done else None
