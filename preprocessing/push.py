"""Share an utterance dataset on the hub: features, transcripts and labels by split, with a dataset card; no media, no local paths."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: import from the checkout, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import tyro

from preprocessing.local_paths import is_path, without_paths
from skesl_mug.console import CommandOptions, run_command
from skesl_mug.errors import UserError
from skesl_mug.files import write_atomically, write_json
from skesl_mug.wording import counted

if TYPE_CHECKING:
    import pyarrow as pa

    from preprocessing.schema import DatasetInfo

CARD_FILE = "README.md"
HUB_SPLITS = {"train": "train", "valid": "validation", "test": "test"}
"""Our splits and their names on the hub."""
UNASSIGNED = "unassigned"
"""The split of rows without one, in a dataset that has splits."""
NAMES = ("id", "video_id", "speaker")
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"))
COLUMNS = {
    "id": "unique id of the utterance",
    "video_id": "the video that it was cut from",
    "speaker": "who speaks, if the corpus says so, else the video",
    "start, end": "seconds in the source video",
    "language": "code of the language, such as `en`",
    "text": "transcript",
    "words": "words with their characters in `text`, seconds in the utterance and the recogniser's probability",
    "masks": "sentiment words: characters in `text` and intensity in the lexicon",
    "audio": "frames of audio features [T, D], float16",
    "vision": "frames of face features [T, D], float16",
    "vision_times": "seconds of each face frame",
    "vision_valid": "whether a face was found in the frame (otherwise interpolated)",
    "face_rate": "share of frames with a face",
    "split": "train, valid or test, as in the corpus",
    "label": "sentiment",
    "label_T, label_A, label_V": "sentiment of the text, the voice and the face alone",
}
TERMS = {
    "faster-whisper": "speech recognition by faster-whisper: code MIT, OpenAI's Whisper weights MIT; other weights have their own terms",
    "openai-whisper": "speech recognition by openai-whisper: code and weights MIT",
    "librosa33": "audio features by librosa: ISC",
    "prosody": "audio features by this toolkit: Apache-2.0",
    "whisper": "audio features: states of the speech recogniser, under the terms of its weights",
    "egemaps": "audio features by openSMILE: audEERING's licence, research and private use only",
    "mesh": "face features by mediapipe: Apache-2.0",
    "expression": "face features by mediapipe: Apache-2.0",
    "openface": "face features by OpenFace: its licence permits academic, non-commercial use only",
}


@dataclass(kw_only=True)
class Options(CommandOptions):
    """Push an utterance dataset to the hub, with a dataset card: features, transcripts and labels, no media. Private unless --no-private.

    Transcripts and face features are personal data: share them only if the people in the recordings agreed and the corpus permits it.
    """

    dataset: tyro.conf.Positional[str]
    """Folder (or URL) of the utterance dataset."""
    name: tyro.conf.Positional[str]
    """Hub name: owner/name."""
    licence: str
    """Licence of the shared data, as the hub writes it (cc-by-4.0, cc-by-nc-4.0, other, ...); it has to agree with the corpus's terms."""
    private: bool = True
    """Keep the repository private."""
    dry_run: Path | None = None
    """Write the files into this empty folder and upload nothing; `datasets.load_dataset` reads it."""


def main(options: Options) -> None:
    """Push, or write the folder, and print what it holds."""
    address, summary = push_dataset(options.dataset, options.name, licence=options.licence, private=options.private, folder=options.dry_run)
    splits = ", ".join(f"{split} {count:,}" for split, count in summary.splits.items())
    print(f"{address}: {splits} utterances in {counted(len(summary.files), 'file')}, {summary.size / 1e6:.1f} MB")
    if options.dry_run is not None:
        print(f'nothing was uploaded; check the card: {options.dry_run / CARD_FILE}; read it: datasets.load_dataset("{options.dry_run}")')
    else:
        access = "private" if summary.private else "public"
        if summary.private and not options.private:
            access += " (the repository exists and stays private; its settings on the hub change that)"
        print(f'{access}; read it: datasets.load_dataset("{options.name}")')


