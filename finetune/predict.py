"""Sentiment of recordings or texts by a fine-tuned model: `python finetune/predict.py VIDEO... --model RUN`."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: import from the checkout, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import csv
import math
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import tyro

from finetune.modalities import TEXT
from finetune.prediction.model_folder import check_model
from preprocessing.options import Channels, checked_track
from preprocessing.segments import SegmentLimits
from pretrain.starter import STARTER
from skesl_mug.console import CommandOptions, check_writable, run_command, say_loading
from skesl_mug.errors import UserError
from skesl_mug.files import write_atomically
from skesl_mug.wording import counted, printable, shortened, signed

if TYPE_CHECKING:
    from finetune.prediction.predictions import RecordingPrediction
    from finetune.prediction.sentiment_model import SentimentModel

TEXT_COLUMN = "text"
ADDED_COLUMNS = ("score", "sentiment")
INTERVAL_COLUMNS = ("low", "high")
"""Added where the model has an interval around the scores of texts."""


@dataclass(kw_only=True)
class Options(CommandOptions):
    """Score how positive or negative people in recordings are, utterance by utterance, from their words, voices and faces.

    Without --model, the starter scores their words: no data and no training of your own is needed.
    Recordings of any length are split into utterances at pauses in speech, and features are extracted as they were for the model's
    training data. Prints a table; --output also writes JSON, CSV, WebVTT subtitles and a chart for each recording.
    """

    videos: tyro.conf.Positional[list[Path]] = field(default_factory=list)
    """Video or sound files, or folders of them."""
    model: str = STARTER
    """A fine-tuning run, its model/ folder, or a model's hub name. `starter` (or starter:LM for another language model)
    uses words alone; it is trained on rated sentences when first used, which takes minutes."""
    texts: Path | None = None
    """Score texts instead of recordings: a csv or tsv file with a column `text`, or a txt file with a text per line.
    Use --output to name the csv file to write."""
    output: Path | None = None
    """Folder for the files of each recording (default: print the table only). With --texts: the csv file to write."""
    segments: Literal["pauses", "whole"] = "pauses"
    """pauses: split into utterances; whole: each file is one utterance, as in a corpus of clips."""
    pause: float = 0.6
    """Seconds without speech that end an utterance."""
    longest: float = 15.0
    """Maximum seconds per utterance; longer ones are split at their longest gap between words."""
    audio_track: str = "auto"
    """Sound track of files with several: auto (the first that has speech), its number from 1, or its language (en, eng)."""
    channels: Channels = "mix"
    """Channels of stereo sound: mix (their mean, or the best channel where they cancel each other), left, right, or split: each channel is
    a speaker with utterances of their own (calls recorded with one person per channel)."""
    without: list[Literal["text", "audio", "vision"]] = field(default_factory=list)
    """Modalities to leave out."""
    asr_model: str | None = None
    """Speech recognition model, instead of the one used for the training data (same values as --asr.model of preprocessing)."""
    openface: str | None = None
    """OpenFace's csv files or program, for models trained on OpenFace features."""
    device: str = "auto"
    """Where the network runs: auto, cpu, cuda."""

    def __post_init__(self) -> None:
        """Validate the options."""
        SegmentLimits(pause=self.pause, longest=self.longest)
        self.audio_track = checked_track(self.audio_track)
        if not self.videos and self.texts is None:
            raise UserError("VIDEO: name at least one video, sound file or folder (or a csv file of texts with --texts)")
        if self.videos and self.texts is not None:
            raise UserError("--texts: cannot be combined with recordings; leave one of them out")
        ours = ("segments", "pause", "longest", "audio_track", "channels")
        changed = {name: getattr(self, name) != getattr(type(self), name) for name in ours}
        others = {"--without": self.without, "--asr-model": self.asr_model, "--openface": self.openface}
        others |= {f"--{name.replace('_', '-')}": changed[name] for name in changed}
        ignored = [flag for flag, value in others.items() if value] if self.texts is not None else []
        if ignored:
            raise UserError(f"{ignored[0]}: applies to recordings only; leave it out with --texts")


RESULTS = (".json", ".csv", ".vtt", ".png")
"""The files of one recording."""


def main(options: Options) -> None:
    """Score recordings or texts and print the results; a recording that cannot be read is reported and skipped."""
    if options.texts is not None:
        score_table(options.texts, options)
        return
    recordings, notes = find_recordings(options.videos, options.output)
    if options.output is not None:
        check_writable(options.output)
    check_model(options.model)
    say_loading("transformers")
    from finetune.prediction.sentiment_model import SentimentModel

    model = SentimentModel.from_pretrained(
        options.model, asr_model=options.asr_model, openface=options.openface, device=options.device, quiet=not options.debug
    )
    model.processor  # noqa: B018 - load the models now: whatever is missing is reported first
    for note in [*notes, *model.notes]:
        print(f"note: {note}")
    if model.recipe.synthetic:
        print("note: this model was trained on synthetic data; its scores for real people mean nothing")
    failed, seen, same_names = 0, 0, len({path.name for path, _ in recordings}) < len(recordings)
    for path, stem in recordings:
        try:
            recording = predict_one(model, path, printable(f"{stem}{path.suffix}" if same_names else path.name), options)
        except UserError as error:
            failed += 1
            print(f"skipped: {printable(str(error))}", file=sys.stderr)
            continue
        show(recording, model.modalities)
        seen += recording.seen_in is not None
        if options.output is not None:
            write(options.output, stem, recording, model)
    if failed == len(recordings):
        raise UserError(f"none of {counted(failed, 'recording')} could be read; use video or sound files that ffmpeg reads")
    explain(model, seen)
    if options.output is not None:
        print(f"written: {len(recordings) - failed} x json, csv, vtt, png in {options.output}")
    if failed:
        print(f"{failed} of {counted(len(recordings), 'recording')} could not be read", file=sys.stderr)


