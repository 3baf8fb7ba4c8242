"""Checks and repairs of labelled corpora; faults become findings or, if they cannot be fixed, a `UserError`."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from finetune.corpora.mapped_file import RESIDENT_BYTES, map_beneath, release
from finetune.corpora.splits import Findings, LabelledSplit
from skesl_mug.errors import UserError
from skesl_mug.wording import counted

Spans: TypeAlias = np.ndarray
"""[N, 2] int64: the first real frame of each sample and the one after its last; equal if it has none."""


class FeatureColumn:
    """The features in a file, read one sample at a time because they may be larger than memory.

    `column[i]` is [T, D] float32 with padding; NaN and infinity are replaced with 0. `values` is [N, T, D], [N, D] (one frame per
    sample) or a list of N such arrays; `key`, `where` (the split) and `file` are for messages.

    Raises:
        UserError: `values` are not numbers, or their number is not `count`.
    """

    def __init__(self, values: Any, key: str, where: str, file: str, count: int):
        self.values, self.key, self.where, self.file = values, key, where, file
        self.width = 0
        self._touched = 0
        several = values.ndim > 0 if isinstance(values, np.ndarray) else isinstance(values, Sequence)
        if not several or isinstance(values, (str, bytes)) or self._not_numeric(values):
            raise self._not_numbers()
        if len(values) != count:
            raise UserError(f"{file}: `{key}` of split `{where}` holds {len(values)} samples, but there are {count} labels")

    @staticmethod
    def _not_numeric(values: Any) -> bool:
        return isinstance(values, np.ndarray) and values.dtype.kind not in "biufO"

    def _not_numbers(self) -> UserError:
        return UserError(f"{self.file}: `{self.key}` of split `{self.where}` contains something other than arrays of numbers")

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._repaired(index)[0]

    def _repaired(self, index: int) -> tuple[np.ndarray, int, bool]:
        """A sample's features, the number of values that were replaced with 0, and whether it is a single vector."""
        try:
            raw = np.asarray(self.values[index])
            if self._not_numeric(raw):
                raise self._not_numbers()
            self._release_after(raw)
            with np.errstate(over="ignore"):  # values beyond float32's range become infinite and are replaced
                array = raw.astype(np.float32, copy=False)
        except (TypeError, ValueError) as error:
            raise self._not_numbers() from error
        vector = array.ndim == 1
        array = array[None] if vector else array
        return *finite_only(array), vector

    def _release_after(self, raw: np.ndarray) -> None:
        self._touched += raw.nbytes
        if self._touched > RESIDENT_BYTES:
            self._touched = 0
            release(map_beneath(raw))

    def scan(self, findings: Findings) -> tuple[Spans, np.ndarray, int]:
        """Read all samples once.

        Returns:
            The span of non-zero frames of each sample [N, 2], its number of frames with padding [N], and the number of replaced values.

        Raises:
            UserError: the samples are not [T, D] with the same width.
        """
        spans = np.zeros((len(self), 2), np.int64)
        room = np.zeros(len(self), np.int64)
        repaired = vectors = 0
        for index in range(len(self)):
            if self.values[index] is None:  # the sample lacks the modality
                continue
            array, count, vector = self._repaired(index)
            vectors += vector
            repaired += count
            if array.ndim != 2 or array.shape[1] == 0 or self.width not in (0, array.shape[1]):
                raise UserError(
                    f"{self.file}: `{self.key}` of split `{self.where}` must be [N, T, D] with the same D; sample {index} has shape "
                    f"{list(np.shape(self.values[index]))}" + (f", earlier ones have width {self.width}" if self.width else "")
                )
            self.width = array.shape[1]
            room[index] = len(array)
            filled = np.flatnonzero(array.any(axis=1))
            if len(filled):
                spans[index] = filled[0], filled[-1] + 1
        if vectors:
            findings.note(f"{self.where}/{self.key}", "one vector per sample, read as sequences of one frame", vectors)
        return spans, room, repaired

    def cut(self, spans: Spans) -> Iterator[np.ndarray | None]:
        """Each sample's frames within its span; None if there are none."""
        for index, (start, stop) in enumerate(spans):
            yield self[index][start:stop] if stop > start else None