@dataclass
class Shared:
    """What `write_shared` wrote: utterances per split (the hub's names), bytes of each file, and counts for the card."""

    splits: Counter[str] = field(default_factory=Counter)
    files: dict[str, int] = field(default_factory=dict)
    speakers: set[str] = field(default_factory=set)
    languages: Counter[str] = field(default_factory=Counter)
    labelled: int = 0
    unimodal: int = 0
    without: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    private: bool | None = None
    """Whether the repository is private, as the hub says; None if nothing was uploaded."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())


def push_dataset(dataset: str | Path, name: str, *, licence: str, private: bool = True, folder: Path | None = None) -> tuple[str, Shared]:
    """Push an utterance dataset with a dataset card to the hub: one `datasets` split for each split, no media, no local paths.

    >>> push_dataset("data/labelled", "owner/name", licence="cc-by-nc-4.0")  # doctest: +SKIP

    Args:
        dataset: folder (or URL) of the dataset.
        name: hub name, owner/name.
        licence: of the shared data, as the hub writes it.
        private: whether the repository is private.
        folder: write the files into this empty folder and upload nothing; None: upload them from a temporary folder.

    Returns:
        The address of the repository (or the folder), and what was written.

    Raises:
        UserError: the dataset is unfinished or names local paths, the folder is not empty, or the upload failed.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UserError(f"{name}: not a hub name; write owner/name")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence):
        raise UserError(f"--licence {licence}: write it as the hub does, such as cc-by-4.0, cc-by-nc-4.0 or other")
    if folder is not None:
        return str(folder), write_shared(dataset, folder, name, licence)
    with tempfile.TemporaryDirectory(prefix="skesl-mug-push-") as temporary:
        written = write_shared(dataset, Path(temporary), name, licence)
        address, written.private = _upload(Path(temporary), name, private)
        return address, written


def _upload(folder: Path, name: str, private: bool) -> tuple[str, bool]:
    """Upload a folder; the address of the repository, and whether it is private."""
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        address = api.create_repo(name, repo_type="dataset", private=private, exist_ok=True)
        public = not api.repo_info(name, repo_type="dataset").private
        if not (private and public):
            api.upload_folder(repo_id=name, repo_type="dataset", folder_path=folder, delete_patterns="data/*.parquet")
    except Exception as error:  # the client raises many kinds: no network, no token, no permission
        raise UserError(f"{name}: cannot be pushed ({type(error).__name__}); log in with `hf auth login` and check the name") from error
    if private and public:
        raise UserError(f"{name}: exists and is public; nothing was uploaded: make it private, choose another name, or pass --no-private")
    return str(address), not public