def find_recordings(places: list[Path], output: Path | None = None) -> tuple[list[tuple[Path, str]], list[str]]:
    """The files, each with the unique name (without suffix, relative to --output) of its results; and notes about files left out.

    Files with the same name are numbered in the order of their paths, so that the order of the arguments does not matter.

    Raises:
        UserError: a path does not exist, or a folder has no recordings.
    """
    from preprocessing.layouts.files import Files, beside_note, clip_ids, in_words, list_files, pair_tracks

    found: list[tuple[Path, str]] = []
    folders: list[Files] = []
    notes: list[str] = []
    for place in places:
        if is_there(place) and place.is_dir():
            files = list_files(place)
            recordings, _ = pair_tracks(files.recordings)
            if not recordings:
                others = f" (found: {in_words(files.left_out())})" if files.left_out() else ""
                raise UserError(f"{place}: contains no recordings{others}; choose a folder of video or sound files")
            found += zip(recordings, clip_ids(recordings, place), strict=True)
            folders.append(files)
            notes += beside_note(files.recordings, recordings, "left out; name them to score them")
        elif is_there(place):
            found.append((place, printable(place.stem)))
        else:
            raise UserError(f"{place}: no such file or folder")
    found = [(path, "/".join(map(shortened, stem.split("/")))) for path, stem in found]
    named = [(path, stem) for (path, _), stem in zip(found, unique_names(found), strict=True)]
    results = [] if output is None else [output / f"{stem}{suffix}" for _, stem in named for suffix in RESULTS]
    for files in folders:
        notes = files.notes(files.left_out(results)) + notes
    return named, notes


def is_there(place: Path) -> bool:
    """Whether a file or folder exists; one whose name is too long does not."""
    try:
        return place.exists()
    except OSError:
        return False


def unique_names(found: list[tuple[Path, str]]) -> list[str]:
    """One name for each (path, wanted name): `a`, `a-2`, `a-3`, …; also distinct on file systems that ignore case."""
    count = Counter(stem.casefold() for _, stem in found)
    names = [stem for _, stem in found]
    taken = set(count)
    used: set[str] = set()
    for place in sorted(range(len(found)), key=lambda place: (str(found[place][0].absolute()), place)):
        stem, number = names[place], 2
        if stem.casefold() in used:
            while f"{stem}-{number}".casefold() in taken:
                number += 1
            names[place] = f"{stem}-{number}"
        used.add(stem.casefold())
        taken.add(names[place].casefold())
    return names


def predict_one(model: "SentimentModel", path: Path, name: str, options: Options) -> "RecordingPrediction":
    """The prediction for one recording, with a progress bar on a terminal."""
    from tqdm import tqdm

    from finetune.prediction.reading import Reading

    limits = SegmentLimits(pause=options.pause, longest=options.longest)
    with tqdm(desc=name, unit=" s", leave=False, disable=None, bar_format="{l_bar}{bar}| {n:.0f}/{total_fmt} s", total=0) as bar:

        def progress(seconds: float, length: float) -> None:
            bar.total = round(length)
            bar.update(max(0.0, min(seconds, bar.total) - bar.n))

        how = Reading(segments=options.segments, limits=limits, audio_track=options.audio_track, channels=options.channels)
        recording = model.predict_recording(path, without=options.without, progress=progress, **how)
    recording.source = name
    return recording


def show(recording: "RecordingPrediction", modalities: list[str]) -> None:
    """Print the table, in colour on a terminal."""
    from finetune.prediction.outputs import table

    print("\n" + table(recording, shutil.get_terminal_size((120, 24)).columns, sys.stdout.isatty(), modalities))


def explain(model: "SentimentModel", seen: int) -> None:
    """Print what the columns mean, and how many recordings belong to the model's own corpus."""
    from finetune.prediction.outputs import legend

    print("\n" + legend(model.recipe.label_range, model.modalities, model.recipe.interval))
    if seen:
        print(f"note: * marks names of clips from the model's own corpus ({seen}); these scores do not show how it does on new clips")


def write(folder: Path, stem: str, recording: "RecordingPrediction", model: "SentimentModel") -> None:
    """Write the files of one recording."""
    from finetune.prediction.outputs import about_model, draw_timeline, write_files

    write_files(folder, stem, recording, about_model(model.name, model.recipe, model.notes))
    picture = draw_timeline(recording, model.recipe.label_range)
    write_atomically(folder / f"{stem}.png", lambda path: path.write_bytes(picture))


