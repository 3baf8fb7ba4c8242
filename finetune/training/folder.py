"""The output folder of a fine-tuning run: what it may hold, what is checked before anything is imported, how long its sessions took."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.extensions import plugin_code
from finetune.options import MugOptions, TrainOptions
from pretrain.starter import check_starter, starter_lm
from pretrain.text_models import check_encoder, resolve_text_model
from skesl_mug.console import COMMAND_FIELDS, check_writable, to_plain
from skesl_mug.errors import UserError
from skesl_mug.files import read_json, write_json
from skesl_mug.run_folder import RunFolder

if TYPE_CHECKING:
    from finetune.corpora import LabelledCorpus
    from finetune.model.encoders import EncoderSource

MARGINS = ("label_margin", "retrieval_factor", "av_margin")
ADDING_OPTIONS = frozenset(
    {
        "seeds",
        "compare_labels",
        "controls",
        "cache",
        "workers",
        "threads",
        "bootstrap",
        "average_seeds",
        "interval_level",
        "title",
        "synthetic",
        "plugin",
        "overwrite",
        *MARGINS,
    }
)
"""Options that may differ when a run resumes: they add pieces, or change nothing that was trained."""
BY_CONTENT = frozenset({"data", "output"})
"""Paths: a file may be moved; its content must not change."""
CHECKPOINTS = "checkpoints"
IDENTITY_FILE = "identity.json"
SESSIONS_FILE = "sessions.json"
RECIPE = 4
"""Counts changes of training that alter every result (2: no weight decay on biases and norms; 4: gates); others do not resume."""


def check_places(options: TrainOptions, data: bool = True) -> None:
    """Check --data, --encoder or --lm, and --output within a second, before torch is imported; hubs and object stores are not asked.

    Raises:
        UserError: one of them is not what it has to be.
    """
    if data:
        from finetune.corpora.cached import check_place

        check_place(options.data)
    starter = starter_lm(options.encoder) if options.encoder is not None else None
    if starter is not None:
        check_starter(starter)
    elif options.encoder is not None:
        check_encoder(options.encoder)
    else:
        resolve_text_model(str(options.lm))
    check_writable(options.output)


def run_folder(output: Path) -> RunFolder:
    """The folder of a fine-tuning run."""
    return RunFolder(
        output,
        "a fine-tuning run",
        free=ADDING_OPTIONS | BY_CONTENT,
        defaults=to_plain(MugOptions(dataset="custom", data="", output=output, lm=""), leave_out=COMMAND_FIELDS | {"lm"}),
        is_ours=lambda stored: {"dataset", "data", "labels", "controls", "training"} <= set(stored),
        identity_file=f"{CHECKPOINTS}/{IDENTITY_FILE}",
    )


def check_output(options: MugOptions) -> None:
    """Check that the output folder is new, or holds a run that these options resume or add to.

    Raises:
        UserError: it holds a run with other options (shown, old and new), or something else.
    """
    folder = run_folder(options.output)
    if not folder.check(_plain(options), options.overwrite) or options.overwrite:
        return
    check_recipe(options.output)
    if options.few is None:
        return
    first = (folder.stored() or {}).get("seeds") or options.seeds
    if first[0] != options.seeds[0]:
        raise UserError(
            f"--seeds {options.seeds[0]}: the first seed draws --few's utterances, and this run started with {first[0]}; keep it first"
        )


def check_recipe(output: Path) -> None:
    """Check that a started run was trained as this version trains, so that its table compares like with like.

    Raises:
        UserError: an earlier version trained it differently.
    """
    path = output / CHECKPOINTS / IDENTITY_FILE
    if path.is_file() and read_json(path).get("recipe", 1) != RECIPE:
        raise UserError(
            f"--output {output}: was started by a version of skesl-mug that trains differently; choose another folder, or add --overwrite "
            "to start again"
        )


def claim_output(options: MugOptions, corpus: "LabelledCorpus", source: "EncoderSource", held: ExitStack) -> None:
    """Take the run's folder once everything could be read: write the resolved options and the fingerprints of what was read.

    Raises:
        UserError: the folder holds a run with other data, another encoder or other code of a plugin, or another run is writing there.
    """
    folder = run_folder(options.output)
    held.enter_context(folder.lock())
    check_output(options)  # again: another run may have taken it while the data were read
    identity = {"data": corpus.sha256, "encoder": source.fingerprint(), **plugin_code(options)}
    folder.claim(_plain(options), identity, options.overwrite)
    path = options.output / CHECKPOINTS / IDENTITY_FILE
    stored, splits = read_json(path), _split_fingerprint(corpus)
    if stored.get("splits", splits) != splits:
        raise UserError(
            f"--output {options.output}: the corpus was changed since this run started; choose another folder, or add --overwrite"
        )
    first = {"recipe": RECIPE, "splits": splits, "margins": {name: getattr(options, name) for name in MARGINS}}
    if set(first) - set(stored):
        write_json(path, {**first, **stored})


def _plain(options: MugOptions) -> dict[str, Any]:
    return dict(to_plain(options, leave_out=COMMAND_FIELDS))


def _split_fingerprint(corpus: "LabelledCorpus") -> str:
    """SHA-256 of the splits' ids, labels and texts: a corpus that was changed in Python is not that of the file."""
    digest = hashlib.sha256()
    for name, split in corpus.splits.items():
        earlier = [text for row in split.context or () for text in row]
        digest.update("\n".join([name, *split.ids, *(split.text or []), *earlier]).encode())
        digest.update(split.label.tobytes())
    return digest.hexdigest()


def first_margins(output: Path) -> dict[str, float]:
    """The margins that were set before anything was trained; if a later session has others, the report says so."""
    return dict(read_json(output / CHECKPOINTS / IDENTITY_FILE)["margins"])


@dataclass
class Session:
    """One session of a run; `worked` is set to False if all pieces were finished."""

    worked: bool = True


@contextmanager
def timed_session(output: Path, began: float, writes: bool) -> Iterator[Session]:
    """Add the seconds since `began` (of `time.perf_counter`) to the run's own count, however the session ends; one process `writes`."""
    session = Session()
    try:
        yield session
    finally:
        if writes and session.worked:
            write_json(output / CHECKPOINTS / SESSIONS_FILE, [*_sessions(output), round(time.perf_counter() - began, 2)])


def seconds_of_sessions(output: Path) -> float:
    """Seconds of all sessions that trained something; a session that was killed (SIGKILL) is not counted."""
    return round(sum(_sessions(output)), 1)


def _sessions(output: Path) -> list[float]:
    path = output / CHECKPOINTS / SESSIONS_FILE
    return read_json(path) if path.is_file() else []
