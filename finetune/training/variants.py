"""The models that a run trains for each seed: the headline, other label generators, and the controls."""

from dataclasses import dataclass

from finetune.modalities import AUDIO, MODALITIES, TEXT, VISION
from finetune.options import MugOptions

SINGLE_MODALITY = {"text_only": TEXT, "audio_only": AUDIO, "vision_only": VISION}
"""Starts that see one modality alone, in training and test."""
WITHOUT = {f"without_{name}": tuple(other for other in MODALITIES if other != name) for name in MODALITIES}
"""Starts as `full` that see all modalities but one."""


@dataclass(frozen=True)
class Variant:
    """One trained model: which labels it learns from, and where it starts.

    Starts: `full` (every task and the alignment), `plain` (the multimodal task alone), `no_pretraining` and `no_pretraining_plain` (the
    same from the encoder before SKESL), those that see a single modality (the multimodal task alone), and those that see all but one
    (every task and the alignment). Variants of one start share its stage 1.
    """

    name: str
    generator: str
    start: str = "full"

    @property
    def row(self) -> str:
        """Its name among the controls of results.json."""
        return f"labels_{self.name.replace('-', '_')}" if self.name == self.generator else self.name


def visible(start: str) -> tuple[str, ...]:
    """The modalities that a start sees."""
    return (SINGLE_MODALITY[start],) if start in SINGLE_MODALITY else WITHOUT.get(start, MODALITIES)


def teaches_modalities(start: str) -> bool:
    """Whether a start's stage 1 has unimodal tasks and alignment."""
    return start in ("full", "no_pretraining", *WITHOUT)


def of_generator(generator: str) -> Variant:
    """The model that learns from a generator's labels; with `none` it is the encoder fine-tuned plainly."""
    return Variant(generator, generator, "plain" if generator == "none" else "full")


def plan(options: MugOptions, can_leave_out_pretraining: bool, present: tuple[str, ...]) -> list[Variant]:
    """The models of each seed, the headline first; controls that do not apply to the corpus or encoder are left out."""
    no_copy = options.training.unimodal_weighting == "tanh"  # which would leave copied labels without any loss
    variants = [of_generator(name) for name in (options.labels, *options.compare_labels) if not (no_copy and name == "copy")]
    if "no-unimodal-tasks" in options.controls and "none" not in (options.labels, *options.compare_labels):
        variants.append(Variant("no_unimodal_tasks", "none", "plain"))
    for start, modality in SINGLE_MODALITY.items():
        if start.replace("_", "-") in options.controls and modality in present and len(present) > 1:
            variants.append(Variant(start, "none", start))
    if "no-pretraining" in options.controls and can_leave_out_pretraining:
        start = "no_pretraining" if options.labels != "none" else "no_pretraining_plain"
        variants.append(Variant("no_pretraining", options.labels, start))
    return variants
