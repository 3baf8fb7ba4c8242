"""SKESL's labelled pickles: the same three splits with `raw_text`, `audio` [N, 400, 33], `video` [N, 55, 709] and `labels`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from finetune.corpora.mmsa import KeyNames, Reading, read_mmsa
from finetune.corpora.splits import LabelledSplit
from skesl_mug.errors import UserError

KEYS = KeyNames(label="labels", vision="video", unimodal={f"label_{letter}": f"labels_{letter}" for letter in ("T", "A", "V")})


def is_skesl(content: Mapping[str, Any]) -> bool:
    """Whether a pickle's content is of SKESL's form rather than MMSA's."""
    parts = [entries for entries in content.values() if isinstance(entries, dict)]
    return any("labels" in entries or "video" in entries for entries in parts) and not any(
        "regression_labels" in entries for entries in parts
    )


def read_skesl(content: Mapping[str, Any], reading: Reading) -> dict[str, LabelledSplit]:
    """The splits of a SKESL pickle; see `read_mmsa`."""
    return read_mmsa(content, replace(reading, keys=KEYS))


def check_not_unlabelled(content: Mapping[str, Any], file: str) -> None:
    """Refuse SKESL's unlabelled pickle, which has one level.

    Raises:
        UserError: it is pretraining data without labels.
    """
    if "raw_text" in content and ("video" in content or "vision" in content or "audio" in content):
        raise UserError(f"{file}: is SKESL's unlabelled pickle (one level, no splits): data to pretrain on; fine-tuning needs labels")
