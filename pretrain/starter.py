"""The starter: an encoder trained once, on the spot, on sentences that people rated, and kept in the cache."""

import hashlib
from pathlib import Path

from pretrain.embedded_models import EMBEDDED, EMBEDDED_BASE
from pretrain.options import ObjectiveOptions, PretrainOptions
from pretrain.run_folder import RESULTS_FILE
from pretrain.text_models import resolve_text_model
from skesl_mug.cache import cache_folder

STARTER = "starter"
RECIPE = 1
"""Raised whenever the recipe below changes: another recipe has another folder."""


def starter_lm(name: str | Path) -> str | None:
    """The language model of `starter` or `starter:NAME`; None where a name means something else."""
    first, _, lm = str(name).partition(":")
    return (lm or EMBEDDED) if first == STARTER else None


def starter_options(lm: str = EMBEDDED) -> PretrainOptions:
    """The options of the pretraining run that makes the starter; its folder lies in the cache."""
    small = lm == EMBEDDED
    if lm not in (EMBEDDED, EMBEDDED_BASE):
        lm = str(Path(resolve_text_model(lm)).resolve()) if Path(lm).is_dir() else resolve_text_model(lm)
    digest = hashlib.sha256(f"{RECIPE} {lm}".encode()).hexdigest()[:8]
    return PretrainOptions(
        output=cache_folder() / STARTER / f"{Path(lm).name}-{digest}",
        lm=lm,
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
    """Whether the starter's run is finished."""
    return (folder / RESULTS_FILE).is_file()
