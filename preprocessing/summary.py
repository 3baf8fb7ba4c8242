"""`summary.html` of an utterance dataset: its content on one self-contained page."""

import base64
import csv
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from preprocessing.facts import describe_faults
from preprocessing.layouts.files import in_words
from preprocessing.plots import SHARES, Bins, bins_between, bins_from_zero, bins_of_counts, histogram
from preprocessing.schema import DatasetInfo, Utterance
from preprocessing.store import SHARD_FOLDER, UtteranceDataset, read_info
from skesl_mug.files import write_atomically
from skesl_mug.templates import templates
from skesl_mug.wording import counted, signed

SUMMARY_FILE = "summary.html"
EXAMPLES = 10
MASKED_WORDS = 20
COLUMNS = ("id", "start", "end", "language", "text", "words", "masks", "face_rate", "label")
LEAST_UTTERANCES = 10
LEAST_SHARE = 0.02
"""Share of utterances with a lexicon word below which the lexicon is reported as unsuitable."""


@dataclass
class Numbers:
    """Totals over all shards, one shard in memory at a time."""

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
        known = [word["probability"] for word in row["words"] or [] if word["probability"] is not None]
        if known:
            self.confidences.append(sum(known) / len(known))
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
    """The totals of a dataset."""
    numbers = Numbers()
    for shard in sorted((folder / SHARD_FOLDER).glob("*.parquet")):
        for row in pq.read_table(shard, columns=list(COLUMNS)).to_pylist():
            numbers.add(row)
    return numbers


