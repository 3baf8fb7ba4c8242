"""Sentiment of recordings by a fine-tuned model: `python finetune/predict.py VIDEO... --model RUN`."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: import from the checkout, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import tyro

from finetune.prediction.model_folder import check_model
from preprocessing.segments import SegmentLimits
from pretrain.starter import STARTER
from skesl_mug.console import CommandOptions, check_writable, run_command, say_loading
from skesl_mug.errors import UserError
from skesl_mug.files import write_atomically
from skesl_mug.wording import counted, signed

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from finetune.prediction.predictions import RecordingPrediction
    from finetune.prediction.sentiment_model import SentimentModel


@dataclass(kw_only=True)
class Options(CommandOptions):
    """Say how positive or negative the people in recordings are, utterance by utterance: from their words, voices and faces.

    Without --model the starter judges their words: no data and no training of yours is needed.
    A recording of any length is cut into utterances in the pauses of its speech. Features are made by the recipe that lies beside the
    model. Prints a table; with --output also writes JSON, CSV, WebVTT subtitles and a picture of sentiment over time for each recording.
    """

    videos: tyro.conf.Positional[list[Path]] = field(default_factory=list)
    """Video or sound files, or folders of them."""
    model: str = STARTER
    """A run of finetune/run_mug.py, its model/ folder, or a model's hub name. `starter` (or starter:LM, around another language model)
    judges words alone: it is trained at its first use, in minutes, on sentences that people rated."""
    texts: Path | None = None
    """Score texts instead of recordings: a csv file with a column `text`. Written with a column `score` to --output, a csv file."""
    output: Path | None = None
    """Folder for the files; without it the table is all. With --texts: the csv file to write (without it: to the terminal)."""
    segments: Literal["pauses", "whole"] = "pauses"
    """pauses: cut into utterances; whole: each file is one utterance, as in a corpus of clips."""
    pause: float = 0.6
    """Seconds without a word that end an utterance."""
    longest: float = 15.0
    """Utterances longer than this many seconds are cut at their widest gap between words."""
    without: list[Literal["text", "audio", "vision"]] = field(default_factory=list)
    """Modalities to leave out."""
    asr_model: str | None = None
    """Speech recognition model in place of the one that the recipe names (as --asr.model of preprocessing/run.py)."""
    openface: str | None = None
    """OpenFace's csv files or program, for a model trained on its columns."""
    device: str = "auto"
    """Where the network runs: auto, cpu, cuda."""

    def __post_init__(self) -> None:
        SegmentLimits(pause=self.pause, longest=self.longest)  # refuses what cannot be meant
        if not self.videos and self.texts is None:
            raise UserError("VIDEO: name at least one video, sound file or folder (or a csv of texts with --texts)")
        if self.videos and self.texts is not None:
            raise UserError("--texts: scores texts instead of recordings; leave it or the recordings out")
        others = {"--without": self.without, "--asr-model": self.asr_model, "--openface": self.openface}
        ignored = [flag for flag, value in others.items() if value] if self.texts is not None else []
        if ignored:
            raise UserError(f"{ignored[0]}: is about recordings, and --texts reads none; leave it out")


def main(options: Options) -> None:
    """Predict every recording; one that cannot be read is told and counted."""
    if options.texts is not None:
        score_table(options.texts, options.model, options.output, options.device)
        return
    recordings = find_recordings(options.videos)
    if options.output is not None:
        check_writable(options.output)
    check_model(options.model)
    say_loading("transformers")
    from finetune.prediction.sentiment_model import SentimentModel

    model = SentimentModel.from_pretrained(
        options.model, asr_model=options.asr_model, openface=options.openface, device=options.device, quiet=not options.debug
    )
    model.processor  # noqa: B018 - loads the models now, so that what is missing is told before anything else
    for note in model.notes:
        print(f"note: {note}")
    if model.recipe.made:
        print("note: this model was trained on made data (synthetic clips); what it says of real people means nothing")
    failed, own, many = 0, 0, len({path.name for path, _ in recordings}) < len(recordings)
    for path, stem in recordings:
        try:
            recording = predict_one(model, path, f"{stem}{path.suffix}" if many else path.name, options)
        except UserError as error:
            failed += 1
            print(f"skipped: {error}", file=sys.stderr)
            continue
        show(recording, model.modalities)
        own += recording.seen_in is not None
        if options.output is not None:
            write(options.output, stem, recording, model)
    if failed < len(recordings):
        explain(model, own)
    if options.output is not None and failed < len(recordings):
        print(f"written: {len(recordings) - failed} x json, csv, vtt, png in {options.output}")
    if failed == len(recordings):
        raise UserError(f"none of {counted(failed, 'recording')} could be read; give video or sound files that ffmpeg reads")
    if failed:
        print(f"{failed} of {counted(len(recordings), 'recording')} could not be read", file=sys.stderr)


def find_recordings(places: list[Path]) -> list[tuple[Path, str]]:
    """The files, each with the name (without suffix, below --output) of what is written about it.

    Raises:
        UserError: a place is not there, or a folder holds no recording.
    """
    from preprocessing.corpora.clip import SOUND_SUFFIXES, VIDEO_SUFFIXES, clip_ids, find_videos

    found: list[tuple[Path, str]] = []
    for place in places:
        if place.is_dir():
            files = find_videos(place, {*VIDEO_SUFFIXES, *SOUND_SUFFIXES})
            if not files:
                raise UserError(f"{place}: holds no video or sound files; give a folder of recordings")
            found += zip(files, clip_ids(files, place), strict=True)
        elif place.exists():
            found.append((place, place.stem))
        else:
            raise UserError(f"{place}: no such file or folder")
    taken: dict[str, int] = {}
    named = []
    for path, stem in found:
        taken[stem] = taken.get(stem, 0) + 1
        named.append((path, stem if taken[stem] == 1 else f"{stem}-{taken[stem]}"))
    return named


