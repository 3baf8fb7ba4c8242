"""The labelled corpora's common form: what every reader gives and every stage of fine-tuning takes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np

from finetune.corpora.mapped_file import MappedFrames
from preprocessing.schema import DatasetInfo
from skesl_mug.errors import UserError

LABEL_RANGES: dict[str, tuple[float, float]] = {"mosi": (-3.0, 3.0), "mosei": (-3.0, 3.0), "sims": (-1.0, 1.0), "simsv2": (-1.0, 1.0)}
DATASETS = (*LABEL_RANGES, "custom")
SPLIT_ALIASES = {"train": "train", "valid": "valid", "test": "test", "dev": "valid", "val": "valid", "validation": "valid"}

ItemT = TypeVar("ItemT")
ValuesT = TypeVar("ValuesT")
FrameSequence: TypeAlias = Sequence[np.ndarray | None]
"""Features a sample: a list of arrays, or `MappedFrames`."""


@dataclass(frozen=True)
class Finding:
    """One thing that reading the data brought to light: `severity` is "note" or "warning", `where` a split and key ("train/audio")."""

    severity: str
    where: str
    what: str
    count: int


class Findings(list[Finding]):
    """The findings of one file, in the order they were made."""

    def note(self, where: str, what: str, count: int) -> None:
        """Add something worth knowing that changes nothing."""
        self.append(Finding("note", where, what, int(count)))

    def warn(self, where: str, what: str, count: int) -> None:
        """Add something that was repaired, dropped or looks wrong."""
        self.append(Finding("warning", where, what, int(count)))


def pick_frames(frames: FrameSequence | None, indices: Sequence[int]) -> FrameSequence | None:
    """The features of the samples at `indices`, in that order; shared, not copied."""
    if frames is None:
        return None
    return frames.select(indices) if isinstance(frames, MappedFrames) else [frames[index] for index in indices]


@dataclass
class LabelledSplit:
    """One split with N samples. A modality that the file lacks is None as a whole; one that a sample lacks is None in its list.

    `label` [N] float32 in label units; `text` the raw transcripts ("" where a sample has none); `tokens` the file's own token ids where
    they were asked for; `audio` and `vision` one float32 array [T, D] a sample, real frames only (padding removed); `label_T`, `label_A`,
    `label_V` [N] float32, NaN where unknown.
    """

    ids: list[str]
    video_ids: list[str]
    label: np.ndarray
    text: list[str] | None = None
    audio: FrameSequence | None = None
    vision: FrameSequence | None = None
    label_T: np.ndarray | None = None  # noqa: N815 - the corpora's own names
    label_A: np.ndarray | None = None  # noqa: N815
    label_V: np.ndarray | None = None  # noqa: N815
    tokens: list[list[int]] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, indices: Sequence[int] | np.ndarray) -> "LabelledSplit":
        """The samples at `indices`, in that order; the feature arrays are shared, not copied."""
        chosen = [int(index) for index in indices]

        def pick(items: list[ItemT] | None) -> list[ItemT] | None:
            return None if items is None else [items[index] for index in chosen]

        def pick_labels(labels: np.ndarray | None) -> np.ndarray | None:
            return None if labels is None else labels[chosen]

        return LabelledSplit(
            ids=[self.ids[index] for index in chosen],
            video_ids=[self.video_ids[index] for index in chosen],
            label=self.label[chosen],
            text=pick(self.text),
            audio=pick_frames(self.audio, chosen),
            vision=pick_frames(self.vision, chosen),
            label_T=pick_labels(self.label_T),
            label_A=pick_labels(self.label_A),
            label_V=pick_labels(self.label_V),
            tokens=pick(self.tokens),
        )

    def unimodal_labels(self, modality: str) -> np.ndarray | None:
        """The known labels of "text", "audio" or "vision" [N], None where the corpus has none. For comparison and `human` alone."""
        return {"text": self.label_T, "audio": self.label_A, "vision": self.label_V}[modality]


@dataclass(frozen=True)
class LabelScale:
    """How networks see labels: divided by the largest absolute value of their range, so that 0 stays 0 and no label exceeds 1."""

    low: float
    high: float

    @property
    def size(self) -> float:
        """What labels are divided by."""
        return max(abs(self.low), abs(self.high))

    def encode(self, labels: ValuesT) -> ValuesT:
        """Labels (a number, an array or a tensor) as the networks see them."""
        return labels / self.size  # type: ignore[operator, return-value]

    def decode(self, values: ValuesT) -> ValuesT:
        """What networks predict, in label units."""
        return values * self.size  # type: ignore[operator, return-value]


@dataclass
class LabelledCorpus:
    """A labelled corpus with its splits "train", "dev" (early stopping) and the one that is reported ("test" or "valid")."""

    dataset: str
    label_range: tuple[float, float]
    splits: dict[str, LabelledSplit]
    evaluated_on: str
    evaluated_on_note: str | None
    audio_width: int
    vision_width: int
    sha256: str
    source: str
    local: Path
    known_as: str | None = None
    made: bool = False
    findings: list[Finding] = field(default_factory=list)
    info: DatasetInfo | None = None

    @property
    def scale(self) -> LabelScale:
        """Its labels' scale."""
        return LabelScale(*self.label_range)

    @property
    def has_text(self) -> bool:
        """Whether there are transcripts."""
        return self.splits["train"].text is not None

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that are present, of "text", "audio", "vision" in this order."""
        present = {"text": self.has_text, "audio": self.audio_width > 0, "vision": self.vision_width > 0}
        return tuple(name for name, there in present.items() if there)

    def describe(self) -> dict[str, Any]:
        """The entry `data` of a run's `results.json`."""
        how = self.info.corpus.get("how") if self.info else None
        return {
            "name": self.known_as or (self.info.corpus.get("name") if self.info else None) or Path(self.source).name,
            "source": Path(self.source).name,
            "made": self.made,
            "how": how,
            "label_range": list(self.label_range),
            "modalities": list(self.modalities),
            "counts": {name: len(split) for name, split in self.splits.items()},
            "findings": [vars(finding) for finding in self.findings],
        }