def write_summary(folder: Path) -> Path | None:
    """Write `summary.html` into a dataset's folder; None if the dataset has no utterances."""
    info, numbers = read_info(folder), count(folder)
    if not numbers.ids:
        return None
    if (note := lexicon_note(folder, info, numbers)) is not None:
        print(note)
    page = render(folder, info, numbers)
    write_atomically(folder / SUMMARY_FILE, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return folder / SUMMARY_FILE


def lexicon_note(folder: Path, info: DatasetInfo, numbers: Numbers) -> str | None:
    """A line if hardly any utterance has a word of the lexicon, as with a lexicon of another language; None otherwise."""
    total, lexicon = len(numbers.ids), info.lexicon
    found = total - numbers.without_word - numbers.without_mask
    if lexicon is None or total < LEAST_UTTERANCES or found >= LEAST_SHARE * total:
        return None
    own, spoken = str(lexicon.get("language")), numbers.languages.most_common(1)[0][0]
    reason = f"most transcripts are in `{spoken}`, the lexicon is for `{own}`" if spoken != own else "check the transcripts"
    if spoken == own == "zh":
        reason = "Chinese lexicons have simplified characters: check the transcripts"
    fix = f"`python -m preprocessing.remask {folder} --lexicon NAME` uses another one"
    return f"note: only {found:,} of {counted(total, 'utterance')} have a word of the lexicon {lexicon.get('name')}: {reason}; {fix}"


def render(folder: Path, info: DatasetInfo, numbers: Numbers) -> str:
    """The page."""
    page = templates(Path(__file__).parent).get_template("summary.html.jinja")
    return page.render(
        name=str(info.corpus.get("name")),
        how=_how(info),
        synthetic=info.synthetic,
        tiles=_tiles(info, numbers),
        histograms=_histograms(info, numbers),
        masked=[
            (word, signed(numbers.masked_intensity[word], 2), f"{times:,}") for word, times in numbers.masked.most_common(MASKED_WORDS)
        ],
        masked_note=_masked_note(numbers),
        skips=_skips(info),
        faults=describe_faults(info.counts),
        left_out=in_words(info.corpus.get("left_out") or {}),
        examples=_examples(folder, info),
    )


def _how(info: DatasetInfo) -> str:
    parts = []
    if info.asr is not None:
        parts.append(f"words by {info.asr.get('engine')} {info.asr.get('model')}")
    parts += [f"{feature.extractor} ({feature.width} columns)" for feature in (info.audio, info.vision) if feature is not None]
    if info.lexicon is not None:
        parts.append(f"masks by {info.lexicon.get('name')}")
    return "; ".join(parts)


def _tiles(info: DatasetInfo, numbers: Numbers) -> list[tuple[str, str]]:
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
    languages = ", ".join(language for language, _ in numbers.languages.most_common(3))
    return [*tiles, (languages, "language" if len(numbers.languages) == 1 else "languages")]


def _histograms(info: DatasetInfo, numbers: Numbers) -> list[tuple[str, str]]:
    strongest = math.ceil(max(map(abs, numbers.intensities), default=0.0)) or 1
    kinds: list[tuple[str, Sequence[float], Bins]] = [
        ("length in seconds", numbers.seconds, bins_from_zero(numbers.seconds)),
        ("words per utterance", numbers.words, bins_of_counts(numbers.words)),
        ("label", numbers.labels, bins_between(*(info.label_range or (-1.0, 1.0)))),
        ("intensity of the masked word", numbers.intensities, bins_between(-strongest, strongest)),
        ("mean word probability of the recogniser", numbers.confidences, SHARES),
        ("share of frames with a face", numbers.face_rates, SHARES),
    ]
    return [(name, picture_source(histogram(values, bins))) for name, values, bins in kinds if len(values)]


def picture_source(content: bytes, kind: str = "png") -> str:
    """A picture as a `data:` URL, so that the page needs no other file."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _masked_note(numbers: Numbers) -> str:
    note = f"{counted(numbers.without_word, 'utterance')} without a lexicon word (a random word is masked, intensity 0)"
    if numbers.without_mask:
        note += f"; {numbers.without_mask:,} without a mask (--mask.max-zero-share)"
    return note


def _skips(info: DatasetInfo) -> list[tuple[str, str, str]]:
    from preprocessing.schema import REASONS

    skipped = info.counts.get("skipped", {})
    return [(reason.replace("_", " "), REASONS.get(reason, ""), f"{times:,}") for reason, times in skipped.items()]


def _examples(folder: Path, info: DatasetInfo) -> list[dict[str, Any]]:
    data = UtteranceDataset(folder)
    places = np.unique(np.linspace(0, len(data) - 1, EXAMPLES).round().astype(int))
    chosen = [data[int(place)] for place in places]
    paths = clip_paths(folder, {utterance.id for utterance in chosen})
    root = Path(str(info.corpus.get("root", "")))
    return [_example(utterance, root / paths[utterance.id] if utterance.id in paths else None) for utterance in chosen]


def _example(utterance: Utterance, path: Path | None) -> dict[str, Any]:
    frame = _frame(path, utterance) if path is not None else None
    facts = [
        utterance.id,
        f"{utterance.end - utterance.start:.1f} s",
        *([f"speaker {utterance.speaker}"] if utterance.speaker != utterance.id else []),
    ]
    if utterance.label is not None:
        facts.append(f"label {signed(utterance.label, 2)}")
    if utterance.face_rate is not None:
        facts.append(f"face in {utterance.face_rate:.0%} of the frames")
    return {"image": picture_source(frame, "jpeg") if frame else None, "facts": " · ".join(facts), **_marked(utterance)}


def _marked(utterance: Utterance) -> dict[str, Any]:
    """The transcript, divided at the paper's mask."""
    text = utterance.text
    if not utterance.masks:
        return {"before": text, "word": ""}
    mask = utterance.masks[0]
    value = signed(mask.intensity, 2) if mask.from_lexicon else "not in the lexicon"
    if mask.context_intensity is not None and mask.context_intensity != mask.intensity:
        value += f", in context {signed(mask.context_intensity, 2)}"
    return {
        "before": text[: mask.start_char],
        "word": text[mask.start_char : mask.end_char],
        "after": text[mask.end_char :],
        "value": value,
        "from_lexicon": mask.from_lexicon,
    }


def clip_paths(folder: Path, ids: set[str]) -> dict[str, str]:
    """The paths of clips below the corpus root, from the manifests."""
    found: dict[str, str] = {}
    for manifest in sorted(folder.glob("clips*.csv")):
        with manifest.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            found.update((row["id"], row["path"]) for row in csv.DictReader(file) if row["id"] in ids)
    return found


def _frame(path: Path, utterance: Utterance) -> bytes | None:
    """A small JPEG from the middle of an utterance; None if the file does not exist or has no video."""
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