def predict_one(model: "SentimentModel", path: Path, name: str, options: Options) -> "RecordingPrediction":
    """One recording, with a bar of its seconds on a terminal."""
    from tqdm import tqdm

    from preprocessing.long_media import probe
    from preprocessing.media import MediaError

    try:
        seconds = probe(path)[0]
    except MediaError as error:
        raise UserError(f"{path}: cannot be used ({error})") from error
    limits = SegmentLimits(pause=options.pause, longest=options.longest)
    stretches, length = [], round(seconds, 1)
    with tqdm(total=length, desc=path.name, unit=" s", leave=False, disable=None, bar_format="{l_bar}{bar}| {n:.0f}/{total:.0f} s") as bar:
        for stretch in model.read(path, segments=options.segments, limits=limits):
            stretches.append(stretch)
            bar.update(max(0.0, min(stretch.end, length) - bar.n))
    recording = model.recording(path, stretches, options.without)
    recording.seconds, recording.source = seconds, name
    return recording


def show(recording: "RecordingPrediction", modalities: list[str]) -> None:
    """Print the table, in colour on a terminal."""
    from finetune.prediction.outputs import table

    print("\n" + table(recording, shutil.get_terminal_size((120, 24)).columns, sys.stdout.isatty(), modalities))


def explain(model: "SentimentModel", own: int) -> None:
    """What the columns of the tables are, and how many recordings are of the model's own corpus."""
    from finetune.prediction.outputs import legend

    print("\n" + legend(model.recipe.label_range, model.modalities))
    if own:
        print(f"note: names with * ({own}) are those of clips that the model was made with; their scores say nothing about new ones")


def write(folder: Path, stem: str, recording: "RecordingPrediction", model: "SentimentModel") -> None:
    """Write the files of one recording."""
    from finetune.prediction.outputs import about_model, draw_timeline, write_files

    write_files(folder, stem, recording, about_model(model.name, model.recipe, model.notes))
    picture = draw_timeline(recording, model.recipe.label_range)
    write_atomically(folder / f"{stem}.png", lambda path: path.write_bytes(picture))


COLUMN = "text"
WRITTEN = ("score", "sentiment")


def score_table(file: Path, model_name: str, output: Path | None, device: str) -> None:
    """Read a csv file, score its texts, and write the same rows with the columns `score` and `sentiment`; print them without `output`.

    Raises:
        UserError: the file cannot be read, has no column `text`, or no text at all.
    """
    import numpy as np

    from finetune.prediction.predictions import in_words

    table = read_texts(file)
    if output is not None:
        if output.is_dir():
            raise UserError(f"--output {output}: is a folder; with --texts name the csv file to write")
        taken = [name for name in WRITTEN if name in table.columns]
        if taken:
            raise UserError(f"--texts {file}: has a column `{taken[0]}` already, which --output would replace; rename it")
        check_writable(output.parent)
    check_model(model_name, texts=True)
    say_loading("transformers")
    from finetune.prediction.sentiment_model import SentimentModel

    model = SentimentModel.from_pretrained(model_name, device=device)
    for note in model.notes:
        print(f"note: {note}", file=sys.stderr)
    texts = list(table[COLUMN])
    scores = model.score_texts(texts)
    words = ["" if np.isnan(score) else in_words(float(score), model.recipe.label_range) for score in scores]
    table = table.assign(score=np.round(scores.astype(float), 3), sentiment=words)
    empty = int(np.isnan(scores).sum())
    if output is not None:
        write_atomically(output, lambda path: table.to_csv(path, index=False))
        print(f"written: {counted(len(table) - empty, 'score')} in {output}")
    else:
        show_texts(texts, scores, words)
    if empty:
        print(f"{counted(empty, 'row')} without a text got no score", file=sys.stderr)


def read_texts(file: Path) -> "pd.DataFrame":
    """The rows of a csv file that has a column `text`, in any capitals."""
    import pandas as pd

    if not file.is_file():
        raise UserError(f"--texts {file}: no such file; give a csv file with a column `{COLUMN}`")
    try:
        table = pd.read_csv(file, encoding="utf-8-sig", dtype=str, keep_default_na=False).fillna("")
    except (ValueError, UnicodeDecodeError, pd.errors.ParserError) as error:
        raise UserError(f"--texts {file}: cannot be read as csv in UTF-8 ({str(error).splitlines()[0]})") from error
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes the first cells of such rows for their names
        raise UserError(f"--texts {file}: its rows have more cells than its first line; put texts with commas in quotation marks")
    names = {str(name).strip().lower(): name for name in reversed(table.columns)}
    if COLUMN not in names:
        found = ", ".join(f"`{name}`" for name in table.columns)
        raise UserError(f"--texts {file}: has no column `{COLUMN}` (commas between columns are read); its first line names {found}")
    if COLUMN not in table.columns:
        table = table.rename(columns={names[COLUMN]: COLUMN})
    if not table[COLUMN].str.strip().any():
        raise UserError(f"--texts {file}: its column `{COLUMN}` is empty")
    return table


def show_texts(texts: list[str], scores: "np.ndarray", words: list[str]) -> None:
    """A line a text on the terminal."""
    import numpy as np

    width = max(20, shutil.get_terminal_size((120, 24)).columns - 30)
    for text, score, word in zip(texts, scores, words, strict=True):
        number = "  –  " if np.isnan(score) else signed(float(score), 2)
        line = " ".join(text.split())
        print(f"{number:>6s}  {word:<18s}  {line if len(line) <= width else line[: width - 1] + '…'}")


if __name__ == "__main__":
    run_command(Options, main)