def finite_only(array: np.ndarray) -> tuple[np.ndarray, int]:
    """The values with 0 in place of NaN and infinity, and how many these were."""
    finite = np.isfinite(array)
    return (array, 0) if finite.all() else (np.where(finite, array, np.float32(0)), int((~finite).sum()))


# If more than this share of samples has content beyond the stated lengths, the lengths belong to another array and are not used.
IMPLAUSIBLE_SHARE = 0.05
# If more than this share of annotations contradicts the sign of the label, the labels are in another order.
DISORDER_SHARE = 0.2


def check_labels(values: Any, key: str, where: str, file: str, count: int | None) -> np.ndarray:
    """The labels as [N] float32, NaN if unknown.

    Raises:
        UserError: they are not numbers, or not one per sample.
    """
    try:
        labels = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"{file}: `{key}` of split `{where}` contains something other than numbers") from error
    if labels.ndim > 1:
        labels = labels.reshape(len(labels), -1) if labels.size else labels.reshape(-1)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or (count is not None and len(labels) != count):
        wanted = f"[{count}]" if count is not None else "[N]"
        raise UserError(f"{file}: `{key}` of split `{where}` has shape {list(np.shape(values))}, not {wanted}: one number per sample")
    return np.where(np.isfinite(labels), labels, np.float32(np.nan)).astype(np.float32)


def check_label_range(
    splits: Mapping[str, LabelledSplit], label_range: tuple[float, float], dataset: str, file: str, findings: Findings | None = None
) -> None:
    """Check that all labels, unimodal ones too, are within the range of the dataset.

    Args:
        findings: where labels outside are reported if the range is only assumed from train.

    Raises:
        UserError: some are not, and the range is known.
    """
    low, high = label_range
    for name, split in splits.items():
        for key in ("label", "label_T", "label_A", "label_V"):
            labels = getattr(split, key)
            outside = 0 if labels is None else int(((labels < low - 1e-5) | (labels > high + 1e-5)).sum())
            if outside and findings is not None:
                what = f"values outside the range [{low:g}, {high:g}] of train's labels; set --label-range LOW HIGH if your scale is wider"
                findings.warn(f"{name}/{key}", what, outside)
            elif outside:
                fix = "check --label-range" if dataset == "custom" else "check --dataset, or use `--dataset custom`"
                raise UserError(
                    f"{file}: {outside} of the {len(split)} `{key}` values of split `{name}` are outside the range [{low:g}, {high:g}] "
                    f"of {dataset} (they are from {np.nanmin(labels):g} to {np.nanmax(labels):g}); {fix}"
                )


