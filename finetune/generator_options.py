"""The options of the label generators (stage 2), each in its own group."""

from dataclasses import dataclass, field
from typing import Literal

AUTO, NONE = "auto", "none"


@dataclass
class CrossfitOptions:
    """`mucn-crossfit`, `regressor` and `shuffled`: out-of-fold predictions and the network that reads them."""

    folds: int = 5
    """Folds of the cross-fitting."""
    folds_by: Literal["video", "utterance"] = "video"
    """Keep all utterances of a video in one fold, or not; a corpus of one video has folds by utterance."""
    backend: Literal["ridge", "network"] = "ridge"
    """What predicts y out of fold: ridge regression, or a small network of one hidden layer (slower)."""
    sigma: Literal["r2", "residual"] = "r2"
    """Noise of y as a label of one modality: by the R2 rule, or the standard deviation of the residual."""
    anchors: list[str] = field(default_factory=lambda: [AUTO])
    """Ratings by the pretrained encoder that join the out-of-fold predictions of `mucn-crossfit`: `auto` (all that it offers), `none`, or
    modalities: `text` (trained with --objective.rated or .distil; the starter), `audio`, `vision` (.distil)."""
    max_noise: float = 1.2
    """Upper bound of the uniform corruption of y in training (labels divided by the largest label)."""
    steps: int = 900
    """Updates of the network, one network per modality."""
    batch_size: int = 128
    """Batch size."""
    lr: float = 3e-3
    """Learning rate (AdamW, cosine)."""


@dataclass
class MetaOptions:
    """`mucn-meta`: the paper's bi-level MUCN. `meta-weight-net` and `mlc` share alpha, beta, steps, batch_size and hidden."""

    sigma: float = 0.6
    """Gaussian corruption of y (labels divided by the largest label)."""
    swap: float = 0.0
    """Probability that a label is swapped with another sample's."""
    alpha: float = 0.1
    """Learning rate of the inner (unimodal) update."""
    beta: float = 3e-3
    """Learning rate of the outer (multimodal) update, AdamW."""
    inner_weight: float = 0.0
    """Weight of the unimodal denoising loss beside the outer one; 0 is the paper's outer objective alone."""
    first_order: bool = False
    """Leave out the second derivatives (faster, a different gradient)."""
    steps: int = 400
    """Outer updates, one network per modality."""
    batch_size: int = 64
    """Batch size."""
    hidden: int = 64
    """Width of the network."""


@dataclass
class GeneratorOptions:
    """Options of the label generators; each reads its own group."""

    crossfit: CrossfitOptions = field(default_factory=CrossfitOptions)
    meta: MetaOptions = field(default_factory=MetaOptions)
