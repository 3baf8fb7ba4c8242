"""Several utterance datasets read as one."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from preprocessing.remask import UNFINISHED
from preprocessing.schema import DatasetInfo, Utterance
from preprocessing.store import UtteranceDataset
from skesl_mug.errors import UserError


class Corpora:
    """Several utterance datasets read as one; their feature columns must agree.

    Raises:
        UserError: a folder holds no dataset, or one whose masks are half made anew, none has a row, or their features differ.
    """

    def __init__(self, folders: Sequence[str | Path]):
        self.sources = [UtteranceDataset(folder) for folder in folders]
        for source in self.sources:
            if (source.info.lexicon or {}).get(UNFINISHED):
                raise UserError(f"{source.folder}: its masks are of two lexicons, because preprocessing.remask was stopped; run it again")
        self._starts = np.concatenate([[0], np.cumsum([len(source) for source in self.sources])])
        if not len(self):
            raise UserError(f"{', '.join(map(str, folders))}: holds no utterances; look at the skip reasons in its dataset.json")
        first = self.sources[0]
        for name in ("audio", "vision"):
            for other in self.sources[1:]:
                if _column_names(other.info, name) != _column_names(first.info, name):
                    raise UserError(
                        f"{other.folder}: its {name} columns are not those of {first.folder}; make both with the same --{name} features"
                    )

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, row: int) -> Utterance:
        source = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self.sources[source][row - int(self._starts[source])]

    def chunks(self, names: list[str], rows: int) -> Iterator[tuple[int, dict[str, list[Any]]]]:
        """Some columns of all datasets, at most so many rows at a time, each with the number of its first row."""
        for source, start in zip(self.sources, self._starts, strict=False):
            for first in range(0, len(source), rows):
                yield int(start) + first, source.columns(names, first, first + rows)

    def width(self, name: str) -> int:
        """Width of `audio` or `vision`; 0: no dataset has it."""
        return len(_column_names(self.sources[0].info, name))


def _column_names(info: DatasetInfo, name: str) -> list[str]:
    feature = getattr(info, name)
    return [] if feature is None else [column["name"] for column in feature.columns]
