"""What studies ask of the annotators' unimodal labels: whether there are any, how near learned labels come, where they disagree."""

import numpy as np

from finetune.corpora import LabelledCorpus, LabelledSplit
from finetune.metrics import mean_absolute_error, pearson
from finetune.modalities import HUMAN_LABELS
from skesl_mug.errors import UserError


def known_labels(split: LabelledSplit) -> dict[str, np.ndarray]:
    """The unimodal labels [N] by modality, NaN where unknown; modalities without any are left out."""
    labels = {name: getattr(split, key) for name, key in HUMAN_LABELS.items()}
    return {name: values for name, values in labels.items() if values is not None and not np.isnan(values).all()}


def need_human_labels(corpus: LabelledCorpus, study: str, split: str = "train") -> None:
    """Refuse a corpus without unimodal labels.

    Raises:
        UserError: it has none in this split.
    """
    if not known_labels(corpus.splits[split]):
        raise UserError(f"{study}: wants unimodal labels (label_T, label_A, label_V) in {split}, and this corpus has none; SIMS has them")


def label_quality(learned: dict[str, np.ndarray], split: LabelledSplit) -> tuple[float, float]:
    """Mean over the modalities of MAE and Corr between learned and known labels, in label units."""
    errors, correlations = [], []
    for name, known in known_labels(split).items():
        if name in learned:
            rows = ~np.isnan(known)
            errors.append(mean_absolute_error(learned[name][rows], known[rows]))
            correlations.append(pearson(learned[name][rows], known[rows]) or 0.0)
    return float(np.mean(errors)), float(np.mean(correlations))


def disagreement(split: LabelledSplit) -> np.ndarray:
    """Deviation of the known unimodal labels of each utterance [N], NaN where fewer than two are known."""
    table = np.stack(list(known_labels(split).values()))
    known = (~np.isnan(table)).sum(0)
    centred = np.where(np.isnan(table), 0.0, table - np.where(known > 0, np.nansum(table, 0) / np.maximum(known, 1), 0.0))
    spread = np.sqrt((centred**2).sum(0) / np.maximum(known, 1))
    return np.where(known >= 2, spread, np.nan)
