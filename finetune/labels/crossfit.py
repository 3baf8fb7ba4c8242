"""Cross-fitted scalar predictions of y from one modality, the MUCN that reads them (`mucn-crossfit`), and the plain `regressor`.

A network that sees y (corrupted) and a representation that was fitted to y learns to copy y. Here the modality speaks through a
prediction that has not seen this sample's y, and y is treated as noisy when the label is read out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from finetune.labels.protocol import LabelInputs, LearnedLabels, generator_for
from finetune.modalities import FUSED
from lexicons.errors import UserError

RIDGE_STRENGTHS = np.logspace(0, 5, 11)


@dataclass
class CrossfitOptions:
    """`mucn-crossfit` and `regressor`: out-of-fold predictions and the network that reads them."""

    folds: int = 5
    """Folds of the cross-fitting."""
    folds_by: Literal["video", "utterance"] = "video"
    """Whether all utterances of a video fall into one fold."""
    sigma: Literal["r2", "residual"] = "r2"
    """Noise of y as a label of one modality: by the R2 rule, or the whole residual deviation."""
    max_noise: float = 1.2
    """Training draws the corruption of y uniformly from 0 to this (labels divided by their range)."""
    steps: int = 900
    """Updates of the network, one network a modality."""
    batch_size: int = 128
    """Utterances a step."""
    lr: float = 3e-3
    """Learning rate (AdamW, cosine)."""


def out_of_fold(inputs: LabelInputs, options: CrossfitOptions) -> dict[str, np.ndarray]:
    """Ridge predictions of y [N] for each modality and for all together (`fused`), each made without its own fold.

    An utterance without the modality gets the training mean of y (it says nothing).

    Raises:
        UserError: fewer than two videos (or utterances) to make folds of.
    """
    features = {name: _mean_where_absent(inputs.descriptors[name], inputs.present[name]) for name in inputs.modalities}
    features[FUSED] = np.concatenate(list(features.values()), axis=1)
    present = {**inputs.present, FUSED: np.ones(len(inputs.y), bool)}
    folds = _folds(inputs, options)
    predictions = {}
    for name, matrix in features.items():
        guess = np.zeros(len(inputs.y))
        for train, held_out in folds:
            rows = train[present[name][train]]
            guess[held_out] = inputs.y[train].mean()
            here = held_out[present[name][held_out]]
            if len(rows) >= 3 and len(here):
                model = make_pipeline(StandardScaler(), RidgeCV(RIDGE_STRENGTHS))
                model.fit(matrix[rows], inputs.y[rows])
                guess[here] = model.predict(matrix[here])
        predictions[name] = guess
    return predictions


def _mean_where_absent(matrix: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Rows without the modality say nothing: they get the mean of those with it (no label is involved)."""
    return np.where(present[:, None], matrix, matrix[present].mean(0))


def _folds(inputs: LabelInputs, options: CrossfitOptions) -> list[tuple[np.ndarray, np.ndarray]]:
    groups = np.asarray(inputs.groups)
    by_video = options.folds_by == "video"
    units = len(set(inputs.groups)) if by_video else len(groups)
    if units < 2:
        unit = "videos" if by_video else "utterances"
        mend = "use --labels copy or --generators.crossfit.folds-by utterance"
        raise UserError(f"cross-fitting needs at least two {unit} in train, this corpus has {units}; {mend}")
    count = min(options.folds, units)
    splitter = (GroupKFold if by_video else KFold)(count, shuffle=True, random_state=inputs.seed)
    return list(splitter.split(groups, groups=groups if by_video else None))


def noise_levels(
    y: np.ndarray, predictions: dict[str, np.ndarray], rule: str, present: Mapping[str, np.ndarray] | None = None
) -> dict[str, dict[str, float]]:
    """How noisy y is as the label of each modality, found without any unimodal label.

    tau^2 = Var(y - g_m). `residual`: sigma = tau. `r2`: lambda = the R2 of an OLS fit of (y - g_m) on all out-of-fold predictions,
    clamped to [0, .95]: the part of the residual that the other modalities explain; sigma = tau sqrt(lambda / (1 - lambda)).
    Each modality is judged on the utterances that have it (`present[m]` [N]).
    """
    names = [name for name in predictions if name != FUSED]
    design = np.column_stack([np.ones(len(y)), *predictions.values()])
    levels = {}
    for name in names:
        here = present[name] if present is not None else np.ones(len(y), bool)
        residual = (y - predictions[name])[here]
        tau = float(residual.std())
        fitted = design[here] @ np.linalg.lstsq(design[here], residual, rcond=None)[0]
        explained = 1.0 - float(np.var(residual - fitted)) / max(tau**2, 1e-12)
        share = float(np.clip(explained, 0.0, 0.95))
        sigma = tau if rule == "residual" else tau * float(np.sqrt(share / (1.0 - share)))
        levels[name] = {"tau": tau, "lambda": share, "sigma": sigma}
    return levels