def carve_by_video(split: LabelledSplit, share: float, seed: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """Divide a split's samples into (rest, carved) so that no video lies in both.

    Videos are drawn at random (by `seed` alone, never by a run's seed, so that all runs stop early on the same samples) as long as they
    bring the carved part closer to `share` of the samples. Where there is one video only, samples are drawn instead.

    Returns:
        the indices [n] of the rest, the indices of the carved part, and whether whole videos were drawn.
    """
    generator = np.random.default_rng(seed)
    videos = sorted(set(split.video_ids))
    target = share * len(split)
    by_video = len(videos) > 1
    groups = np.asarray(split.video_ids) if by_video else np.arange(len(split)).astype(str)
    order = generator.permutation(videos if by_video else groups)
    names, sizes = np.unique(groups, return_counts=True)
    size_of = dict(zip(names.tolist(), sizes.tolist(), strict=True))
    carved: set[str] = set()
    taken = 0
    for name in order.tolist():
        size = size_of[name]
        leaves_some = len(carved) + 1 < len(order)
        if leaves_some and abs(taken + size - target) < abs(taken - target):
            carved.add(name)
            taken += size
    if not carved and len(order) > 1:  # every video is larger than twice the target: the smallest will do
        carved.add(min(order.tolist(), key=lambda name: size_of[name]))
    inside = np.isin(groups, sorted(carved))
    return np.flatnonzero(~inside), np.flatnonzero(inside), by_video


def check_dataset_name(dataset: str) -> None:
    """Refuse a name that is no dataset's.

    Raises:
        UserError: with the names there are.
    """
    if dataset not in DATASETS:
        raise UserError(f"--dataset {dataset}: is not known; it is one of {', '.join(DATASETS)}")
