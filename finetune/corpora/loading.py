"""`load_corpus` reads every form of labelled corpus."""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from finetune.corpora import checks
from finetune.corpora.cached import FEATURES, FrameSink, check_place, converted, local_copy, sequence_files
from finetune.corpora.csd import read_sequences
from finetune.corpora.readers import Reading, check_not_unlabelled, read_pickle, width_of
from finetune.corpora.safe_pickle import load_pickle
from finetune.corpora.splits import LABEL_RANGES, Findings, LabelledCorpus, LabelledSplit, carve_by_video, check_dataset_name
from finetune.corpora.utterances import read_utterances
from preprocessing.layouts.folder import FEW_LABELS
from preprocessing.schema import DatasetInfo
from preprocessing.store import read_info
from skesl_mug.cache import cache_folder
from skesl_mug.errors import UserError
from skesl_mug.wording import a_kind, counted

# SHA-256 of the files that MMSA's authors distribute
KNOWN_FILES = {
    "78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524": "MMSA MOSI unaligned_50",
    "d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9": "MMSA MOSI aligned_50",
    "ad8b23d50557045e7d47959ce6c5b955d8d983f2979c7d9b7b9226f6dd6fec1f": "MMSA MOSEI unaligned_50",
    "45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791": "MMSA MOSEI aligned_50",
    "c9e20c13ec0454d98bb9c1e520e490c75146bfa2dfeeea78d84de047dbdd442f": "MMSA CH-SIMS unaligned_39",
}
UPPER_CASE_SHARE = 0.95
FOLDED = "transcripts folded to lower case"
"""The finding that reports it."""


def load_corpus(
    dataset: str,
    data: str | Path,
    *,
    fold_case: bool | None = None,
    dev_share: float = 0.15,
    seed: int = 0,
    label_range: tuple[float, float] | None = None,
    synthetic: bool = False,
    text_bert: bool = False,
    cache: Path | None = None,
) -> LabelledCorpus:
    """Read and check a labelled corpus.

    With a valid and a test split, `dev` (early stopping) is the valid split and test is evaluated. If one of the two is missing, `dev`
    is taken from train, by video, and the other one is evaluated; `evaluated_on_note` says so.

    >>> corpus = load_corpus("mosi", "aligned_50.pkl")  # doctest: +SKIP
    >>> corpus.splits["train"].text[0], corpus.splits["train"].label[0]  # doctest: +SKIP

    Args:
        dataset: mosi, mosei, sims, simsv2 or custom; determines the label range and the metrics.
        data: a pickle of MMSA, SKESL, MulT, MultiBench or MAG-BERT, a folder of CMU's .csd files, the folder of a labelled utterance
            dataset, or a URL of a pickle or dataset that fsspec opens.
        fold_case: convert transcripts to lower case; None: if they are almost entirely upper case (as in MOSI).
        dev_share: share of train to use as `dev` if valid or test is missing.
        seed: of this split.
        label_range: (lowest, highest) label of a custom dataset; None: that of the dataset, or the range of its train labels.
        synthetic: whether the data are synthetic; utterance datasets record it themselves.
        text_bert: use the pickle's own token ids instead of tokenising its transcripts.
        cache: folder for converted files; None: see `cache_folder`.

    Raises:
        UserError: the corpus is missing or faulty; the message names the file, the key and the split.
    """
    check_dataset_name(dataset)
    cache = cache_folder(cache)
    path = local_copy(data, cache)
    check_place(path)
    sequences = sequence_files(path)
    info = read_info(path) if path.is_dir() and not sequences else None
    sha256 = dataset_sha256(path, sequences)
    shown = str(data)
    splits, findings = converted(cache, sha256 + "-text_bert" * text_bert, partial(_read, path, sequences, shown, text_bert))
    label_range = _check(dataset, splits, info, label_range, shown, findings)
    widths = {modality: _width_or_absent(splits, modality, findings) for modality in FEATURES}
    _text_or_absent(splits, findings)
    if not any(widths.values()) and splits["train"].text is None:
        raise UserError(f"{shown}: has neither transcripts nor audio nor vision features")
    _fold_case(splits, fold_case, findings)
    splits, evaluated_on, note = _arrange(splits, dev_share, seed, findings)
    return LabelledCorpus(
        dataset=dataset,
        label_range=label_range,
        splits=splits,
        evaluated_on=evaluated_on,
        evaluated_on_note=note,
        audio_width=widths["audio"],
        vision_width=widths["vision"],
        text_width=widths["text_vectors"],
        sha256=sha256,
        source=shown,
        local=path,
        known_as=KNOWN_FILES.get(sha256),
        synthetic=synthetic or bool(info and info.synthetic),
        findings=list(findings),
        info=info,
    )


def _read(
    path: Path, sequences: Sequence[Path], shown: str, text_bert: bool, sink: FrameSink, findings: Findings
) -> dict[str, LabelledSplit]:
    """The splits of the file; `shown` is its name for messages."""
    reading = Reading(shown, sink, findings, text_bert=text_bert)
    if sequences:
        return read_sequences(path, sequences, reading)
    if path.is_dir():
        if text_bert:
            raise UserError(f"--text-bert: {shown} is an utterance dataset, which has no `text_bert`; leave the option out")
        return read_utterances(path, sink, findings)
    content: Any = load_pickle(path, sink.folder)
    if not isinstance(content, dict):
        raise UserError(f"{shown}: contains {a_kind(content)}, not a dictionary of splits (train, valid, test)")
    check_not_unlabelled(content, shown)
    return read_pickle(content, reading)


