"""CMU-MOSEI, raw: as MOSI, with the standard folds from the table, or from the file that the authors' SDK keeps them in."""

from pathlib import Path

from preprocessing.corpora.clip import Corpus
from preprocessing.corpora.folds import read_folds
from preprocessing.corpora.labelled import Layout, find_labelled

MOSEI = Layout("mosei", "en", (-3.0, 3.0))
FOLDS_FILE = "cmu_mosei_std_folds.py"


def find(root: Path, labels: Path | None = None, folds: Path | None = None) -> Corpus:
    """The utterances of MOSEI. Splits are those of the table's column `mode` or `split`.

    Its 23,259-row csv of labels has none; then they come from `folds`, else from the SDK's `cmu_mosei_std_folds.py` in the root.
    """
    path = folds if folds is not None else root / FOLDS_FILE
    known = read_folds(path) if folds is not None or path.is_file() else None
    corpus = find_labelled(MOSEI, root, labels, known)
    if known is None and any(clip.split is None for clip in corpus.clips):
        corpus.notes.append(f"mosei: for the standard folds put {FOLDS_FILE} of the CMU-Multimodal SDK into --root, or give --folds FILE")
    return corpus
