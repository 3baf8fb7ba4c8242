"""The cache of labelled corpora: downloads, and files converted to memory-mapped features.

A file is converted once, identified by its SHA-256 and the converter's version; later runs and all processes map the result.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from finetune.corpora.mapped_file import FrameWriter, MappedFile, MappedFrames
from finetune.corpora.splits import Finding, Findings, LabelledSplit, Turn
from preprocessing.object_store import fetch_dataset, is_url, open_store
from preprocessing.store import read_info
from skesl_mug.cache import DISK_FAULTS, make_once
from skesl_mug.errors import UserError
from skesl_mug.files import write_json

CONVERTER_VERSION = 5
"""To be increased with every change in what is read from a file, or how."""
KINDS = "a pickle of features, a folder of .csd files, or the folder of an utterance dataset"
ABOUT_FILE = "splits.json"
LABELS = ("label", "label_T", "label_A", "label_V")
SEQUENCE_SUFFIXES, FOLD_SUFFIXES = (".csd", ".hdf5", ".h5"), (".py", ".csv")
FEATURES = ("text_vectors", "audio", "vision")


class FrameSink:
    """Where readers write features: a file for each split and modality in `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder

    def writer(self, split: str, modality: str) -> FrameWriter:
        """A new file."""
        return FrameWriter(self.folder / f"{split}.{modality}")

    def write(self, split: str, modality: str, samples: Iterable[np.ndarray | None]) -> MappedFrames:
        """All samples of a split."""
        with self.writer(split, modality) as writer:
            for frames in samples:
                writer.append(frames)
            return writer.frames()


Reader = Callable[[FrameSink, Findings], dict[str, LabelledSplit]]


def converted(cache: Path, key: str, read: Reader) -> tuple[dict[str, LabelledSplit], Findings]:
    """The splits and findings of `read`, or of the cache if the file was converted before.

    Raises:
        UserError: `read` failed, or the cache folder cannot be written.
    """
    folder = cache / "corpora" / f"{key}-{CONVERTER_VERSION}"

    def convert(temporary: Path) -> None:
        findings = Findings()
        _store(temporary, read(FrameSink(temporary), findings), findings)

    make_once(folder, convert)
    return _open(folder)


def _store(folder: Path, splits: dict[str, LabelledSplit], findings: Findings) -> None:
    about: dict[str, Any] = {"findings": [asdict(finding) for finding in findings], "splits": {}}
    for name, split in splits.items():
        arrays = {label: values for label in LABELS if (values := getattr(split, label)) is not None}
        widths = {}
        for modality in FEATURES:
            frames = getattr(split, modality)
            if frames is not None:
                assert isinstance(frames, MappedFrames)
                arrays |= {f"{modality}_starts": frames.starts, f"{modality}_lengths": frames.lengths}
                widths[modality] = frames.width
        np.savez(folder / f"{name}.npz", **arrays)
        about["splits"][name] = {
            "ids": split.ids,
            "video_ids": split.video_ids,
            "text": split.text,
            "tokens": split.tokens,
            "turns": split.turns,
            "unlabelled": split.unlabelled,
            "widths": widths,
        }
    write_json(folder / ABOUT_FILE, about)


def _open(folder: Path) -> tuple[dict[str, LabelledSplit], Findings]:
    about = json.loads((folder / ABOUT_FILE).read_text(encoding="utf-8"))
    splits = {}
    for name, entries in about["splits"].items():
        with np.load(folder / f"{name}.npz") as stored:
            arrays = dict(stored)
        features = {
            modality: MappedFrames(
                MappedFile(folder / f"{name}.{modality}"), arrays[f"{modality}_starts"], arrays[f"{modality}_lengths"], width
            )
            for modality, width in entries["widths"].items()
        }
        splits[name] = LabelledSplit(
            ids=entries["ids"],
            video_ids=entries["video_ids"],
            text=entries["text"],
            tokens=entries["tokens"],
            turns=None if entries["turns"] is None else [None if turn is None else _turn(turn) for turn in entries["turns"]],
            unlabelled=[(_turn(turn), text) for turn, text in entries["unlabelled"]],
            label=arrays["label"],
            label_T=arrays.get("label_T"),
            label_A=arrays.get("label_A"),
            label_V=arrays.get("label_V"),
            text_vectors=features.get("text_vectors"),
            audio=features.get("audio"),
            vision=features.get("vision"),
        )
    return splits, Findings(Finding(**finding) for finding in about["findings"])


def _turn(stored: tuple[str, list[float]]) -> Turn:
    recording, place = stored
    return Turn(recording, tuple(place))


def sequence_files(path: Path) -> list[Path]:
    """The files of CMU's computational sequences at a path or up to two levels below, then the lists of folds there.

    Empty if there is no sequence: a folder has one if it holds a `.csd`, or another HDF5 file with `data/VIDEO/features`.
    """
    alone = path.is_file()
    if path.suffix.lower() not in SEQUENCE_SUFFIXES if alone else (path / "dataset.json").is_file():
        return []
    below = path.parent.glob("*") if alone else chain(path.glob("*"), path.glob("[!.]*/*"))
    names = sorted(file for file in below if not file.name.startswith("."))
    files = [path] if alone else [file for file in names if file.suffix.lower() in SEQUENCE_SUFFIXES]
    if not any(alone or file.suffix.lower() == ".csd" or _has_sequence(file) for file in files):
        return []
    return files + [file for file in names if "fold" in file.name.lower() and file.suffix.lower() in FOLD_SUFFIXES]


def entries_of(root: Any) -> Any:
    """The videos or segments of a sequence, a group of an HDF5 file; None if it is something else."""
    data = root["data"] if hasattr(root, "keys") and "data" in root else root
    first: Any = data[next(iter(data))] if hasattr(data, "keys") and len(data) else None
    return data if hasattr(first, "keys") and "features" in first else None


def _has_sequence(path: Path) -> bool:
    try:
        import h5py

        with h5py.File(path, "r") as file:
            return any(entries_of(root) is not None for root in file.values())
    except ImportError:  # the reader asks for h5py
        return True
    except Exception:  # whatever h5py raises for a damaged file
        return False


def check_place(data: str | Path) -> None:
    """Check that a labelled corpus exists: a file, or a folder of a known kind. URLs are checked by `local_copy`.

    Raises:
        UserError: it does not.
    """
    if is_url(data):
        return
    path = Path(data)
    if not path.exists():
        raise UserError(f"--data {path}: does not exist; choose {KINDS}")
    if path.is_dir() and not sequence_files(path):
        read_info(path)


def local_copy(data: str | Path, cache: Path) -> Path:
    """The local path of `data`: itself, or for a URL that fsspec opens (s3://, gs://, https://, …) its copy in the cache.

    A copy is identified by the object's size, time and ETag, so that a changed object is downloaded again.

    Raises:
        UserError: it does not exist, or cannot be reached.
    """
    if not is_url(data):
        return Path(data)
    url = str(data)
    store, path = open_store(url, "--data")
    try:
        if store.isdir(path):
            return fetch_dataset(url, cache)
        if not store.exists(path):
            raise UserError(f"--data {url}: does not exist; choose {KINDS}")
        about = json.dumps([url, store.info(path)], sort_keys=True, default=str)
        target, name = cache / "downloads" / hashlib.sha256(about.encode()).hexdigest(), PurePosixPath(path).name

        def download(folder: Path) -> None:
            try:
                store.get_file(path, str(folder / name))
            except OSError as error:
                if error.errno in DISK_FAULTS:  # the local disk, not the store
                    raise
                raise _unreadable(url, error) from error

        make_once(target, download)
    except UserError:
        raise
    except Exception as error:  # each store raises its own exceptions
        raise _unreadable(url, error) from error
    return target / name


def _unreadable(url: str, error: Exception) -> UserError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
    return UserError(f"--data {url}: cannot be read ({reason}); check the URL, and that fsspec has the package for such URLs")