def _check(
    dataset: str,
    splits: dict[str, LabelledSplit],
    info: DatasetInfo | None,
    given: tuple[float, float] | None,
    file: str,
    findings: Findings,
) -> tuple[float, float]:
    """Check the splits and return the label range: `given`, or what is known of it."""
    _need_splits(splits, file)
    checks.check_enough(splits, file, findings)
    label_range = _label_range(dataset, given, splits, info, findings)
    known = dataset in LABEL_RANGES or given is not None or (info is not None and info.label_range is not None)
    checks.check_label_range(splits, label_range, dataset, file, None if known else findings)
    checks.check_videos(splits, dataset, file, findings)
    checks.check_ids(splits, findings)
    return label_range


def _need_splits(splits: dict[str, LabelledSplit], file: str) -> None:
    present = ", ".join(f"`{name}`" for name in splits) or "no split"
    if "train" not in splits:
        raise UserError(f"{file}: has no samples in split `train` (only in {present})")
    if "valid" not in splits and "test" not in splits:
        raise UserError(f"{file}: has only {present}; add a split `valid` or `test`")


def _label_range(
    dataset: str,
    given: tuple[float, float] | None,
    splits: dict[str, LabelledSplit],
    info: DatasetInfo | None,
    findings: Findings,
) -> tuple[float, float]:
    if dataset in LABEL_RANGES:
        if given is not None and tuple(given) != LABEL_RANGES[dataset]:
            raise UserError(f"--label-range {given[0]:g} {given[1]:g}: the range of {dataset} is fixed; use `--dataset custom` for another")
        return LABEL_RANGES[dataset]
    chosen = given or (info.label_range if info else None)
    if chosen is not None:
        if not chosen[0] < chosen[1]:
            raise UserError(f"--label-range {chosen[0]:g} {chosen[1]:g}: the lowest label has to come first")
        return float(chosen[0]), float(chosen[1])
    train = splits["train"].label  # not the evaluated split, which must not have any influence
    largest = float(np.abs(train).max())
    found = findings.warn if len(train) < FEW_LABELS else findings.note
    found(
        "train/label",
        f"labels from {train.min():g} to {train.max():g}: the range is assumed to be {-largest:g} to {largest:g}; "
        "set another with --label-range LOW HIGH" + (" if your scale is wider" if len(train) < FEW_LABELS else ""),
        len(train),
    )
    return -largest, largest


def _width_or_absent(splits: dict[str, LabelledSplit], modality: str, findings: Findings) -> int:
    """The width of a modality; if no sample has it, it is removed from all splits and the width is 0."""
    width = max(width_of(getattr(split, modality)) for split in splits.values())
    if width == 0:
        for split in splits.values():
            if getattr(split, modality) is not None:
                findings.warn(f"all splits/{modality}", "samples, all of them zero: the modality is treated as missing", len(split))
                setattr(split, modality, None)
    return width


def _text_or_absent(splits: dict[str, LabelledSplit], findings: Findings) -> None:
    """Remove text if no sample has a transcript or tokens."""
    if not any(any(text.strip() for text in split.text or []) or any(split.tokens or []) for split in splits.values()):
        for split in splits.values():
            if split.text is not None:
                findings.warn("all splits/text", "samples with empty transcripts: text is treated as missing", len(split))
                split.text = split.tokens = None


def _fold_case(splits: dict[str, LabelledSplit], fold_case: bool | None, findings: Findings) -> None:
    train = splits["train"].text
    if train is None or fold_case is False or (fold_case is None and upper_case_share(train) < UPPER_CASE_SHARE):
        return
    for split in splits.values():
        split.text = [text.lower() for text in split.text or []]
        split.unlabelled = [(turn, text.lower()) for turn, text in split.unlabelled]
    findings.note("text", FOLDED, sum(len(split) for split in splits.values()))


def upper_case_share(texts: list[str]) -> float:
    """Share of upper-case letters among letters with case; 0 if there are none (Chinese)."""
    upper = sum(letter.isupper() for text in texts for letter in text)
    lower = sum(letter.islower() for text in texts for letter in text)
    return upper / (upper + lower) if upper + lower else 0.0


def _arrange(
    splits: dict[str, LabelledSplit], dev_share: float, seed: int, findings: Findings
) -> tuple[dict[str, LabelledSplit], str, str | None]:
    if "test" in splits and "valid" in splits:
        return {"train": splits["train"], "dev": splits["valid"], "test": splits["test"]}, "test", None
    reported, missing = ("test", "valid") if "test" in splits else ("valid", "test")
    rest, carved, by_video = carve_by_video(splits["train"], dev_share, seed)
    how = "by video" if by_video else "by sample (all are of one video)"
    if not by_video:
        findings.warn("train/id", "samples of one video: the development split was drawn by sample", len(splits["train"]))
    note = (
        f"The file has no {missing} split: {counted(len(carved), 'sample')} of train, drawn {how}, are the development split for early "
        f"stopping, and results are for its {reported} split, which was not used for any choice."
    )
    train = splits["train"]
    return {"train": train.select(rest), "dev": train.select(carved), reported: splits[reported]}, reported, note


def dataset_sha256(path: Path, sequences: Sequence[Path] = ()) -> str:
    """The SHA-256 of a file, or of a folder's files in the order of their names: `dataset.json` and shards, or sequences and folds.

    The names of `sequences` (see `sequence_files`) and folds, which say what they are, count too.
    """
    digest = hashlib.sha256()
    files = sequences or ([path] if path.is_file() else [path / "dataset.json", *sorted((path / "data").glob("*.parquet"))])
    for file in files:
        if sequences:
            name = file.relative_to(path.parent if path.is_file() else path).as_posix()
            digest.update(f"{name}\0{file.stat().st_size}\0".encode())
        with open(file, "rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
