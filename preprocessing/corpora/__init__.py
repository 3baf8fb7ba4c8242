"""Layouts of corpora on disk, one file a layout: each turns a root folder into a list of clips."""

from collections.abc import Callable
from pathlib import Path

from preprocessing.corpora import folder, mosei, mosi, sims, voxceleb1, voxceleb2
from preprocessing.corpora.clip import Clip, Corpus
from skesl_mug.errors import UserError

__all__ = ["LAYOUTS", "Clip", "Corpus", "find_corpus"]

LAYOUTS: dict[str, Callable[..., Corpus]] = {
    "voxceleb1": voxceleb1.find,
    "voxceleb2": voxceleb2.find,
    "mosi": mosi.find,
    "mosei": mosei.find,
    "sims": sims.find,
    "simsv2": sims.find_v2,
    "folder": folder.find,
}


FOLDED = ("mosi", "mosei")
"""The layouts that take a file of folds."""


def find_corpus(layout: str, root: Path, labels: Path | None = None, folds: Path | None = None) -> Corpus:
    """The clips under `root` in one of the `LAYOUTS`, with the labels of a csv file and the splits of a file of folds where it takes one.

    Raises:
        UserError: the folder is absent, or holds no video in this layout, or the csv file is at fault.
    """
    if folds is None:
        return LAYOUTS[layout](root, labels)
    if layout not in FOLDED:
        raise UserError(f"--folds {folds}: is for --corpus {' and '.join(FOLDED)}; other corpora have their splits in their tables")
    return LAYOUTS[layout](root, labels, folds)
