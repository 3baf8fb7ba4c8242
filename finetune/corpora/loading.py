"""One call for every labelled corpus: `load_corpus`."""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from finetune.corpora import checks
from finetune.corpora.cached import FrameSink, check_place, converted, local_copy
from finetune.corpora.readers import Reading, check_not_unlabelled, is_skesl, read_mmsa, read_skesl, read_utterances, width_of
from finetune.corpora.safe_pickle import load_pickle
from finetune.corpora.splits import LABEL_RANGES, Findings, LabelledCorpus, LabelledSplit, carve_by_video, check_dataset_name
from preprocessing.layouts.folder import FEW_LABELS
from preprocessing.schema import DatasetInfo
from preprocessing.store import read_info
from skesl_mug.cache import cache_folder
from skesl_mug.errors import UserError
from skesl_mug.wording import counted

# SHA-256 of the files that MMSA's authors hand out
KNOWN_FILES = {
    "78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524": "MMSA MOSI unaligned_50",
    "d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9": "MMSA MOSI aligned_50",
    "ad8b23d50557045e7d47959ce6c5b955d8d983f2979c7d9b7b9226f6dd6fec1f": "MMSA MOSEI unaligned_50",
    "45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791": "MMSA MOSEI aligned_50",
    "c9e20c13ec0454d98bb9c1e520e490c75146bfa2dfeeea78d84de047dbdd442f": "MMSA CH-SIMS unaligned_39",
}
UPPER_CASE_SHARE = 0.95
FOLDED = "transcripts folded to lower case"
"""The finding that tells of it."""


def load_corpus(
    dataset: str,
    data: str | Path,
    *,
    fold_case: bool | None = None,
    dev_share: float = 0.15,
    seed: int = 0,
    label_range: tuple[float, float] | None = None,
    made: bool = False,
    text_bert: bool = False,
    cache: Path | None = None,
) -> LabelledCorpus:
    """Read a labelled corpus, check it, and set out its splits "train", "dev" and the reported one.

    Where the file has a test split, `dev` is its valid split and test is reported. Where it has none, `dev` (early stopping) is carved
    from train by video and valid is reported; `evaluated_on_note` says so.

    Args:
        dataset: mosi, mosei, sims, simsv2 or custom; decides the label range and the metrics.
        data: an MMSA or SKESL pickle, or the folder of a labelled utterance dataset; or a URL of either that fsspec opens.
        fold_case: fold transcripts to lower case; None does so where they are almost wholly upper case (as MOSI's are).
        dev_share: share of train that is carved where there is no test split.
        seed: of the carving alone.
        label_range: (lowest, highest) label of a custom dataset; None takes the dataset's own, or what its train labels span.
        made: the data were made (synthetic); a made utterance dataset says so itself.
        text_bert: take the pickle's own token ids instead of tokenising its transcripts.
        cache: where the converted form lies (made on first use); None: as `cache_folder` says.

    Raises:
        UserError: with the file, and the key and split where the fault lies.
    """
    check_dataset_name(dataset)
    cache = cache_folder(cache)
    path = local_copy(data, cache)
    check_place(path)
    info = read_info(path) if path.is_dir() else None
    sha256 = _sha256(path)
    shown = str(data)
    splits, findings = converted(cache, sha256 + "-text_bert" * text_bert, partial(_read, path, shown, text_bert))
    label_range = _check(dataset, splits, info, label_range, shown, findings)
    widths = {modality: _width_or_absent(splits, modality, findings) for modality in ("audio", "vision")}
    _text_or_absent(splits, findings)
    if not any(widths.values()) and splits["train"].text is None:
        raise UserError(f"{shown}: holds neither transcripts nor audio nor vision features; there is nothing to learn from")
    _fold_case(splits, fold_case, findings)
    splits, evaluated_on, note = _set_out(splits, dev_share, seed, findings)
    return LabelledCorpus(
        dataset=dataset,
        label_range=label_range,
        splits=splits,
        evaluated_on=evaluated_on,
        evaluated_on_note=note,
        audio_width=widths["audio"],
        vision_width=widths["vision"],
        sha256=sha256,
        source=shown,
        local=path,
        known_as=KNOWN_FILES.get(sha256),
        made=made or bool(info and info.synthetic),
        findings=list(findings),
        info=info,
    )


def _read(path: Path, shown: str, text_bert: bool, sink: FrameSink, findings: Findings) -> dict[str, LabelledSplit]:
    """The splits as the file gives them; `shown` is its name for messages."""
    if path.is_dir():
        if text_bert:
            raise UserError(f"--text-bert: {shown} is an utterance dataset, which has no `text_bert`; leave the flag out")
        return read_utterances(path, sink, findings)
    content: Any = load_pickle(path, sink.folder)
    if not isinstance(content, dict):
        raise UserError(f"{shown}: holds a {type(content).__name__}, not the splits of an MMSA or SKESL pickle")
    check_not_unlabelled(content, shown)
    reading = Reading(shown, sink, findings, text_bert=text_bert)
    return read_skesl(content, reading) if is_skesl(content) else read_mmsa(content, reading)


