"""Stage 2: generators of unimodal labels, by the names that `--labels` takes, and what a generator receives and returns.

A generator is a function of `LabelInputs` (and of its options, if it was registered with some), or a class that is made once (with its
options) and then called. It returns a dict of labels [N] by modality, or `LearnedLabels`. A modality may be left out: its task is
not trained in stage 3. docs/extending.md has an example.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from finetune.extensions import GENERATORS, plugin_options
from finetune.generator_options import GeneratorOptions
from finetune.labels.anchors import Opinions as Opinions
from skesl_mug.errors import UserError
from skesl_mug.registry import is_plugin, plugin_errors


@dataclass
class LabelInputs:
    """What a generator may see of the training split of N utterances: numpy arrays throughout.

    Labels, also those that it returns, are divided by the largest absolute value of the label range (3 for -3 to 3): `scale`.

    Attributes:
        y: multimodal labels [N].
        groups: video of each utterance, for folds that keep videos together.
        representations: h_m [N, D] by modality, from the networks of stage 1.
        projected: P_m(h_M) [N, D] by modality, the multimodal representation projected into the space of m.
        descriptors: fixed summaries of the raw input [N, D_m] that no label has touched (mean state of the initial language model; mean
            and deviation of the frames): what cross-fitting needs.
        present: whether an utterance has the modality [N]; rows elsewhere hold zeros and must not be learned from.
        seed: of this run.
        scale: what the labels were divided by; `y * scale` is in label units.
        opinions: by modality, opinions of a model that never saw this corpus's labels (the pretrained encoder's ratings); computed when
            read. Modalities without one are left out.
        human: human unimodal labels [N] by modality (NaN where unknown), for generators that set `reads_human_labels`; else None.
        ids: id of each utterance, to look up something of your own.
    """

    y: np.ndarray
    groups: list[str]
    representations: Mapping[str, np.ndarray]
    projected: Mapping[str, np.ndarray]
    descriptors: Mapping[str, np.ndarray]
    present: Mapping[str, np.ndarray]
    seed: int
    scale: float = 1.0
    opinions: Mapping[str, Opinions] = field(default_factory=dict)
    human: Mapping[str, np.ndarray] | None = None
    ids: Sequence[str] = ()

    @property
    def modalities(self) -> list[str]:
        """The modalities that at least one utterance has."""
        return [name for name, here in self.present.items() if here.any()]


class OnlineLabels(Protocol):
    """Labels that change during stage 3: `targets[m]` [N] is updated in place after every step."""

    targets: dict[str, Tensor]

    def after_step(self, rows: Tensor, representations: Mapping[str, Tensor], epoch: int) -> None:
        """Receive one batch: its rows [B], its representations [B, D] by space, the epoch (from 1)."""
        ...


@dataclass
class LearnedLabels:
    """Labels [N] by modality, in the units of `LabelInputs.y`, and the generator's own figures (for results.json).

    `online` is set by generators that keep learning during stage 3.
    """

    labels: dict[str, np.ndarray]
    facts: dict[str, Any] = field(default_factory=dict)
    online: OnlineLabels | None = None


class LabelGenerator(Protocol):
    """A generator that is ready to be called. `LabelInputs.human` is set only for one that `reads_human_labels`."""

    reads_human_labels: bool

    def __call__(self, inputs: LabelInputs) -> LearnedLabels:
        """Labels of every modality in `inputs.modalities`."""
        ...


CROSSFITTED = frozenset({"mucn-crossfit", "regressor", "shuffled"})
"""Generators that cross-fit predictions on descriptors of the raw input, folds by video."""
WITHOUT_DESCRIPTORS = frozenset({"mucn-meta", "meta-weight-net", "mlc", "ulgm", "copy", "human", "none"})
"""Generators that do not read descriptors; a plugin's may."""


FAR_OUTSIDE = 1.5
"""Labels (divided by the largest label) beyond ± this are reported, if they are more than `FEW_OUTSIDE`."""
FEW_OUTSIDE = 3


def make_generator(name: str, options: GeneratorOptions | None = None, given: Sequence[str] = ()) -> LabelGenerator:
    """The generator registered as `name`; its output is checked.

    Args:
        options: of the built-in generators; each finds its own group by type. By default their defaults.
        given: the values of `--plugin-options`.

    Raises:
        UserError: nothing is registered under the name, or an option is invalid.
    """
    registered: Any = GENERATORS.get(name)
    arguments = [
        group for group in vars(options or GeneratorOptions()).values() if type(group) is getattr(registered, "options_class", None)
    ]
    own = plugin_options(name, given)
    arguments += [] if own is None else [own]
    reads_human_labels = getattr(registered, "reads_human_labels", False)
    if not isinstance(registered, type):
        return _Checked(name, registered, lambda inputs: registered(inputs, *arguments), reads_human_labels)
    with plugin_errors(registered):
        return _Checked(name, registered, registered(*arguments), reads_human_labels)


class _Checked:
    """A generator whose output is checked, and completed to `LearnedLabels`."""

    def __init__(self, name: str, registered: Any, generate: Callable[[LabelInputs], Any], reads_human_labels: bool):
        self.name, self.registered, self.generate, self.reads_human_labels = name, registered, generate, reads_human_labels

    def __call__(self, inputs: LabelInputs) -> LearnedLabels:
        """The labels.

        Raises:
            UserError: they are not one finite number per utterance, or belong to no modality; or the plugin failed.
        """
        with plugin_errors(self.registered):
            made = self.generate(inputs)
        learned = made if isinstance(made, LearnedLabels) else LearnedLabels(made)
        if not isinstance(learned.labels, Mapping) or not set(learned.labels) <= set(inputs.modalities):
            raise UserError(f"--labels {self.name}: must return labels by modality ({', '.join(inputs.modalities)})")
        learned.labels = {modality: np.asarray(values, np.float64) for modality, values in learned.labels.items()}
        for modality, values in learned.labels.items():
            if values.shape != inputs.y.shape or not np.isfinite(values).all():
                raise UserError(f"--labels {self.name}: must return one finite label of {modality} per utterance ({len(inputs.y)})")
        if is_plugin(self.registered):
            self._print_notes(inputs, learned.labels)
        return learned

    def _print_notes(self, inputs: LabelInputs, labels: Mapping[str, np.ndarray]) -> None:
        """Report what is allowed but may be a mistake: modalities without labels, and labels far outside the range."""
        if not labels:
            raise UserError(f"--labels {self.name}: returned no labels; return them by modality ({', '.join(inputs.modalities)})")
        missing = [name for name in inputs.modalities if name not in labels]
        if missing:
            tqdm.write(f"note: --labels {self.name} returned no labels of {' and '.join(missing)}: this task is not trained in stage 3")
        outside = sum(int((np.abs(values[inputs.present[name]]) > FAR_OUTSIDE).sum()) for name, values in labels.items())
        if outside > FEW_OUTSIDE:
            tqdm.write(
                f"note: {outside:,} labels of --labels {self.name} are far outside the label range (more than {FAR_OUTSIDE:g} times the "
                "largest label); return labels divided by the largest label, as inputs.y is"
            )


def random_stream(seed: int, salt: int) -> torch.Generator:
    """An independent random stream per user, so that the draws of one generator never shift those of another."""
    return torch.Generator().manual_seed(seed * 1_000_003 + salt)
