"""The starter: an encoder trained once on this machine on rated sentences, and kept in the cache."""

import hashlib
import sys
from pathlib import Path

from lexicons.rated import HUTTO, HUTTO_SHA256, rated_file
from pretrain.options import ObjectiveOptions, PretrainOptions
from pretrain.run_folder import RESULTS_FILE
from pretrain.text_models import EMBEDDED, EMBEDDED_BASE, resolve_text_model
from skesl_mug.cache import cache_folder
from skesl_mug.pip_files import hash_of

STARTER = "starter"
RECIPE = 2
"""Incremented whenever the options below or the rows that are held out change, so that each recipe has its own folder."""


def starter_lm(name: str | Path) -> str | None:
    """The language model of `starter` or `starter:NAME`; None for any other name."""
    first, _, lm = str(name).partition(":")
    return (lm or EMBEDDED) if first == STARTER else None


def starter_options(lm: str = EMBEDDED, rated: str = HUTTO) -> PretrainOptions:
    """Options of the pretraining run that trains the starter, with a folder in the cache.

    A csv file of rated texts has a starter of its own; the archive of the published set has the default one.
    """
    small = lm == EMBEDDED
    if lm not in (EMBEDDED, EMBEDDED_BASE):
        lm = str(Path(resolve_text_model(lm)).resolve()) if Path(lm).is_dir() else resolve_text_model(lm)
    identity = f"{RECIPE} {lm}"
    if rated != HUTTO:
        content = hash_of(rated_file(rated))
        identity += "" if content == HUTTO_SHA256 else f" {content}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    return PretrainOptions(
        output=cache_folder() / STARTER / f"{Path(lm).name}-{digest}",
        lm=lm,
        rated=rated,
        freeze_lm=False,
        objective=ObjectiveOptions(word=0.0, rated=1.0),
        epochs=2 if small else 1,
        lm_lr=5e-5 if small else 2e-5,
        lr=1e-3,
        schedule="linear",
        valid_share=0.05,
        patience=0,
        trackers=[],
        checkpoint_steps=100,
        keep_checkpoints=1,
    )


def is_trained(folder: Path) -> bool:
    """Whether the run of the starter is finished."""
    return (folder / RESULTS_FILE).is_file()


def check_starter(lm: str) -> None:
    """Check that the starter of a language model is trained or can be trained.

    Raises:
        UserError: the language model cannot be found.
    """
    if Path(STARTER).is_dir():
        print(f"Note: `{STARTER}` is the starter model; for the folder of that name write ./{STARTER}", file=sys.stderr)
    if not is_trained(starter_options(lm).output):
        resolve_text_model(lm)
