"""Holding out whole speakers for validation."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from skesl_mug.errors import UserError
from skesl_mug.wording import counted

SMALLEST_TRAIN = 4
SMALLEST_VALID = 2
LARGEST_SHARE = 0.4


def hold_out(
    speakers: Sequence[Hashable] | np.ndarray,
    videos: Sequence[Hashable] | np.ndarray,
    share: float,
    seed: int,
    skipped: Mapping[str, int] | None = None,
) -> tuple[np.ndarray, np.ndarray, str]:
    """Split samples so that no speaker is on both sides; by video, then by utterance, where there are too few speakers.

    Args:
        speakers, videos: one entry per sample; an empty speaker, or number 0, counts as unknown.
        share: of the samples to hold out, about.
        seed: of the choice.
        skipped: how many others are no samples, by reason; for the error.

    Returns:
        (training indices, validation indices, "speaker" | "video" | "utterance").

    Raises:
        UserError: too few samples to hold any out.
    """
    count = len(speakers)
    if count < SMALLEST_TRAIN + SMALLEST_VALID:
        left_out = "".join(f", {number} {reason.replace('_', ' ')}" for reason, number in (skipped or {}).items())
        mend = " or --all-splits" if any(reason.startswith("split_") for reason in skipped or {}) else ""
        raise UserError(
            f"--data: {counted(count, 'usable utterance')}{left_out}; to train and to validate takes "
            f"{SMALLEST_TRAIN + SMALLEST_VALID} usable ones: give more data{mend}"
        )
    for name, groups in (("speaker", speakers), ("video", videos), ("utterance", list(range(count)))):
        if name == "speaker" and not all(speakers):
            continue
        held = _choose(groups, share, seed)
        if SMALLEST_VALID <= held.sum() <= max(SMALLEST_VALID, max(LARGEST_SHARE, share) * count + 1):
            return np.flatnonzero(~held), np.flatnonzero(held), name
    raise AssertionError("single utterances can always be held out")


def _choose(groups: Sequence[Hashable] | np.ndarray, share: float, seed: int) -> np.ndarray:
    """Mark whole groups, in seeded order, until about `share` of the samples are marked."""
    names, inverse, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    wanted = max(SMALLEST_VALID, round(share * len(inverse)))
    chosen: list[int] = []
    total = 0
    for group in np.random.default_rng(seed).permutation(len(names)):
        if total >= wanted:
            break
        if abs(total + sizes[group] - wanted) <= wanted - total:  # taking it brings us nearer
            chosen.append(int(group))
            total += int(sizes[group])
    if total < SMALLEST_VALID:
        chosen = [int(place) for place in np.argsort(sizes, kind="stable")[:1]] if sizes.min() >= SMALLEST_VALID else chosen
    return np.isin(inverse, chosen)


def thin_zeros(intensities: np.ndarray, members: np.ndarray, share: float, seed: int) -> np.ndarray:
    """The members [N] without so many of those of intensity 0, chosen at random, that the rest are at most `share` of what is left."""
    zero = intensities[members] == 0
    others = int((~zero).sum())
    allowed = int(others * share / (1.0 - share))
    if zero.sum() <= allowed:
        return members
    kept = np.random.default_rng((seed, 1)).permutation(np.flatnonzero(zero))[:allowed]
    keep = ~zero
    keep[kept] = True
    return np.asarray(members[keep])
