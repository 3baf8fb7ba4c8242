"""Finding and loading language models: by hub name, from a folder, or from pip packages (`pretrain.embedded_models`)."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from pretrain.embedded_models import EMBEDDED_MODELS, embedded_folder, embedded_names
from skesl_mug.errors import UserError

POSITIONS_BEHIND_PADDING = (
    "camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke", "markuplm", "mpnet",
    "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
)  # fmt: skip
"""Models that number positions from the padding id + 1: of 514 positions, 512 can be used."""


def resolve_text_model(name: str | Path) -> str:
    """A folder or hub name for `from_pretrained`; embedded models become folders.

    Raises:
        UserError: an embedded model is not installed, or a folder holds no model.
    """
    if str(name) in EMBEDDED_MODELS:
        return str(embedded_folder(str(name)))
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder}: is not a language model (no config.json); give a Hugging Face model folder or a hub name")
        return str(folder)
    if folder.exists():
        raise UserError(f"{folder}: is a file; give a Hugging Face model folder or a hub name")
    if len(folder.parts) > 2 or folder.is_absolute() or str(name).startswith((".", "~")):
        raise UserError(f"{name}: no such folder; give a Hugging Face model folder, a hub name, {embedded_names()}")
    return str(name)


def load_tokenizer(name: str | Path) -> Any:
    """The tokenizer of a text model or of a pretraining run; a fast one, because character offsets are needed.

    Its `model_max_length` is at most the number of positions of the model. Without a padding token it pads with its end token.

    Raises:
        UserError: there is no tokenizer, or no fast one.
    """
    from transformers import AutoTokenizer

    resolved = resolve_text_model(run_model_folder(name))
    with opening(resolved, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(resolved)
    if not tokenizer.is_fast:
        raise UserError(f"{name}: it has no fast tokenizer (tokenizer.json), which is needed to locate words in the text")
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise UserError(f"{name}: its tokenizer has neither a padding nor an end token; use a model such as BERT or RoBERTa")
        tokenizer.pad_token = tokenizer.eos_token
    positions = position_limit(read_text_config(resolved))
    if positions is not None:  # the tokenizer's own limit may be missing or wrong
        tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    return tokenizer


def read_text_config(resolved: str) -> Any:
    """Config of the language model in a text model, a SKESL encoder or a fine-tuned model (folder or hub name)."""
    from transformers import AutoConfig, PretrainedConfig

    with opening(resolved, "config"):
        entries = dict(PretrainedConfig.get_config_dict(resolved)[0])
        if entries.get("model_type") not in ("mug", "skesl"):
            return load_config(resolved)
        entries = dict(entries["encoder"]) if entries["model_type"] == "mug" else entries
        inner = dict(entries["text_config"])  # read directly: the outer config classes need torch
        return AutoConfig.for_model(inner.pop("model_type"), **inner)


def position_limit(config: Any) -> int | None:
    """Maximum input length of a language model in tokens; None if its config does not state it."""
    count = getattr(config, "max_position_embeddings", None)
    if not isinstance(count, int) or count <= 0:
        return None
    if config.model_type in POSITIONS_BEHIND_PADDING:
        padding = 1 if config.model_type == "mpnet" else getattr(config, "pad_token_id", None)  # fixed in MPNet's code
        return count - (1 if padding is None else padding) - 1
    return count


def load_text_model(name: str | Path) -> Any:
    """The text encoder (`AutoModel`, float32, evaluation mode) without its pooler, which is not used.

    Raises:
        UserError: it cannot be loaded, or is not an encoder.
    """
    import torch
    from transformers import AutoModel

    resolved = resolve_text_model(name)
    config = load_config(resolved)
    if config.model_type == "skesl":
        raise UserError(f"{name}: is a SKESL encoder, not a language model; pass it as --encoder")
    if getattr(config, "is_encoder_decoder", False) or not hasattr(config, "hidden_size"):
        raise UserError(f"{name}: is a {config.model_type} model, not a text encoder such as BERT, RoBERTa or DeBERTa")
    if getattr(config, "use_cache", False):  # a key-value cache is for generation only
        config.use_cache = False
    with opening(resolved, "language model"), quiet_loading():
        model = AutoModel.from_pretrained(resolved, config=config, dtype=torch.float32)
    drop_pooler(model)
    return model


def load_config(resolved: str) -> Any:
    """`AutoConfig` of a folder or hub name; failures become `UserError`."""
    from transformers import AutoConfig

    with opening(resolved, "language model"):
        return AutoConfig.from_pretrained(resolved)


def drop_pooler(model: Any) -> None:
    """Remove the pooling layer, which is not used: parameters without gradients would break distributed training."""
    if getattr(model, "pooler", None) is not None:
        model.pooler = None


def run_model_folder(name: str | Path) -> str | Path:
    """`RUN/model` if `name` is the folder of a run, else `name`."""
    folder = Path(name)
    return folder / "model" if (folder / "model" / "config.json").is_file() else name


def read_model_type(folder: Path) -> str | None:
    """The model type in a folder's config.json; None if there is none."""
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def learned_to_rate(encoder: str) -> bool:
    """Whether an encoder was trained on ratings, according to its config.json; False for hub names, which are not looked up."""
    if encoder.partition(":")[0] == "starter":
        return True
    try:
        config = json.loads((Path(run_model_folder(encoder)) / "config.json").read_text(encoding="utf-8"))
        return bool(config.get("rating_dim"))
    except (OSError, ValueError, AttributeError):
        return False


def check_encoder(name: str) -> None:
    """Check by its config.json that a local encoder is a SKESL encoder; hub names are checked when loading.

    Raises:
        UserError: it is not.
    """
    place = Path(run_model_folder(name))
    if place.is_dir() and not (place / "config.json").is_file():
        raise UserError(f"--encoder {name}: is not a pretrained encoder; choose a pretraining run, or its model/ folder")
    folder = Path(resolve_text_model(place))
    kind = read_model_type(folder) if folder.is_dir() else None
    if kind is not None:
        refuse_other_than_skesl(name, kind)


def refuse_other_than_skesl(name: str | Path, kind: str) -> None:
    """Raise UserError if a model type is not that of a SKESL encoder."""
    if kind != "skesl":
        raise UserError(f"{name}: is a {kind} model, not a SKESL encoder; pass a plain language model with --lm")


@cache
def say_fetching(name: str) -> None:
    """Announce a download once: it can take minutes, and half a minute to notice that there is no network."""
    if os.environ.get("RANK", "0") == "0":
        print(f"Fetching {name} from the Hugging Face hub, or from its cache …", file=sys.stderr, flush=True)


@contextmanager
def opening(name: str, what: str) -> Iterator[None]:
    """Turn failures of `from_pretrained` into a `UserError` that names the model and the fix."""
    from safetensors import SafetensorError

    if not Path(name).is_dir():
        say_fetching(name)
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if Path(name).is_dir():
            raise UserError(f"{name}: its {what} cannot be read ({reason})") from error
        raise UserError(
            f"{name}: no such folder, and no {what} of that name on the Hugging Face hub; "
            f"check the name and the network, give a local folder, or use {embedded_names()}"
        ) from error


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Suppress the progress bars and reports of transformers."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
