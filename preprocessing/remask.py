"""Recompute the masks of an utterance dataset with another lexicon or other rules, from its transcripts."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: import from the checkout, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import tyro

from preprocessing.options import MaskOptions
from skesl_mug.console import CommandOptions, read_stored_options, run_command, to_plain
from skesl_mug.errors import UserError
from skesl_mug.run_folder import RunFolder
from skesl_mug.wording import counted

if TYPE_CHECKING:
    import pyarrow as pa

    from lexicons.lexicon import Lexicon
    from preprocessing.schema import Mask

UNFINISHED = "remask_unfinished"
"""Entry under `lexicon` in `dataset.json` while some masks are still those of the former lexicon."""


@dataclass(kw_only=True)
class Options(CommandOptions):
    """Recompute the masks of an utterance dataset from its transcripts. Features, words and labels do not change."""

    dataset: tyro.conf.Positional[Path]
    """Folder of the utterance dataset."""
    lexicon: str = "vader"
    """Lexicon: vader, afinn, senticnet, labmt, senticnet-zh, emobank-zh, labmt-zh, or a file of words and numbers."""
    lexicon_scale: float = 3.0
    """Scale intensities to plus and minus this value."""
    mask: MaskOptions = field(default_factory=MaskOptions)
    """Sentiment word masking."""
    seed: int = 1
    """Seed of the random mask in utterances without a lexicon word."""


def main(options: Options) -> None:
    """Rewrite the masks and print the counts."""
    from lexicons.sources import load_lexicon
    from preprocessing.records import job_lock
    from preprocessing.store import read_info
    from preprocessing.summary import count, lexicon_note

    read_info(options.dataset)  # is it a dataset?
    lexicon = load_lexicon(options.lexicon, options.lexicon_scale)
    with job_lock(options.dataset):
        refuse_unfinished(options.dataset)
        counts = remask(options.dataset, lexicon, options.mask, options.seed)
        update_config(options)
    print(
        f"{options.dataset}: masks of {counted(counts['utterances'], 'utterance')} by {lexicon.name}; "
        f"{counts['without_lexicon_word']} without a lexicon word, {counts['left_out']} of these without a mask"
    )
    if (note := lexicon_note(options.dataset, read_info(options.dataset), count(options.dataset))) is not None:
        print(note)


def refuse_unfinished(folder: Path) -> None:
    """Raise `UserError` if a killed job left finished clips that are not in a shard yet: they would keep the old masks."""
    if any(path.stat().st_size for path in folder.glob(".journal*.bin")):
        raise UserError(f"{folder}: its preprocessing job is not finished; run that command again first")


def remask(folder: Path, lexicon: "Lexicon", mask: MaskOptions, seed: int) -> dict[str, int]:
    """Rewrite the masks of every shard atomically, one shard in memory at a time; a second run changes nothing.

    Returns:
        counts: `utterances`, `without_lexicon_word`, and `left_out`, those of them beyond the maximum share.
    """
    from preprocessing.masking import over_the_cap
    from preprocessing.store import read_info, read_shard, shards_of, write_info, write_table

    info = read_info(folder)
    shards = shards_of(folder, info)
    total, without_word = 0, []
    for shard in shards:
        for clip_id, masks in find_all(read_shard(shard, ["id", "text", "language", "words"]), lexicon, mask, seed):
            total += 1
            if masks and not masks[0].from_lexicon:
                without_word.append(clip_id)
    left_out = over_the_cap(without_word, total - len(without_word), mask.max_zero_share, seed)
    info.lexicon = {**(info.lexicon or {}), UNFINISHED: True}  # until all shards are rewritten; pretraining refuses such a dataset
    write_info(folder, info)
    for shard in shards:
        table = read_shard(shard)
        made = [masks if clip_id not in left_out else [] for clip_id, masks in find_all(table, lexicon, mask, seed)]
        write_table(shard, with_masks(table, made))
    counts = {"utterances": total, "without_lexicon_word": len(without_word), "left_out": len(left_out)}
    info.lexicon = {**lexicon.describe(), "context": mask.context, "max_zero_share": mask.max_zero_share, "seed": seed, **counts}
    write_info(folder, info)
    return counts


def find_all(table: "pa.Table", lexicon: "Lexicon", mask: MaskOptions, seed: int) -> "Iterator[tuple[str, list[Mask]]]":
    """Id and masks of every row of a shard."""
    from preprocessing.masking import find_masks, generator_for
    from preprocessing.schema import Word

    for row in table.select(["id", "text", "language", "words"]).to_pylist():
        words = [Word(**word) for word in row["words"] or []]
        rng = generator_for(row["id"], seed)
        yield row["id"], find_masks(words, lexicon, rng, row["language"], row["text"], mask.context)


def with_masks(table: "pa.Table", masks: "list[list[Mask]]") -> "pa.Table":
    """The table with new masks."""
    import pyarrow as pa

    place = table.schema.get_field_index("masks")
    column: Any = pa.array([[vars(mask) for mask in row] for row in masks], type=table.schema.field("masks").type)
    return table.set_column(place, table.schema.field("masks"), column)


def update_config(options: Options) -> None:
    """Write the new options to the job's `config.yaml`, so that the job does not resume with the old ones."""
    run = RunFolder(options.dataset, "an utterance dataset")
    if run.config.is_file():
        changed = {"lexicon": options.lexicon, "lexicon_scale": options.lexicon_scale, "mask": to_plain(options.mask), "seed": options.seed}
        run.write_config({**read_stored_options(run.config), **changed})


if __name__ == "__main__":
    run_command(Options, main)
