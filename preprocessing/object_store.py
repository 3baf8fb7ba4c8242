"""Datasets on an object store (s3://, gs://, whatever fsspec opens): uploaded file by file while built, downloaded to be read."""

import hashlib
import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from skesl_mug.cache import cache_folder
from skesl_mug.errors import UserError
from skesl_mug.files import write_atomically, write_json

SHARDS = "data"
DATASET_FILES = ("dataset.json", "config.yaml", "summary.html", "clips.csv", "clips-*-of-*.csv", f"{SHARDS}/part-*.parquet")
"""All that preprocessing writes; nothing else on the store is read or deleted."""
LIST_FILE = ".fetched.json"


def is_url(place: str | Path) -> bool:
    """Whether a location is on an object store rather than a local folder."""
    return "://" in str(place)


def cache_of(url: str, kind: str, cache: Path | None = None) -> Path:
    """The local folder for a location on an object store, below `cache_folder(cache)`."""
    digest = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
    return cache_folder(cache) / kind / f"{url.rstrip('/').rpartition('/')[2]}-{digest}"


def open_store(url: str, flag: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it.

    Raises:
        UserError: the package for such a store is not installed, or the store cannot be reached.
    """
    import fsspec

    try:
        store, path = fsspec.core.url_to_fs(url)
    except Exception as error:  # ImportError (s3fs...), ValueError (unknown protocol), and each store's own errors
        raise UserError(f"{flag} {url}: cannot be opened ({_reason(error)}); for s3:// install s3fs, for gs:// gcsfs") from error
    return store, path.rstrip("/")


class Mirror:
    """A local folder whose finished files are uploaded to an object store, each complete and under its final name.

    The journal, locks and unfinished files remain local. A file counts as uploaded if the store has one of its size; a rewritten file is
    uploaded by `put`.

    Raises:
        UserError: the store cannot be opened.
    """

    def __init__(self, folder: Path, url: str):
        self.folder, self.url = folder, url
        self._store, self._path = open_store(url, "--output")

    def pull(self) -> None:
        """Download what the folder lacks, so that a job started on another machine resumes here.

        If the store's manifest is longer, the job has continued elsewhere in the meantime, and the store's files are used.

        Raises:
            UserError: the store cannot be read.
        """
        try:
            stored = self._stored()
            here = {name: path.stat().st_size if (path := self.folder / name).is_file() else None for name in stored}
            behind = any(name.endswith(".csv") and size > (here[name] or 0) for name, size in stored.items())
            for name, size in stored.items():
                if here[name] is None or (behind and here[name] != size):
                    _fetch(self._store, f"{self._path}/{name}", self.folder / name)
        except Exception as error:
            raise self._unreachable(error) from error

    def put(self, path: Path) -> None:
        """Upload one finished file of the folder.

        Raises:
            UserError: it cannot be uploaded; that happens when the same job is started again.
        """
        name = path.relative_to(self.folder).as_posix()
        try:
            self._store.makedirs(f"{self._path}/{name}".rpartition("/")[0], exist_ok=True)
            self._store.put_file(str(path), f"{self._path}/{name}")
        except Exception as error:
            raise self._unreachable(error) from error

    def push(self, rewritten: bool = False, whole: bool = True) -> None:
        """Upload the files that the store lacks or has in another size, shards before the files that refer to them.

        Args:
            rewritten: upload every shard, because their content has changed.
            whole: no other job works on the dataset: shards that the folder does not have are deleted on the store.

        Raises:
            UserError: the store cannot be written.
        """
        try:
            stored = self._stored()
            for name in stored if whole else ():
                if name.startswith(f"{SHARDS}/") and not (self.folder / name).is_file():
                    self._store.rm_file(f"{self._path}/{name}")
        except Exception as error:
            raise self._unreachable(error) from error
        for path in sorted((self.folder / SHARDS).glob("*.parquet")):
            if rewritten or stored.get(f"{SHARDS}/{path.name}") != path.stat().st_size:
                self.put(path)
        for path in sorted(self.folder.iterdir()):
            if path.is_file() and not path.name.startswith("."):  # journals, locks and unfinished files remain local
                self.put(path)

    def delete(self) -> None:
        """Delete the dataset's files on the store.

        Raises:
            UserError: it has no dataset, but files with such names.
        """
        try:
            stored = self._stored()
        except Exception as error:
            raise self._unreachable(error) from error
        if stored and "dataset.json" not in stored and not any(name.startswith(f"{SHARDS}/") for name in stored):
            raise UserError(f"--output {self.url}: is not empty and does not hold an utterance dataset; choose another location")
        try:
            for name in stored:
                self._store.rm_file(f"{self._path}/{name}")
        except Exception as error:
            raise self._unreachable(error) from error

    def _stored(self) -> dict[str, int]:
        """Names (below the location) and sizes of the files of a dataset."""
        self._store.invalidate_cache()
        if not self._store.exists(self._path):
            return {}
        files = {path[len(self._path) + 1 :]: about["size"] for path, about in self._store.find(self._path, detail=True).items()}
        return {name: size for name, size in files.items() if any(fnmatch(name, pattern) for pattern in DATASET_FILES)}

    def _unreachable(self, error: Exception) -> UserError:
        return UserError(
            f"--output {self.url}: cannot be used ({_reason(error)}); finished work is in {self.folder}; run the command again to resume"
        )


def fetch_dataset(url: str, cache: Path | None = None) -> Path:
    """Download the dataset at a URL to a folder below `cache_folder(cache)`, which is returned; unchanged files are kept.

    Raises:
        UserError: there is no dataset, or the store cannot be opened or read.
    """
    store, root = open_store(url, "dataset")
    folder = cache_of(url, "datasets", cache)
    folder.mkdir(parents=True, exist_ok=True)
    known_path = folder / LIST_FILE
    known: dict[str, str] = json.loads(known_path.read_text()) if known_path.is_file() else {}
    try:
        store.invalidate_cache()
        found = store.find(root, detail=True) if store.exists(root) else {}
        wanted = {path[len(root) + 1 :]: json.dumps(about, sort_keys=True, default=str) for path, about in found.items()}
        wanted = {name: about for name, about in wanted.items() if name == "dataset.json" or name.startswith(f"{SHARDS}/")}
        if "dataset.json" not in wanted:
            raise UserError(f"{url}: is not an utterance dataset (no dataset.json); create one with `skesl-mug preprocess`")
        for name, about in wanted.items():
            if known.get(name) != about or not (folder / name).is_file():
                _fetch(store, f"{root}/{name}", folder / name)
        for name in known.keys() - wanted.keys():
            (folder / name).unlink(missing_ok=True)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"dataset {url}: cannot be read ({_reason(error)}); check the address and your permissions") from error
    write_json(known_path, wanted)
    return folder


def _fetch(store: Any, path: str, target: Path) -> None:
    write_atomically(target, lambda temporary: store.get_file(path, str(temporary)))


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]
