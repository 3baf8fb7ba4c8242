"""Generators that learn nothing: the multimodal label copied, the human unimodal labels (the ceiling), and shuffled corrections."""

import numpy as np

from finetune.generator_options import CrossfitOptions
from finetune.labels import LabelInputs, LearnedLabels
from finetune.labels.crossfit import CrossfitMucn
from skesl_mug.errors import UserError


def no_labels(inputs: LabelInputs) -> LearnedLabels:
    """`none`: no unimodal labels, so no unimodal tasks."""
    return LearnedLabels({})


class CopyLabels:
    """`copy`: every modality gets the multimodal label; the control that a learned label has to beat."""

    reads_human_labels = False

    def __call__(self, inputs: LabelInputs) -> LearnedLabels:
        """y for every modality."""
        return LearnedLabels({name: inputs.y.copy() for name in inputs.modalities})


class HumanLabels:
    """`human`: the annotators' unimodal labels, where the corpus has them; y where single ones are unknown.

    Raises:
        UserError: the corpus has none.
    """

    reads_human_labels = True

    def __call__(self, inputs: LabelInputs) -> LearnedLabels:
        """The human labels by modality."""
        human = inputs.human or {}
        known = {name: human[name] for name in inputs.modalities if name in human and not np.isnan(human[name]).all()}
        if not known:
            raise UserError("--labels human: this corpus has no unimodal labels (label_T, label_A, label_V); choose another generator")
        labels = {
            name: np.where(np.isnan(known[name]), inputs.y, known[name]) if name in known else inputs.y.copy() for name in inputs.modalities
        }
        return LearnedLabels(labels, {"human_share": {name: float(np.mean(~np.isnan(values))) for name, values in known.items()}})


class ShuffledCorrections:
    """`shuffled`: the corrections of `mucn-crossfit` on the wrong utterances; tells a correction from mere smoothing."""

    reads_human_labels = False
    options_class = CrossfitOptions

    def __init__(self, options: CrossfitOptions):
        self.generator = CrossfitMucn(options)

    def __call__(self, inputs: LabelInputs) -> LearnedLabels:
        """y plus a permutation of (learned - y) among the utterances that have the modality."""
        learned = self.generator(inputs).labels
        random = np.random.default_rng(inputs.seed)
        labels = {}
        for name, values in learned.items():
            here = np.flatnonzero(inputs.present[name])
            labels[name] = values.copy()
            labels[name][here] = inputs.y[here] + (values - inputs.y)[random.permutation(here)]
        return LearnedLabels(labels)
