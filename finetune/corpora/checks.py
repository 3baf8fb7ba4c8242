"""A column of features as a file gives it, read one sample at a time: it may be larger than memory."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from finetune.corpora.mapped_file import RESIDENT_BYTES, map_beneath, release
from finetune.corpora.splits import Findings, LabelledSplit
from skesl_mug.errors import UserError

Spans: TypeAlias = np.ndarray
"""[N, 2] int64: the first real frame of each sample and the one behind its last; empty where it has none."""


class FeatureColumn:
    """`column[i]` is what sample i has: [T, D] float32, still padded, NaN and infinities set to 0.

    `values` is [N, T, D], [N, D] (one frame a sample) or a list of N arrays of such shapes; `key`, `where` (the split) and `file` are
    for messages.

    Raises:
        UserError: `values` are no numbers, or not as many as `count`.
    """

    def __init__(self, values: Any, key: str, where: str, file: str, count: int):
        self.values, self.key, self.where, self.file = values, key, where, file
        self.width = 0
        self._touched = 0
        listed = isinstance(values, (list, tuple)) or (isinstance(values, np.ndarray) and values.ndim > 0)
        if not listed or self._foreign(values):
            raise self._no_numbers()
        if len(values) != count:
            raise UserError(f"{file}: `{key}` of split `{where}` holds {len(values)} samples, but there are {count} labels")

    @staticmethod
    def _foreign(values: Any) -> bool:
        return isinstance(values, np.ndarray) and values.dtype.kind not in "biufO"

    def _no_numbers(self) -> UserError:
        return UserError(f"{self.file}: `{self.key}` of split `{self.where}` holds something other than arrays of numbers")

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._repaired(index)[0]

    def _repaired(self, index: int) -> tuple[np.ndarray, int]:
        """A sample's features and the number of values that were set to 0."""
        try:
            raw = np.asarray(self.values[index])
            if self._foreign(raw):
                raise self._no_numbers()
            self._release_after(raw)
            with np.errstate(over="ignore"):  # beyond float32's range: infinite, and repaired as such
                array = raw.astype(np.float32, copy=False)
        except (TypeError, ValueError) as error:
            raise self._no_numbers() from error
        array = array[None] if array.ndim == 1 else array
        finite = np.isfinite(array)
        if finite.all():
            return array, 0
        return np.where(finite, array, np.float32(0)), int((~finite).sum())

    def _release_after(self, raw: np.ndarray) -> None:
        self._touched += raw.nbytes
        if self._touched > RESIDENT_BYTES:
            self._touched = 0
            release(map_beneath(raw))

    def scan(self, findings: Findings) -> tuple[Spans, np.ndarray, int]:
        """Read the whole column once.

        Returns:
            between which frames each sample has content other than zero [N, 2], its frames with the padding [N], and the number of
            values that were repaired.

        Raises:
            UserError: the samples are not [T, D] of one width.
        """
        spans = np.zeros((len(self), 2), np.int64)
        room = np.zeros(len(self), np.int64)
        repaired = vectors = 0
        for index in range(len(self)):
            vectors += np.ndim(self.values[index]) == 1
            array, count = self._repaired(index)
            repaired += count
            if array.ndim != 2 or array.shape[1] == 0 or self.width not in (0, array.shape[1]):
                raise UserError(
                    f"{self.file}: `{self.key}` of split `{self.where}` must be [N, T, D] with one width D; sample {index} has shape "
                    f"{list(np.shape(self.values[index]))}" + (f", those before it the width {self.width}" if self.width else "")
                )
            self.width = array.shape[1]
            room[index] = len(array)
            filled = np.flatnonzero(array.any(axis=1))
            if len(filled):
                spans[index] = filled[0], filled[-1] + 1
        if vectors:
            findings.note(f"{self.where}/{self.key}", "one vector a sample, read as sequences of one frame", vectors)
        return spans, room, repaired

    def cut(self, spans: Spans) -> Iterator[np.ndarray | None]:
        """Each sample's frames between its two bounds; None where there are none."""
        for index, (start, stop) in enumerate(spans):
            yield self[index][start:stop] if stop > start else None


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
