"""A few evaluated utterances for the report: a frame of the clip, the words, the masked word, the scores per modality."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from finetune.modalities import LETTERS, MODALITIES
from preprocessing.media import read_frame
from preprocessing.schema import Utterance
from preprocessing.store import UtteranceDataset
from skesl_mug.files import write_json

EXAMPLES = 5
SCORES = [f"pred_{letter}" for letter in LETTERS.values()] + ["label", "label_T", "label_A", "label_V"]
FRAME_HEIGHT = 180


def choose(predictions: pd.DataFrame) -> pd.DataFrame:
    """Five utterances that show the range: the most positive, the most negative, a median one, the largest disagreement between the
    modalities' scores, and the largest error. One row each, scores averaged over the seeds."""
    mean = predictions.groupby("id", sort=False)[SCORES].mean()
    unimodal = mean[[f"pred_{LETTERS[name]}" for name in MODALITIES]]
    order = [
        mean["pred_M"].idxmax(),
        mean["pred_M"].idxmin(),
        (unimodal.max(axis=1) - unimodal.min(axis=1)).idxmax() if unimodal.notna().any().all() else mean["pred_M"].abs().idxmin(),
        (mean["pred_M"] - mean["label"]).abs().idxmax(),
        (mean["pred_M"] - mean["pred_M"].median()).abs().idxmin(),
    ]
    ids = list(dict.fromkeys(order))
    ids += [name for name in mean.index if name not in ids][: EXAMPLES - len(ids)]
    return mean.loc[ids[:EXAMPLES]]


def write_examples(run: Path, dataset: UtteranceDataset | None) -> None:
    """Write `examples/examples.json` and its frames. Without an utterance dataset (a pickle has no clips) there are no words and frames."""
    text_columns = {"id": str, "video_id": str, "text": str}  # "001" is not a number, and "null" is a word
    predictions = pd.read_csv(run / "predictions.csv", dtype=text_columns, keep_default_na=False, na_values={c: [""] for c in SCORES})
    texts = dict(zip(predictions["id"], predictions["text"], strict=True))
    places = {name: row for row, name in enumerate(dataset.column("id"))} if dataset else {}
    paths = _clip_paths(dataset) if dataset else {}
    folder = run / "examples"
    folder.mkdir(exist_ok=True)
    entries = []
    for number, (name, row) in enumerate(choose(predictions).iterrows()):
        entry: dict[str, Any] = {"id": name, "text": texts.get(name, ""), "words": [], "mask": None, "frame": None}
        entry["label"] = {
            letter: _number(row[column]) for letter, column in zip("MTAV", ("label", "label_T", "label_A", "label_V"), strict=True)
        }
        entry["predicted"] = {letter: _number(row[f"pred_{letter}"]) for letter in "MTAV"}
        if dataset and name in places:
            utterance = dataset[places[name]]
            entry |= _words(utterance)
            entry["frame"] = _frame(paths.get(str(name)), utterance, folder / f"{number}.jpg")
        entries.append(entry)
    write_json(folder / "examples.json", entries)


def _words(utterance: Utterance) -> dict[str, Any]:
    intensities = {(mask.start_char, mask.end_char): mask.intensity for mask in utterance.masks if mask.from_lexicon}
    words = [
        {
            "text": word.text,
            "start_char": word.start_char,
            "end_char": word.end_char,
            "intensity": intensities.get((word.start_char, word.end_char)),
        }
        for word in utterance.words
    ]
    first = utterance.masks[0] if utterance.masks else None
    mask = {"start_char": first.start_char, "end_char": first.end_char, "intensity": first.intensity} if first else None
    return {"text": utterance.text, "words": words, "mask": mask}


def _clip_paths(dataset: UtteranceDataset) -> dict[str, Path]:
    clips = dataset.folder / "clips.csv"
    root = Path(str(dataset.info.corpus.get("root", "")))
    if not clips.is_file():
        return {}
    table = pd.read_csv(clips, dtype=str)
    return {name: root / path for name, path in zip(table["id"], table["path"], strict=True)}


def _frame(path: Path | None, utterance: Utterance, target: Path) -> str | None:
    """One frame from the middle of the clip as a small JPEG; None if the clip is missing or cannot be read."""
    if path is None or not path.is_file():
        return None
    try:
        picture = read_frame(path, 0.5 * (utterance.end - utterance.start))
    except Exception:  # only a picture for the report: it is omitted, whatever is wrong with the clip
        return None
    height, width = picture.shape[:2]
    size = (max(1, round(width * FRAME_HEIGHT / height)), FRAME_HEIGHT)
    small = cv2.resize(np.ascontiguousarray(picture), size, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(target), cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return target.name


def _number(value: float) -> float | None:
    return None if pd.isna(value) else round(float(value), 3)
