"""`mucn-meta`: the paper's bi-level MUCN (Mai et al., arXiv 2408.16029), in the form reconstructed in docs/method.md.

Inner: phi' = phi - alpha grad_phi L1(MUCN_phi(sg h_m, y~), y), the unimodal denoising task.
Outer: phi <- phi - beta grad_phi L1(MUCN_phi'(sg z_m, y~'), y), the multimodal denoising task, through phi'.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from finetune.generator_options import MetaOptions
from finetune.labels import LabelInputs, LearnedLabels, random_stream
from finetune.model.alignment import to_common_scale


class Mucn(nn.Module):
    """MUCN(h, y~) = 1.02 tanh(MLP([h; embed(y~)])): representation [N, D] and corrupted label [N] in, corrected label [N] out."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.embed = nn.Linear(1, 16)
        self.mlp = nn.Sequential(nn.Linear(dim + 16, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, representation: Tensor, label: Tensor) -> Tensor:
        """The corrected label of each sample."""
        seen = torch.tanh(self.embed(label.unsqueeze(-1)))
        return 1.02 * torch.tanh(self.mlp(torch.cat([representation, seen], dim=-1))).squeeze(-1)


@dataclass
class MetaBatch:
    """Samples of one step: unimodal and projected representations [B, D], two corruptions of the label and the label itself [B]."""

    unimodal: Tensor
    projected: Tensor
    inner_label: Tensor
    outer_label: Tensor
    y: Tensor


def outer_loss(network: Mucn, parameters: Mapping[str, Tensor], batch: MetaBatch, options: MetaOptions) -> Tensor:
    """The outer objective as a function of phi (`parameters`); its gradient runs through the inner step unless `first_order`."""

    def denoise(values: Mapping[str, Tensor], representation: Tensor, label: Tensor) -> Tensor:
        result: Tensor = (functional_call(network, dict(values), (representation, label)) - batch.y).abs().mean()
        return result

    inner_gradient = grad(denoise)(dict(parameters), batch.unimodal, batch.inner_label)
    if options.first_order:
        inner_gradient = {name: value.detach() for name, value in inner_gradient.items()}
    updated = {name: value - options.alpha * inner_gradient[name] for name, value in parameters.items()}
    loss = denoise(updated, batch.projected, batch.outer_label)
    if options.inner_weight:
        loss = loss + options.inner_weight * denoise(parameters, batch.unimodal, batch.inner_label)
    return loss


def corrupt(y: Tensor, options: MetaOptions, random: torch.Generator) -> Tensor:
    """y + Gaussian noise, and with probability `swap` another sample's label in its place."""
    swapped = torch.rand(len(y), generator=random) < options.swap
    source = torch.where(swapped, y[torch.randperm(len(y), generator=random)], y)
    return source + options.sigma * torch.randn(len(y), generator=random)


def train_mucn(unimodal: Tensor, projected: Tensor, y: Tensor, options: MetaOptions, seed: int, salt: int) -> Mucn:
    """Meta-train the MUCN of one modality on representations [N, D] and labels [N]."""
    random = random_stream(seed, salt)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed * 1_000_003 + salt)
        network = Mucn(unimodal.shape[1], options.hidden)
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.beta, fused=True)
    for _ in range(options.steps):
        rows = torch.randint(len(y), (min(options.batch_size, len(y)),), generator=random)
        batch = MetaBatch(unimodal[rows], projected[rows], corrupt(y[rows], options, random), corrupt(y[rows], options, random), y[rows])
        optimiser.zero_grad()
        outer_loss(network, dict(network.named_parameters()), batch, options).backward()
        optimiser.step()
    return network.eval()


def learn_by_modality(inputs: LabelInputs, learn: Callable[[Tensor, Tensor, Tensor, int], Tensor]) -> LearnedLabels:
    """`learn(h_m, P_m(h_M), y, place of m)` -> labels, of the utterances that have the modality; both clouds at the same mean length."""
    labels = {}
    for place, name in enumerate(inputs.modalities):
        rows = inputs.present[name]
        unimodal, projected = (
            torch.as_tensor(vectors[name][rows], dtype=torch.float32) for vectors in (inputs.representations, inputs.projected)
        )
        norm = unimodal.norm(dim=-1).mean()
        y = torch.as_tensor(inputs.y[rows], dtype=torch.float32)
        learned = learn(to_common_scale(unimodal, norm), to_common_scale(projected, norm), y, place)
        labels[name] = inputs.y.copy()
        labels[name][rows] = learned.detach().clamp(-1, 1).numpy()
    return LearnedLabels(labels)


class MetaMucn:
    """`mucn-meta`: the labels MUCN_m(h_m, y), one meta-trained network per modality."""

    reads_human_labels = False
    options_class = MetaOptions

    def __init__(self, options: MetaOptions):
        self.options = options

    def __call__(self, inputs: LabelInputs) -> LearnedLabels:
        """Corrected labels of every modality."""

        def learn(unimodal: Tensor, projected: Tensor, y: Tensor, place: int) -> Tensor:
            corrected: Tensor = train_mucn(unimodal, projected, y, self.options, inputs.seed, 100 + place)(unimodal, y)
            return corrected

        return learn_by_modality(inputs, learn)
