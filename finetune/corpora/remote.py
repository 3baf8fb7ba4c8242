"""Corpora behind a URL (s3://, gs://, https://, memory://, whatever fsspec opens), downloaded to the cache."""

import hashlib
import json
from pathlib import Path, PurePosixPath

from preprocessing.object_store import fetch_dataset, is_url, open_store
from preprocessing.store import read_info
from skesl_mug.cache import DISK_FAULTS, make_once
from skesl_mug.errors import UserError


def check_place(data: str | Path) -> None:
    """See that a labelled corpus is there: a file, or the folder of an utterance dataset; a URL is left to `local_copy`.

    Raises:
        UserError: it is not.
    """
    if is_url(data):
        return
    path = Path(data)
    if not path.exists():
        raise UserError(f"--data {path}: does not exist; give an MMSA or SKESL pickle, or the folder of an utterance dataset")
    if path.is_dir():
        read_info(path)


def local_copy(data: str | Path, cache: Path) -> Path:
    """The path of `data` on this disk: itself, or its copy in the cache.

    A copy is kept under what the store says of the object (size, time, ETag): a changed object is downloaded anew.

    Raises:
        UserError: there is nothing, or it cannot be reached.
    """
    if not is_url(data):
        return Path(data)
    url = str(data)
    store, path = open_store(url, "--data")
    try:
        if store.isdir(path):
            return fetch_dataset(url, cache)
        if not store.exists(path):
            raise UserError(f"--data {url}: does not exist; give an MMSA or SKESL pickle, or the folder of an utterance dataset")
        about = json.dumps([url, store.info(path)], sort_keys=True, default=str)
        target, name = cache / "downloads" / hashlib.sha256(about.encode()).hexdigest(), PurePosixPath(path).name

        def download(folder: Path) -> None:
            try:
                store.get_file(path, str(folder / name))
            except OSError as error:
                if error.errno in DISK_FAULTS:  # this machine's disk, not the store
                    raise
                raise _unreadable(url, error) from error

        make_once(target, download)
    except UserError:
        raise
    except Exception as error:  # each store has exceptions of its own
        raise _unreadable(url, error) from error
    return target / name


def _unreadable(url: str, error: Exception) -> UserError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
    return UserError(f"--data {url}: cannot be read ({reason}); check the URL, and that fsspec has the package for such URLs")
