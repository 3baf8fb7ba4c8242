"""Training and validation samples: utterances with masked words, read from memory-mapped shards, and rated sentences."""

import copy
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from accelerate import Accelerator
from torch.utils.data import ConcatDataset, Dataset

from lexicons.rated import RatedTexts, load_rated
from pretrain.batches import MaskedSample, real_frames
from pretrain.holdout import hold_out, thin_zeros
from pretrain.options import DISTIL, RATED, WORD, ObjectiveOptions, PretrainOptions
from pretrain.rating import rater_folder, teacher_scores
from pretrain.run_folder import MASKED_TEXTS
from pretrain.selection import JoinedDatasets, MaskingOptions, Selection, select
from pretrain.text_states import TextStateCache
from pretrain.tokens import MaskedText, tokenise

STATISTICS_SAMPLE = 2000


class MaskedUtterances(Dataset[MaskedSample]):
    """Samples of a selection, for a DataLoader with `MaskedCollator`.

    Args:
        dataset: source of the features.
        selection: the usable rows.
        members: places in the selection of the samples of this data set, [N].
        max_audio_frames, max_vision_frames: maximum lengths; later frames are cut.
        cache: states of the masked tokens from a frozen text encoder, one entry per sample of the selection.
        donors: sample i takes audio and vision from sample `donors[i]` of this data set (control with permuted modalities).
        word_weight: weight of the masked words' intensities.
        ratings: one label per utterance of the selection (a teacher's score of its transcript), weighted by `rating_weight`.
    """

    def __init__(
        self,
        dataset: JoinedDatasets,
        selection: Selection,
        members: np.ndarray,
        max_audio_frames: int,
        max_vision_frames: int,
        cache: TextStateCache | None = None,
        donors: np.ndarray | None = None,
        word_weight: float = 1.0,
        ratings: np.ndarray | None = None,
        rating_weight: float = 1.0,
    ):
        self.dataset = dataset
        self.selection = selection
        self.members = members
        self.max_audio_frames = max_audio_frames
        self.max_vision_frames = max_vision_frames
        self.cache = cache
        self.donors = donors
        self.word_weight = word_weight
        self.ratings = ratings
        self.rating_weight = rating_weight

    def __len__(self) -> int:
        return len(self.members)

    @property
    def costs(self) -> np.ndarray:
        """Cost of each sample in a batch, float32 [N]."""
        return np.asarray(self.selection.costs[self.members])

    @property
    def intensities(self) -> np.ndarray:
        """Intensity of each sample's first masked word, float32 [N]."""
        return np.asarray(self.selection.intensities[self.members])

    @property
    def labels(self) -> np.ndarray:
        """Rating of each utterance, float32 [N]."""
        assert self.ratings is not None
        return np.asarray(self.ratings[self.members])

    def with_donors(self, donors: np.ndarray) -> "MaskedUtterances":
        """The same samples with audio and vision of other samples."""
        other = copy.copy(self)
        other.donors = donors
        return other

    def features(self, index: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Audio [Ta, Da] and vision [Tv, Dv] of a sample, None where absent. Frames without a face are left out."""
        utterance = self.dataset[int(self.selection.rows[self.members[index]])]
        audio = real_frames(utterance.audio, None, self.max_audio_frames)
        return audio, real_frames(utterance.vision, utterance.vision_valid, self.max_vision_frames)

    def feature_sample(self, seed: int, limit: int = STATISTICS_SAMPLE) -> Iterator[dict[str, np.ndarray | None]]:
        """Features of up to `limit` randomly chosen samples, for `feature_statistics`."""
        for index in np.sort(np.random.default_rng(seed).permutation(len(self))[:limit]):
            audio, vision = self.features(int(index))
            yield {"audio": audio, "vision": vision}

    def __getitem__(self, index: int) -> MaskedSample:
        member = int(self.members[index])
        positions = self.selection.positions(member)
        cached = self.cache is not None
        text = MaskedText([], positions).masked_words_only() if cached else self.selection.text(member)
        audio, vision = self.features(index if self.donors is None else int(self.donors[index]))
        targets, weights = self.selection.targets(member), self.selection.weights(member)
        if self.word_weight != 1.0:
            weights = tuple(self.word_weight * weight for weight in weights or (1.0,) * len(targets))
        return MaskedSample(
            index=index,
            text=text,
            intensities=targets,
            weights=weights,
            rating=math.nan if self.ratings is None else float(self.ratings[member]),
            rating_weight=self.rating_weight,
            audio=audio,
            vision=vision,
            text_states=None if self.cache is None else self.cache[member],
        )


class RatedSentences(Dataset[MaskedSample]):
    """Rated texts, without masked words, audio or vision.

    Args:
        token_lists: token ids with special tokens.
        labels: ratings in label units, float32 [N].
        weights: weight of each sentence's error, float32 [N].
    """

    def __init__(self, token_lists: list[list[int]], labels: np.ndarray, weights: np.ndarray):
        self.token_lists = token_lists
        self.labels = labels
        self.weights = weights

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def costs(self) -> np.ndarray:
        """Cost of each sample in a batch, its number of tokens, float32 [N]."""
        return np.array([len(tokens) for tokens in self.token_lists], np.float32)

    def __getitem__(self, index: int) -> MaskedSample:
        text = MaskedText(self.token_lists[index], ())
        return MaskedSample(index, text, (), rating=float(self.labels[index]), rating_weight=float(self.weights[index]))


class Mixture(ConcatDataset[MaskedSample]):
    """Utterances and rated sentences as one data set."""

    def __init__(self, parts: Sequence[MaskedUtterances | RatedSentences]):
        super().__init__(parts)
        self.costs = np.concatenate([part.costs for part in parts])


Samples = MaskedUtterances | RatedSentences | Mixture


@dataclass
class HeldOut:
    """Validation samples; None where the run has none of that kind."""

    utterances: MaskedUtterances | None = None
    sentences: RatedSentences | None = None

    def kinds(self, objective: ObjectiveOptions) -> list[str]:
        """The objectives that can be scored on these samples; the first one is the main result and has the controls."""
        weights = vars(objective)
        kinds = [WORD, DISTIL] if self.utterances is not None else []
        kinds += [RATED] if self.sentences is not None else []
        return [kind for kind in kinds if weights[kind] > 0]

    def fingerprint(self) -> str:
        """Identifies the validation samples."""
        digest = hashlib.sha256()
        if self.utterances is not None:
            digest.update(np.asarray(self.utterances.selection.rows[self.utterances.members], np.int64).tobytes())
        if self.sentences is not None:
            digest.update(repr(self.sentences.token_lists).encode())
        return digest.hexdigest()[:16]

    def data(self, kind: str) -> MaskedUtterances | RatedSentences:
        """The samples on which an objective is scored."""
        found = self.sentences if kind == RATED else self.utterances
        assert found is not None
        return found


@dataclass
class TrainingData:
    """All samples of a run and how they were split.

    `split_by` names the grouping by kind of sample ("utterances", "sentences"), `unknown_speakers` counts utterances without a speaker,
    `teacher` is the run that scored the transcripts, if any.
    """

    dataset: JoinedDatasets | None = None
    selection: Selection | None = None
    rated: RatedTexts | None = None
    train_utterances: MaskedUtterances | None = None
    train_sentences: RatedSentences | None = None
    held: HeldOut = field(default_factory=HeldOut)
    split_by: dict[str, str] = field(default_factory=dict)
    unknown_speakers: int = 0
    teacher: str | None = None

    @property
    def train(self) -> Samples:
        """The training samples as one data set."""
        parts = [part for part in (self.train_utterances, self.train_sentences) if part is not None]
        return parts[0] if len(parts) == 1 else Mixture(parts)

    def width(self, modality: str) -> int:
        """Number of columns of `audio` or `vision`; 0 if absent."""
        return self.dataset.width(modality) if self.dataset is not None else 0


def load_data(accelerator: Accelerator, tokenizer: Any, options: PretrainOptions, teacher: str | None = None) -> TrainingData:
    """Select and mask the usable utterances, read the rated sentences, and hold out speakers and documents for validation.

    Raises:
        UserError: a dataset, the rated sentences or the teacher cannot be used.
    """
    data = TrainingData(teacher=teacher)
    if teacher is not None:
        rater_folder(teacher)  # fail before reading large files
    if options.objective.rated:
        load_sentences(data, accelerator, tokenizer, options)
    if options.data:
        load_utterances(data, accelerator, tokenizer, options)
    return data


def load_utterances(data: TrainingData, accelerator: Accelerator, tokenizer: Any, options: PretrainOptions) -> None:
    """Add the utterances of --data."""
    masking = MaskingOptions(
        max_tokens=options.max_tokens,
        one_token=options.one_mask_token,
        context=options.context_intensity,
        all_splits=options.all_splits,
        masks_per_row=options.objective.masks,
        confidence=options.objective.confidence,
    )
    ratings = None
    with accelerator.main_process_first():  # opening a dataset may convert it
        dataset = JoinedDatasets(options.data)
        selection = select(dataset, tokenizer, options.output / MASKED_TEXTS, masking, accelerator.is_local_main_process)
        if data.teacher is not None:
            folder = options.output / MASKED_TEXTS
            ratings = teacher_scores(data.teacher, dataset, selection, folder, accelerator, options.max_tokens)
    share = _valid_share(options, len(selection))
    train, valid, split_by, data.unknown_speakers = hold_out(selection.speakers, selection.videos, share, options.seed, selection.skipped)
    if options.objective.zero_share is not None:
        kept = thin_zeros(selection.intensities, train, options.objective.zero_share, options.seed)
        if len(kept) < len(train):
            selection.skipped["zero_intensity_beyond_share"] = len(train) - len(kept)
        train = kept

    def samples(members: np.ndarray) -> MaskedUtterances:
        return MaskedUtterances(
            dataset,
            selection,
            members,
            options.max_audio_frames,
            options.max_vision_frames,
            word_weight=options.objective.word,
            ratings=ratings,
            rating_weight=options.objective.distil,
        )

    data.dataset, data.selection = dataset, selection
    data.train_utterances, data.held.utterances = samples(train), samples(valid)
    data.split_by["utterances"] = split_by


def load_sentences(data: TrainingData, accelerator: Accelerator, tokenizer: Any, options: PretrainOptions) -> None:
    """Add the rated sentences of --rated, split by document and weighted by the agreement of their raters."""
    with accelerator.main_process_first():
        rated = load_rated(options.rated, options.rated_range)
    token_lists = tokenise(rated.texts, tokenizer, options.max_tokens)
    weights = options.objective.rated * agreement(rated.spreads)
    share = _valid_share(options, len(rated.texts))
    train, valid, split_by, _ = hold_out([""] * len(rated.texts), rated.groups, share, options.seed)

    def samples(members: np.ndarray) -> RatedSentences:
        return RatedSentences([token_lists[place] for place in members], rated.scores[members], weights[members].astype(np.float32))

    data.rated = rated
    data.train_sentences, data.held.sentences = samples(train), samples(valid)
    data.split_by["sentences"] = {"video": "document", "utterance": "sentence"}[split_by]


def _valid_share(options: PretrainOptions, count: int) -> float:
    return min(options.valid_share, options.valid_most / count) if options.valid_most and count else options.valid_share


def agreement(spreads: np.ndarray) -> np.ndarray:
    """Weight of each sentence [N], with mean 1: 1 / (1 + variance of its ratings), or the average weight where that is unknown."""
    weights = 1.0 / (1.0 + np.nan_to_num(np.asarray(spreads, np.float64)) ** 2)
    weights[np.isnan(spreads)] = np.mean(weights[~np.isnan(spreads)]) if not np.isnan(spreads).all() else 1.0
    return np.asarray(weights / weights.mean())
