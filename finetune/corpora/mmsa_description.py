"""The description beside an MMSA feature file: how each column was made, and what the user of MMSA has to know."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finetune.corpora.mmsa_columns import POLARITIES, Features
from finetune.corpora.utterances import UNIMODAL
from preprocessing.schema import DatasetInfo, FeatureInfo
from preprocessing.store import UtteranceDataset
from pretrain.run_folder import versions

MMSA_WIDTH = 768
UNIMODAL_NETWORKS = ("MTFN", "MLF-DNN", "MLMF")
"""MMSA's networks with unimodal tasks."""
MOSTLY_PADDING = 4.0
"""If the longest sequence is this many times the mean, a shorter length is suggested."""


def describe_source(data: UtteranceDataset, sha256: str, aligned: int | None) -> dict[str, Any]:
    """The dataset, its corpus and the versions that made both."""
    corpus = {name: data.info.corpus.get(name) for name in ("name", "layout", "synthetic", "how") if data.info.corpus.get(name) is not None}
    return {
        "alignment": "none: frames as extracted" if aligned is None else "one frame per token of `text_bert`",
        "dataset": {"name": data.folder.resolve().name, "sha256": sha256, "corpus": corpus, "versions": data.info.versions},
        "label_range": data.info.label_range,
        "versions": versions(),
    }


def describe_features(info: FeatureInfo | None, parts: Sequence[Features], length: int) -> dict[str, Any]:
    """How a feature column was made."""
    lengths = np.concatenate([part.lengths() for part in parts])
    entry: dict[str, Any] = {
        "width": parts[0].width,
        "length": length,
        "mean_length": round(float(lengths[lengths > 0].mean()), 1) if lengths.any() else 0.0,
        "cut": int((lengths > length).sum()),
        "missing": int((lengths == 0).sum()),
    }
    if info is None:
        return entry | {"extractor": None, "columns": []}
    made = {name: getattr(info, name) for name in ("extractor", "rate_hz", "versions", "settings", "columns")}
    return entry | made


def describe_text(lm: str, model: Any, length: int) -> dict[str, Any]:
    """How the text columns were made."""
    name = Path(lm).name if Path(lm).exists() else lm
    made = {"lm": name, "model_type": model.config.model_type, "length": length}
    return {
        "raw_text": {"made_by": "the transcripts of the dataset"},
        "text_bert": {**made, "rows": ["token ids", "mask", "segment ids"]},
        "text": {**made, "layer": "last", "width": int(model.config.hidden_size)},
    }


def describe_labels(unimodal: Sequence[str]) -> dict[str, Any]:
    """How ids and labels were made."""
    return {
        "id": {"form": "VIDEO$_$CLIP"},
        "regression_labels": {"made_by": "the column `label` of the dataset"},
        "annotations": {"made_by": "the sign of the label", "values": list(POLARITIES)},
        "classification_labels": {"made_by": "the sign of the label", "values": {word: place for place, word in enumerate(POLARITIES)}},
        **{name.replace("label_", "regression_labels_"): {"made_by": f"the column `{name}`; NaN if unknown"} for name in unimodal},
    }


def notes_for_mmsa(info: DatasetInfo, model: Any, *, features: dict[str, Any], labels: Sequence[dict[str, Any]], train: int) -> list[str]:
    """What the user of MMSA has to know; `labels` are the columns of labels of each split, `train` is the number of training utterances."""
    notes = [f"for Self-MM set train_samples={train} in MMSA's config"]
    width = int(model.config.hidden_size)
    if width != MMSA_WIDTH:
        notes.append(
            f"MMSA's networks with BERT expect states of width {MMSA_WIDTH}, these are {width} wide: for Self-MM set text_out={width}"
        )
    if model.config.model_type not in ("bert", "roberta"):
        notes.append(f"MMSA's networks with BERT cannot use `text_bert`: they know bert and roberta, not {model.config.model_type}")
    for name, entry in features.items():
        if entry["extractor"] is None or not entry["mean_length"]:
            notes.append(f"the dataset has no {name}: the column is zeros")
        elif entry["length"] > MOSTLY_PADDING * entry["mean_length"] and entry["length"] > 100:
            mean, length = entry["mean_length"], entry["length"]
            notes.append(f"{name} has {mean:.0f} frames on average and is padded to {length:,}; --{name}-length makes a smaller file")
    return notes + notes_on_labels(info.label_range, labels)


def notes_on_labels(known: tuple[float, float] | None, labels: Sequence[dict[str, Any]]) -> list[str]:
    """Which dataset name suits the labels in MMSA, and which networks their unimodal labels exclude."""
    found = np.concatenate([columns["regression_labels"] for columns in labels])
    low, high = known or (float(found.min()), float(found.max()))
    span = f"from {low:g} to {high:g}"
    unimodal = {name: np.concatenate([columns[name] for columns in labels]) for name in labels[0] if name.startswith("regression_labels_")}
    missing = {name: int(np.isnan(values).sum()) for name, values in unimodal.items() if np.isnan(values).any()}
    notes = []
    if max(-low, high) > 3:
        notes.append(f"labels are {span}, but MMSA's metrics suit -3 to 3 (`mosi`) or -1 to 1 (`sims`)")
    elif max(-low, high) > 1:
        notes.append(f"in MMSA use the dataset name `mosi` (or `mosei`): its metrics suit labels from -3 to 3; these are {span}")
    elif len(unimodal) == len(UNIMODAL):
        notes.append("in MMSA use the dataset name `sims`")
    else:
        notes.append(
            f"labels are {span}; `sims` needs all unimodal labels in MMSA: use `mosi`, whose Mult_acc_5 and Mult_acc_7 then mean nothing"
        )
    if missing:
        counts = ", ".join(f"{name} {count:,} of {len(found):,}" for name, count in missing.items())
        notes.append(f"unimodal labels are NaN ({counts}): avoid MMSA's networks that learn them, {', '.join(UNIMODAL_NETWORKS)}")
    return notes
