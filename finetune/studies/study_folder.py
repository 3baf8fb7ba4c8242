"""The folder of a study: which study of what it holds, and what may be added to it."""

import json
from typing import TYPE_CHECKING, Any

import yaml

from finetune.options import TrainOptions
from finetune.training.folder import ADDING_OPTIONS, BY_CONTENT, CHECKPOINTS, IDENTITY_FILE
from skesl_mug.console import COMMAND_FIELDS, to_plain, with_defaults
from skesl_mug.errors import UserError
from skesl_mug.files import write_atomically, write_json
from skesl_mug.run_folder import RunFolder, differences

if TYPE_CHECKING:
    from finetune.corpora import LabelledCorpus
    from finetune.model.encoders import EncoderSource


def identity_of(options: TrainOptions) -> dict[str, Any]:
    """The options that every piece of a study shares; the study's own are spelt in its pieces' names."""
    plain = to_plain(options, leave_out=COMMAND_FIELDS | ADDING_OPTIONS | BY_CONTENT)
    return {name: value for name, value in plain.items() if name in TrainOptions.__dataclass_fields__}


def check_folder(name: str, options: TrainOptions) -> None:
    """See that the output folder is new, or holds this study with these options.

    Raises:
        UserError: it holds another study, one of other options (shown, old and new), or something that is no study.
    """
    stored = stored_identity(options)
    if stored is None:
        if options.output.exists() and any(options.output.iterdir()):
            raise UserError(f"--output {options.output}: is not empty and holds no study; name another folder")
        return
    if options.overwrite:
        return
    if stored["study"] != name:
        raise UserError(f"--output {options.output}: holds the study {stored['study']}; name another folder or add --overwrite")
    defaults = identity_of(TrainOptions(dataset="custom", data="", output=options.output, lm=""))
    changes = differences(with_defaults(stored["options"], defaults), identity_of(options))
    if changes:
        raise UserError(
            f"--output {options.output}: holds the study of other options ({'; '.join(changes)}); name another or add --overwrite"
        )


def stored_identity(options: TrainOptions) -> dict[str, Any] | None:
    """What the folder says it holds; None where it holds no study."""
    try:
        stored = json.loads((options.output / CHECKPOINTS / IDENTITY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stored if isinstance(stored, dict) and "study" in stored else None


def claim_folder(name: str, options: TrainOptions, corpus: "LabelledCorpus", source: "EncoderSource") -> None:
    """Take the folder, now that everything could be read.

    Raises:
        UserError: it was begun with the same options over other data or another encoder.
    """
    stored = stored_identity(options)
    if stored is not None and options.overwrite:  # nothing but a study is ever deleted
        RunFolder(options.output, "a study").clear()
        stored = None
    content = {"data": corpus.sha256, "encoder": source.fingerprint()}
    if stored is not None:
        changed = [f"--{part}" for part in content if stored.get(part) != content[part]]
        if changed:
            raise UserError(f"--output {options.output}: was begun with other content behind {' and '.join(changed)}; add --overwrite")
    else:
        write_json(options.output / CHECKPOINTS / IDENTITY_FILE, {"study": name, **content, "options": identity_of(options)})
    text = yaml.safe_dump(to_plain(options, leave_out=COMMAND_FIELDS), sort_keys=False, allow_unicode=True)
    write_atomically(options.output / "config.yaml", lambda path: path.write_text(text, encoding="utf-8"))
