"""The models that a run trains for each seed: the headline, other label generators, and the controls; and what they are called."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from finetune.modalities import MODALITIES
from finetune.options import MugOptions
from skesl_mug.wording import counted


@dataclass(frozen=True)
class Start:
    """What a model is trained from; variants with the same start share stage 1.

    Attributes:
        modalities: those that the model sees, in training and test.
        pretrained: from the given encoder; False: from the same architecture around its language model before SKESL.
        unimodal_tasks: stage 1 has the unimodal tasks and the alignment; False: the multimodal task alone.
    """

    modalities: tuple[str, ...] = MODALITIES
    pretrained: bool = True
    unimodal_tasks: bool = True

    @classmethod
    def only(cls, modality: str) -> "Start":
        """A single modality, the multimodal task alone."""
        return cls((modality,), unimodal_tasks=False)

    @classmethod
    def without(cls, modality: str) -> "Start":
        """All modalities but one, with every task."""
        return cls(tuple(name for name in MODALITIES if name != modality))

    @property
    def name(self) -> str:
        """Its name in file names: full, plain, no_pretraining, no_pretraining_plain, text_only, without_text, ..."""
        single = len(self.modalities) == 1
        seen = f"{self.modalities[0]}_only" if single else "_".join(f"without_{m}" for m in MODALITIES if m not in self.modalities)
        words = ["" if self.pretrained else "no_pretraining", seen]
        if self.unimodal_tasks == single:  # not what is usual for that many modalities
            words.append("aligned" if self.unimodal_tasks else "plain")
        return "_".join(word for word in words if word) or "full"


FULL, PLAIN = Start(), Start(unimodal_tasks=False)
NO_PRETRAINING = Start(pretrained=False)


@dataclass(frozen=True)
class Variant:
    """One trained model: its name on disk, the generator of its unimodal labels, and its start."""

    name: str
    generator: str
    start: Start = field(default=FULL)

    @property
    def row(self) -> str:
        """Its name among the controls of results.json."""
        return f"labels_{self.name.replace('-', '_')}" if self.name == self.generator else self.name


def of_generator(generator: str) -> Variant:
    """The model that learns from a generator's labels; with `none` it is the encoder fine-tuned on the multimodal task alone."""
    return Variant(generator, generator, PLAIN if generator == "none" else FULL)


def plan(options: MugOptions, can_leave_out_pretraining: bool, present: tuple[str, ...]) -> list[Variant]:
    """The models of each seed, the headline first; controls that do not apply to the corpus or encoder are left out."""
    no_copy = options.training.unimodal_weighting == "tanh"  # which would leave copied labels without any loss
    variants = [of_generator(name) for name in (options.labels, *options.compare_labels) if not (no_copy and name == "copy")]
    if "no-unimodal-tasks" in options.controls and "none" not in (options.labels, *options.compare_labels):
        variants.append(Variant("no_unimodal_tasks", "none", PLAIN))
    for modality in MODALITIES:
        start = Start.only(modality)
        if f"{modality}-only" in options.controls and modality in present and len(present) > 1:
            variants.append(Variant(start.name, "none", start))
    if "no-pretraining" in options.controls and can_leave_out_pretraining:
        variants.append(Variant("no_pretraining", options.labels, Start(pretrained=False, unimodal_tasks=options.labels != "none")))
    return variants


CONTROL_NAMES = {
    "constant": "Constant",
    "text_only": "Text only",
    "audio_only": "Audio only",
    "vision_only": "Vision only",
    "no_pretraining": "Without pretraining",
    "no_unimodal_tasks": "Without unimodal tasks",
    "permuted_audio_vision": "Audio and vision permuted at test",
    "shuffled_audio_vision": "Audio and vision permuted",
    "labels_none": "Without unimodal tasks",
    "labels_copy": "Labels: y copied",
    "labels_human": "Labels: the known ones (human)",
    "labels_regressor": "Labels: regressor",
    "labels_ulgm": "Labels: ULGM (Self-MM)",
    "labels_mucn_meta": "Labels: mucn-meta (bi-level)",
    "labels_meta_weight_net": "Labels: Meta-Weight-Net",
    "labels_mlc": "Labels: MLC",
    "labels_mucn_crossfit": "Labels: mucn-crossfit",
}


def model_name(headline: str) -> str:
    """The name of the model whose labels come from `headline`."""
    return "Without unimodal tasks" if headline == "none" else f"MUG ({headline})"


def averaged_name(headline: str, seeds: int) -> str:
    """The name of the mean of the seeds' predictions."""
    return f"{model_name(headline)}, {seeds} seeds averaged"


def humanise(name: str) -> str:
    """A control's name in words; unknown ones as they are spelt, without underscores."""
    words = name.replace("_", " ")
    return CONTROL_NAMES.get(name, words[:1].upper() + words[1:])


def variant_name(variant: str, headline: str) -> str:
    """A trained model by its variant's name: the run's own, or what its row is called."""
    if variant == headline:
        return model_name(headline)
    return humanise(variant if variant in CONTROL_NAMES else f"labels_{variant.replace('-', '_')}")


def epochs_in_words(choice: Mapping[str, Any]) -> str:
    """Cross-validated epochs, an entry of `epochs` in results.json, with the held-out MAE of each candidate."""
    stages = [(1, choice["align"], choice["align_errors"]), (3, choice["joint"], choice["joint_errors"])]
    parts = [
        f"stage {stage}: {chosen} (held-out MAE {', '.join(f'{epochs}: {error:.3f}' for epochs, error in errors.items())})"
        for stage, chosen, errors in stages
        if errors
    ]
    return "; ".join([*parts, f"{counted(choice['folds'], 'fold')} by {choice['unit']}"])
