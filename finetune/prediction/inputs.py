"""Utterances as inputs of the network, exactly as fine-tuning reads them from an utterance dataset."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finetune.corpora.context import earlier_texts
from finetune.corpora.splits import Turn
from finetune.modalities import AUDIO, TEXT, VISION
from finetune.model.context import pad_places, pick_states, token_context
from finetune.model.networks import MugInputs, MugModel
from finetune.prediction.recipe import Recipe
from finetune.prediction.seed_average import AveragedModel
from preprocessing.schema import Utterance
from pretrain.batches import pad_frames, pad_tokens
from pretrain.tokens import tokenise

HALF_LIMIT = float(np.finfo(np.float16).max)


def network_inputs(
    utterances: Sequence[Utterance],
    network: MugModel | AveragedModel,
    tokenizer: Any,
    recipe: Recipe,
    without: Collection[str] = (),
    earlier: Sequence[Sequence[str]] = (),
) -> MugInputs:
    """One batch; features and the states of a frozen language model are rounded to float16 as in training.

    Args:
        utterances: the batch.
        network: the model that the inputs are for.
        tokenizer: its tokenizer.
        recipe: how its training data were read.
        without: modalities to leave out.
        earlier: the transcripts before each utterance, oldest first (see `earlier_in`); empty: none.
    """
    seen = [name for name in recipe.modalities if name not in without]
    texts = [utterance.text if TEXT in seen else "" for utterance in utterances]
    texts = [text.lower() for text in texts] if recipe.lower_case else texts
    tokens, own = tokenise(texts, tokenizer, recipe.max_text_tokens), None
    if recipe.context and TEXT in seen and any(earlier):
        before = [[text.lower() if recipe.lower_case else text for text in row] for row in earlier]
        context = token_context(before, tokens, tokenizer, recipe.max_text_tokens, recipe.context)
        own = pad_places([context.own_places(row, ids) for row, ids in enumerate(tokens)])
        tokens = [context.sequence(row, ids) for row, ids in enumerate(tokens)]
    ids, mask = pad_tokens(tokens, tokenizer.pad_token_id or 0)
    heard = [kept_frames(row.audio, None) if AUDIO in seen else None for row in utterances]
    looked = [kept_frames(row.vision, row.vision_valid) if VISION in seen else None for row in utterances]
    audio, audio_mask = pad_frames(heard)
    vision, vision_mask = pad_frames(looked)
    present = {
        TEXT: torch.tensor([bool(text.strip()) for text in texts]),
        AUDIO: torch.tensor([row is not None for row in heard]),
        VISION: torch.tensor([row is not None for row in looked]),
    }
    states = frozen_states(network, ids, mask) if recipe.frozen_lm else None
    if states is not None and own is not None:
        states = pick_states(states, own.to(states.device))
    return MugInputs(ids, mask, states, audio, audio_mask, vision, vision_mask, present, own_places=own)


def earlier_in(utterances: Sequence[Utterance], count: int) -> list[tuple[str, ...]]:
    """The last `count` transcripts before each utterance of a recording, oldest first; of the same channel, if each is read on its own."""
    return earlier_texts([Turn(row.speaker, (row.start,)) for row in utterances], [row.text for row in utterances], count)


@torch.no_grad()
def frozen_states(network: MugModel | AveragedModel, ids: Tensor, mask: Tensor) -> Tensor:
    """The language model's states [B, L, D], rounded as in the cache used with a frozen language model."""
    device = network.device
    states = network.encoder.text_states(ids.to(device), mask.to(device)).float()
    result: Tensor = states.clamp(-HALF_LIMIT, HALF_LIMIT).half().float() * mask.to(device).unsqueeze(-1)
    return result


def kept_frames(values: np.ndarray | None, valid: np.ndarray | None) -> np.ndarray | None:
    """Feature frames [T, D] as fine-tuning reads them from an utterance dataset: in float16 precision, without frames that have no
    face, non-finite values replaced with 0; None if nothing is left."""
    if values is None:
        return None
    rounded = np.clip(values, -HALF_LIMIT, HALF_LIMIT).astype(np.float16).astype(np.float32)
    if valid is not None:
        rounded = rounded[np.asarray(valid, bool)]
    if not rounded.any():
        return None
    return np.where(np.isfinite(rounded), rounded, np.float32(0))
