"""Layouts of corpora on disk, one file a layout: each turns a root folder into a list of clips."""

from collections.abc import Callable
from pathlib import Path

from preprocessing.corpora import folder, mosei, mosi, sims, voxceleb1, voxceleb2
from preprocessing.corpora.clip import Clip, Corpus

__all__ = ["LAYOUTS", "Clip", "Corpus", "find_corpus"]

LAYOUTS: dict[str, Callable[[Path, Path | None], Corpus]] = {
    "voxceleb1": voxceleb1.find,
    "voxceleb2": voxceleb2.find,
    "mosi": mosi.find,
    "mosei": mosei.find,
    "sims": sims.find,
    "simsv2": sims.find_v2,
    "folder": folder.find,
}


def find_corpus(layout: str, root: Path, labels: Path | None = None) -> Corpus:
    """The clips under `root` in one of the `LAYOUTS`, with the labels of a csv file where the layout takes one.

    Raises:
        UserError: the folder is absent, or holds no video in this layout, or the csv file is at fault.
    """
    return LAYOUTS[layout](root, labels)
