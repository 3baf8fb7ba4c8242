"""The options of a Ray cluster."""

from dataclasses import dataclass

from skesl_mug.errors import UserError


@dataclass(kw_only=True)
class RayOptions:
    """Where the Ray cluster is, and what an actor takes of it."""

    address: str | None = None
    """Ray's address of the cluster; `auto` is the one this machine belongs to. Default: start one on this machine alone."""
    gpus: float = 0.0
    """GPUs an actor takes; 0.25 puts four actors on one GPU."""

    def __post_init__(self) -> None:
        if self.gpus < 0:
            raise UserError(f"--ray.gpus {self.gpus:g}: give 0 or more")
