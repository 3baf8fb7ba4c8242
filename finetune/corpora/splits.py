"""Labelled corpora in memory: what readers return and fine-tuning uses."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from finetune.corpora.mapped_file import JoinedFrames, MappedFrames
from preprocessing.schema import DatasetInfo
from skesl_mug.errors import UserError
from skesl_mug.wording import counted

LABEL_RANGES: dict[str, tuple[float, float]] = {"mosi": (-3.0, 3.0), "mosei": (-3.0, 3.0), "sims": (-1.0, 1.0), "simsv2": (-1.0, 1.0)}
DATASETS = (*LABEL_RANGES, "custom")
DRAWS = 50
"""Random divisions to choose from, for a development split close to the requested share."""

ItemT = TypeVar("ItemT")
ValuesT = TypeVar("ValuesT")
FrameSequence: TypeAlias = Sequence[np.ndarray | None]
"""The features of each sample: a list of arrays [T, D], `MappedFrames` or `JoinedFrames`."""
Place: TypeAlias = tuple[float, ...]
"""Start in seconds, clip number, or both: of two utterances of a recording, the earlier one has the smaller place."""


class Turn(NamedTuple):
    """Where an utterance is: its recording (a video, or one channel of it) and its place there."""

    recording: str
    place: Place


@dataclass(frozen=True)
class Finding:
    """A result of the data checks: `severity` is "note" or "warning", `where` a split and key ("train/audio")."""

    severity: str
    where: str
    what: str
    count: int


class Findings(list[Finding]):
    """The findings of one file, in order."""

    def note(self, where: str, what: str, count: int) -> None:
        """Add information that does not affect the data."""
        self.append(Finding("note", where, what, int(count)))

    def warn(self, where: str, what: str, count: int) -> None:
        """Add something that was fixed, dropped or looks wrong."""
        self.append(Finding("warning", where, what, int(count)))


def pick_frames(frames: FrameSequence | None, indices: Sequence[int]) -> FrameSequence | None:
    """The features of the samples at `indices`, in that order, without copying them."""
    if frames is None:
        return None
    return frames.select(indices) if isinstance(frames, (MappedFrames, JoinedFrames)) else [frames[index] for index in indices]


@dataclass(repr=False)
class LabelledSplit:
    """One split with N samples. A modality that no sample has is None; one that a single sample lacks is None in its list.

    `label` [N] float32 in label units; `text` the raw transcripts ("" if a sample has none); `tokens` the file's own token ids, if they
    were requested; `text_vectors` what a file without transcripts has instead, such as GloVe's; `text_vectors`, `audio` and `vision` are
    one float32 array [T, D] per sample without padding; `label_T`, `label_A`, `label_V` [N] float32, NaN if unknown. `turns` say where in
    its video each sample is (None if unknown), `unlabelled` are transcripts of samples without a label, and `context` is, with --context,
    the transcripts of the samples before each, oldest first.
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
    text_vectors: FrameSequence | None = None
    turns: list[Turn | None] | None = None
    unlabelled: list[tuple[Turn, str]] = field(default_factory=list)
    context: list[tuple[str, ...]] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        present = [name for name in ("text", "text_vectors", "audio", "vision") if getattr(self, name) is not None]
        return f"LabelledSplit({counted(len(self), 'sample')}: {', '.join(present)})"

    def select(self, indices: Sequence[int] | np.ndarray) -> "LabelledSplit":
        """The samples at `indices`, in that order, without copying the features."""
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
            text_vectors=pick_frames(self.text_vectors, chosen),
            turns=pick(self.turns),
            unlabelled=self.unlabelled,
            context=pick(self.context),
        )

    def unimodal_labels(self, modality: str) -> np.ndarray | None:
        """The known labels of "text", "audio" or "vision" [N]; None if the corpus has none. For evaluation and the generator `human`."""
        return {"text": self.label_T, "audio": self.label_A, "vision": self.label_V}[modality]


