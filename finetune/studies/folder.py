"""The output folder of a study or a search."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.extensions import plugin_code
from finetune.options import TrainOptions
from finetune.training.folder import ADDING_OPTIONS, BY_CONTENT, CHECKPOINTS, IDENTITY_FILE, check_recipe
from skesl_mug.console import COMMAND_FIELDS, to_plain
from skesl_mug.errors import UserError
from skesl_mug.files import read_json
from skesl_mug.registry import fingerprint, is_plugin
from skesl_mug.run_folder import RunFolder

if TYPE_CHECKING:
    from finetune.studies.study import Study
    from finetune.training.trainer import Setting


def study_folder(name: str, options: TrainOptions) -> RunFolder:
    """The folder of the study `name`. The study's own options are free: the names of its pieces on disk show them."""
    identity = f"{CHECKPOINTS}/{IDENTITY_FILE}"
    own = frozenset({each.name for each in fields(options)} - {each.name for each in fields(TrainOptions)})
    defaults = to_plain(TrainOptions(dataset="custom", data="", output=Path(), lm=""), leave_out=COMMAND_FIELDS | {"lm"})
    return RunFolder(
        options.output, f"the study {name}", free=ADDING_OPTIONS | BY_CONTENT | own, defaults=defaults, identity_file=identity,
        is_ours=lambda _: stored_study(options.output / identity) is not None,
        keep_on_overwrite=frozenset({"best"} if name == "search" else ()),  # the run of best.yaml
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


def code_of_study(study: "Study", settings: Sequence["Setting"]) -> dict[str, str]:
    """Fingerprints of the plugins that a study uses. Of a plugin's study they are those of its settings' options and views: its outcome
    may be edited and written again."""
    found: dict[str, str] = {}
    for setting in settings:
        found |= plugin_code(setting.options, {variant.generator for variant in setting.variants} - set(setting.generators))
        if is_plugin(study):
            known = {each.name for each in fields(TrainOptions)} - ADDING_OPTIONS - BY_CONTENT - COMMAND_FIELDS
            options = {name: value for name, value in to_plain(setting.options).items() if name in known}
            views = [fingerprint(view) for view in (setting.view, *setting.tests.values()) if view is not None]
            text = json.dumps([options, views], default=str)
            found[f"definition of setting {setting.name}"] = hashlib.sha256(text.encode()).hexdigest()
    return found


def stored_study(identity: Path) -> str | None:
    """The name of the study that an identity file belongs to; None where there is none."""
    try:
        stored = read_json(identity)
    except (OSError, UserError):
        return None
    return str(stored["study"]) if isinstance(stored, dict) and "study" in stored else None
