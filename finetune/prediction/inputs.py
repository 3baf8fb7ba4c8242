"""Utterances as inputs of the network, exactly as fine-tuning reads them from an utterance dataset."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finetune.modalities import AUDIO, TEXT, VISION
from finetune.model.networks import MugInputs, MugModel
from finetune.prediction.recipe import Recipe
from finetune.prediction.seed_average import AveragedModel
from preprocessing.schema import Utterance
from pretrain.batches import pad_frames, pad_tokens
from pretrain.tokens import tokenise

HALF_LIMIT = float(np.finfo(np.float16).max)


def network_inputs(
    utterances: Sequence[Utterance], network: MugModel | AveragedModel, tokenizer: Any, recipe: Recipe, without: Collection[str] = ()
) -> MugInputs:
    """One batch, without some modalities; features and the states of a frozen language model are rounded to float16 as in training."""
    seen = [name for name in recipe.modalities if name not in without]
    texts = [utterance.text if TEXT in seen else "" for utterance in utterances]
    texts = [text.lower() for text in texts] if recipe.lower_case else texts
    ids, mask = pad_tokens(tokenise(texts, tokenizer, recipe.max_text_tokens), tokenizer.pad_token_id or 0)
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
    return MugInputs(ids, mask, states, audio, audio_mask, vision, vision_mask, present)


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
