"""An utterance dataset as a feature file of MMSA: `python -m finetune.to_mmsa DATASET --output FILE.pkl`.

MMSA (https://github.com/thuiar/MMSA) trains fifteen published networks on such files: `MMSA_run(..., custom_feature="FILE.pkl")`.
"""

import json
import os
import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: import from the checkout, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tyro

from skesl_mug.console import CommandOptions, run_command
from skesl_mug.errors import UserError
from skesl_mug.files import write_atomically, write_json
from skesl_mug.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from finetune.corpora.mmsa_columns import Features
    from finetune.corpora.splits import Findings
    from preprocessing.store import UtteranceDataset

FORMAT = "MMSA feature file"
"""`format` of the description beside a file."""
TEST_SHARE, DEV_SHARE = 0.2, 0.15
"""Shares of the videos that become the test and the validation split of a dataset without them."""


@dataclass(kw_only=True)
class Options(CommandOptions):
    """Write a labelled utterance dataset as a feature file of MMSA (a pickle), and a JSON file that says how each column was made.

    The splits are those of the dataset; missing ones are drawn from train by video, as in fine-tuning.
    """

    dataset: tyro.conf.Positional[str]
    """Folder (or URL) of the labelled utterance dataset."""
    output: Path
    """The file to write (.pkl), outside the dataset, and its description beside it (.json). Only files of this command are replaced."""
    aligned: int | None = None
    """Average audio and vision over the word of each token, and cut or pad all three modalities to this length (MMSA's files: 50)."""
    unaligned: bool = False
    """Keep the frames of audio and vision as they are (the default)."""
    lm: str = "embedded"
    """Language model of `text_bert` and `text`: hub name, folder, `embedded` or `embedded-base` (MMSA's files: bert-base-uncased)."""
    text_length: int | None = None
    """Cut texts to this number of tokens. Default: the longest."""
    audio_length: int | None = None
    """Cut audio to this number of frames. Default: the longest."""
    vision_length: int | None = None
    """Cut vision to this number of frames. Default: the longest."""
    seed: int = 0
    """Seed of the splits that are drawn."""


def main(options: Options) -> None:
    """Write the file and print what it holds."""
    if options.aligned is not None and options.unaligned:
        raise UserError(f"--aligned {options.aligned} --unaligned: choose one of the two")
    description = to_mmsa(
        options.dataset,
        options.output,
        aligned=options.aligned,
        lm=options.lm,
        text_length=options.text_length,
        audio_length=options.audio_length,
        vision_length=options.vision_length,
        seed=options.seed,
    )
    columns = description["columns"]
    sizes = ", ".join(f"{name} {count:,}" for name, count in description["splits"]["counts"].items())
    print(f"{options.output}: {sizes} utterances; splits: {description['splits']['how']}")
    for name in ("text", "audio", "vision"):
        cut = columns[name].get("cut", 0)
        print(f"{name:<9} [N, {columns[name]['length']}, {columns[name]['width']}]" + (f"; {counted(cut, 'utterance')} cut" if cut else ""))
    for finding in description["findings"]:
        print(f"note      {finding['where']}: {finding['count']:,} {finding['what']}")
    for line in description["notes"]:
        print(f"note      {line}")
    print(f"details   {description_path(options.output)}")


def description_path(output: Path) -> Path:
    """The description beside a feature file."""
    return output.with_suffix(".json")