def check_annotations(annotations: Sequence[Any] | None, labels: np.ndarray, where: str, file: str, findings: Findings) -> None:
    """Compare labels with the annotations "Negative" and "Positive": labels of the opposite sign indicate a shifted column.

    Raises:
        UserError: too many contradict them, so labels and samples are in different orders.
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
    """The span of each sample's real frames: the stated lengths if they agree with the content, else without the all-zero frames at
    both ends. A sample whose frames are all zero lacks the modality: an empty span.

    Raises:
        UserError: `lengths` is not one integer per sample, or the features are not [N, T, D] with the same D.
    """
    spans, room, repaired = column.scan(findings)
    where_key = f"{column.where}/{column.key}"
    if repaired:
        findings.warn(where_key, "values that are NaN or infinite, replaced with 0", repaired)
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
            findings.note(where_key, "samples whose all-zero frames at the ends were treated as padding", cut)
        kept = spans
    else:
        kept = np.stack([np.zeros_like(stated), np.where(filled, stated, 0)], axis=1)
    absent = int((kept[:, 1] <= kept[:, 0]).sum())
    if 0 < absent < len(column):
        findings.note(where_key, "samples whose frames are all zero: treated as missing", absent)
    return kept


def _check_lengths(lengths: Any, column: FeatureColumn, room: np.ndarray, findings: Findings) -> np.ndarray:
    what = f"{column.file}: `{column.key}_lengths` of split `{column.where}`"
    try:
        stated = np.asarray(lengths, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} contains something other than numbers") from error
    if len(stated) != len(column) or not np.isfinite(stated).all():
        raise UserError(f"{what} has {len(stated)} numbers, but there are {len(column)} samples")
    if (stated > room).any():
        findings.warn(f"{column.where}/{column.key}_lengths", "lengths beyond the end of the arrays, shortened", int((stated > room).sum()))
    return np.clip(stated, 0, room).astype(np.int64)


def check_ids(splits: Mapping[str, LabelledSplit], findings: Findings) -> None:
    """Make ids unique within their split (learned labels are stored by id), and count those that occur in several splits."""
    for name, split in splits.items():
        seen: Counter[str] = Counter()
        repeated = 0
        for place, sample_id in enumerate(split.ids):
            seen[sample_id] += 1
            if seen[sample_id] > 1:
                repeated += 1
                split.ids[place] = f"{sample_id}#{seen[sample_id]}"
        if repeated:
            findings.warn(f"{name}/id", "ids that occur more than once, made unique with a number", repeated)
    names = list(splits)
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            common = len(set(splits[first].ids) & set(splits[second].ids))
            if common:
                findings.warn(f"{first}, {second}/id", "ids that occur in both splits", common)


def check_videos(splits: Mapping[str, LabelledSplit], dataset: str, file: str, findings: Findings) -> None:
    """Look for videos in two splits: MOSI and MOSEI are split by video, CH-SIMS is not.

    Raises:
        UserError: MOSI or MOSEI has some, so the file's splits are not the published ones.
    """
    names = list(splits)
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            common = sorted(set(splits[first].video_ids) & set(splits[second].video_ids))
            if not common:
                continue
            if dataset in ("mosi", "mosei"):
                raise UserError(
                    f"{file}: {len(common)} videos are in both `{first}` and `{second}` (`{common[0]}`), so these are not the published "
                    f"splits of {dataset}; use a file with those, or `--dataset custom`"
                )
            add = findings.note if dataset.startswith("sims") else findings.warn
            add(f"{first}, {second}/id", "videos that are in both splits", len(common))


def check_enough(splits: Mapping[str, LabelledSplit], file: str, findings: Findings) -> None:
    """Check the number of training samples, and count labels that are all equal.

    Raises:
        UserError: there are fewer than two training samples.
    """
    train = splits["train"]
    if len(train) < 2:
        raise UserError(f"{file}: split `train` has {counted(len(train), 'labelled sample')}; training needs at least two")
    for name, split in splits.items():
        if len(split) == 1:
            findings.warn(f"{name}/label", "a single sample: correlation is undefined", 1)
        elif float(np.ptp(split.label)) == 0:
            findings.warn(f"{name}/label", "labels that are all equal: correlation is undefined", len(split))


def check_learnable(train: LabelledSplit, file: str) -> None:
    """Check that there is something to learn.

    Raises:
        UserError: all training samples have the same label.
    """
    if float(np.ptp(train.label)) == 0:
        raise UserError(f"{file}: all {len(train)} labels of split `train` are {train.label[0]:g}, so there is nothing to learn")


def drop_unlabelled(split: LabelledSplit, name: str, findings: Findings) -> LabelledSplit:
    """The samples with a label; the transcripts of the others can still be context."""
    known = np.isfinite(split.label)
    if known.all():
        return split
    findings.warn(f"{name}/label", "samples without a label, dropped", int((~known).sum()))
    rest = split.select(np.flatnonzero(~known))
    split.unlabelled = [(turn, text) for turn, text in zip(rest.turns or (), rest.text or (), strict=False) if turn is not None]
    return split.select(np.flatnonzero(known))
