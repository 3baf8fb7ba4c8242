"""Training options by what a run starts from: plain defaults, an encoder that learned to rate utterances, or few labels."""

from typing import TYPE_CHECKING, Any

from pretrain.starter import STARTER
from pretrain.text_models import learned_to_rate
from skesl_mug.console import given_flags, read_stored_options
from skesl_mug.errors import UserError

if TYPE_CHECKING:
    from finetune.options import MugOptions

FEWEST = 8
"""Fewest labelled utterances that can be trained on."""
FEW_UPDATES = 40
"""Minimum updates with --few."""
FEW_DROPOUT = 0.1


def few_training(few: int, warm: bool) -> dict[str, Any]:
    """Training options for few labelled utterances: one stage of at least four epochs, low learning rates, the last epoch kept.

    They were tuned on the development part of CMU-MOSI's train split (benchmarks/few_labels.py).

    Args:
        few: number of labelled utterances.
        warm: the encoder has learned from rated sentences; its rates grow with the root of `few` (1e-5 with 64, 3e-5 from 576 on). A
            plain language model needs higher ones.
    """
    batch = 16
    steps = -(-few // batch)
    epochs = max(4, -(-FEW_UPDATES // steps))
    rate = 1e-5 * min(3.0, max(1.0, (few / 64) ** 0.5)) if warm else 1e-4
    rates = {"lm_lr": rate, "encoder_lr": rate, "lr": 10 * rate}
    return {"align_epochs": epochs, "joint_epochs": 0, "keep": "last", "batch_size": batch, **rates}


WARM_TRAINING: dict[str, Any] = {**few_training(1_000, warm=True), "joint_epochs": 4}
"""Training options for an encoder that learned to rate and all labels of a corpus: as with few, with a stage 3 as long as stage 1
(measured once, on halves of CMU-MOSI's train: docs/results.md)."""


def is_warm(options: "MugOptions") -> bool:
    """Whether a run starts from an encoder that learned to rate utterances; False for hub names, which are not looked up."""
    return options.encoder is not None and learned_to_rate(options.encoder)


def recommended(options: "MugOptions") -> dict[str, dict[str, Any]]:
    """The options by group that a run's start sets in place of the plain defaults."""
    if options.few is not None:
        return {"training": few_training(options.few, is_warm(options)), "model": {"dropout": FEW_DROPOUT}}
    if not is_warm(options):
        return {}
    most = {"align_epochs": 8, "joint_epochs": 8} if options.epochs_from == "cross-validation" else {}
    return {"training": WARM_TRAINING | most, "model": {"dropout": FEW_DROPOUT}}


def set_defaults(options: "MugOptions") -> None:
    """Set the options that follow from a run's start, except those that were given, are not at their default, or belong to a run in the
    output folder that was started with the plain defaults.

    With few labels there are no unimodal labels, which cannot be learned from so few. Neither they nor a warm start have the control
    without pretraining, which needs other epochs and learning rates: run it separately with --lm.

    Raises:
        UserError: --few or --epoch-folds is too small, or cross-validated epochs cannot keep the best one.
    """
    if options.few is not None and options.few < FEWEST:
        raise UserError(f"--few {options.few}: must be {FEWEST} or more")
    if options.few is not None and options.encoder is None and options.lm is None:
        options.encoder = STARTER
    changes = recommended(options)
    stored = _stored(options) if changes and options.few is None else {}
    for group, values in changes.items():
        target, before = getattr(options, group), stored.get(group) or {}
        fresh = type(target)()
        for name, value in values.items():
            plain = getattr(fresh, name)
            if f"--{group}.{name.replace('_', '-')}" not in given_flags() and getattr(target, name) == plain != before.get(name):
                setattr(target, name, value)
    if options.epochs_from == "cross-validation":
        if "--training.keep" in given_flags() and options.training.keep == "best":
            raise UserError("--training.keep best: needs a development part, and --epochs-from cross-validation has none; leave it out")
        options.training.keep = "last"
        if options.epoch_folds < 2:
            raise UserError(f"--epoch-folds {options.epoch_folds}: must be 2 or more")
    no_stage_three = options.few is not None and options.training.joint_epochs == 0
    if no_stage_three and options.labels == "mucn-crossfit" and "--labels" not in given_flags():
        options.labels, options.compare_labels = "none", []
    if changes and "--controls" not in given_flags():
        options.controls = [name for name in options.controls if name != "no-pretraining" or name in (stored.get("controls") or ())]


def _stored(options: "MugOptions") -> dict[str, Any]:
    """The options of the run in the output folder; empty if there is none to resume (whatever is wrong with it is reported later)."""
    path = options.output / "config.yaml"
    try:
        return {} if options.overwrite or not path.is_file() else read_stored_options(path)
    except (UserError, OSError):
        return {}


def training_line(options: "MugOptions") -> str:
    """One line for the terminal: how a run trains, why, and which of the options that follow from its start were changed."""
    training, changes = options.training, recommended(options)
    if options.few is not None:
        why = f"--few, from {'an encoder that learned to rate' if is_warm(options) else 'a start that did not learn to rate'}"
    else:
        why = "for an encoder that learned to rate utterances" if changes else "defaults"
    different = [
        f"--{group}.{name.replace('_', '-')}"
        for group, values in changes.items()
        for name, value in values.items()
        if getattr(getattr(options, group), name) != value
    ]
    most = "at most " if training.keep == "best" or options.epochs_from == "cross-validation" else ""
    epochs = f"{most}{training.align_epochs} + {training.joint_epochs} epochs, the {training.keep} one kept"
    rates = f"learning rates {training.lr:.2g} (networks), {training.encoder_lr:.2g} (encoder)"
    rates += "" if options.freeze_lm else f", {training.lm_lr:.2g} (language model)"
    line = f"training ({why}): {epochs}; batches of {training.batch_size}; {rates}; dropout {options.model.dropout:g}"
    return line + (f"; {', '.join(different)} as given" if different else "")
