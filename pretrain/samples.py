"""Samples of the masked-intensity task, read row by row from the memory-mapped shards."""

import numpy as np
from torch.utils.data import Dataset

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
    ):
        self.corpora = corpora
        self.selection = selection
        self.members = members
        self.max_audio_frames = max_audio_frames
        self.max_vision_frames = max_vision_frames
        self.cache = cache
        self.donors = donors

    def __len__(self) -> int:
        return len(self.members)

    def features(self, index: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        """The audio [Ta, Da] and vision [Tv, Dv] of a sample; None where absent. Frames without a face are left out."""
        utterance = self.corpora[int(self.selection.rows[self.members[index]])]
        audio = real_frames(utterance.audio, None, self.max_audio_frames)
        return audio, real_frames(utterance.vision, utterance.vision_valid, self.max_vision_frames)

    def __getitem__(self, index: int) -> MaskedSample:
        member = int(self.members[index])
        positions = self.selection.positions(member)
        cached = self.cache is not None
        text = MaskedText([], positions).masked_words_only() if cached else self.selection.text(member)
        audio, vision = self.features(index if self.donors is None else int(self.donors[index]))
        return MaskedSample(
            index=index,
            text=text,
            intensities=self.selection.targets(member),
            weights=self.selection.weights(member),
            audio=audio,
            vision=vision,
            text_states=None if self.cache is None else self.cache[member],
        )


Statistics = tuple[np.ndarray, np.ndarray]


def feature_statistics(data: MaskedUtterances, seed: int, limit: int = STATISTICS_SAMPLE) -> dict[str, Statistics]:
    """Mean and standard deviation of every column over the frames of a seeded sample of utterances, by modality that occurs."""
    chosen = np.random.default_rng(seed).permutation(len(data))[:limit]
    sums: dict[str, list[np.ndarray | float]] = {}
    for index in np.sort(chosen):
        for name, frames in zip(("audio", "vision"), data.features(int(index)), strict=True):
            if frames is not None:
                wide = frames.astype(np.float64)
                count, total, squares = sums.get(name, [0.0, np.zeros(wide.shape[1]), np.zeros(wide.shape[1])])
                sums[name] = [count + len(wide), total + wide.sum(0), squares + (wide**2).sum(0)]
    statistics = {}
    for name, (count, total, squares) in sums.items():
        mean = np.asarray(total) / count
        variance = np.maximum(np.asarray(squares) / count - mean**2, 0.0)
        statistics[name] = (mean.astype(np.float32), np.sqrt(variance).astype(np.float32))
    return statistics
