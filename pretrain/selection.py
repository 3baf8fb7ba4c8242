"""Selecting the utterances to train on and masking their texts; the result is stored on disk and read memory-mapped.

A million utterances of 27 tokens take about 160 MB on disk and hardly any memory.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from lexicons.context import vader_deviations
from lexicons.lexicon import normalise
from preprocessing.remask import UNFINISHED
from preprocessing.schema import DatasetInfo, Utterance
from preprocessing.store import UtteranceDataset
from pretrain.tokens import MaskedText, tokenise_masked
from skesl_mug.errors import UserError
from skesl_mug.files import write_json

CHUNK_ROWS = 8192
TOKENS_PER_SECOND = 4.0
COLUMNS = ["text", "masks", "split", "speaker", "video_id", "start", "end"]
ROWS_FILE, TOKENS_FILE, WORDS_FILE, KEY_FILE = "rows.bin", "tokens.bin", "words.bin", "selection.json"
ROW = np.dtype(
    [("row", "<i8"), ("tokens_end", "<i8"), ("words_end", "<i8"), ("speaker", "<i4"), ("video", "<i4"), ("cost", "<f4"), ("target", "<f4")]
)
WORD = np.dtype([("start", "<i4"), ("pieces", "<i4"), ("target", "<f4"), ("weight", "<f4")])


class JoinedDatasets:
    """Several utterance datasets read as one; their feature columns must be the same.

    Raises:
        UserError: a folder is not a dataset, its remasking was interrupted, no dataset has rows, or their features differ.
    """

    def __init__(self, folders: Sequence[str | Path]):
        self.sources = [UtteranceDataset(folder) for folder in folders]
        for source in self.sources:
            if (source.info.lexicon or {}).get(UNFINISHED):
                raise UserError(f"{source.folder}: its masks come from two lexicons: preprocessing.remask was interrupted; run it again")
        self._starts = np.concatenate([[0], np.cumsum([len(source) for source in self.sources])])
        if not len(self):
            raise UserError(f"{', '.join(map(str, folders))}: has no utterances; see the skip reasons in its dataset.json")
        first = self.sources[0]
        for name in ("audio", "vision"):
            for other in self.sources[1:]:
                if _column_names(other.info, name) != _column_names(first.info, name):
                    raise UserError(
                        f"{other.folder}: its {name} columns differ from those of {first.folder}; use the same --{name} features for both"
                    )

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, row: int) -> Utterance:
        source = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self.sources[source][row - int(self._starts[source])]

    def chunks(self, names: list[str], rows: int) -> Iterator[tuple[int, dict[str, list[Any]]]]:
        """Some columns of all datasets, up to `rows` rows at a time, each with the index of its first row."""
        for source, start in zip(self.sources, self._starts, strict=False):
            for first in range(0, len(source), rows):
                yield int(start) + first, source.columns(names, first, first + rows)

    def width(self, name: str) -> int:
        """Width of `audio` or `vision`; 0 if absent."""
        return len(_column_names(self.sources[0].info, name))


def _column_names(info: DatasetInfo, name: str) -> list[str]:
    feature = getattr(info, name)
    return [] if feature is None else [column["name"] for column in feature.columns]


@dataclass(frozen=True)
class MaskingOptions:
    """How texts are masked; see the corresponding options in `pretrain/options.py`."""

    max_tokens: int
    one_token: bool = False
    context: bool = False
    all_splits: bool = False
    masks_per_row: int = 1
    confidence: bool = False


class Selection:
    """The usable rows of some datasets, in their order; `skipped` counts the others by reason.

    `rows` [N] are their indices in the datasets. Can be passed to worker processes, which open the files themselves.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        about = json.loads((folder / KEY_FILE).read_text(encoding="utf-8"))
        self.skipped: dict[str, int] = about["skipped"]
        self._weighted: bool = about["weighted"]
        self._table = np.memmap(folder / ROWS_FILE, ROW, "r")
        self._tokens = np.memmap(folder / TOKENS_FILE, "<i4", "r")
        self._words = np.memmap(folder / WORDS_FILE, WORD, "r")
        self.rows = self._table["row"]

    def __reduce__(self) -> tuple[type["Selection"], tuple[Path]]:
        return Selection, (self.folder,)

    def __len__(self) -> int:
        return len(self._table)

    @property
    def intensities(self) -> np.ndarray:
        """Intensity of the first masked word, which is scored in validation, float32 [N]."""
        return np.array(self._table["target"])

    @property
    def costs(self) -> np.ndarray:
        """Cost of a sample in a batch: its tokens, plus `TOKENS_PER_SECOND` of audio and vision, float32 [N]."""
        return np.array(self._table["cost"])

    @property
    def speakers(self) -> np.ndarray:
        """Number of the speaker, int32 [N]; 0: unknown."""
        return np.array(self._table["speaker"])

    @property
    def videos(self) -> np.ndarray:
        """Number of the video, int32 [N]; 0: unknown."""
        return np.array(self._table["video"])

    @property
    def token_lists(self) -> "PackedLists":
        """Masked token ids of every sample."""
        return PackedLists(self._tokens, self._table["tokens_end"])

    @property
    def pieces(self) -> "PieceLists":
        """Positions of all masked pieces of every sample, word by word."""
        return PieceLists(self)

    def text(self, member: int) -> MaskedText:
        """The masked text of a sample; a word that was cut off has no positions."""
        return MaskedText(self.token_lists[member].tolist(), self.positions(member))

    def positions(self, member: int) -> tuple[tuple[int, ...], ...]:
        """Positions of the pieces of each masked word of a sample."""
        return tuple(tuple(range(word["start"], word["start"] + word["pieces"])) for word in self.words(member))

    def targets(self, member: int) -> tuple[float, ...]:
        """Intensity of each masked word of a sample, NaN if it was cut off."""
        return tuple(self.words(member)["target"].tolist())

    def weights(self, member: int) -> tuple[float, ...]:
        """Weight of each masked word of a sample; empty if all weights are 1."""
        return tuple(self.words(member)["weight"].tolist()) if self._weighted else ()

    def words(self, member: int) -> np.ndarray:
        """Masked words of a sample as `WORD` records."""
        ends = self._table["words_end"]
        return self._words[ends[member - 1] if member else 0 : ends[member]]


