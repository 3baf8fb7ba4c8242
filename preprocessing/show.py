"""Show an utterance dataset or one utterance: as text, and its feature curves as a picture."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: import from the checkout, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tyro

from skesl_mug.console import CommandOptions, next_command, run_command
from skesl_mug.errors import UserError
from skesl_mug.wording import counted, signed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from preprocessing.schema import DatasetInfo, Utterance


@dataclass(kw_only=True)
class Options(CommandOptions):
    """Show an utterance dataset: without an id its description and first utterances, with an id everything about that utterance."""

    dataset: tyro.conf.Positional[Path]
    """Folder of the utterance dataset."""
    id: tyro.conf.Positional[str | None] = None
    """Id of an utterance."""
    first: int = 10
    """Number of utterances to list."""
    picture: Path | None = None
    """Output file for the plot of the utterance's feature curves (.png). Default: <id>.png in the working folder, with / replaced by _."""


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
        raise UserError(f"{options.dataset}: has no utterance {options.id}; ids look like {ids[0]}")
    utterance = data[ids.index(options.id)]
    print("\n".join(describe_utterance(utterance, data.info)))
    if utterance.audio is None and utterance.vision is None:
        return
    from preprocessing.plots import draw_curves

    path = options.picture or Path(f"{options.id.replace('/', '_')}.png")
    draw_curves(utterance, data.info, path)
    print(f"\nplot: {path}")


def marked_text(utterance: "Utterance") -> str:
    """The transcript with the masked word in brackets and its intensity: `The film was [wonderful +2.0].`

    If no word is in the lexicon, the masked one was drawn at random and counts as neutral: `Lay [blue 0] at four now.`
    """
    if not utterance.masks:
        return utterance.text
    mask = utterance.masks[0]
    text = utterance.text
    word = text[mask.start_char : mask.end_char]
    value = signed(mask.intensity) if mask.from_lexicon else "0"
    return f"{text[: mask.start_char]}[{word} {value}]{text[mask.end_char :]}"


def list_utterances(shown: "Sequence[Utterance]", total: int) -> list[str]:
    """The first utterances with id, label and marked text, and the meaning of the brackets."""
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
        legend.append("[word +1.0]  the most intense sentiment word, which pretraining masks, and its intensity in the lexicon")
    if any(not mask.from_lexicon for mask in masks):
        legend.append("[word 0]     no word of the text is in the lexicon: a random one is masked, as neutral")
    return [heading, "", *lines, *([""] if legend else []), *legend]


def describe_dataset(info: "DatasetInfo") -> list[str]:
    """A description of a dataset in a few lines."""
    counts = info.counts
    lines = [f"corpus    {info.corpus.get('name')}" + (" (synthetic)" if info.synthetic else "")]
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
            lines.append(f"{name:9s} {feature.extractor}, {feature.width} columns, {feature.rate_hz:.4g} per second")
    return lines


def describe_labels(labels: "Sequence[float | None]", splits: "Sequence[str | None]") -> list[str]:
    """How many utterances have a label, and the size of each split; nothing for a corpus without labels."""
    known = [label for label in labels if label is not None]
    if not known:
        return []
    lines = [f"labelled  {counted(len(known), 'utterance')}, from {signed(min(known), 2)} to {signed(max(known), 2)}"]
    sizes = Counter(split or "no split" for split in splits)
    order = sorted(sizes, key=lambda name: (["train", "valid", "test"].index(name) if name in ("train", "valid", "test") else 3, name))
    return [*lines, "splits    " + ", ".join(f"{name} {sizes[name]:,}" for name in order)]


def describe_utterance(utterance: "Utterance", info: "DatasetInfo") -> list[str]:
    """Everything about an utterance, with the means of its features in place of their values."""
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


def summarise(info: "DatasetInfo", output: str, folder: Path) -> None:
    """Print the result of a preprocessing job: what was kept, the time it took, and the next command. `folder` is local."""
    from preprocessing.facts import describe_faults
    from preprocessing.transcription.transcript import NOT_SIMPLIFIED

    counts, seconds = info.counts, info.seconds
    kept, skipped = counts["kept"], counts["skipped"]
    print(f"\nkept      {counted(kept, 'utterance')}, {counts['hours'] * 60:.1f} minutes")
    if skipped:
        print(
            "skipped   "
            + ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in skipped.items())
            + f" (details: {folder / 'clips.csv'})"
        )
    if faults := describe_faults(counts):
        print(f"damage    {faults} (details: {folder / 'clips.csv'})")
    if counts["mean_face_rate"] is not None:
        without = counted(counts["kept_without_face"], "utterance")
        print(f"faces     in {counts['mean_face_rate']:.1%} of the frames, {without} without a face")
    chinese = counts["languages"].get("zh", 0) if (info.asr or {}).get("chinese") == NOT_SIMPLIFIED else 0
    if chinese:
        print(f"note      the Chinese text of {counted(chinese, 'utterance')} is {NOT_SIMPLIFIED}")
    rate = (info.asr or {}).get("word_error_rate")
    if rate is not None:
        print(f"words     word error rate {rate['value']:.1%} over {counted(rate['utterances'], 'utterance')} with a reference transcript")
    total, heard = seconds.get("total", 0.0), seconds.get("media", 0.0)
    if total:
        stages = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items() if name not in ("total", "media"))
        print(f"time      {total:.1f} s, {heard / total:.1f} times real time; seconds by stage over all processes: {stages}")
        print(f"memory    peak {info.peak_memory_mb:.0f} MB, all processes together")
    print(f"dataset   {output}")
    if kept:
        print(f"summary   {folder / 'summary.html'}")
    if kept and info.label_range is not None:
        command = next_command("finetune", "finetune/run_mug.py")
        print(f"next      {command} --dataset custom --data {output} --lm embedded --freeze-lm --output RUN")
    elif kept:
        command = next_command("pretrain", "pretrain/run.py")
        print(f"next      {command} --data {output} --lm embedded --freeze-lm --output RUN")


if __name__ == "__main__":
    run_command(Options, main)
