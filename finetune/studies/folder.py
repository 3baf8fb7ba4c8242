"""The output folder of a study or a search."""

from dataclasses import fields
from pathlib import Path

from finetune.options import TrainOptions
from finetune.training.folder import ADDING_OPTIONS, BY_CONTENT, CHECKPOINTS, IDENTITY_FILE, check_recipe
from skesl_mug.console import COMMAND_FIELDS, to_plain
from skesl_mug.errors import UserError
from skesl_mug.files import read_json
from skesl_mug.run_folder import RunFolder


def study_folder(name: str, options: TrainOptions) -> RunFolder:
    """The folder of the study `name`. The study's own options are free: the names of its pieces on disk show them."""
    identity = f"{CHECKPOINTS}/{IDENTITY_FILE}"
    own = frozenset({each.name for each in fields(options)} - {each.name for each in fields(TrainOptions)})
    defaults = to_plain(TrainOptions(dataset="custom", data="", output=Path(), lm=""), leave_out=COMMAND_FIELDS | {"lm"})
    return RunFolder(
        options.output, f"the study {name}", free=ADDING_OPTIONS | BY_CONTENT | own, defaults=defaults, identity_file=identity,
        is_ours=lambda _: stored_study(options.output / identity) is not None,
    )  # fmt: skip


def check_folder(name: str, options: TrainOptions) -> RunFolder:
    """Check that the folder is new, or holds this study with the same options.

    Raises:
        UserError: it holds another study, one with other options (shown, old and new), or something else.
    """
    folder = study_folder(name, options)
    stored = stored_study(options.output / folder.identity_file)
    if stored not in (None, name) and not options.overwrite:
        raise UserError(f"--output {options.output}: holds the study {stored}; choose another folder, or add --overwrite to start again")
    if folder.check(to_plain(options, leave_out=COMMAND_FIELDS), options.overwrite) and not options.overwrite:
        check_recipe(options.output)
    return folder


def stored_study(identity: Path) -> str | None:
    """The name of the study that an identity file belongs to; None where there is none."""
    try:
        stored = read_json(identity)
    except (OSError, UserError):
        return None
    return str(stored["study"]) if isinstance(stored, dict) and "study" in stored else None
