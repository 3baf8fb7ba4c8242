"""Which video is in which split: the lists of CMU's SDK, or a csv file."""

import ast
import csv
from pathlib import Path

from preprocessing.corpora.folder import SPLITS
from skesl_mug.errors import UserError

LISTS = {"standard_train_fold": "train", "standard_valid_fold": "valid", "standard_test_fold": "test"}


def read_folds(path: Path) -> dict[str, str]:
    """Video id -> split, from the SDK's Python file (three lists of ids, read as literals, never executed) or a csv `video_id,split`.

    Raises:
        UserError: the file is neither.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        return _lists(path, text) if path.suffix.lower() == ".py" else _table(path, text)
    except (OSError, SyntaxError, ValueError, TypeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read as a list of folds ({reason}); give the SDK's .py file or a csv video_id,split") from error


def _lists(path: Path, text: str) -> dict[str, str]:
    folds: dict[str, str] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in LISTS:
            folds.update(dict.fromkeys(ast.literal_eval(node.value), LISTS[node.targets[0].id]))
    if not folds:
        raise UserError(f"{path}: has none of the lists {', '.join(LISTS)}; take the file from CMU's SDK as it is")
    return folds


def _table(path: Path, text: str) -> dict[str, str]:
    rows = csv.DictReader(text.splitlines(), strict=True)
    if not {"video_id", "split"} <= set(rows.fieldnames or ()):
        raise UserError(f"{path}: has no columns video_id and split")
    folds: dict[str, str] = {}
    for row in rows:
        video, split = (row["video_id"] or "").strip(), (row["split"] or "").strip().lower()
        if not video or split not in SPLITS:
            raise UserError(f"{path}: line {rows.line_num} has the video {video!r} in the split {split!r}; it is train, valid or test")
        if folds.setdefault(video, SPLITS[split]) != SPLITS[split]:
            raise UserError(f"{path}: line {rows.line_num} puts the video {video} into a second split")
    return folds
