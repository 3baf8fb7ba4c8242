"""Validation splits without an overlap in speakers."""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import GroupShuffleSplit

from skesl_mug.errors import UserError
from skesl_mug.wording import counted

SMALLEST_TRAIN = 4
SMALLEST_VALID = 2
LARGEST_SHARE = 0.4
DRAWS = 16
"""Random splits among which the one of the wanted size is chosen: groups differ in size."""


class HeldOutSplit(NamedTuple):
    """Indices [N_train] and [N_valid], what keeps them apart ("speaker", "video" or "utterance"), and how many speakers are unknown."""

    train: np.ndarray
    valid: np.ndarray
    by: str
    unknown_speakers: int


def hold_out(
    speakers: Sequence[Hashable] | np.ndarray,
    videos: Sequence[Hashable] | np.ndarray,
    share: float,
    seed: int,
    skipped: Mapping[str, int] | None = None,
) -> HeldOutSplit:
    """Hold out whole speakers for validation; whole videos, or single utterances, where there are too few speakers or videos.

    An utterance without a speaker belongs to the known speaker of its video, if there is one; otherwise its video counts as a speaker.
    Each utterance without a video counts as one video.

    Args:
        speakers, videos: one entry per utterance; an empty name or 0 means unknown.
        share: approximate share of the utterances to hold out.
        seed: random seed of the split.
        skipped: number of unusable utterances by reason, for the error message.

    Raises:
        UserError: there are too few utterances.
    """
    count = len(speakers)
    if count < SMALLEST_TRAIN + SMALLEST_VALID:
        left_out = "".join(f", {number} {reason.replace('_', ' ')}" for reason, number in (skipped or {}).items())
        fix = " or --all-splits" if any(reason.startswith("split_") for reason in skipped or {}) else ""
        raise UserError(
            f"--data: {counted(count, 'usable utterance')}{left_out}; training and validation need at least "
            f"{SMALLEST_TRAIN + SMALLEST_VALID}: give more data{fix}"
        )
    speaker, video = _numbered(speakers), _numbered(videos)
    unknown = speaker == 0
    by_video = np.where(video > 0, video, video.max() + 1 + np.arange(count))
    levels = [("video", by_video)] if video.any() else []
    if not unknown.all():
        speaker_of = np.zeros(video.max() + 1, np.int64)
        speaker_of[video[~unknown][::-1]] = speaker[~unknown][::-1]
        speaker_of[0] = 0
        speaker = np.where(unknown, speaker_of[video], speaker)
        levels.insert(0, ("speaker", np.where(speaker > 0, speaker, speaker.max() + 1 + by_video)))
    for by, groups in [*levels, ("utterance", np.arange(count))]:
        split = _split(groups, share, seed)
        if split is not None:
            return HeldOutSplit(*split, by, int(unknown.sum()))
    raise AssertionError("single utterances can always be held out")


def _numbered(names: Sequence[Hashable] | np.ndarray) -> np.ndarray:
    """The names as numbers from 1; 0 where the name is empty."""
    known = np.array([bool(name) for name in names])
    return np.where(known, np.unique(np.asarray(names), return_inverse=True)[1] + 1, 0)


def _split(groups: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The indices of both sides, of which the second is close to `share` of all; None where the groups are too few or too large."""
    count, number = len(groups), len(np.unique(groups))
    if number < 2:
        return None
    wanted = max(SMALLEST_VALID, round(share * count))
    test_size = wanted if number == count else max(1, round(share * number))
    splitter = GroupShuffleSplit(1 if number == count else DRAWS, test_size=test_size, random_state=seed)
    train, valid = min(splitter.split(groups, groups=groups), key=lambda sides: abs(len(sides[1]) - wanted))
    most = max(SMALLEST_VALID, max(LARGEST_SHARE, share) * count + 1)
    return (train, valid) if SMALLEST_VALID <= len(valid) <= most else None


def thin_zeros(intensities: np.ndarray, members: np.ndarray, share: float, seed: int) -> np.ndarray:
    """The members [N] without randomly chosen ones of intensity 0, so that the share of those is at most `share`."""
    zero = intensities[members] == 0
    others = int((~zero).sum())
    allowed = int(others * share / (1.0 - share))
    if zero.sum() <= allowed:
        return members
    kept = np.random.default_rng((seed, 1)).permutation(np.flatnonzero(zero))[:allowed]
    keep = ~zero
    keep[kept] = True
    return np.asarray(members[keep])
