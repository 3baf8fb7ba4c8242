"""CH-SIMS v1 and v2, raw: `Raw/<video>/<clip>.mp4` and `label.csv` with labels in [-1, 1], unimodal ones too."""

from pathlib import Path

from preprocessing.corpora.clip import Corpus
from preprocessing.corpora.labelled import Layout, find_labelled

SIMS = Layout("sims", "zh", (-1.0, 1.0))
SIMS_V2 = Layout("simsv2", "zh", (-1.0, 1.0))


def find(root: Path, labels: Path | None = None) -> Corpus:
    """The clips of CH-SIMS; see `labelled.find_labelled`."""
    return find_labelled(SIMS, root, labels)


def find_v2(root: Path, labels: Path | None = None) -> Corpus:
    """The clips of CH-SIMS v2."""
    return find_labelled(SIMS_V2, root, labels)