def score_table(file: Path, options: Options) -> None:
    """Score the texts of a csv file: write its rows with columns for the scores, or print them without --output.

    Raises:
        UserError: the file cannot be read, or has no column `text` or no text at all.
    """
    columns, output = read_texts(file), options.output
    if output is not None:
        if output.is_dir():
            raise UserError(f"--output {output}: is a folder; with --texts, name the csv file to write")
        _check_free(ADDED_COLUMNS, columns, file)
        check_writable(output.parent)
    check_model(options.model, texts=True)
    say_loading("transformers")
    from finetune.prediction.sentiment_model import SentimentModel

    model = SentimentModel.from_pretrained(options.model, device=options.device)
    for note in model.notes:
        print(f"note: {note}", file=sys.stderr)
    if model.recipe.context:
        print(f"note: each text is scored alone; the model also learned from up to {model.recipe.context} before it", file=sys.stderr)
    interval = model.recipe.interval if model.modalities == [TEXT] else None
    further = INTERVAL_COLUMNS if interval is not None and interval.half_width is not None else ()
    if output is not None:
        _check_free(further, columns, file)
    if interval is not None and interval.sentence():
        print(f"note: {interval.sentence()}", file=sys.stderr)
    rows = model.predict_texts(columns[TEXT_COLUMN])
    empty = sum(math.isnan(row.score) for row in rows)
    if output is None:
        width = max(20, shutil.get_terminal_size((120, 24)).columns - 30)
        for row in rows:
            number = "  –  " if math.isnan(row.score) else signed(row.score, 2)
            line = " ".join(row.text.split())
            print(f"{number:>6s}  {row.sentiment:<18s}  {line if len(line) <= width else line[: width - 1] + '…'}")
    else:
        added = {name: [_cell(getattr(row, name)) for row in rows] for name in (*ADDED_COLUMNS, *further)}
        table = {**columns, **added}
        write_atomically(output, lambda path: write_csv(path, table))
        print(f"written: {counted(len(rows) - empty, 'score')} in {output}")
    if empty:
        print(f"{counted(empty, 'row')} without a text: no score", file=sys.stderr)


def _check_free(names: Sequence[str], columns: dict[str, list[str]], file: Path) -> None:
    """Check that --output replaces no column.

    Raises:
        UserError: there is one of these names.
    """
    taken = [name for name in names if name in columns]
    if taken:
        raise UserError(f"--texts {file}: already has a column `{taken[0]}`, which --output would replace; rename it")


def _cell(value: float | str | None) -> str:
    """A value of a csv cell: numbers with three decimals, empty if unknown."""
    if isinstance(value, str) or value is None:
        return value or ""
    return "" if math.isnan(value) else str(round(value, 3))


def read_texts(file: Path) -> dict[str, list[str]]:
    """The columns of a csv or tsv file with a column `text` (in any case), or the lines of a txt file; the encoding is detected.

    Raises:
        UserError: the file cannot be read, has rows of more cells than columns, or no texts.
    """
    from skesl_mug.tables import Table, excerpt, plain_name, read_table
    from skesl_mug.text_files import print_notes, read_text
    from skesl_mug.transcripts import EMPTY, read_transcripts

    if not file.is_file():
        raise UserError(f"--texts {file}: no such file; choose a csv file with a column `{TEXT_COLUMN}`")
    place, needed = f"--texts {file}", f"choose a csv or tsv file with a column `{TEXT_COLUMN}`"
    table: Table | None = None
    if file.suffix.lower() == ".txt":
        content, notes = read_text(file, place=place, needed=needed)
        lines = content.split("\n")
        lines = [line.rstrip("\r") for line in (lines if lines[-1] else lines[:-1])]
        if not lines or TEXT_COLUMN not in map(plain_name, re.split(r"[,;\t|]", lines[0])):
            table = Table({TEXT_COLUMN: lines}, list(range(1, len(lines) + 1)), notes)
    table = table or read_table(file, [TEXT_COLUMN], place=place, needed=needed)
    column = table.column_named(TEXT_COLUMN)
    if column is None:
        found = ", ".join(f"`{excerpt(name)}`" for name in table.columns)
        raise UserError(f"--texts {file}: has no column `{TEXT_COLUMN}`; its first line names {found}")
    table.columns[column], counts = read_transcripts(table.columns[column])
    if not any(text.strip() for text in table.columns[column]):
        raise UserError(f"--texts {file}: its column `{TEXT_COLUMN}` is empty")
    print_notes(file, [*table.notes, *(f"{what}: {count:,}" for what, count in counts.items() if what != EMPTY)])
    return {TEXT_COLUMN if name == column else name: values for name, values in table.columns.items()}


def write_csv(path: Path, columns: dict[str, list[str]]) -> None:
    """Write columns as a csv file in UTF-8."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


if __name__ == "__main__":
    run_command(Options, main)