class PackedLists(Sequence[np.ndarray]):
    """Lists of numbers concatenated in one array; `ends` [N] are their ends."""

    def __init__(self, flat: np.ndarray, ends: np.ndarray):
        self.flat, self.ends = flat, ends

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]  # slices are not offered
        return np.asarray(self.flat[self.ends[index - 1] if index else 0 : self.ends[index]])

    def lengths(self) -> np.ndarray:
        """Length of each list [N]."""
        return np.diff(self.ends, prepend=0)


class PieceLists(Sequence[list[int]]):
    """Positions of the masked pieces of each sample of a selection."""

    def __init__(self, selection: Selection):
        self.selection = selection

    def __len__(self) -> int:
        return len(self.selection)

    def __getitem__(self, index: int) -> list[int]:  # type: ignore[override]  # slices are not offered
        return [place for word in self.selection.positions(index) for place in word]

    def lengths(self) -> np.ndarray:
        """Number of pieces of each sample [N]."""
        upto = np.concatenate([[0], np.cumsum(self.selection._words["pieces"], dtype=np.int64)])
        return np.diff(upto[self.selection._table["words_end"]], prepend=0)


def select(dataset: JoinedDatasets, tokenizer: Any, folder: Path, options: MaskingOptions, progress: bool = False) -> Selection:
    """Select the usable rows and mask their words; a selection of the same data in `folder` is reused.

    Raises:
        UserError: the tokenizer has no mask token, no row is usable, or no mask has the requested context intensity.
    """
    if tokenizer.mask_token_id is None:
        raise UserError(
            "--lm: its tokenizer has no mask token; use a masked language model such as BERT, RoBERTa or DeBERTa, or train on rated "
            "sentences only (--objective.rated 1 without --data)"
        )
    key = selection_key(dataset, tokenizer, options)
    if _stored_key(folder) == key:
        return Selection(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / KEY_FILE).unlink(missing_ok=True)
    skipped: Counter[str] = Counter()
    with open(folder / ROWS_FILE, "wb") as rows, open(folder / TOKENS_FILE, "wb") as tokens, open(folder / WORDS_FILE, "wb") as words:
        writer = _Writer(rows, tokens, words)
        bar = tqdm(total=len(dataset), desc="masked texts", unit=" rows", disable=not progress or len(dataset) <= CHUNK_ROWS, leave=False)
        with bar:
            for first, chunk in dataset.chunks(COLUMNS, CHUNK_ROWS):
                _select_chunk(writer, first, chunk, tokenizer, options, skipped)
                bar.update(len(chunk["text"]))
    if options.context and not writer.context_count:
        raise UserError(
            f"--context-intensity: no mask of {dataset.sources[0].folder} has one (negation and degree words); add them "
            f"with `python -m preprocessing.remask {dataset.sources[0].folder} --mask.context`, or leave the flag out"
        )
    if not writer.count:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in skipped.most_common())
        raise UserError(
            f"{dataset.sources[0].folder}: none of its {len(dataset)} utterances can be used ({reasons}); run preprocessing again"
        )
    write_json(folder / KEY_FILE, {"key": key, "skipped": dict(skipped.most_common()), "weighted": options.confidence})
    return Selection(folder)


