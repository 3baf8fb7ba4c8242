"""CMU-MOSI, raw: videos cut into utterances or whole, and a table of times, transcripts and labels in [-3, 3]."""

from pathlib import Path

from preprocessing.corpora.clip import Corpus
from preprocessing.corpora.folds import read_folds
from preprocessing.corpora.labelled import Layout, find_labelled

MOSI = Layout("mosi", "en", (-3.0, 3.0))


def find(root: Path, labels: Path | None = None, folds: Path | None = None) -> Corpus:
    """The utterances of MOSI; see `labelled.find_labelled`. `folds` says the splits where the table does not."""
    return find_labelled(MOSI, root, labels, read_folds(folds) if folds is not None else None)
