"""What is checked and repaired when a labelled corpus is read; each fault is a finding or, where it cannot be mended, a `UserError`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finetune.corpora.features import FeatureColumn, Spans
from finetune.corpora.splits import Findings, LabelledSplit
from skesl_mug.errors import UserError

# Where in more than this share of samples something lies beyond the stated lengths, the lengths are another array's: not used.
IMPLAUSIBLE_SHARE = 0.05
# Annotations may disagree with a label's sign here and there; in more samples than this, the labels are in another order.
DISORDER_SHARE = 0.2


def check_labels(values: Any, key: str, where: str, file: str, count: int | None) -> np.ndarray:
    """The labels as [N] float32, NaN where unknown.

    Raises:
        UserError: they are no numbers, or not as many as there are samples.
    """
    try:
        labels = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"{file}: `{key}` of split `{where}` holds something other than numbers") from error
    labels = labels.reshape(len(labels), -1) if labels.ndim > 1 and labels.size else labels
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or (count is not None and len(labels) != count):
        wanted = f"[{count}]" if count is not None else "[N]"
        raise UserError(f"{file}: `{key}` of split `{where}` has shape {list(np.shape(values))}, not {wanted}: one number a sample")
    return np.where(np.isfinite(labels), labels, np.float32(np.nan)).astype(np.float32)


def check_label_range(splits: Mapping[str, LabelledSplit], label_range: tuple[float, float], dataset: str, file: str) -> None:
    """Refuse labels outside the range of the dataset (unimodal ones too).

    Raises:
        UserError: naming the split, the number of such labels and the way out.
    """
    low, high = label_range
    for name, split in splits.items():
        for key in ("label", "label_T", "label_A", "label_V"):
            labels = getattr(split, key)
            outside = 0 if labels is None else int(((labels < low - 1e-5) | (labels > high + 1e-5)).sum())
            if outside:
                mend = "give the right --dataset" + (" or --label-range" if dataset == "custom" else ", or `--dataset custom`")
                raise UserError(
                    f"{file}: {outside} of the {len(split)} `{key}` values of split `{name}` lie outside the range [{low:g}, {high:g}] "
                    f"of {dataset} (they reach from {np.nanmin(labels):g} to {np.nanmax(labels):g}); {mend}"
                )


def check_annotations(annotations: Sequence[Any] | None, labels: np.ndarray, where: str, file: str, findings: Findings) -> None:
    """Compare labels with the words "Negative"/"Positive" beside them: a label of the other sign is a sign of a shifted column.

    Raises:
        UserError: so many contradict that labels and samples are in different orders.
    """
    if annotations is None or not len(labels) or len(annotations) != len(labels):
        return
    words = np.asarray([str(word).strip().lower() for word in annotations])
    wrong = ((words == "negative") & (labels > 0)) | ((words == "positive") & (labels < 0))
    if wrong.mean() > DISORDER_SHARE:
        raise UserError(
            f"{file}: in split `{where}` {wrong.sum()} of {len(labels)} labels contradict the sign of `annotations`: "
            "labels and samples are in different orders; download the file again"
        )
    if wrong.any():
        findings.warn(f"{where}/annotations", "labels whose sign contradicts the annotation", int(wrong.sum()))


def real_frames(column: FeatureColumn, lengths: Any, findings: Findings) -> Spans:
    """Where each sample's real frames lie: the stated lengths where they agree with the content, else without the all-zero frames at
    both ends. A sample without any frame other than zero has no such modality: an empty span.

    Raises:
        UserError: `lengths` is not one whole number a sample, or the features are not [N, T, D] with one width.
    """
    spans, room, repaired = column.scan(findings)
    where_key = f"{column.where}/{column.key}"
    if repaired:
        findings.warn(where_key, "values that are NaN or infinite, set to 0", repaired)
    starts, stops = spans[:, 0], spans[:, 1]
    filled = stops > starts
    stated = _check_lengths(lengths, column, room, findings) if lengths is not None else None
    if stated is not None:
        beyond = int((stops > stated).sum())
        if beyond > IMPLAUSIBLE_SHARE * len(column):
            findings.warn(f"{where_key}_lengths", "samples with content beyond their stated length; the lengths were not used", beyond)
            stated = None
        elif beyond:
            findings.warn(f"{where_key}_lengths", "samples with content beyond their stated length, cut there", beyond)
    if stated is None:
        cut = int((stops - starts < room).sum())
        if cut:
            findings.note(where_key, "samples whose all-zero frames at the ends were taken for padding", cut)
        kept = spans
    else:
        kept = np.stack([np.zeros_like(stated), np.where(filled, stated, 0)], axis=1)
    absent = int((kept[:, 1] <= kept[:, 0]).sum())
    if 0 < absent < len(column):
        findings.note(where_key, "samples without a single frame other than zero: absent there", absent)
    return kept


def _check_lengths(lengths: Any, column: FeatureColumn, room: np.ndarray, findings: Findings) -> np.ndarray:
    what = f"{column.file}: `{column.key}_lengths` of split `{column.where}`"
    try:
        stated = np.asarray(lengths, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} holds something other than numbers") from error
    if len(stated) != len(column) or not np.isfinite(stated).all():
        raise UserError(f"{what} holds {len(stated)} numbers, but there are {len(column)} samples")
    if (stated > room).any():
        findings.warn(f"{column.where}/{column.key}_lengths", "lengths beyond the arrays, cut to what is there", int((stated > room).sum()))
    return np.clip(stated, 0, room).astype(np.int64)


def check_ids(splits: Mapping[str, LabelledSplit], findings: Findings) -> None:
    """Make ids unique within their split (the learned labels are kept by id); count those that recur in it or in another split."""
    for name, split in splits.items():
        seen: Counter[str] = Counter()
        repeated = 0
        for place, sample_id in enumerate(split.ids):
            seen[sample_id] += 1
            if seen[sample_id] > 1:
                repeated += 1
                split.ids[place] = f"{sample_id}#{seen[sample_id]}"
        if repeated:
            findings.warn(f"{name}/id", "ids that occur more than once, told apart by a number", repeated)
    names = list(splits)
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            common = len(set(splits[first].ids) & set(splits[second].ids))
            if common:
                findings.warn(f"{first}, {second}/id", "ids that occur in both splits", common)


def check_videos(splits: Mapping[str, LabelledSplit], dataset: str, file: str, findings: Findings) -> None:
    """Look for videos in two splits: MOSI and MOSEI divide by video, CH-SIMS does not.

    Raises:
        UserError: in MOSI or MOSEI, where it means that the file's splits are not the published ones.
    """
    names = list(splits)
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            common = sorted(set(splits[first].video_ids) & set(splits[second].video_ids))
            if not common:
                continue
            if dataset in ("mosi", "mosei"):
                raise UserError(
                    f"{file}: {len(common)} videos lie in both `{first}` and `{second}` (`{common[0]}`), but {dataset} divides by video; "
                    "these are not the published splits: use a file with those, or `--dataset custom`"
                )
            add = findings.note if dataset.startswith("sims") else findings.warn
            add(f"{first}, {second}/id", "videos that lie in both splits", len(common))


def check_enough(splits: Mapping[str, LabelledSplit], file: str, findings: Findings) -> None:
    """Refuse splits that nothing can be learned from.

    Raises:
        UserError: fewer than two training samples, or one and the same label for all of them.
    """
    train = splits["train"]
    if len(train) < 2:
        raise UserError(f"{file}: split `train` holds {len(train)} labelled samples; training needs at least two")
    for name, split in splits.items():
        if len(split) == 1:
            findings.warn(f"{name}/label", "a single sample: no correlation can be computed", 1)
        elif float(np.ptp(split.label)) == 0:
            if name == "train":
                raise UserError(f"{file}: all {len(split)} labels of split `train` are {split.label[0]:g}: there is nothing to learn")
            findings.warn(f"{name}/label", "labels, all of them equal: no correlation can be computed", len(split))


def drop_unlabelled(split: LabelledSplit, name: str, findings: Findings) -> LabelledSplit:
    """The samples that have a label; the others are counted."""
    known = np.isfinite(split.label)
    if known.all():
        return split
    findings.warn(f"{name}/label", "samples without a label, left out", int((~known).sum()))
    return split.select(np.flatnonzero(known))