def _check(
    dataset: str,
    splits: dict[str, LabelledSplit],
    info: DatasetInfo | None,
    label_range: tuple[float, float] | None,
    file: str,
    findings: Findings,
) -> tuple[float, float]:
    """Every check across splits; gives the label range."""
    _need_splits(splits, file)
    checks.check_enough(splits, file, findings)
    label_range = _label_range(dataset, label_range, splits, info, findings)
    checks.check_label_range(splits, label_range, dataset, file)
    checks.check_videos(splits, dataset, file, findings)
    checks.check_ids(splits, findings)
    return label_range


def _need_splits(splits: dict[str, LabelledSplit], file: str) -> None:
    there = ", ".join(f"`{name}`" for name in splits) or "no split"
    if "train" not in splits:
        raise UserError(f"{file}: has no samples in split `train` (there is {there})")
    if "valid" not in splits and "test" not in splits:
        raise UserError(f"{file}: has {there} alone; add a split `valid` or `test` to report on")


def _label_range(
    dataset: str,
    given: tuple[float, float] | None,
    splits: dict[str, LabelledSplit],
    info: DatasetInfo | None,
    findings: Findings,
) -> tuple[float, float]:
    if dataset in LABEL_RANGES:
        if given is not None and tuple(given) != LABEL_RANGES[dataset]:
            raise UserError(f"--label-range {given[0]:g} {given[1]:g}: {dataset} has its own range; use `--dataset custom` for another")
        return LABEL_RANGES[dataset]
    chosen = given or (info.label_range if info else None)
    if chosen is not None:
        if not chosen[0] < chosen[1]:
            raise UserError(f"--label-range {chosen[0]:g} {chosen[1]:g}: the lowest label comes first")
        return float(chosen[0]), float(chosen[1])
    train = splits["train"].label  # train alone: the reported split tells us nothing
    largest = float(np.abs(train).max())
    found = findings.warn if len(train) < FEW_LABELS else findings.note
    found(
        "train/label",
        f"labels from {train.min():g} to {train.max():g}: the range is taken as {-largest:g} to {largest:g} (the largest, both ways); "
        "--label-range LOW HIGH sets another" + (", if your scale is wider" if len(train) < FEW_LABELS else ""),
        len(train),
    )
    return -largest, largest


def _width_or_absent(splits: dict[str, LabelledSplit], modality: str, findings: Findings) -> int:
    """The width of a modality; where not one sample of the file has it, it is taken out of every split and the width is 0."""
    width = max(width_of(getattr(split, modality)) for split in splits.values())
    if width == 0:
        for split in splits.values():
            if getattr(split, modality) is not None:
                findings.warn(f"every split/{modality}", "samples, all of them zero: the modality counts as absent", len(split))
                setattr(split, modality, None)
    return width


def _text_or_absent(splits: dict[str, LabelledSplit], findings: Findings) -> None:
    """Where not one sample of the file has a transcript (or tokens), there is no text: the LM would be fed nothing but frames of it."""
    if not any(any(text.strip() for text in split.text or []) or any(split.tokens or []) for split in splits.values()):
        for split in splits.values():
            if split.text is not None:
                findings.warn("every split/text", "samples, all transcripts empty: text counts as absent", len(split))
                split.text = split.tokens = None


def _fold_case(splits: dict[str, LabelledSplit], fold_case: bool | None, findings: Findings) -> None:
    train = splits["train"].text
    if train is None or fold_case is False or (fold_case is None and upper_case_share(train) < UPPER_CASE_SHARE):
        return
    for split in splits.values():
        split.text = [text.lower() for text in split.text or []]
    findings.note("text", FOLDED, sum(len(split) for split in splits.values()))


def upper_case_share(texts: list[str]) -> float:
    """Share of upper-case letters among the letters that have a case; 0 where none has (Chinese)."""
    upper = sum(letter.isupper() for text in texts for letter in text)
    lower = sum(letter.islower() for text in texts for letter in text)
    return upper / (upper + lower) if upper + lower else 0.0


def _set_out(
    splits: dict[str, LabelledSplit], dev_share: float, seed: int, findings: Findings
) -> tuple[dict[str, LabelledSplit], str, str | None]:
    if "test" in splits and "valid" in splits:
        return {"train": splits["train"], "dev": splits["valid"], "test": splits["test"]}, "test", None
    reported, missing = ("test", "valid") if "test" in splits else ("valid", "test")
    rest, carved, by_video = carve_by_video(splits["train"], dev_share, seed)
    how = "by video" if by_video else "by sample (its ids name one video only)"
    if not by_video:
        findings.warn("train/id", "samples of one video: the development part was carved by sample", len(splits["train"]))
    note = (
        f"The file has no {missing} split: {counted(len(carved), 'sample')} of train, chosen {how}, became a development split for early "
        f"stopping, and the figures are those of its {reported} split, on which nothing was chosen."
    )
    train = splits["train"]
    return {"train": train.select(rest), "dev": train.select(carved), reported: splits[reported]}, reported, note


def _sha256(path: Path) -> str:
    """Of a file's content; of a folder's `dataset.json` and shards in the order of their names."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else [path / "dataset.json", *sorted((path / "data").glob("*.parquet"))]
    for file in files:
        with open(file, "rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
