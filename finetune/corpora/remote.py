"""Corpora behind a URL (s3://, gs://, https://, memory://, whatever fsspec opens), downloaded to the cache."""

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any

from finetune.corpora.cache import DISK_FAULTS, make_once
from lexicons.errors import UserError
from preprocessing.store import INFO_FILE, SHARD_FOLDER


def is_url(data: str | Path) -> bool:
    """Whether `--data` names something that is not on this machine's disk."""
    return "://" in str(data)


def local_copy(data: str | Path, cache: Path) -> Path:
    """The path of `data` on this disk: itself, or its copy in the cache.

    A copy is kept under what the store says of the object (size, time, ETag): a changed object is downloaded anew.

    Raises:
        UserError: there is nothing, or it cannot be reached.
    """
    if not is_url(data):
        return Path(data)
    import fsspec

    url = str(data)
    try:
        store, path = fsspec.core.url_to_fs(url)
        if store.isdir(path):
            wanted = _dataset_files(store, path)
            if not store.exists(wanted[INFO_FILE]):
                raise UserError(f"--data {url}: is no utterance dataset (no {INFO_FILE}); name a pickle or a dataset's folder")
        elif store.exists(path):
            wanted = {PurePosixPath(path).name: path}
        else:
            raise UserError(f"--data {url}: does not exist; give an MMSA or SKESL pickle, or the folder of an utterance dataset")
        key = hashlib.sha256(json.dumps([url, *(_about(store, file) for file in wanted.values())]).encode()).hexdigest()
        target = cache / "downloads" / key

        def download(folder: Path) -> None:
            for name, file in wanted.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                try:
                    store.get_file(file, str(folder / name))
                except OSError as error:
                    if error.errno in DISK_FAULTS:  # this machine's disk, not the store
                        raise
                    raise _unreadable(url, error) from error

        make_once(target, download)
    except UserError:
        raise
    except Exception as error:  # each store has exceptions of its own
        raise _unreadable(url, error) from error
    return target / next(iter(wanted)) if len(wanted) == 1 and not store.isdir(path) else target


def _unreadable(url: str, error: Exception) -> UserError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
    return UserError(f"--data {url}: cannot be read ({reason}); check the URL, and that fsspec has the package for such URLs")


def _dataset_files(store: Any, path: str) -> dict[str, str]:
    """The files of an utterance dataset by their names within it."""
    root = path.rstrip("/")
    shards = sorted(file for file in store.find(f"{root}/{SHARD_FOLDER}") if file.endswith(".parquet"))
    return {INFO_FILE: f"{root}/{INFO_FILE}", **{f"{SHARD_FOLDER}/{PurePosixPath(file).name}": file for file in shards}}


def _about(store: Any, file: str) -> str:
    return json.dumps(store.info(file), sort_keys=True, default=str)
