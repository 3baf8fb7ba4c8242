"""The options of the label generators, apart from their code: the command line is read before torch and scikit-learn are imported."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class CrossfitOptions:
    """`mucn-crossfit` and `regressor`: out-of-fold predictions and the network that reads them."""

    folds: int = 5
    """Folds of the cross-fitting."""
    folds_by: Literal["video", "utterance"] = "video"
    """Whether all utterances of a video fall into one fold."""
    backend: Literal["ridge", "network"] = "ridge"
    """What predicts y out of fold: ridge regression, or a small network of one hidden layer (slower)."""
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


@dataclass
class MetaOptions:
    """`mucn-meta`: the paper's bi-level MUCN. `meta-weight-net` and `mlc` take alpha, beta, steps, batch size and width from here."""

    sigma: float = 0.6
    """Gaussian corruption of y (labels divided by their range)."""
    swap: float = 0.0
    """Probability that a label is swapped with another sample's."""
    alpha: float = 0.1
    """Step of the inner (unimodal) update."""
    beta: float = 3e-3
    """Learning rate of the outer (multimodal) update, AdamW."""
    inner_weight: float = 0.0
    """Weight of the unimodal denoising loss beside the outer one; 0 is the paper's outer objective alone."""
    first_order: bool = False
    """Leave out the second derivatives (faster, another gradient)."""
    steps: int = 400
    """Outer updates, one network a modality."""
    batch_size: int = 64
    """Utterances a step."""
    hidden: int = 64
    """Width of the network."""


@dataclass
class GeneratorOptions:
    """The options of all generators; each reads its own."""

    crossfit: CrossfitOptions = field(default_factory=CrossfitOptions)
    meta: MetaOptions = field(default_factory=MetaOptions)
