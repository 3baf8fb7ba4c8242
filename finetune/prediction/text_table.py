"""Scores of the texts of a csv file: `predict --texts FILE.csv`."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from finetune.prediction.model_folder import check_model
from finetune.prediction.predictions import in_words
from skesl_mug.console import check_writable, say_loading
from skesl_mug.errors import UserError
from skesl_mug.files import write_atomically
from skesl_mug.wording import counted, signed

COLUMN = "text"
WRITTEN = ("score", "sentiment")


def score_table(file: Path, model_name: str, output: Path | None, device: str) -> None:
    """Read a csv file, score its texts, and write the same rows with the columns `score` and `sentiment`; print them without `output`.

    Raises:
        UserError: the file cannot be read, has no column `text`, or no text at all.
    """
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
    from finetune.inference import SentimentModel

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
        show(texts, scores, words)
    if empty:
        print(f"{counted(empty, 'row')} without a text got no score", file=sys.stderr)


def read_texts(file: Path) -> pd.DataFrame:
    """The rows of a csv file that has a column `text`, in any capitals."""
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


def show(texts: list[str], scores: np.ndarray, words: list[str]) -> None:
    """A line a text on the terminal."""
    width = max(20, shutil.get_terminal_size((120, 24)).columns - 30)
    for text, score, word in zip(texts, scores, words, strict=True):
        number = "  –  " if np.isnan(score) else signed(float(score), 2)
        line = " ".join(text.split())
        print(f"{number:>6s}  {word:<18s}  {line if len(line) <= width else line[: width - 1] + '…'}")
