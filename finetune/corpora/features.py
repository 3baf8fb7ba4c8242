"""A column of features as a file gives it, read one sample at a time: it may be larger than memory."""

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from finetune.corpora.mapped_file import RESIDENT_BYTES, map_beneath, release
from finetune.corpora.splits import Findings
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