def joined(first: LabelledSplit, second: LabelledSplit) -> LabelledSplit:
    """The samples of two splits of one corpus, without copying the features; what only one of them has is missing in the other."""
    missing: dict[str, Any] = {"text": "", "tokens": [], "context": [], "label_T": np.nan, "label_A": np.nan, "label_V": np.nan}
    values: dict[str, Any] = {}
    for each in fields(LabelledSplit):
        parts = [getattr(first, each.name), getattr(second, each.name)]
        if all(part is None for part in parts):
            values[each.name] = None
            continue
        one, other = ([missing.get(each.name)] * len(s) if part is None else part for s, part in zip((first, second), parts, strict=True))
        if each.name == "unlabelled":  # two parts of one split have the same ones
            values[each.name] = list(dict.fromkeys([*one, *other]))
        elif each.name in ("audio", "vision", "text_vectors"):
            values[each.name] = JoinedFrames([one, other])
        elif isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
            values[each.name] = np.concatenate([np.asarray(one, np.float32), np.asarray(other, np.float32)])
        else:
            values[each.name] = [*one, *other]
    return LabelledSplit(**values)


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


@dataclass(repr=False)
class LabelledCorpus:
    """A labelled corpus with the splits "train", "dev" (early stopping) and the evaluated one (`evaluated_on`: "test" or "valid").

    `label_range` is (lowest, highest) label; `audio_width` and `vision_width` are the numbers of feature columns, 0 if absent, and
    `text_width` that of the text vectors, 0 if text is transcripts; `synthetic` says whether all or part of the data was generated;
    `context` is the maximum number of earlier transcripts that are read before each.
    """

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
    synthetic: bool = False
    findings: list[Finding] = field(default_factory=list)
    info: DatasetInfo | None = None
    text_width: int = 0
    context: int = 0

    def __repr__(self) -> str:
        low, high = self.label_range
        sizes = ", ".join(f"{name} {len(split):,}" for name, split in self.splits.items())
        return f"LabelledCorpus({self.dataset}: {sizes}; {', '.join(self.modalities)}; labels from {low:g} to {high:g})"

    @property
    def scale(self) -> LabelScale:
        """Its labels' scale."""
        return LabelScale(*self.label_range)

    @property
    def has_text(self) -> bool:
        """Whether there are transcripts, or text vectors."""
        return self.splits["train"].text is not None or self.text_width > 0

    @property
    def modalities(self) -> tuple[str, ...]:
        """The available modalities, in the order "text", "audio", "vision"."""
        present = {"text": self.has_text, "audio": self.audio_width > 0, "vision": self.vision_width > 0}
        return tuple(name for name, there in present.items() if there)

    def describe(self) -> dict[str, Any]:
        """The entry `data` of a run's `results.json`."""
        how = self.info.corpus.get("how") if self.info else None
        return {
            "name": self.known_as or (self.info.corpus.get("name") if self.info else None) or Path(self.source).name,
            "source": Path(self.source).name,
            "synthetic": self.synthetic,
            "how": how,
            "label_range": list(self.label_range),
            "modalities": list(self.modalities),
            "text_width": self.text_width,
            **({"context": self.context} if self.context else {}),
            "counts": {name: len(split) for name, split in self.splits.items()},
            "findings": [vars(finding) for finding in self.findings],
        }


def carve_by_video(split: LabelledSplit, share: float, seed: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """Divide the samples of a split into two parts without a common video, the second of which is close to `share` of them.

    The split depends on `seed` only, not on the seeds of a run, so that all runs stop early on the same samples. If there is only one
    video, samples are drawn instead.

    Returns:
        The indices of both parts [n], and whether complete videos were drawn.
    """
    from sklearn.model_selection import GroupShuffleSplit  # imported here because it takes a second

    count, videos = len(split), len(set(split.video_ids))
    if count < 2:
        return np.arange(count), np.arange(0), False
    by_video = videos > 1
    groups = np.asarray(split.video_ids) if by_video else np.arange(count)
    number = videos if by_video else count
    size = min(max(1, round(share * number)), number - 1)
    draws = GroupShuffleSplit(DRAWS, test_size=size, random_state=seed).split(groups, groups=groups)
    rest, carved = min(draws, key=lambda parts: abs(len(parts[1]) - share * count))
    return rest, carved, by_video


def check_dataset_name(dataset: str) -> None:
    """Check the name of a dataset.

    Raises:
        UserError: it is unknown.
    """
    if dataset not in DATASETS:
        raise UserError(f"--dataset {dataset}: unknown dataset; choose from {', '.join(DATASETS)}")
