"""The training objective: masked-intensity regression and the auxiliary losses that may stand beside it, each off by default."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.objective import mean_of_pieces, piece_states
from pretrain.options import ObjectiveOptions

MODALITIES = ("audio", "vision")


def drop_modalities(batch: dict[str, Any], share: float) -> dict[str, Any]:
    """Take audio, and independently vision, from each row with probability `share`: its mask becomes zero. Uses torch's generator."""
    dropped = dict(batch)
    for name in MODALITIES:
        mask = batch.get(f"{name}_mask")
        if mask is not None:
            keep = torch.rand(len(mask), device=mask.device) >= share
            dropped[f"{name}_mask"] = mask * keep.unsqueeze(1).to(mask.dtype)
    return dropped


def mismatched(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch in which every row has the audio and vision of the row before it."""
    names = [f"{name}{part}" for name in MODALITIES for part in ("", "_mask")]
    return {**batch, **{name: batch[name].roll(1, 0) for name in names if batch.get(name) is not None}}


def relation_loss(matched: Tensor, others: Tensor, real: Tensor, margin: float = 1.0) -> Tensor:
    """Relating by contrasting: max(0, margin - s(own) + s(other's)), mean over the rows that have audio or vision.

    Source: Shi et al., arXiv 2007.01179, whose relatedness is a joint likelihood; here s [B] is a learned score of the fused state.
    """
    losses = (margin - matched + others).clamp(min=0) * real
    return losses.sum() / real.sum().clamp(min=1)


def instance_contrast(predicted: Tensor, actual: Tensor, real: Tensor, temperature: float = 0.1) -> Tensor:
    """InfoNCE [B, d] against [B, d]: what was predicted of row i is nearer to row i's than to any other row's. 0 with fewer than two.

    Source: the instance-level contrast over cross-modal predictions of MMCL (arXiv 2210.14556).
    """
    predicted, actual = F.normalize(predicted[real].float(), dim=-1), F.normalize(actual[real].float(), dim=-1)
    if len(predicted) < 2:
        return predicted.sum() * 0 + actual.sum() * 0
    scores = predicted @ actual.T / temperature
    targets = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, targets) + F.cross_entropy(scores.T, targets)) / 2


class PretrainingTask(nn.Module):
    """A `SkeslForMaskedIntensity` (`.model`, what is saved) and the heads of the auxiliary losses, which only training needs.

    `forward(batch)` gives (loss to minimise, mean absolute error): scalars, weighted by the samples' weights.
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
        """The losses of a batch of the collator."""
        options = self.options
        if options.modality_dropout and self.training:
            batch = drop_modalities(batch, options.modality_dropout)
        if self.predictors and batch.get("text_states") is None:  # run the text encoder once for all losses
            batch = {**batch, "text_states": self.model.skesl.text_states(batch["input_ids"], batch["attention_mask"])}
        output = self.model(**batch)
        loss = output.loss
        if self.relation is not None and batch["mask_positions"].shape[1]:  # rated sentences alone have no masked word
            other = self.model(**mismatched({**batch, "labels": None, "label_weights": None, "ratings": None}))
            present = self.present(batch, "audio") | self.present(batch, "vision")
            here = present & present.roll(1, 0)
            own, others = (self.relation(states.mean(1)).squeeze(-1).float() for states in (output.word_states, other.word_states))
            loss = loss + options.negatives * relation_loss(own, others, here.float())
        for name in self.predictors:
            loss = loss + options.cross_modal * self.cross_modal_loss(name, batch)
        return loss, output.loss.detach()

    def cross_modal_loss(self, name: str, batch: dict[str, Any]) -> Tensor:
        """Predict a summary of the modality from the text's states at the first masked word."""
        if batch.get(name) is None:
            return sum((p.sum() * 0 for p in self.predictors[name].parameters()), torch.zeros(()))
        words = mean_of_pieces(piece_states(batch["text_states"], batch["mask_positions"]), batch["mask_positions"])[:, 0]
        mask = batch[f"{name}_mask"].to(words.dtype).unsqueeze(-1)
        normed = self.model.skesl.crossmodal.norms[name](batch[name].masked_fill(mask == 0, 0.0)) * mask
        summary = self.summaries[name](normed.sum(1) / mask.sum(1).clamp(min=1))
        return instance_contrast(self.predictors[name](words), summary, self.present(batch, name))

    def present(self, batch: dict[str, Any], name: str) -> Tensor:
        """Which rows [B] (bool) have the modality."""
        mask = batch.get(f"{name}_mask")
        if mask is None:
            return torch.zeros(len(batch["mask_positions"]), dtype=torch.bool, device=batch["mask_positions"].device)
        result: Tensor = mask.bool().any(1)
        return result
