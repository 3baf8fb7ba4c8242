"""`mucn-meta`: the paper's bi-level MUCN (Mai et al., arXiv 2408.16029), in the form reconstructed in docs/method.md.

Inner: phi' = phi - alpha grad_phi L1(MUCN_phi(sg h_m, y~), y), the unimodal denoising task.
Outer: phi <- phi - beta grad_phi L1(MUCN_phi'(sg z_m, y~'), y), the multimodal denoising task, through phi'.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from finetune.generator_options import MetaOptions
from finetune.labels.protocol import LabelInputs, LearnedLabels, generator_for
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
    """One step's samples: unimodal and projected representations [B, D], two corruptions of the label and the label itself [B]."""

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
    """Meta-train one modality's MUCN on [N, D] representations and labels [N]; no other module is touched."""
    random = generator_for(seed, salt)
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


class MetaMucn:
    """The labels MUCN_m(h_m, y), one meta-trained network a modality."""

    reads_human_labels = False

    def __init__(self, options: MetaOptions):
        self.options = options

    def __call__(self, inputs: LabelInputs) -> LearnedLabels:
        """Corrected labels of every modality."""
        labels = {}
        for salt, name in enumerate(inputs.modalities):
            rows = torch.as_tensor(np.flatnonzero(inputs.present[name]))
            y = torch.as_tensor(inputs.y, dtype=torch.float32)[rows]
            unimodal = inputs.representations[name][rows]
            norm = unimodal.norm(dim=-1).mean()
            unimodal, projected = to_common_scale(unimodal, norm), to_common_scale(inputs.projected[name][rows], norm)
            network = train_mucn(unimodal, projected, y, self.options, inputs.seed, 100 + salt)
            with torch.no_grad():
                corrected = network(unimodal, y).clamp(-1, 1).double().numpy()
            labels[name] = inputs.y.copy()
            labels[name][rows.numpy()] = corrected
        return LearnedLabels(labels)
