"""Sequences of unlike lengths stacked into one tensor, with a mask that says what is real."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def pad_frames(sequences: Sequence[np.ndarray | None]) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Stack feature sequences [T_i, D] into [B, T, D] (float32, zeros behind the end) with a mask [B, T] (1: a real frame).

    An absent sequence (None or of length 0) is a row whose mask is all zero; where all are absent the answer is (None, None).
    Frames with a value that is not finite are left out of the mask.
    """
    lengths = [0 if row is None else len(row) for row in sequences]
    if not any(lengths):
        return None, None
    width = next(row.shape[1] for row in sequences if row is not None and len(row))
    padded = np.zeros((len(lengths), max(lengths), width), np.float32)
    mask = np.zeros((len(lengths), max(lengths)), np.int64)
    for place, row in enumerate(sequences):
        if row is not None and len(row):
            finite = np.isfinite(row).all(axis=1)
            padded[place, : len(row)] = np.where(finite[:, None], row, 0.0)
            mask[place, : len(row)] = finite
    return torch.from_numpy(padded), torch.from_numpy(mask)


def pad_tokens(token_lists: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Stack token lists into ids [B, L] and an attention mask [B, L]."""
    longest = max((len(row) for row in token_lists), default=0)
    ids = torch.full((len(token_lists), longest), pad_id, dtype=torch.long)
    mask = torch.zeros(len(token_lists), longest, dtype=torch.long)
    for place, row in enumerate(token_lists):
        ids[place, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[place, : len(row)] = 1
    return ids, mask


def pad_text_states(states: Sequence[Tensor]) -> Tensor:
    """Stack states [L_i, D] into [B, L, D], zeros behind the end."""
    return torch.nn.utils.rnn.pad_sequence(list(states), batch_first=True)
