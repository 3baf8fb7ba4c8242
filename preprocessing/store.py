"""The utterance dataset on disk: Parquet shards and `dataset.json`, written atomically, read memory-mapped."""

import glob
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from preprocessing.object_store import fetch_dataset, is_url
from preprocessing.schema import FORMAT_VERSION, DatasetInfo, Mask, Utterance, Word, arrow_schema
from skesl_mug.errors import UserError
from skesl_mug.files import write_atomically, write_json

INFO_FILE = "dataset.json"
SHARD_FOLDER = "data"
GROUP_BYTES = 4_000_000  # per Parquet row group: held twice while a shard is compressed, and read at a time


def write_info(folder: Path, info: DatasetInfo) -> None:
    """Write `dataset.json`."""
    write_json(folder / INFO_FILE, info.to_dict())


def read_info(folder: Path) -> DatasetInfo:
    """Read `dataset.json`.

    Raises:
        UserError: the folder has no utterance dataset, or one of a newer format.
    """
    path = folder / INFO_FILE
    if not path.is_file():
        raise UserError(f"{folder}: is not an utterance dataset (no {INFO_FILE}); create one with `skesl-mug preprocess`")
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        version = int(entries["format_version"])
        if version > FORMAT_VERSION:
            raise UserError(f"{path}: was written by a newer version of the toolkit (format {version}); update this one")
        return DatasetInfo.from_dict(entries)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is damaged ({error}); delete it and run preprocessing again") from error


def write_shard(path: Path, utterances: Sequence[Utterance], audio_width: int, vision_width: int) -> None:
    """Write utterances as one Parquet shard, atomically."""
    write_table(path, utterances_to_table(utterances, audio_width, vision_width))


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table of utterances as one Parquet shard, atomically."""
    together = rows_of_a_group(table.nbytes, len(table))
    write_atomically(path, lambda temporary: pq.write_table(table, temporary, compression="zstd", row_group_size=together))


def rows_of_a_group(size: int, rows: int) -> int:
    """Rows per row group, for `rows` rows of `size` bytes together."""
    return max(1, GROUP_BYTES * max(rows, 1) // max(size, 1))


def write_tables(path: Path, tables: Sequence[pa.Table]) -> None:
    """Write many small tables as one Parquet shard, atomically; only one row group is held twice at a time."""
    together = rows_of_a_group(sum(table.nbytes for table in tables), len(tables))

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, tables[0].schema, compression="zstd") as writer:
            for start in range(0, len(tables), together):
                writer.write_table(pa.concat_tables(tables[start : start + together]).combine_chunks())

    write_atomically(path, write)


def write_dataset(folder: Path, utterances: Iterable[Utterance], info: DatasetInfo, shard_rows: int = 512) -> None:
    """Write a complete dataset at once: for synthetic data, conversions and tests. The preprocessing job writes shard by shard."""
    audio_width = info.audio.width if info.audio else 0
    vision_width = info.vision.width if info.vision else 0
    batch: list[Utterance] = []
    shard = 0
    for utterance in utterances:
        batch.append(utterance)
        if len(batch) == shard_rows:
            write_shard(shard_path(folder, shard), batch, audio_width, vision_width)
            batch, shard = [], shard + 1
    if batch or shard == 0:
        write_shard(shard_path(folder, shard), batch, audio_width, vision_width)
    write_info(folder, info)


def shard_path(folder: Path, number: int) -> Path:
    """The file of a shard."""
    return folder / SHARD_FOLDER / f"part-{number:06d}.parquet"


def utterances_to_table(utterances: Sequence[Utterance], audio_width: int, vision_width: int) -> pa.Table:
    """The Arrow table of utterances; features are stored as float16, clipped to its range."""
    schema = arrow_schema(audio_width, vision_width)
    columns: dict[str, Any] = {}
    for name in schema.names:
        values = [getattr(utterance, name) for utterance in utterances]
        if name in ("audio", "vision"):
            columns[name] = frames_to_arrow(values, schema.field(name).type)
        elif name in ("words", "masks"):
            columns[name] = pa.array([[vars(item) for item in row] for row in values], type=schema.field(name).type)
        elif name in ("vision_times", "vision_valid"):
            columns[name] = pa.array([None if row is None else np.asarray(row).tolist() for row in values], type=schema.field(name).type)
        else:
            columns[name] = pa.array(values, type=schema.field(name).type)
    return pa.table(columns, schema=schema)


def frames_to_arrow(rows: Sequence[np.ndarray | None], kind: pa.DataType) -> pa.Array:
    """The Arrow array of features [T, D] of each row, float16, null where absent."""
    width = kind.value_type.list_size
    limit = float(np.finfo(np.float16).max)
    offsets = np.zeros(len(rows) + 1, np.int32)
    parts = []
    for place, row in enumerate(rows):
        length = 0
        if row is not None:
            if row.ndim != 2 or row.shape[1] != width:
                raise ValueError(f"a feature array of shape {row.shape} in a dataset whose width is {width}")
            length = len(row)
            parts.append(np.clip(row, -limit, limit).astype(np.float16).reshape(-1))
        offsets[place + 1] = offsets[place] + length
    flat = np.concatenate(parts) if parts else np.zeros(0, np.float16)
    frames = pa.FixedSizeListArray.from_arrays(pa.array(flat, type=pa.float16()), width)
    absent = pa.array([row is None for row in rows], type=pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets), frames, type=kind, mask=absent)


def read_dataset(path: str | Path) -> "UtteranceDataset":
    """Open an utterance dataset that `preprocess` wrote.

    Args:
        path: its folder, or its URL on an object store (s3://...), of which a copy is kept in the user's cache folder.

    Returns:
        a sequence of `Utterance`; `.column("text")` is one column as a list, `.info` the content of `dataset.json`.

    Raises:
        UserError: there is no dataset, or it cannot be read.
    """
    return UtteranceDataset(path)


class UtteranceDataset(Sequence[Utterance]):
    """An utterance dataset opened for reading: indexable, memory-mapped, can be passed to worker processes. See `read_dataset`."""

    def __init__(self, folder: str | Path):
        self.folder = fetch_dataset(str(folder)) if is_url(folder) else Path(folder)
        self.info = read_info(self.folder)
        self._rows = _open_shards([str(path) for path in shards_of(self.folder, self.info)]).with_format("arrow")  # once: it copies a lot

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]  # slices are not supported
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return row_to_utterance(self._rows[index % len(self)])

    def __iter__(self) -> Iterator[Utterance]:
        return (self[index] for index in range(len(self)))

    @property
    def fingerprint(self) -> str:
        """Changes whenever a shard is rewritten."""
        return str(self._rows._fingerprint)

    def columns(self, names: Sequence[str], start: int, stop: int) -> dict[str, list[Any]]:
        """Columns of plain values for the rows [start, stop), without reading the features."""
        table = self._rows.select_columns(list(names))[start:stop]
        return {name: table[name].to_pylist() for name in names}

    def column(self, name: str) -> list[Any]:
        """One column of plain values (text, id, label, ...) as a list, without reading the features."""
        return list(self._rows.select_columns([name])[:][name].to_pylist())


def shards_of(folder: Path, info: DatasetInfo) -> list[Path]:
    """The shards of a dataset, in order.

    Raises:
        UserError: there are none, one cannot be read, or together they have fewer utterances than `info` counts.
    """
    shards = sorted((folder / SHARD_FOLDER).glob("*.parquet"))
    if not shards:
        raise UserError(f"{folder}: has no shards under {SHARD_FOLDER}/; run preprocessing again")
    there, kept = sum(_count_rows(str(shard)) for shard in shards), int(info.counts.get("kept") or 0)
    if there < kept:
        raise UserError(
            f"{folder / SHARD_FOLDER}: has {there} utterances but {INFO_FILE} counts {kept}; a shard is missing: restore it, or run "
            "preprocessing with --overwrite"
        )
    return shards


def read_shard(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of a shard, or some columns of it.

    Raises:
        UserError: it is damaged, or is not a shard of an utterance dataset.
    """
    try:
        table = pq.read_table(path, columns=list(columns) if columns else None)
        return table.select(list(columns)) if columns else table
    except (pa.ArrowException, KeyError, OSError) as error:
        raise UserError(f"{path}: is not a readable shard of a dataset ({error}); delete it and run preprocessing again") from error


def _open_shards(shards: list[str]) -> Any:
    import datasets

    filled = [shard for shard in shards if _count_rows(shard)]  # `datasets` cannot read a shard without rows
    if not filled:
        return datasets.Dataset(pq.read_table(shards[0]))
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:  # as patterns: a folder may be called `clips [2024]`
        files = [glob.escape(shard) for shard in filled]
        return datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=_cache_of_rows())
    except (pa.ArrowInvalid, datasets.exceptions.DatasetGenerationError, ValueError) as error:
        raise UserError(f"{Path(shards[0]).parent}: cannot be read as Parquet ({error})") from error
    finally:
        if shown:
            datasets.enable_progress_bars()


