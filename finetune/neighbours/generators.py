"""Two other meta-learners in place of MUCN, for comparison: `meta-weight-net` and `mlc`.

Both need a small set of clean labels, which does not exist here. As in MUCN, the multimodal side takes its place: y is the clean label of
the projected multimodal representation z_m and a noisy label of the unimodal representation h_m. With a regressor f_w:

`meta-weight-net` (Shu et al., NeurIPS 2019): w' = w - alpha grad_w mean_i V(l_i) l_i, with l_i = |f_w(h_i) - y_i| and a small network V in
(0, 1); V descends the gradient of mean |f_w'(z) - y|. It yields weights, not labels, so the label here is V y + (1 - V) f_w(h).
`mlc` (Zheng, Awadallah and Dumais, AAAI 2021): w' = w - alpha grad_w mean (f_w(h) - g(h, y))^2, with the corrector g in the form of MUCN; g
descends the gradient of mean |f_w'(z) - y|. The inner loss is squared: an absolute one passes no gradient to g. The label is g(h, y).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from finetune.generator_options import MetaOptions
from finetune.labels import LabelInputs, LearnedLabels, random_stream
from finetune.labels.mucn_meta import Mucn, learn_by_modality

Weights = Mapping[str, Tensor]
InnerLoss = Callable[[Weights, Tensor, Tensor], Tensor]
"""The regressor's loss on (representations [B, D], y [B]), with the meta-learned part inside."""


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
    """V: the error of a sample [N] to its weight [N] in (0, 1), initially one half."""

    def __init__(self, hidden: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        nn.init.zeros_(self.layers[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.layers[2].bias)  # type: ignore[arg-type]

    def forward(self, error: Tensor) -> Tensor:
        """The weight of each sample."""
        return torch.sigmoid(self.layers(error.unsqueeze(-1))).squeeze(-1)


def look_ahead(inner: InnerLoss, weights: Weights, unimodal: Tensor, y: Tensor, alpha: float) -> dict[str, Tensor]:
    """w' = w - alpha grad_w inner; differentiable in the meta-learner."""
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
    """Alternate: update the meta-learner through the look-ahead step, then the regressor with the updated inner loss."""
    random = random_stream(seed, 300)
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


class MetaWeightNet:
    """`meta-weight-net`: one regressor and one weight network per modality."""

    reads_human_labels = False
    options_class = MetaOptions

    def __init__(self, options: MetaOptions):
        self.options = options

    def __call__(self, inputs: LabelInputs) -> LearnedLabels:
        """Labels of every modality."""

        def learn(unimodal: Tensor, projected: Tensor, y: Tensor, place: int) -> Tensor:
            return self.learn(unimodal, projected, y, inputs.seed * 10 + place)

        return learn_by_modality(inputs, learn)

    def learn(self, unimodal: Tensor, projected: Tensor, y: Tensor, seed: int) -> Tensor:
        """The labels [N] of one modality, from h and z [N, D]."""
        network, weigh, _ = self.new_networks(unimodal.shape[1], seed)
        train_meta(network, weigh, weighted_loss(network, weigh), unimodal, projected, y, self.options, seed)
        guess = network(unimodal)
        share = weigh((guess - y).abs())
        mixed: Tensor = share * y + (1 - share) * guess
        return mixed

    def new_networks(self, dim: int, seed: int) -> tuple[Regressor, WeightNetwork, Mucn]:
        """f_w, V and g, initialised from the seed alone."""
        hidden = self.options.hidden
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * 1_000_003 + 300)
            return Regressor(dim, hidden), WeightNetwork(hidden), Mucn(dim, hidden)


class Mlc(MetaWeightNet):
    """`mlc`: one regressor and one corrector per modality."""

    def learn(self, unimodal: Tensor, projected: Tensor, y: Tensor, seed: int) -> Tensor:
        """The labels [N] of one modality, from h and z [N, D]."""
        network, _, corrector = self.new_networks(unimodal.shape[1], seed)
        train_meta(network, corrector, corrected_loss(network, corrector), unimodal, projected, y, self.options, seed)
        corrected: Tensor = corrector(unimodal, y)
        return corrected
