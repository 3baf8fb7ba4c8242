"""What is trained on: utterances with masked words, read row by row from the memory-mapped shards, and rated sentences."""

import copy
import math
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import ConcatDataset, Dataset

from pretrain.batches import MaskedSample, MaskedText, real_frames
from pretrain.corpora import Corpora
from pretrain.selection import Selection
from pretrain.text_cache import TextStateCache

STATISTICS_SAMPLE = 2000


class MaskedUtterances(Dataset[MaskedSample]):
    """Some samples of a selection, for a DataLoader with `MaskedCollator`.

    Args:
        corpora: where the features are read.
        selection: the usable rows.
        members: which of the selection's samples these are; sample i of this data set is `members[i]`.
        max_audio_frames, max_vision_frames: longest sequences.
        cache: a frozen text encoder's states of the masked pieces, one entry per sample of the selection.
        donors: sample i takes the audio and vision of sample `donors[i]` (of this data set), for the control with permuted modalities.
        word_weight: of the masked words' intensities; 0: they are no labels here.
        ratings: a label for each utterance of the selection as a whole (a teacher's score of its transcript), of weight `rating_weight`.
    """

    def __init__(
        self,
        corpora: Corpora,
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
        self.corpora = corpora
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
        """What each sample costs in a batch, float32 [N]."""
        return np.asarray(self.selection.costs[self.members])

    @property
    def intensities(self) -> np.ndarray:
        """The intensity of each sample's first masked word, float32 [N]."""
        return np.asarray(self.selection.intensities[self.members])

    @property
    def labels(self) -> np.ndarray:
        """The label of each sample as a whole, float32 [N]."""
        assert self.ratings is not None
        return np.asarray(self.ratings[self.members])

    def with_donors(self, donors: np.ndarray) -> "MaskedUtterances":
        """The same samples with the audio and vision of others."""
        other = copy.copy(self)
        other.donors = donors
        return other

    def features(self, index: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        """The audio [Ta, Da] and vision [Tv, Dv] of a sample; None where absent. Frames without a face are left out."""
        utterance = self.corpora[int(self.selection.rows[self.members[index]])]
        audio = real_frames(utterance.audio, None, self.max_audio_frames)
        return audio, real_frames(utterance.vision, utterance.vision_valid, self.max_vision_frames)

    def feature_sample(self, seed: int, limit: int = STATISTICS_SAMPLE) -> Iterator[dict[str, np.ndarray | None]]:
        """The features of up to `limit` randomly chosen samples, for `feature_statistics`."""
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
    """Texts with a rating each: no masked word, no audio, no vision.

    Args:
        token_lists: token ids with the special tokens.
        labels: the ratings in label units, float32 [N].
        weights: of each sentence's error, float32 [N].
    """

    def __init__(self, token_lists: list[list[int]], labels: np.ndarray, weights: np.ndarray):
        self.token_lists = token_lists
        self.labels = labels
        self.weights = weights

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def costs(self) -> np.ndarray:
        """What each sample costs in a batch, float32 [N]: its tokens."""
        return np.array([len(tokens) for tokens in self.token_lists], np.float32)

    def __getitem__(self, index: int) -> MaskedSample:
        text = MaskedText(self.token_lists[index], ())
        return MaskedSample(index, text, (), rating=float(self.labels[index]), rating_weight=float(self.weights[index]))


class Mixture(ConcatDataset[MaskedSample]):
    """Utterances and rated sentences in one data set, so that a batch holds both."""

    def __init__(self, parts: Sequence[MaskedUtterances | RatedSentences]):
        super().__init__(parts)
        self.costs = np.concatenate([part.costs for part in parts])


Samples = MaskedUtterances | RatedSentences | Mixture
