"""The training objectives: masked-intensity regression (SKESL, section 3.4), ratings, and optional auxiliary losses."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.options import ObjectiveOptions


class MaskedIntensityHead(nn.Module):
    """Predicts the intensity of a masked word, in label units, from its state: two linear layers with a GELU between."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, 1))

    def forward(self, states: Tensor) -> Tensor:
        """[..., D] -> [...]."""
        result: Tensor = self.layers(states).squeeze(-1)
        return result


class RatingHead(nn.Module):
    """Predicts the rating of an utterance, in label units, from its mean state: h = ReLU(W_0 mean + b), then a linear layer.

    Its form is that of the multimodal path of `MugModel`, so that fine-tuning can start from it.
    """

    def __init__(self, width: int, dim: int, dropout: float):
        super().__init__()
        self.pool = nn.Linear(width, dim)
        self.out = nn.Linear(dim, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        """[B, D] -> [B]."""
        hidden = torch.relu(self.pool(self.dropout(states)))
        result: Tensor = self.out(self.dropout(hidden)).squeeze(-1).float()
        return result


def piece_states(states: Tensor, mask_positions: Tensor) -> Tensor:
    """The states of the pieces of each masked word.

    Args:
        states: [B, L, D].
        mask_positions: [B, M, P], positions in L of the P pieces of M words, padded with -1.

    Returns:
        [B, M, P, D]; where padded, the state of the first token.
    """
    rows = torch.arange(len(states), device=states.device)[:, None, None]
    return states[rows, mask_positions.clamp(min=0)]


def mean_of_pieces(pieces: Tensor, mask_positions: Tensor) -> Tensor:
    """Mean state of each masked word: [B, M, P, D] -> [B, M, D]; zeros where a word has no pieces (padding of M)."""
    real = (mask_positions >= 0).unsqueeze(-1)
    return pieces.masked_fill(~real, 0.0).sum(dim=2) / real.sum(dim=2).clamp(min=1)


def mean_of_tokens(states: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean state over the real tokens: [B, L, D], [B, L] -> [B, D]."""
    weights = attention_mask.to(states.dtype).unsqueeze(-1)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


Scored = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Predictions, labels (NaN: none) and weights (None: all 1) of equal shape; None where the batch has none of this kind."""


def weighted_error(kinds: Sequence[Scored]) -> Tensor:
    """Weighted mean absolute error over all labels of all kinds, a scalar; zero if there are none."""
    errors, total = torch.zeros(()), torch.zeros(())
    for predictions, labels, weights in kinds:
        if predictions is None or labels is None:
            continue
        real = (~labels.isnan()).float() if weights is None else weights.float().masked_fill(labels.isnan(), 0.0)
        errors = errors.to(real.device) + ((predictions.float() - labels.float().nan_to_num()).abs() * real).sum()
        total = total.to(real.device) + real.sum()
    return errors / torch.where(total > 0, total, torch.ones_like(total))


MODALITIES = ("audio", "vision")


def drop_modalities(batch: dict[str, Any], share: float) -> dict[str, Any]:
    """Drop audio, and independently vision, of each row with probability `share` by zeroing its mask. Uses torch's global generator."""
    dropped = dict(batch)
    for name in MODALITIES:
        mask = batch.get(f"{name}_mask")
        if mask is not None:
            keep = torch.rand(len(mask), device=mask.device) >= share
            dropped[f"{name}_mask"] = mask * keep.unsqueeze(1).to(mask.dtype)
    return dropped


def mismatched(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch with the audio and vision of each row replaced by those of the previous row."""
    names = [f"{name}{part}" for name in MODALITIES for part in ("", "_mask")]
    return {**batch, **{name: batch[name].roll(1, 0) for name in names if batch.get(name) is not None}}


def relation_loss(matched: Tensor, others: Tensor, real: Tensor, margin: float = 1.0) -> Tensor:
    """Contrastive relatedness: max(0, margin - s(own) + s(other's)), averaged over the rows that have audio or vision.

    Source: Shi et al., arXiv 2007.01179, where relatedness is a joint likelihood; here s [B] is a learned score of the fused state.
    """
    losses = (margin - matched + others).clamp(min=0) * real
    return losses.sum() / real.sum().clamp(min=1)


def instance_contrast(predicted: Tensor, actual: Tensor, real: Tensor, temperature: float = 0.1) -> Tensor:
    """InfoNCE of predictions [B, d] against actual summaries [B, d] of the same rows; 0 with fewer than two rows.

    Source: the instance-level contrast over cross-modal predictions of MMCL (arXiv 2210.14556).
    """
    predicted, actual = F.normalize(predicted[real].float(), dim=-1), F.normalize(actual[real].float(), dim=-1)
    if len(predicted) < 2:
        return predicted.sum() * 0 + actual.sum() * 0
    scores = predicted @ actual.T / temperature
    targets = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, targets) + F.cross_entropy(scores.T, targets)) / 2


class PretrainingTask(nn.Module):
    """A `SkeslForMaskedIntensity` (`.model`, which is saved) with the heads of the auxiliary losses, which only training needs.

    `forward(batch)` returns the loss to minimise and the mean absolute error: scalars, weighted by the weights of the samples.
    """

    def __init__(self, model: Any, options: ObjectiveOptions):
        super().__init__()
        self.model = model
        self.options = options
        width, inner = model.config.hidden_size, model.config.attention_dim
        widths = model.config.feature_dims
        self.relation = nn.Linear(width, 1) if options.negatives and widths else None
        self.summaries = nn.ModuleDict()
        self.predictors = nn.ModuleDict()
        if options.cross_modal:
            for name, columns in widths.items():
                self.summaries[name] = nn.Linear(columns, inner)
                self.predictors[name] = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, inner))

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The loss and the mean absolute error of a batch of the collator."""
        options = self.options
        if options.modality_dropout and self.training:
            batch = drop_modalities(batch, options.modality_dropout)
        if self.predictors and batch.get("text_states") is None:  # run the text encoder only once
            batch = {**batch, "text_states": self.model.skesl.text_states(batch["input_ids"], batch["attention_mask"])}
        output = self.model(**batch)
        loss = output.loss
        if options.rated_error == "squared" and batch.get("ratings") is not None:
            ratings = batch["ratings"]
            squares = (output.ratings - ratings.nan_to_num()) ** 2
            words = (output.logits, batch["labels"], batch.get("label_weights"))
            loss = weighted_error([words, (squares, ratings * 0, batch.get("rating_weights"))])  # NaN where there is no rating
        if self.relation is not None and batch["mask_positions"].shape[1]:  # rated sentences have no masked words
            other = self.model(**mismatched({**batch, "labels": None, "label_weights": None, "ratings": None}))
            present = self.present(batch, "audio") | self.present(batch, "vision")
            here = present & present.roll(1, 0)
            own, others = (self.relation(states.mean(1)).squeeze(-1).float() for states in (output.word_states, other.word_states))
            loss = loss + options.negatives * relation_loss(own, others, here.float())
        for name in self.predictors:
            loss = loss + options.cross_modal * self.cross_modal_loss(name, batch)
        return loss, output.loss.detach()

    def cross_modal_loss(self, name: str, batch: dict[str, Any]) -> Tensor:
        """Contrastive loss on predicting a summary of the modality from the text state of the first masked word."""
        if batch.get(name) is None:
            return sum((p.sum() * 0 for p in self.predictors[name].parameters()), torch.zeros(()))
        words = mean_of_pieces(piece_states(batch["text_states"], batch["mask_positions"]), batch["mask_positions"])[:, 0]
        mask = batch[f"{name}_mask"].to(words.dtype).unsqueeze(-1)
        normed = self.model.skesl.crossmodal.norms[name](batch[name].masked_fill(mask == 0, 0.0)) * mask
        summary = self.summaries[name](normed.sum(1) / mask.sum(1).clamp(min=1))
        return instance_contrast(self.predictors[name](words), summary, self.present(batch, name))

    def present(self, batch: dict[str, Any], name: str) -> Tensor:
        """Whether each row has the modality, bool [B]."""
        mask = batch.get(f"{name}_mask")
        if mask is None:
            return torch.zeros(len(batch["mask_positions"]), dtype=torch.bool, device=batch["mask_positions"].device)
        result: Tensor = mask.bool().any(1)
        return result