def to_mmsa(
    dataset: str | Path,
    output: str | Path,
    *,
    aligned: int | None = None,
    lm: str = "embedded",
    text_length: int | None = None,
    audio_length: int | None = None,
    vision_length: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Write a labelled utterance dataset as a feature file of MMSA, and its description beside it (`.json`).

    >>> to_mmsa("data/labelled", "labelled.pkl", lm="bert-base-uncased")  # doctest: +SKIP

    Args:
        dataset: folder (or URL) of the dataset.
        output: the pickle to write, outside the dataset; a file of this function is replaced, no other. Each split has `raw_text`,
            `text_bert` [N, 3, L], `text` [N, L, D], `audio` [N, Ta, Da], `vision`
            [N, Tv, Dv], `audio_lengths`, `vision_lengths`, `id` (`VIDEO$_$CLIP`), `annotations`, `regression_labels`,
            `classification_labels`, and `regression_labels_T`, `_A`, `_V` if the dataset has unimodal labels.
        aligned: length of all three modalities, with one frame per token: the mean over its word; None: the frames as they are.
        lm: language model of `text_bert` and `text`.
        text_length: maximum number of tokens; None: the longest text.
        audio_length: maximum number of audio frames; None: the longest utterance.
        vision_length: maximum number of vision frames; None: the longest utterance.
        seed: of the splits that the dataset does not have.

    Returns:
        The description.

    Raises:
        UserError: the dataset has no labels or too few utterances, an option does not suit it, or the output is in the dataset or another
            file.
    """
    from finetune.corpora.loading import dataset_sha256
    from finetune.corpora.mmsa_columns import (
        feature_columns,
        label_columns,
        mmsa_ids,
        read_features,
        text_states,
        token_arrays,
        write_pickle,
    )
    from finetune.corpora.mmsa_description import describe_features, describe_labels, describe_source, describe_text, notes_for_mmsa
    from finetune.corpora.splits import Findings
    from finetune.corpora.utterances import UNIMODAL
    from preprocessing.store import UtteranceDataset
    from pretrain.text_models import load_text_model, load_tokenizer
    from pretrain.tokens import token_counts, token_limit, tokenise_with_offsets

    output = Path(output)
    lengths = {"text": text_length, "audio": audio_length, "vision": vision_length}
    _check_lengths(aligned, lengths)
    data, findings = UtteranceDataset(dataset), Findings()
    _check_output(output, data.folder)
    splits, how = divide(data, seed, findings)
    if aligned is not None and not any(word["start"] is not None for words in data.column("words") for word in words or []):
        raise UserError(f"--aligned {aligned}: the words of {dataset} have no times; use --unaligned")
    tokenizer, model = load_tokenizer(lm), _on_device(load_text_model(lm))
    columns = {name: data.column(name) for name in ("id", "video_id", "text", "label", *UNIMODAL)}
    texts = {name: [columns["text"][place] or "" for place in places] for name, places in splits.items()}
    given = aligned or text_length
    limit = token_limit(tokenizer, given)
    tokens = {name: tokenise_with_offsets(texts[name], tokenizer, limit) for name in splits}
    cut = 0 if limit is None else sum(count > limit for rows in texts.values() for count in token_counts(rows, tokenizer))
    if cut:
        findings.warn("text", f"texts cut to {limit} tokens" + (", the limit of the language model" if limit != given else ""), cut)
    features = {
        name: read_features(data, places, tokens[name] if aligned is not None else None, name, findings) for name, places in splits.items()
    }
    sizes = {"text": aligned or max(1, *(len(row) for rows in tokens.values() for row in rows))}
    described: dict[str, Any] = {}
    for modality in ("audio", "vision"):
        parts = [features[name][modality] for name in splits]
        sizes[modality] = aligned or _length(parts, lengths[modality])
        described[modality] = describe_features(getattr(data.info, modality), parts, sizes[modality])
    unimodal = [name for name in UNIMODAL if any(columns[name][place] is not None for places in splits.values() for place in places)]
    content: dict[str, Any] = {}
    labels: dict[str, Any] = {}
    names = mmsa_ids(splits, columns["id"], columns["video_id"], findings)
    for name, places in splits.items():
        labels[name] = label_columns(columns, places, unimodal)
        ids = token_arrays(tokens[name], sizes["text"], tokenizer.pad_token_id)
        content[name] = {
            "raw_text": texts[name],
            "text_bert": ids,
            "text": text_states(model, ids),
            **feature_columns(features.pop(name), sizes),
            "id": names[name],
            **labels[name],
        }
    write_atomically(output, lambda path: write_pickle(path, content))
    text = describe_text(lm, model, sizes["text"])
    description = {
        "format": FORMAT,
        **describe_source(data, dataset_sha256(data.folder), aligned),
        "splits": {"how": how, "counts": {name: len(places) for name, places in splits.items()}},
        "columns": {**text, **described, **describe_labels(unimodal)},
        "findings": [vars(finding) for finding in findings],
        "notes": notes_for_mmsa(data.info, model, features=described, labels=list(labels.values()), train=len(splits["train"])),
    }
    write_json(description_path(output), description)
    return description


def divide(data: "UtteranceDataset", seed: int, findings: "Findings") -> tuple[dict[str, list[int]], str]:
    """The labelled rows of each split "train", "valid" and "test", and a sentence on where the splits come from.

    As in fine-tuning, a missing validation split is drawn from train by video; if only test is missing, the validation split takes its
    place. If both are missing, a test split is drawn as well.

    Raises:
        UserError: there are no labels, or too few of them for three splits.
    """
    import numpy as np

    from finetune.corpora.splits import LabelledSplit, carve_by_video
    from finetune.corpora.utterances import labels_and_splits

    labels, names = labels_and_splits(data)
    labelled = np.flatnonzero(np.isfinite(labels))
    if not len(labelled):
        raise UserError(f"{data.folder}: has no labels (column `label`), which MMSA needs; choose a labelled dataset")
    if len(labelled) < len(labels):
        findings.warn("label", "utterances without a label, left out", len(labels) - len(labelled))
    if not any(names[place] for place in labelled):
        names = ["train"] * len(labels)
    splits = {name: [int(place) for place in labelled if names[place] == name] for name in ("train", "valid", "test")}
    unassigned = len(labelled) - sum(map(len, splits.values()))
    if unassigned:
        findings.warn("split", "labelled utterances without a split, left out", unassigned)
    ids, videos = data.column("id"), data.column("video_id")

    def draw(share: float) -> list[int]:
        """Take about a share of train out of it."""
        train = splits["train"]
        split = LabelledSplit([ids[place] for place in train], [videos[place] or ids[place] for place in train], labels[train])
        kept, drawn, by_video = carve_by_video(split, share, seed)
        if not by_video:
            findings.warn("split", "utterances of a single video: splits were drawn by utterance", len(train))
        splits["train"] = [train[place] for place in kept]
        return [train[place] for place in drawn]

    if splits["valid"] and splits["test"]:
        how = "those of the dataset"
    elif splits["test"]:
        splits["valid"] = draw(DEV_SHARE)
        how = f"those of the dataset; valid is {DEV_SHARE:.0%} of train, drawn by video with seed {seed}"
    elif splits["valid"]:
        splits["test"], splits["valid"] = splits["valid"], draw(DEV_SHARE)
        how = f"test is the dataset's valid; valid is {DEV_SHARE:.0%} of train, drawn by video with seed {seed}"
    else:
        splits["test"] = draw(TEST_SHARE)
        splits["valid"] = draw(DEV_SHARE)
        how = f"drawn by video with seed {seed}: test {TEST_SHARE:.0%}, then valid {DEV_SHARE:.0%} of the rest"
    empty = [name for name, places in splits.items() if not places]
    if empty:
        raise UserError(f"{data.folder}: has too few labelled utterances ({len(labelled)}); no utterance is left for split `{empty[0]}`")
    return splits, how


def _on_device(model: Any) -> Any:
    import torch

    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _check_output(output: Path, dataset: Path) -> None:
    """Check that writing a file and its description replaces nothing but a file of this command.

    Raises:
        UserError: it would, or the file cannot be written.
    """
    if output.suffix not in (".pkl", ".pickle"):
        raise UserError(f"--output {output}: name a file that ends in .pkl")
    if output.resolve().is_relative_to(dataset.resolve()):
        raise UserError(f"--output {output}: is inside the dataset; choose a place outside it")
    above = next(folder for folder in output.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UserError(f"--output {output}: {above} is not a folder that can be written; choose another place")
    about = description_path(output)
    for path in (output, about):
        if path.is_dir():
            raise UserError(f"--output {output}: {path} is a folder; choose another name")
        if path.exists() and not _is_ours(about):
            raise UserError(f"--output {output}: {path} exists and was not written by to-mmsa; choose another name, or delete it")


def _is_ours(about: Path) -> bool:
    """Whether a description is one of this command."""
    try:
        entries = json.loads(about.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(entries, dict) and entries.get("format") == FORMAT


def _check_lengths(aligned: int | None, lengths: dict[str, int | None]) -> None:
    if aligned is not None:
        if aligned < 3:
            raise UserError(f"--aligned {aligned}: the length must be at least 3 tokens (MMSA's files: 50)")
        given = next((name for name, length in lengths.items() if length is not None), None)
        if given:
            raise UserError(f"--{given}-length: --aligned sets all three lengths; leave it out")
    for name, length in lengths.items():
        if length is not None and length < (3 if name == "text" else 1):
            raise UserError(f"--{name}-length {length}: must be at least {3 if name == 'text' else 1}")


def _length(parts: "Sequence[Features]", limit: int | None) -> int:
    """The length of a modality in the file: the longest sequence of all splits, at most `limit`."""
    longest = max(1, *(int(part.lengths().max(initial=1)) for part in parts))
    return longest if limit is None else min(longest, limit)


if __name__ == "__main__":
    run_command(Options, main)
