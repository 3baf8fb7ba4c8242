"""The starter: an encoder trained once, on the spot, on sentences that people rated, and kept in the cache."""

import hashlib
import json
from pathlib import Path

from preprocessing.console import to_plain
from pretrain.embedded_models import EMBEDDED
from pretrain.options import ObjectiveOptions, PretrainOptions
from pretrain.run_folder import RESULTS_FILE
from pretrain.text_models import resolve_text_model
from skesl_mug.cache import cache_folder

STARTER = "starter"
FREE = ("output", "config", "print_config", "debug", "lm")


def starter_lm(name: str | Path) -> str | None:
    """The language model of `starter` or `starter:NAME`; None where a name means something else."""
    first, _, lm = str(name).partition(":")
    return (lm or EMBEDDED) if first == STARTER else None


def starter_options(lm: str = EMBEDDED) -> PretrainOptions:
    """The options of the pretraining run that makes the starter."""
    options = PretrainOptions(
        output=Path(),
        lm=lm,
        freeze_lm=False,
        objective=ObjectiveOptions(word=0.0, rated=1.0),
        epochs=2 if lm == EMBEDDED else 1,
        lm_lr=5e-5 if lm == EMBEDDED else 2e-5,
        lr=1e-3,
        schedule="linear",
        valid_share=0.05,
        patience=0,
        trackers=[],
        checkpoint_steps=100,
        keep_checkpoints=1,
    )
    options.output = starter_folder(options)
    return options


def starter_folder(options: PretrainOptions) -> Path:
    """Where the starter of these options lies: another language model or another recipe has another folder."""
    place = resolve_text_model(options.lm)
    recipe = {name: value for name, value in to_plain(options).items() if name not in FREE}
    name = options.lm if options.lm.startswith(EMBEDDED) else Path(place).name
    digest = hashlib.sha256(json.dumps([recipe, options.lm if options.lm.startswith(EMBEDDED) else place], sort_keys=True).encode())
    return cache_folder() / STARTER / f"{name}-{digest.hexdigest()[:12]}"


def is_trained(folder: Path) -> bool:
    """Whether the starter's run is finished."""
    return (folder / RESULTS_FILE).is_file()