class _Writer:
    """Appends samples to the three files; numbers speakers and videos from 1 in order of appearance."""

    def __init__(self, rows: BinaryIO, tokens: BinaryIO, words: BinaryIO):
        self.files = {"rows": rows, "tokens": tokens, "words": words}
        self.count = self.tokens_end = self.words_end = self.context_count = 0
        self.names: dict[str, dict[str, int]] = {"speaker": {"": 0}, "video": {"": 0}}

    def number(self, kind: str, name: str | None) -> int:
        known = self.names[kind]
        return known.setdefault(name or "", len(known))

    def add(self, samples: Sequence[tuple[int, MaskedText, list[tuple[float, float]], str | None, str | None, float]]) -> None:
        """Append (row, text, (target, weight) of each word, speaker, video, seconds)."""
        table, tokens, words = np.zeros(len(samples), ROW), [], []
        for place, (row, text, labels, speaker, video, seconds) in enumerate(samples):
            tokens += text.token_ids
            words += [
                (pieces[0] if pieces else 0, len(pieces), target if pieces else np.nan, weight)
                for pieces, (target, weight) in zip(text.positions, labels, strict=True)
            ]
            ends = (self.tokens_end + len(tokens), self.words_end + len(words))
            cost = len(text.token_ids) + TOKENS_PER_SECOND * (seconds if np.isfinite(seconds) else 0.0)
            table[place] = (row, *ends, self.number("speaker", speaker), self.number("video", video), cost, labels[0][0])
        self.count += len(samples)
        self.tokens_end, self.words_end = self.tokens_end + len(tokens), self.words_end + len(words)
        self.files["rows"].write(table.tobytes())
        self.files["tokens"].write(np.asarray(tokens, "<i4").tobytes())
        self.files["words"].write(np.asarray(words, WORD).tobytes())


def _select_chunk(
    writer: _Writer, first: int, chunk: dict[str, list[Any]], tokenizer: Any, options: MaskingOptions, skipped: Counter[str]
) -> None:
    usable, spans = [], []
    for place, (text, masks, split) in enumerate(zip(chunk["text"], chunk["masks"], chunk["split"], strict=True)):
        reason = _unusable(text, masks, split, options.all_splits)
        if reason:
            skipped[reason] += 1
            continue
        usable.append(place)
        spans.append([(mask["start_char"], mask["end_char"]) for mask in masks[: options.masks_per_row]])
    texts = [chunk["text"][place] for place in usable]
    masked = tokenise_masked(texts, spans, tokenizer, options.max_tokens, options.one_token)
    samples = []
    for place, text, chosen, result in zip(usable, texts, spans, masked, strict=True):
        if result is None:
            skipped["masked_word_has_no_token"] += 1
            continue
        masks = chunk["masks"][place][: options.masks_per_row]
        intensities = [_intensity(mask, options.context) for mask in masks]
        writer.context_count += sum(mask["context_intensity"] is not None for mask in masks)
        weights = _confidences(text, chosen) if options.confidence else [1.0] * len(chosen)
        seconds = (chunk["end"][place] or 0.0) - (chunk["start"][place] or 0.0)
        labels = list(zip(intensities, weights, strict=True))
        samples.append((first + place, result, labels, chunk["speaker"][place], chunk["video_id"][place], seconds))
    writer.add(samples)


def _unusable(text: str | None, masks: list[dict[str, Any]] | None, split: str | None, all_splits: bool) -> str | None:
    if split in ("valid", "test") and not all_splits:
        return f"split_{split}_kept_for_evaluation"
    if not text:
        return "no_text"
    if not masks:
        return "no_masked_word"
    if masks[0]["intensity"] is None or not np.isfinite(masks[0]["intensity"]):
        return "intensity_is_no_number"
    return None


def _intensity(mask: dict[str, Any], context: bool) -> float:
    value = mask["context_intensity"] if context and mask["context_intensity"] is not None else mask["intensity"]
    return float("nan") if value is None else float(value)


def _confidences(text: str, spans: Sequence[tuple[int, int]]) -> list[float]:
    """1 / (1 + variance of VADER's raters) for each masked word; 1 for words that VADER lacks."""
    deviations = vader_deviations()
    return [1.0 / (1.0 + deviations.get(normalise(text[a:b]), 0.0) ** 2) for a, b in spans]


def selection_key(dataset: JoinedDatasets, tokenizer: Any, options: MaskingOptions) -> str:
    """A fingerprint of the datasets, the tokenizer and the options."""
    digest = hashlib.sha256(json.dumps(asdict(options), sort_keys=True).encode())
    for text in _identities(dataset, tokenizer):
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()


def _identities(dataset: JoinedDatasets, tokenizer: Any) -> Iterator[str]:
    yield from (source.fingerprint for source in dataset.sources)
    yield tokenizer.backend_tokenizer.to_str()
    yield f"{tokenizer.mask_token_id} {tokenizer.model_max_length} {CHUNK_ROWS}; special tokens in a text are text"


def _stored_key(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / KEY_FILE).read_text(encoding="utf-8"))["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
