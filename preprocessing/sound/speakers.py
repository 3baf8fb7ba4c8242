"""Prosody relative to the speaker: the last step of a job, when all clips of every speaker are there.

A clip's own levels (pitch, loudness, spectral slope) are measured when it is processed. How they compare with the speaker's other clips is
filled in afterwards: level less the median over the speaker's clips. It is 0 for a speaker with one clip, and in prediction, where nobody
knows the speaker.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from preprocessing.blocks import places_of
from preprocessing.schema import DatasetInfo
from preprocessing.sound import prosody
from preprocessing.store import frames_to_arrow, read_info, read_shard, shards_of, write_info, write_table

SPEAKERS = "speakers_normalised"
"""Entry under `counts` in `dataset.json`: the number of speakers with several clips; absent until the columns are filled."""


def has_speaker_columns(info: DatasetInfo) -> bool:
    """Whether a dataset has columns relative to the speaker."""
    return bool(places_of(info.audio, prosody.NAME))


def relate_to_speakers(folder: Path) -> bool:
    """Fill the columns relative to the speaker in every shard, one shard in memory at a time; says whether any was rewritten.

    A second run, or one after more clips were added or speakers corrected, gives what one run over everything would.

    Raises:
        UserError: a shard is damaged.
    """
    info = read_info(folder)
    places = places_of(info.audio, prosody.NAME)
    own = [places[f"{name}_level"] for name in prosody.LEVELS]
    relative = [places[f"{name}_to_speaker"] for name in prosody.LEVELS]
    shards = shards_of(folder, info)
    levels: dict[str, list[np.ndarray]] = {}
    for shard in shards:
        table = read_shard(shard, ["speaker", "audio"])
        for speaker, audio in zip(table["speaker"].to_pylist(), frames_of(table), strict=True):
            if speaker and audio is not None and len(audio):
                levels.setdefault(speaker, []).append(known(audio[0, own]))
    several = {speaker: np.stack(rows) for speaker, rows in levels.items() if len(rows) > 1}
    medians = {speaker: _median(rows) for speaker, rows in several.items()}
    changed = False
    for shard in shards:
        changed |= _rewrite(shard, medians, own, relative)
    info.counts[SPEAKERS] = len(several)
    write_info(folder, info)
    return changed


def known(levels: np.ndarray) -> np.ndarray:
    """A clip's levels in the order of `prosody.LEVELS`, NaN where the clip has none: no voiced frame, or silence."""
    pitch, loudness, slope = (float(value) for value in levels)
    silent = loudness <= prosody.QUIETEST
    return np.array([np.nan if pitch == 0.0 else pitch, np.nan if silent else loudness, np.nan if silent else slope])


def _median(rows: np.ndarray) -> np.ndarray:
    """The median of each column over its known values; NaN where fewer than two are known."""
    found = np.full(rows.shape[1], np.nan)
    for place, column in enumerate(rows.T):
        values = column[np.isfinite(column)]
        if len(values) > 1:
            found[place] = np.median(values)
    return found


def _rewrite(shard: Path, medians: dict[str, np.ndarray], own: list[int], relative: list[int]) -> bool:
    table = read_shard(shard)
    rows = frames_of(table)
    changed = False
    for speaker, audio in zip(table["speaker"].to_pylist(), rows, strict=True):
        if audio is None or not len(audio):
            continue
        difference = known(audio[0, own]) - medians.get(speaker, np.full(len(own), np.nan))
        values = np.nan_to_num(difference).astype(np.float16)
        if not np.array_equal(audio[0, relative], values):
            audio[:, relative] = values
            changed = True
    if changed:
        place = table.schema.get_field_index("audio")
        field = table.schema.field("audio")
        write_table(shard, table.set_column(place, field, frames_to_arrow(rows, field.type)))
    return changed


def frames_of(table: pa.Table) -> list[np.ndarray | None]:
    """The audio features of each row of a shard, [T, D] float16; None where absent."""
    column = table["audio"].combine_chunks()
    width = column.type.value_type.list_size
    flat = np.array(column.values.values.to_numpy(zero_copy_only=False), np.float16).reshape(-1, width)
    first = column.values.offset
    offsets, absent = np.asarray(column.offsets), np.asarray(column.is_null())
    return [
        None if gone else flat[start - first : stop - first] for gone, start, stop in zip(absent, offsets[:-1], offsets[1:], strict=True)
    ]
