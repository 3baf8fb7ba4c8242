"""Word error rate of the recognised texts against true transcripts, which serve for nothing else."""

import csv
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from skesl_mug.errors import UserError


def read_references(path: Path) -> dict[str, str]:
    """The true texts of a csv file with the columns `clip` and `true_text`, by clip id.

    Raises:
        UserError: the file cannot be read or lacks a column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"clip", "true_text"} <= set(reader.fieldnames or ()):
                raise UserError(f"--reference-transcripts {path}: lacks the columns clip and true_text")
            return {row["clip"]: row["true_text"] or "" for row in reader}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"--reference-transcripts {path}: is no readable csv file ({reason})") from error


def plain_words(text: str) -> str:
    """Lower case, no punctuation, single blanks: the form in which texts are compared."""
    kept = (" " if unicodedata.category(character)[0] in "ZC" or character == "-" else character for character in text.casefold())
    return " ".join("".join(c for c in kept if c == " " or unicodedata.category(c)[0] in "LMN").split())


def word_error_rate(texts: Mapping[str, str], references: Mapping[str, str]) -> dict[str, float | int] | None:
    """The word error rate over the clips that have both texts, and their number; None where there are none.

    Substitutions, deletions and insertions over the number of true words, all clips together.
    """
    import jiwer

    pairs = [(plain_words(references[name]), plain_words(text)) for name, text in texts.items() if name in references]
    pairs = [(true, heard) for true, heard in pairs if true]
    if not pairs:
        return None
    value = jiwer.wer([true for true, _ in pairs], [heard for _, heard in pairs])
    return {"value": round(float(value), 4), "utterances": len(pairs)}
