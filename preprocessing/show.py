"""Show an utterance dataset, or one utterance of it: as text, and its feature curves as a picture."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: import from the checkout, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tyro

from skesl_mug.console import CommandOptions, run_command
from skesl_mug.errors import UserError
from skesl_mug.wording import counted, signed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from preprocessing.schema import DatasetInfo, Utterance


@dataclass(kw_only=True)
class Options(CommandOptions):
    """Show what an utterance dataset holds: without an id its description and first utterances, with one all of that utterance."""

    dataset: tyro.conf.Positional[Path]
    """Folder of the utterance dataset."""
    id: tyro.conf.Positional[str | None] = None
    """Id of an utterance."""
    first: int = 10
    """Utterances to list."""
    picture: Path | None = None
    """File for the picture of the utterance's feature curves (.png). Default: <id>.png in the working folder, / replaced by _."""


def main(options: Options) -> None:
    """Print the dataset or the utterance."""
    from preprocessing.store import UtteranceDataset

    data = UtteranceDataset(options.dataset)
    if options.id is None:
        print("\n".join([*describe_dataset(data.info), *describe_labels(data.column("label"), data.column("split")), ""]))
        print("\n".join(list_utterances([data[index] for index in range(min(options.first, len(data)))], len(data))))
        return
    ids = data.column("id")
    if options.id not in ids:
        raise UserError(f"{options.dataset}: has no utterance {options.id}; its ids are such as {ids[0]}")
    utterance = data[ids.index(options.id)]
    print("\n".join(describe_utterance(utterance, data.info)))
    if utterance.audio is None and utterance.vision is None:
        return
    from preprocessing.curves import draw_curves

    path = options.picture or Path(f"{options.id.replace('/', '_')}.png")
    draw_curves(utterance, data.info, path)
    print(f"\npicture: {path}")


def marked_text(utterance: "Utterance") -> str:
    """The transcript with the word that pretraining masks in brackets and its intensity: `The film was [wonderful +2.0].`

    Where no word is in the lexicon the masked one was drawn at random and counts as neutral: `Lay [blue 0] at four now.`
    """
    if not utterance.masks:
        return utterance.text
    mask = utterance.masks[0]
    text = utterance.text
    word = text[mask.start_char : mask.end_char]
    value = signed(mask.intensity) if mask.from_lexicon else "0"
    return f"{text[: mask.start_char]}[{word} {value}]{text[mask.end_char :]}"


def list_utterances(shown: "Sequence[Utterance]", total: int) -> list[str]:
    """The first utterances, each its id, label and marked text, and what the brackets mean."""
    width = max((len(utterance.id) for utterance in shown), default=0)
    labelled = any(utterance.label is not None for utterance in shown)
    lines = []
    for utterance in shown:
        label = "" if not labelled else "         " if utterance.label is None else f"{signed(utterance.label, 2):>7}  "
        lines.append(f"{utterance.id:<{width}}  {label}{marked_text(utterance)}")
    heading = f"utterances {'(the first ' + str(len(shown)) + ' of ' + f'{total:,})' if len(shown) < total else ''}".rstrip() + ":"
    heading += " id, label, text" if labelled else " id, text"
    masks = [utterance.masks[0] for utterance in shown if utterance.masks]
    legend = []
    if any(mask.from_lexicon for mask in masks):
        legend.append("[word +1.0]  the most intense sentiment word and its intensity in the lexicon: what pretraining masks")
    if any(not mask.from_lexicon for mask in masks):
        legend.append("[word 0]     no word of this text is in the lexicon: one drawn at random, neutral")
    return [heading, "", *lines, *([""] if legend else []), *legend]


def describe_dataset(info: "DatasetInfo") -> list[str]:
    """A few lines about a dataset."""
    counts = info.counts
    lines = [f"corpus    {info.corpus.get('name')}" + (" (made data)" if info.made else "")]
    if counts:
        skipped = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in counts.get("skipped", {}).items()) or "none"
        minutes = 60 * counts.get("hours", 0.0)
        lines.append(f"kept      {counted(counts.get('kept', 0), 'utterance')}, {minutes:.1f} minutes; skipped: {skipped}")
    if info.label_range is not None:
        lines.append("range     labels of {:g} to {:g}".format(*info.label_range).replace("-", "−"))
    if info.asr is not None:
        rate = info.asr.get("word_error_rate")
        lines.append(f"words     {info.asr['engine']}, {info.asr['model']}" + (f", word error rate {rate['value']:.1%}" if rate else ""))
    for name, feature in (("audio", info.audio), ("vision", info.vision)):
        if feature is not None:
            lines.append(f"{name:9s} {feature.extractor}, {feature.width} columns at {feature.rate_hz:.4g} a second")
    return lines


def describe_labels(labels: "Sequence[float | None]", splits: "Sequence[str | None]") -> list[str]:
    """How many utterances have a label, and how many lie in each split; nothing for a corpus without labels."""
    known = [label for label in labels if label is not None]
    if not known:
        return []
    lines = [f"labelled  {counted(len(known), 'utterance')}, from {signed(min(known), 2)} to {signed(max(known), 2)}"]
    sizes = Counter(split or "no split" for split in splits)
    order = sorted(sizes, key=lambda name: (["train", "valid", "test"].index(name) if name in ("train", "valid", "test") else 3, name))
    return [*lines, "splits    " + ", ".join(f"{name} {sizes[name]:,}" for name in order)]


def describe_utterance(utterance: "Utterance", info: "DatasetInfo") -> list[str]:
    """All of an utterance but its feature values, of which the means are given."""
    seconds = utterance.end - utterance.start
    lines = [
        f"{utterance.id}: speaker {utterance.speaker}, video {utterance.video_id}, {seconds:.2f} s, {utterance.language}",
        marked_text(utterance),
        "",
    ]
    labels = {name: getattr(utterance, name) for name in ("label", "label_T", "label_A", "label_V")}
    known = ", ".join(f"{name} {signed(value, 2)}" for name, value in labels.items() if value is not None)
    if known:
        lines += [f"{known} ({utterance.split or 'no split'})", ""]
    for word in utterance.words:
        when = f"{word.start:6.2f} to {word.end:5.2f} s" if word.start is not None and word.end is not None else " " * 18
        sure = f"{word.probability:5.0%}" if word.probability is not None else ""
        lines.append(f"{when} {sure}  {word.text}")
    for name, values, feature in (("audio", utterance.audio, info.audio), ("vision", utterance.vision, info.vision)):
        if values is None or feature is None:
            lines += ["", f"{name}: absent"]
            continue
        lines += ["", f"{name}: {counted(len(values), 'frame')}; mean and standard deviation of each column"]
        table = zip(feature.columns, values.mean(axis=0), values.std(axis=0), strict=True)
        lines += [f"  {column['name']:28s} {mean:9.3f} {spread:9.3f}" for column, mean, spread in table]
    return lines


if __name__ == "__main__":
    run_command(Options, main)