def _cache_of_rows() -> str | None:
    """Where `datasets` keeps its memory-mapped form: its own cache (None), or a temporary folder if that is not writable, as in a container
    without a home."""
    import datasets

    place = Path(datasets.config.HF_DATASETS_CACHE)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError:
        return _temporary_cache().name
    return None if os.access(place, os.W_OK) else _temporary_cache().name


@lru_cache(maxsize=1)
def _temporary_cache() -> tempfile.TemporaryDirectory[str]:
    """Deleted at the end of this process."""
    return tempfile.TemporaryDirectory(prefix="skesl-mug-rows-")


def _count_rows(shard: str) -> int:
    try:
        return int(pq.read_metadata(shard).num_rows)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{shard}: is not a readable Parquet file ({error}); delete it and run preprocessing again") from error


def row_to_utterance(table: pa.Table) -> Utterance:
    """The utterance of a one-row Arrow table, with features as float32 arrays."""
    values: dict[str, Any] = {}
    for name in table.column_names:
        column = table.column(name)
        if name in ("audio", "vision"):
            values[name] = _frames_of(column)
        else:
            values[name] = column[0].as_py()
    values["words"] = [Word(**word) for word in values["words"] or []]
    values["masks"] = [Mask(**mask) for mask in values["masks"] or []]
    for name, kind in (("vision_times", np.float32), ("vision_valid", np.bool_)):
        if values[name] is not None:
            values[name] = np.asarray(values[name], kind)
    return Utterance(**values)


def _frames_of(column: pa.ChunkedArray) -> np.ndarray | None:
    frames = column[0].values
    if frames is None:
        return None
    width = frames.type.list_size
    return np.asarray(frames.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, width))
