"""The MUCN that reads cross-fitted scalar predictions of y (`mucn-crossfit`), and those predictions as labels (`regressor`).

A network that sees y (corrupted) and a representation that was fitted to y learns to copy y. Here the modality speaks through a
prediction that has not seen this sample's y, and y is treated as noisy when the label is read out.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from finetune.generator_options import CrossfitOptions
from finetune.labels.out_of_fold import out_of_fold
from finetune.labels.protocol import LabelInputs, LearnedLabels, generator_for
from finetune.modalities import FUSED


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
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.lr, weight_decay=1e-4, fused=True)
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