def write_shared(dataset: str | Path, folder: Path, name: str, licence: str) -> Shared:
    """Write the files to share: `data/<split>-<number>.parquet`, `dataset.json` without local paths, and the card.

    Raises:
        UserError: see `push_dataset`.
    """
    from preprocessing.object_store import fetch_dataset, is_url
    from preprocessing.remask import UNFINISHED, refuse_unfinished
    from preprocessing.schema import DatasetInfo
    from preprocessing.store import INFO_FILE, SHARD_FOLDER, read_info, read_shard, shards_of, write_table

    source = fetch_dataset(str(dataset)) if is_url(dataset) else Path(dataset)
    info = read_info(source)
    shards = shards_of(source, info)
    refuse_unfinished(source)
    if (info.lexicon or {}).get(UNFINISHED):
        raise UserError(f"{source}: its masks are from two lexicons; run `skesl-mug remask` again first")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: not an empty folder; choose another")
    has_splits = any(split for shard in shards for split in read_shard(shard, ["split"])["split"].to_pylist())
    written, numbers = Shared(), Counter[str]()
    for shard in shards:
        table = read_shard(shard)
        _check_names(table, source)
        _count(table, written)
        for split, rows in _by_split(table, has_splits):
            path = folder / SHARD_FOLDER / f"{split}-{numbers[split]:05d}.parquet"
            write_table(path, rows)
            numbers[split] += 1
            written.splits[split] += len(rows)
    if not written.splits:
        raise UserError(f"{source}: has no utterances")
    public = DatasetInfo.from_dict(without_paths(info.to_dict()))
    write_json(folder / INFO_FILE, public.to_dict())
    text = card_text(public, written, name, licence)
    write_atomically(folder / CARD_FILE, lambda path: path.write_text(text, encoding="utf-8"))
    written.files = {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    return written


def _check_names(table: "pa.Table", source: Path) -> None:
    """Check that ids, videos and speakers are no paths of this machine.

    Raises:
        UserError: one is.
    """
    for column in NAMES:
        for value in table[column].to_pylist():
            if value and is_path(value):
                raise UserError(
                    f"{source}: column `{column}` has paths of this machine ({value}); preprocess again with names below --root"
                )


def _by_split(table: "pa.Table", has_splits: bool) -> "Iterator[tuple[str, pa.Table]]":
    """The rows of each split under the hub's name for it; without any splits all rows are `train`, as in a local dataset."""
    import numpy as np

    from preprocessing.layouts import SPLITS

    other = UNASSIGNED if has_splits else "train"
    names = np.array([HUB_SPLITS.get(SPLITS.get(str(split).lower(), ""), other) for split in table["split"].to_pylist()], np.str_)
    for name in (*HUB_SPLITS.values(), UNASSIGNED):
        if (names == name).any():
            yield name, table.filter(names == name)


def _count(table: "pa.Table", counts: Shared) -> None:
    counts.speakers |= {speaker for speaker in table["speaker"].to_pylist() if speaker}
    counts.languages.update(language for language in table["language"].to_pylist() if language)
    counts.labelled += len(table) - table["label"].null_count
    counts.unimodal += len(table) - min(table[name].null_count for name in ("label_T", "label_A", "label_V"))
    counts.without.update({name: table[name].null_count for name in ("audio", "vision")})
    counts.seconds += sum(end - start for start, end in zip(table["start"].to_pylist(), table["end"].to_pylist(), strict=True))


def card_text(info: "DatasetInfo", counts: Shared, name: str, licence: str) -> str:
    """The dataset card as the hub expects it: YAML metadata, then counts, columns, how it was made, terms and personal data."""
    import yaml

    from preprocessing.blocks import blocks_of
    from preprocessing.store import SHARD_FOLDER
    from skesl_mug.templates import templates

    total = sum(counts.splits.values())
    files = [{"split": split, "path": f"{SHARD_FOLDER}/{split}-*.parquet"} for split in counts.splits]
    header = {
        "license": licence,
        "pretty_name": str(info.corpus.get("name") or name.partition("/")[2]),
        "language": sorted(counts.languages),
        "tags": ["multimodal", "sentiment-analysis", "skesl-mug", *(["synthetic"] if info.synthetic else [])],
        "size_categories": [next((label for limit, label in SIZES if total < limit), "n>10M")],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    parts = [part for part in (info.audio, info.vision) if part is not None]
    used = [(info.asr or {}).get("engine"), *(block.extractor for part in parts for block in blocks_of(part))]
    lexicon = info.lexicon or {}
    terms = list(dict.fromkeys(TERMS.get(str(tool), f"{tool}: its own terms") for tool in used if tool))
    if lexicon.get("name"):
        terms.append(f"masks by the lexicon {lexicon['name']}: {lexicon.get('licence', 'licence unknown')}")
    body = templates(Path(__file__).parent).get_template("dataset_card.md.jinja")
    text = body.render(info=info, counts=counts, total=total, name=name, licence=licence, columns=COLUMNS, terms=terms, counted=counted)
    return f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---\n\n" + re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


if __name__ == "__main__":
    run_command(Options, main)