class ScalarMucn(nn.Module):
    """MUCN(g, y~, s) = 1.02 tanh(W3 ReLU(W2 [standardised g; tanh(W1 [y~, s])])), all inputs and the output [N].

    The bound is slightly beyond 1 so that the ends of the label range can be reached.
    """

    def __init__(self, mean: float, deviation: float):
        super().__init__()
        self.mean, self.deviation = mean, max(deviation, 1e-6)
        self.embed = nn.Linear(2, 16)
        self.hidden = nn.Linear(17, 64)
        self.out = nn.Linear(64, 1)

    def forward(self, prediction: Tensor, label: Tensor, noise: Tensor) -> Tensor:
        """The corrected label of each sample."""
        seen = torch.tanh(self.embed(torch.stack([label, noise], dim=-1)))
        evidence = ((prediction - self.mean) / self.deviation).unsqueeze(-1)
        return 1.02 * torch.tanh(self.out(torch.relu(self.hidden(torch.cat([evidence, seen], dim=-1))))).squeeze(-1)


def train_scalar_mucn(prediction: np.ndarray, y: np.ndarray, options: CrossfitOptions, seed: int, salt: int) -> ScalarMucn:
    """Fit a MUCN to undo noise of known size s ~ U(0, max_noise) on y, given the out-of-fold prediction; L1 loss."""
    random = generator_for(seed, salt)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed * 1_000_003 + salt)
        network = ScalarMucn(float(prediction.mean()), float(prediction.std()))
    evidence, target = torch.as_tensor(prediction, dtype=torch.float32), torch.as_tensor(y, dtype=torch.float32)
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.lr, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, options.steps))
    for _ in range(options.steps):
        rows = torch.randint(len(target), (min(options.batch_size, len(target)),), generator=random)
        noise = torch.rand(len(rows), generator=random) * options.max_noise
        corrupted = target[rows] + noise * torch.randn(len(rows), generator=random)
        loss = (network(evidence[rows], corrupted, noise) - target[rows]).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


class CrossfitMucn:
    """`mucn-crossfit`: the form of MUCN that recovers human labels (see docs/method.md for what was tried)."""

    reads_human_labels = False

    def __init__(self, options: CrossfitOptions):
        self.options = options

    def __call__(self, inputs: LabelInputs) -> LearnedLabels:
        """clip(MUCN_m(g_m, y, sigma_m)) for every modality."""
        predictions = out_of_fold(inputs, self.options)
        levels = noise_levels(inputs.y, predictions, self.options.sigma, inputs.present)
        labels = {}
        for salt, name in enumerate(inputs.modalities):
            here = inputs.present[name]
            network = train_scalar_mucn(predictions[name][here], inputs.y[here], self.options, inputs.seed, salt)
            with torch.no_grad():
                evidence, y = torch.as_tensor(predictions[name], dtype=torch.float32), torch.as_tensor(inputs.y, dtype=torch.float32)
                corrected = network(evidence, y, torch.full_like(y, levels[name]["sigma"])).clamp(-1, 1).double().numpy()
            labels[name] = np.where(inputs.present[name], corrected, inputs.y)
        return LearnedLabels(labels, {"noise": levels, "folds_by": self.options.folds_by})


class OutOfFoldRegressor:
    """`regressor`: the out-of-fold prediction itself as the label: bad labels, and still a good teacher."""

    reads_human_labels = False

    def __init__(self, options: CrossfitOptions):
        self.options = options

    def __call__(self, inputs: LabelInputs) -> LearnedLabels:
        """The clipped out-of-fold predictions."""
        predictions = out_of_fold(inputs, self.options)
        return LearnedLabels({name: np.clip(predictions[name], -1, 1) for name in inputs.modalities}, {"folds_by": self.options.folds_by})
