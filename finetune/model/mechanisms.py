"""Mechanisms: changes to the network or to the training step, selected by `--mechanisms` (`register_mechanism`)."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any

from torch import Tensor

from finetune.extensions import MECHANISMS
from skesl_mug.errors import UserError
from skesl_mug.registry import is_plugin, plugin_errors

if TYPE_CHECKING:
    from finetune.model.networks import MugModel, MugOutput
    from finetune.options import TrainOptions

Present = Mapping[str, Tensor]
"""Which utterances have a modality: bool [B] by modality."""


class Mechanism:
    """A mechanism overrides the hooks that it needs; as it is, it changes nothing. Each model has an instance of its own.

    Attributes:
        replaces_heads: `predict` makes the predictions, so the network has no heads.
        needs_unimodal_tasks: not used in models with only the multimodal task.
    """

    replaces_heads = False
    needs_unimodal_tasks = False

    @classmethod
    def check(cls, options: "TrainOptions") -> None:
        """Validate the options of a run that uses it.

        Raises:
            UserError: it cannot be combined with them.
        """

    # The network

    def build(self, model: "MugModel") -> None:
        """Add modules to the network, as attributes: `self.mine = model.mine = nn.Linear(model.config.dim, 1)`."""

    def fuse(self, model: "MugModel", z: Tensor, fused: Tensor, hidden: Mapping[str, Tensor], present: Present) -> Tensor:
        """The fused representation [B, dim], given the sum z [B, dim], `fused` = ReLU(z) and h_m [B, dim] by modality."""
        return fused

    def read(self, model: "MugModel", name: str, vector: Tensor) -> Tensor:
        """What the head of a task reads [B, dim], given the representation of the task [B, dim]."""
        return vector

    def predict(self, model: "MugModel", output: "MugOutput", name: str, vector: Tensor) -> Tensor:
        """The prediction [B] of a task, where `replaces_heads`; more per-utterance results go into `output.extras`."""
        raise NotImplementedError

    def finish(self, model: "MugModel", output: "MugOutput", present: Present) -> None:
        """Change the output of a forward pass with all tasks."""

    # The training step

    def begin_stage(self, model: "MugModel") -> None:
        """Prepare for a stage."""

    def turns(self, model: "MugModel", present: Mapping[str, bool]) -> list[str | None]:
        """The steps of a batch: each is a task, or None for all tasks together. `present` says which modalities the batch has."""
        return [None]

    def error(self, output: "MugOutput", name: str, target: Tensor) -> Tensor | None:
        """The error of a task by utterance [B]; None for L1."""
        return None

    def before_update(self, model: "MugModel") -> None:
        """Change the gradients, before they are clipped and applied."""

    def after_update(self, model: "MugModel", output: "MugOutput", present: Present, turn: str | None) -> None:
        """Called after each update."""


HOOKS = ("build", "fuse", "read", "predict", "finish", "begin_stage", "turns", "error", "before_update", "after_update")


def find_mechanism(name: str) -> type[Mechanism]:
    """The mechanism that is registered under a name.

    Raises:
        UserError: there is none, or it is not a subclass of `Mechanism`.
    """
    found = MECHANISMS.get(name)
    if not (isinstance(found, type) and issubclass(found, Mechanism)):
        raise UserError(f"--mechanisms {name}: what is registered under this name is not a subclass of finetune.model.mechanisms.Mechanism")
    return found


def make_mechanism(name: str) -> Mechanism:
    """A mechanism for one model; exceptions in the hooks of a plugin's are reported in one line."""
    kind = find_mechanism(name)
    if is_plugin(kind):
        changed = {hook: _reporting(kind, getattr(kind, hook)) for hook in HOOKS if getattr(kind, hook) is not getattr(Mechanism, hook)}
        kind = type(kind.__name__, (kind,), changed)
    with plugin_errors(kind):
        return kind()


def _reporting(kind: type[Mechanism], hook: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(hook)
    def call(*arguments: Any, **named: Any) -> Any:
        with plugin_errors(kind):
            return hook(*arguments, **named)

    return call
