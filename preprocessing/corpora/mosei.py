"""CMU-MOSEI, raw: as MOSI, with the standard folds from the table, or from the file that the authors' SDK keeps them in."""

import ast
from pathlib import Path

from lexicons.errors import UserError
from preprocessing.corpora.clip import Corpus
from preprocessing.corpora.labelled import Layout, find_labelled

MOSEI = Layout("mosei", "en", (-3.0, 3.0))
FOLDS_FILE = "cmu_mosei_std_folds.py"
FOLDS = {"standard_train_fold": "train", "standard_valid_fold": "valid", "standard_test_fold": "test"}


def find(root: Path, labels: Path | None = None) -> Corpus:
    """The utterances of MOSEI. Splits are those of the table's column `mode` or `split`.

    Its 23,259-row csv of labels has none; then they come from the SDK's `cmu_mosei_std_folds.py`, where it lies in the root.
    """
    path = root / FOLDS_FILE
    folds = read_folds(path) if path.is_file() else None
    corpus = find_labelled(MOSEI, root, labels, folds)
    if folds is None and any(clip.split is None for clip in corpus.clips):
        corpus.notes.append(f"mosei: put {FOLDS_FILE} of the CMU-Multimodal SDK into --root for the standard folds")
    return corpus


def read_folds(path: Path) -> dict[str, str]:
    """Video id -> split from the SDK's file: three lists of ids, read as literals, never executed.

    Raises:
        UserError: the file has no such lists.
    """
    folds: dict[str, str] = {}
    try:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in FOLDS:
                folds.update(dict.fromkeys(ast.literal_eval(node.value), FOLDS[node.targets[0].id]))
    except (OSError, SyntaxError, ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read as the SDK's list of folds ({error})") from error
    if not folds:
        raise UserError(f"{path}: has none of the lists {', '.join(FOLDS)}")
    return folds
