"""The options of stage 1's alignment, apart from its losses: the command line is read before torch is imported."""

from dataclasses import dataclass, field
from typing import Literal

AlignmentName = Literal["contrastive", "covariance", "similarity", "cross-modal", "label-distance"]


@dataclass
class AlignmentOptions:
    """How stage 1 brings the spaces together."""

    losses: list[AlignmentName] = field(default_factory=lambda: ["contrastive"])
    """Alignment losses to add up; an empty list leaves alignment out. `cross-modal` and `label-distance` predict modalities from others."""
    weight: float = 0.1
    """Weight of the alignment losses beside the tasks."""
    temperature: float = 0.07
    """Temperature of all these losses but `covariance`."""
    covariance_pairs: list[str] = field(default_factory=lambda: ["text-audio", "text-vision", "audio-vision"])
    """Pairs that `covariance` ties, such as text-audio; !text-audio keeps the two apart instead."""

    @property
    def predicts(self) -> bool:
        """Whether a loss wants every modality predicted from every other."""
        return bool({"cross-modal", "label-distance"} & set(self.losses))
