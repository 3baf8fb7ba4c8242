"""Two other meta-learners in MUCN's place, for comparison: `meta-weight-net` and `mlc`.

Both were made for a small set of clean labels, which there is none of here. As MUCN does, they take the multimodal side for it: y is the
clean label of the projected multimodal representation z_m, and a noisy one of the unimodal representation h_m. With a regressor f_w:

`meta-weight-net` (Shu et al., NeurIPS 2019): w' = w - alpha grad_w mean_i V(l_i) l_i, with l_i = |f_w(h_i) - y_i| and a small network V in
(0, 1); V goes down the gradient of mean |f_w'(z) - y|. It gives weights, not labels, so the label here is V y + (1 - V) f_w(h).
`mlc` (Zheng, Awadallah and Dumais, AAAI 2021): w' = w - alpha grad_w mean (f_w(h) - g(h, y))^2, with the corrector g of MUCN's form; g goes
down the gradient of mean |f_w'(z) - y|. The inner loss is squared: of an absolute one no gradient reaches g. The label is g(h, y).
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from finetune.generator_options import MetaOptions
from finetune.labels.mucn_meta import Mucn
from finetune.labels.protocol import LabelInputs, LearnedLabels, generator_for
from finetune.model.alignment import to_common_scale

Weights = Mapping[str, Tensor]
InnerLoss = Callable[[Weights, Tensor, Tensor], Tensor]
"""The regressor's loss on (representations [B, D], y [B]); what is meta-learned is in it."""


class Regressor(nn.Module):
    """f_w: representation [N, D] to a label [N]."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, representation: Tensor) -> Tensor:
        """The label of each sample."""
        result: Tensor = self.layers(representation).squeeze(-1)
        return result


class WeightNetwork(nn.Module):
    """V: the error of a sample [N] to its weight [N] in (0, 1); at first one half for all."""

    def __init__(self, hidden: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        nn.init.zeros_(self.layers[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.layers[2].bias)  # type: ignore[arg-type]

    def forward(self, error: Tensor) -> Tensor:
        """The weight of each sample."""
        return torch.sigmoid(self.layers(error.unsqueeze(-1))).squeeze(-1)


def look_ahead(inner: InnerLoss, weights: Weights, unimodal: Tensor, y: Tensor, alpha: float) -> dict[str, Tensor]:
    """w' = w - alpha grad_w inner; gradients reach what is meta-learned through it."""
    step = grad(inner)(dict(weights), unimodal, y)
    return {name: value - alpha * step[name] for name, value in weights.items()}


def meta_loss(network: Regressor, updated: Weights, projected: Tensor, y: Tensor) -> Tensor:
    """mean |f_w'(z) - y|."""
    result: Tensor = (functional_call(network, dict(updated), (projected,)) - y).abs().mean()
    return result


def weighted_loss(network: Regressor, weigh: WeightNetwork) -> InnerLoss:
    """Meta-Weight-Net's inner loss."""

    def loss(weights: Weights, unimodal: Tensor, y: Tensor) -> Tensor:
        errors = (functional_call(network, dict(weights), (unimodal,)) - y).abs()
        result: Tensor = (weigh(errors.detach()) * errors).mean()
        return result

    return loss


def corrected_loss(network: Regressor, corrector: Mucn) -> InnerLoss:
    """MLC's inner loss."""

    def loss(weights: Weights, unimodal: Tensor, y: Tensor) -> Tensor:
        result: Tensor = ((functional_call(network, dict(weights), (unimodal,)) - corrector(unimodal, y)) ** 2).mean()
        return result

    return loss


def train_meta(
    network: Regressor,
    learner: nn.Module,
    inner: InnerLoss,
    unimodal: Tensor,
    projected: Tensor,
    y: Tensor,
    options: MetaOptions,
    seed: int,
) -> None:
    """Alternate: the meta-learner by the look-ahead step, then the regressor by the inner loss as it now is."""
    random = generator_for(seed, 300)
    meta = torch.optim.AdamW(learner.parameters(), lr=options.beta)
    main = torch.optim.AdamW(network.parameters(), lr=options.beta)
    for _ in range(options.steps):
        rows = torch.randint(len(y), (min(options.batch_size, len(y)),), generator=random)
        weights = {name: value.detach() for name, value in network.named_parameters()}
        updated = look_ahead(inner, weights, unimodal[rows], y[rows], options.alpha)
        meta.zero_grad()
        meta_loss(network, updated, projected[rows], y[rows]).backward()
        meta.step()
        main.zero_grad()
        inner(dict(network.named_parameters()), unimodal[rows], y[rows]).backward()
        main.step()


class MetaCorrector:
    """Either of the two, one pair of networks a modality."""

    reads_human_labels = False

    def __init__(self, options: MetaOptions, kind: str):
        self.options, self.kind = options, kind

    def __call__(self, inputs: LabelInputs) -> LearnedLabels:
        """Labels of every modality."""
        labels = {}
        for salt, name in enumerate(inputs.modalities):
            rows = np.flatnonzero(inputs.present[name])
            y = torch.as_tensor(inputs.y, dtype=torch.float32)[rows]
            unimodal = inputs.representations[name][rows]
            norm = unimodal.norm(dim=-1).mean()
            labels[name] = inputs.y.copy()
            pair = to_common_scale(unimodal, norm), to_common_scale(inputs.projected[name][rows], norm)
            labels[name][rows] = self._learn(*pair, y, inputs.seed * 10 + salt).clamp(-1, 1).double().numpy()
        return LearnedLabels(labels)

    def _learn(self, unimodal: Tensor, projected: Tensor, y: Tensor, seed: int) -> Tensor:
        hidden = self.options.hidden
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * 1_000_003 + 300)
            network = Regressor(unimodal.shape[1], hidden)
            weigh, corrector = WeightNetwork(hidden), Mucn(unimodal.shape[1], hidden)
        if self.kind == "mlc":
            train_meta(network, corrector, corrected_loss(network, corrector), unimodal, projected, y, self.options, seed)
            with torch.no_grad():
                corrected: Tensor = corrector(unimodal, y)
            return corrected
        train_meta(network, weigh, weighted_loss(network, weigh), unimodal, projected, y, self.options, seed)
        with torch.no_grad():
            guess = network(unimodal)
            share = weigh((guess - y).abs())
            mixed: Tensor = share * y + (1 - share) * guess
        return mixed
