"""What the corpus's own table says of clips that are done already, where the table was edited since."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from preprocessing.corpora.clip import Clip, Corpus
from preprocessing.parts import Part
from preprocessing.schema import LABEL_COLUMNS
from preprocessing.store import INFO_FILE, SHARD_FOLDER, read_info, write_info, write_table
from skesl_mug.errors import UserError

FACTS = (*LABEL_COLUMNS, "split", "speaker", "video_id")


def renew_facts(folder: Path, corpus: Corpus, part: Part) -> int:
    """Write the corpus's labels, splits, speakers and videos over those of the utterances of this part that have other ones.

    Nothing of an utterance depends on them, so no clip is processed for it. Utterances whose clip is gone from the corpus stay as they
    are. To be called under the locks of `parts.sole_writer` and `parts.info_lock`; `dataset.json` gets the corpus's label range.

    Returns:
        The number of utterances that changed.

    Raises:
        UserError: the dataset has labels and the corpus now has none at all: its table is gone, more likely than meant.
    """
    clips = {clip.id: clip for clip in corpus.clips}
    changed: list[tuple[Path, list[Clip | None]]] = []
    count, was_labelled = 0, False
    for shard in sorted((folder / SHARD_FOLDER).glob("*.parquet")):
        if not part.owns_shard(int(shard.stem.rpartition("-")[2])):
            continue
        table = pq.read_table(shard, columns=["id", *FACTS])
        found = [clips.get(name) for name in table["id"].to_pylist()]
        was_labelled |= any(table[name].null_count < len(table) for name in LABEL_COLUMNS)
        other = _rows_that_differ(table, found)
        if other:
            count += other
            changed.append((shard, found))
    if was_labelled and not any(clip.labels for clip in corpus.clips):
        raise UserError(
            f"--labels: {folder} has labels, and the corpus now brings none; give their file again, or --overwrite to start without"
        )
    for shard, found in changed:
        write_table(shard, _with_facts(pq.read_table(shard), found))
    if (folder / INFO_FILE).is_file():
        info = read_info(folder)
        if info.label_range != corpus.label_range:
            info.label_range = corpus.label_range
            write_info(folder, info)
    return count


def edited_transcripts(folder: Path, corpus: Corpus, part: Part) -> list[str]:
    """Ids of this part's utterances whose text is not the one that the corpus gives now: they were processed before it was edited."""
    given = {clip.id: clip.transcript for clip in corpus.clips if clip.transcript is not None}
    edited: list[str] = []
    for shard in sorted((folder / SHARD_FOLDER).glob("*.parquet")) if given else []:
        if part.owns_shard(int(shard.stem.rpartition("-")[2])):
            table = pq.read_table(shard, columns=["id", "text"])
            edited += [
                name
                for name, text in zip(*(table[key].to_pylist() for key in ("id", "text")), strict=True)
                if given.get(name, text) != text
            ]
    return edited


def _fact(clip: Clip, name: str) -> Any:
    return clip.labels.get(name) if name in LABEL_COLUMNS else getattr(clip, name)


def _columns(table: pa.Table, clips: Sequence[Clip | None]) -> dict[str, pa.Array]:
    """The facts as columns of the table's own types (labels are float32 there); rows without a clip keep theirs."""
    return {
        name: pa.array(
            [value if clip is None else _fact(clip, name) for clip, value in zip(clips, table[name].to_pylist(), strict=True)],
            type=table.schema.field(name).type,
        )
        for name in FACTS
    }


def _rows_that_differ(table: pa.Table, clips: Sequence[Clip | None]) -> int:
    before = zip(*(table[name].to_pylist() for name in FACTS), strict=True)
    now = zip(*(column.to_pylist() for column in _columns(table, clips).values()), strict=True)
    return sum(old != new for old, new in zip(before, now, strict=True))


def _with_facts(table: pa.Table, clips: Sequence[Clip | None]) -> pa.Table:
    for name, column in _columns(table, clips).items():
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
    return table
