"""Facts about finished utterances: counts, word error rate, and labels, splits and speakers that were edited in the corpus since."""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from preprocessing.layouts import Clip, Corpus
from preprocessing.records import Part, Tally
from preprocessing.schema import LABEL_COLUMNS
from preprocessing.store import INFO_FILE, SHARD_FOLDER, read_info, shard_path, write_info, write_table
from preprocessing.timeline import SEEN
from skesl_mug.errors import UserError
from skesl_mug.tables import read_table
from skesl_mug.wording import counted

FACTS = (*LABEL_COLUMNS, "split", "speaker", "video_id")


def count_clips(folder: Path, tally: Tally) -> dict[str, Any]:
    """`counts` of `dataset.json`: kept, skipped by reason, kept without a face, languages, hours kept, mean face rate, and (only if there
    are any) `faults` of kept recordings: clips, holes, hole_seconds, jumps, lost_seconds."""
    seconds = rates = 0.0
    faceless = looked_at = 0
    languages: Counter[str] = Counter()
    for number in sorted(tally.shards):
        table = pq.read_table(shard_path(folder, number), columns=["start", "end", "face_rate", "language"])
        seconds += float(pc.sum(pc.subtract(table["end"], table["start"])).as_py() or 0.0)
        rates += float(pc.sum(table["face_rate"]).as_py() or 0.0)
        languages.update(table["language"].to_pylist())
        looked_at += len(table) - table["face_rate"].null_count
        faceless += int(pc.sum(pc.equal(table["face_rate"], 0.0)).as_py() or 0)
    faults = {name: round(value, 2) for name, value in tally.faults.items()}
    return {
        "clips": len(tally.ids),
        "kept": tally.kept,
        "skipped": dict(tally.skipped.most_common()),
        "kept_without_face": faceless,
        "languages": dict(languages.most_common()),
        "hours": round(seconds / 3600.0, 6),
        "mean_face_rate": round(rates / looked_at, 4) if looked_at else None,
        **({"faults": faults} if faults else {}),
    }


def describe_faults(counts: Mapping[str, Any]) -> str:
    """The faults of kept recordings in one sentence, from `counts`; empty if there are none."""
    faults = counts.get("faults") or {}
    parts = []
    if faults.get("hole_seconds", 0.0) >= SEEN:
        parts.append(f"{counted(int(faults['holes']), 'gap')} in the sound, {faults['hole_seconds']:.1f} s, kept as silence")
    if faults.get("jumps"):
        parts.append(f"{counted(int(faults['jumps']), 'restart')} of timestamps")
    if faults.get("lost_seconds", 0.0) >= SEEN:
        parts.append(f"{faults['lost_seconds']:.1f} s lost to damage")
    return f"in {counted(int(faults['clips']), 'clip')}: {'; '.join(parts)}" if parts else ""


def kept_texts(folder: Path) -> dict[str, str]:
    """The text of every utterance, by id."""
    texts: dict[str, str] = {}
    for path in sorted((folder / SHARD_FOLDER).glob("*.parquet")):
        table = pq.read_table(path, columns=["id", "text"])
        texts.update(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))
    return texts


def read_references(path: Path) -> dict[str, str]:
    """The reference transcripts in a csv file with columns `clip` and `true_text`, by clip id.

    Raises:
        UserError: the file cannot be read or lacks a column.
    """
    place = f"--reference-transcripts {path}"
    table = read_table(
        path, ("clip", "true_text"), place=place, needed="choose a csv file with the columns clip and true_text", quiet=False
    )
    names = {name: theirs for name in ("clip", "true_text") if (theirs := table.column_named(name)) is not None}
    if len(names) < 2:
        raise UserError(f"{place}: lacks the columns clip and true_text")
    return {row["clip"]: row["true_text"] for _, row in table.renamed(names)}


def plain_words(text: str) -> str:
    """Lower case, no punctuation, single spaces: the form in which texts are compared."""
    kept = (" " if unicodedata.category(character)[0] in "ZC" or character == "-" else character for character in text.casefold())
    return " ".join("".join(c for c in kept if c == " " or unicodedata.category(c)[0] in "LMN").split())


def word_error_rate(texts: Mapping[str, str], references: Mapping[str, str]) -> dict[str, float | int] | None:
    """The word error rate over the clips that have both texts, and their number; None if there are none.

    Substitutions, deletions and insertions over the number of reference words, all clips together.
    """
    import jiwer

    pairs = [(plain_words(references[name]), plain_words(text)) for name, text in texts.items() if name in references]
    pairs = [(true, heard) for true, heard in pairs if true]
    if not pairs:
        return None
    value = jiwer.wer([true for true, _ in pairs], [heard for _, heard in pairs])
    return {"value": round(float(value), 4), "utterances": len(pairs)}


def renew_facts(folder: Path, corpus: Corpus, part: Part) -> int:
    """Update the labels, splits, speakers and videos of this part's utterances to those of the corpus.

    Nothing else in an utterance depends on them, so no clip is processed again. Utterances whose clip is no longer in the corpus are left
    as they are. Call it under the locks `job_lock` and `info_lock`; `dataset.json` gets the corpus's label range.

    Returns:
        the number of utterances that changed.

    Raises:
        UserError: the dataset has labels and the corpus now has none at all, probably because its table is missing.
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
            f"--labels: {folder} has labels, but the corpus now has none; pass their file again, or --overwrite to start without"
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
    """Ids of this part's utterances whose transcript was edited in the corpus after they were processed."""
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
    """The facts as columns of the table's types (labels are float32 there); rows without a clip keep theirs."""
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
