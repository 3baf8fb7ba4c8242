"""What is checked and repaired when a labelled corpus is read; each fault is a finding or, where it cannot be mended, a `UserError`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finetune.corpora.splits import Findings, LabelledSplit
from lexicons.errors import UserError

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


def check_features(values: Any, key: str, where: str, file: str, count: int, findings: Findings) -> list[np.ndarray]:
    """The features as one finite float32 array [T, D] a sample, still padded; NaN and infinities become 0 and are counted.

    Raises:
        UserError: they are no numbers, of another number of samples, or not of one width.
    """
    where_key = f"{where}/{key}"
    arrays = _as_arrays(values, key, where, file)
    if len(arrays) != count:
        raise UserError(f"{file}: `{key}` of split `{where}` holds {len(arrays)} samples, but there are {count} labels")
    if arrays and arrays[0].ndim == 1:
        findings.note(where_key, "one vector a sample, read as sequences of one frame", count)
        arrays = [array[None] for array in arrays]
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) > 1 or any(len(shape) != 1 or shape[0] == 0 for shape in shapes):
        seen = ", ".join(str(list(array.shape)) for array in arrays[:3])
        raise UserError(f"{file}: `{key}` of split `{where}` must be [N, T, D] with one width D; its samples have shapes {seen}, ...")
    repaired = 0
    for place, array in enumerate(arrays):
        finite = np.isfinite(array)
        if not finite.all():
            repaired += int((~finite).sum())
            arrays[place] = np.where(finite, array, np.float32(0))
    if repaired:
        findings.warn(where_key, "values that are NaN or infinite, set to 0", repaired)
    return arrays


def _as_arrays(values: Any, key: str, where: str, file: str) -> list[np.ndarray]:
    try:
        whole = values if isinstance(values, np.ndarray) and values.dtype != object else None
        with np.errstate(over="ignore"):  # beyond float32's range: infinite, and repaired as such
            if whole is not None:
                return list(_writable(whole.astype(np.float32, copy=False)))
            return [_writable(np.asarray(value).astype(np.float32, copy=False)) for value in values]
    except (TypeError, ValueError) as error:
        raise UserError(f"{file}: `{key}` of split `{where}` holds something other than arrays of numbers") from error


def _writable(array: np.ndarray) -> np.ndarray:
    """torch wants writable memory; arrays read from a pickle's own bytes are not."""
    array = np.asarray(array)
    return array if array.flags.writeable else array.copy()


def real_frames(arrays: Sequence[np.ndarray], lengths: Any, key: str, where: str, file: str, findings: Findings) -> list[np.ndarray | None]:
    """Remove the padding: the stated lengths where they agree with the content, else the all-zero frames at both ends.

    A sample without any frame other than zero has no such modality: None.

    Raises:
        UserError: `lengths` is not one whole number a sample.
    """
    where_key = f"{where}/{key}"
    spans = [_content_span(array) for array in arrays]
    stated = _check_lengths(lengths, key, where, file, arrays, findings) if lengths is not None else None
    if stated is not None:
        beyond = sum(stop > length for (_, stop), length in zip(spans, stated, strict=True))
        if beyond > IMPLAUSIBLE_SHARE * len(arrays):
            findings.warn(f"{where_key}_lengths", "samples with content beyond their stated length; the lengths were not used", beyond)
            stated = None
        elif beyond:
            findings.warn(f"{where_key}_lengths", "samples with content beyond their stated length, cut there", beyond)
    if stated is None:
        cut = sum(stop - start < len(array) for (start, stop), array in zip(spans, arrays, strict=True))
        if cut:
            findings.note(where_key, "samples whose all-zero frames at the ends were taken for padding", cut)
        kept = [array[start:stop] for (start, stop), array in zip(spans, arrays, strict=True)]
    else:
        kept = [array[:length] for array, length in zip(arrays, stated, strict=True)]
    found = [array if stop > start and len(array) else None for array, (start, stop) in zip(kept, spans, strict=True)]
    absent = sum(array is None for array in found)
    if 0 < absent < len(found):
        findings.note(where_key, "samples without a single frame other than zero: absent there", absent)
    return found


def _content_span(array: np.ndarray) -> tuple[int, int]:
    filled = np.flatnonzero(array.any(axis=1))
    return (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, 0)


def _check_lengths(lengths: Any, key: str, where: str, file: str, arrays: Sequence[np.ndarray], findings: Findings) -> np.ndarray:
    try:
        stated = np.asarray(lengths, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise UserError(f"{file}: `{key}_lengths` of split `{where}` holds something other than numbers") from error
    if len(stated) != len(arrays) or not np.isfinite(stated).all():
        raise UserError(f"{file}: `{key}_lengths` of split `{where}` holds {len(stated)} numbers, but there are {len(arrays)} samples")
    room = np.asarray([len(array) for array in arrays])
    if (stated > room).any():
        findings.warn(f"{where}/{key}_lengths", "lengths beyond the arrays, cut to what is there", int((stated > room).sum()))
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
        if len(split) > 1 and float(np.ptp(split.label)) == 0:
            if name == "train":
                raise UserError(f"{file}: all {len(split)} labels of split `train` are {split.label[0]:g}: there is nothing to learn")
            findings.warn(f"{name}/label", "labels, all of them equal: correlations are undefined there", len(split))


def drop_unlabelled(split: LabelledSplit, name: str, findings: Findings) -> LabelledSplit:
    """The samples that have a label; the others are counted."""
    known = np.isfinite(split.label)
    if known.all():
        return split
    findings.warn(f"{name}/label", "samples without a label, left out", int((~known).sum()))
    return split.select(np.flatnonzero(known))
