"""Neighbouring methods' mechanisms that an ablation can add to the whole method, one at a time."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal, TypeVar

from finetune.options import TrainOptions

NeighbourName = Literal["all", "cross-modal", "label-distance", "common-space", "residual", "alternate"]
OptionsT = TypeVar("OptionsT", bound=TrainOptions)


@dataclass(frozen=True)
class Neighbour:
    """What a row says, and the flag that turns the mechanism on in any run."""

    name: str
    remark: str
    flag: str


NEIGHBOURS: dict[NeighbourName, Neighbour] = {
    "cross-modal": Neighbour("cross-modal prediction", "after MMCL", "--training.alignment.losses"),
    "label-distance": Neighbour("label-distance contrast", "of cross-modal predictions, after MMCL", "--training.alignment.losses"),
    "common-space": Neighbour("common space", "after unseen modality interaction", "--mechanisms"),
    "residual": Neighbour("residual branches", "", "--mechanisms"),
    "alternate": Neighbour("alternating steps", "after MLA, with its fusion by entropy", "--mechanisms"),
}


def chosen(names: Sequence[NeighbourName]) -> list[NeighbourName]:
    """Those named, each once; `all` stands for every one."""
    return list(NEIGHBOURS) if "all" in names else list(dict.fromkeys(names))


def with_neighbour(options: OptionsT, name: NeighbourName) -> OptionsT:
    """The same options with one mechanism more; those given are left as they are.

    Raises:
        UserError: it does not go with the other options.
    """
    changed = deepcopy(options)
    if name in ("cross-modal", "label-distance"):
        alignment = changed.training.alignment
        alignment.losses = list(dict.fromkeys([*alignment.losses, name]))
    elif name not in changed.mechanisms:
        changed.mechanisms = [*changed.mechanisms, name]
    changed.check_training()
    return changed
