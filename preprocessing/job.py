"""The preprocessing job: clips through the pipeline into shards, manifest and `dataset.json`; resumable at any moment."""

import os
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from preprocessing.corpora.clip import Clip, Corpus
from preprocessing.engines import Engine, open_engine
from preprocessing.journal import JOURNAL_STEM, JOURNAL_SUFFIX, Entry, Journal, read_journal
from preprocessing.manifest import (
    KEPT,
    MANIFEST_STEM,
    MANIFEST_SUFFIX,
    SKIPPED,
    ManifestRow,
    Tally,
    append_rows,
    delete_orphans,
    drop_torn_line,
    tally_manifest,
)
from preprocessing.parts import Part, info_lock
from preprocessing.pipeline import Outcome, PipelineSettings
from preprocessing.schema import DatasetInfo, Utterance
from preprocessing.store import INFO_FILE, SHARD_FOLDER, read_info, shard_path, utterances_to_table, write_info, write_tables
from preprocessing.word_errors import word_error_rate
from skesl_mug.errors import UserError
from skesl_mug.memory import peak_memory_mb

if TYPE_CHECKING:
    from preprocessing.cluster_options import RayOptions
    from preprocessing.object_store import Mirror

SHARD_CLIPS = 256
PACKAGES = ("av", "ctranslate2", "faster-whisper", "librosa", "mediapipe", "numpy", "opencv-contrib-python", "pyarrow", "soxr")


@dataclass
class Progress:
    """Running totals of a job: seconds by stage (summed over processes), of media, and peak memory by process."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    media_seconds: float = 0.0
    kept: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    memory: dict[int, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def add(self, outcome: Outcome) -> None:
        """Count one clip."""
        for name, value in outcome.seconds.items():
            self.seconds[name] += value
        self.media_seconds += outcome.media_seconds
        self.memory[outcome.process] = max(self.memory.get(outcome.process, 0.0), outcome.peak_memory_mb)
        if isinstance(outcome.result, Utterance):
            self.kept += 1
        else:
            self.skipped[outcome.result.reason] += 1

    def describe(self) -> str:
        """Hours of media an hour, clips kept, clips skipped by reason."""
        rate = self.media_seconds / max(time.perf_counter() - self.started, 1e-9)
        skips = ", ".join(f"{reason} {count}" for reason, count in self.skipped.most_common())
        return f"{rate:.1f}x real time, kept {self.kept}" + (f", skipped: {skips}" if skips else "")


class Job:
    """One output folder (or one part's share of it) being filled; to be made under the locks of `parts.sole_writer`.

    Raises:
        UserError: what is in the folder is damaged.
    """

    def __init__(
        self,
        folder: Path,
        corpus: Corpus,
        settings: PipelineSettings,
        workers: int,
        part: Part | None = None,
        cluster: "RayOptions | None" = None,
        mirror: "Mirror | None" = None,
    ):
        self.cluster, self._mirror = cluster, mirror
        self.folder, self.corpus, self.settings, self.workers, self.part = folder, corpus, settings, workers, part or Part()
        self._manifest = folder / self.part.file_name(MANIFEST_STEM, MANIFEST_SUFFIX)
        drop_torn_line(self._manifest)
        tally = tally_manifest(folder)
        self.next_shard = delete_orphans(folder, tally.shards, self.part)
        self.done = tally.ids
        self.progress = Progress()
        self._journal = Journal(folder / self.part.file_name(JOURNAL_STEM, JOURNAL_SUFFIX))
        self._pending: list[Entry] = []  # finished, in the journal, not yet in a shard
        self._early: dict[int, Entry] = {}  # the same, but a clip that stands before them is not finished: shards keep the clips' order
        self._recover()

    def _recover(self) -> None:
        """Bring what killed jobs left in their journals into a shard."""
        journals = sorted(self.folder.glob(f"{JOURNAL_STEM}*{JOURNAL_SUFFIX}"))
        for path in journals:
            for entry in read_journal(path):
                if self.part.owns_clip(entry.row.id) and entry.row.id not in self.done:
                    self.done.add(entry.row.id)
                    self._pending.append(entry)
        self._flush()
        for path in journals if self.part.whole else ():
            if path != self._journal.path:
                path.unlink()

    def remaining(self, clips: Sequence[Clip]) -> list[Clip]:
        """The clips of this part that are not done yet."""
        return [clip for clip in clips if self.part.owns_clip(clip.id) and clip.id not in self.done]

    def run(self, clips: Sequence[Clip], references: dict[str, str] | None = None) -> DatasetInfo:
        """Process the clips (those of `remaining`), then write `dataset.json`. An interruption keeps what is finished.

        Raises:
            UserError: the models cannot be loaded, or the folder cannot be written.
        """
        start = time.perf_counter()
        if not clips and (self.folder / INFO_FILE).is_file():
            return self._finish(read_info(self.folder), 0.0, references)
        engine = open_engine(self.settings, min(self.workers, len(clips)), self.cluster)
        try:
            info = self._begin(engine.describe())
            if any(clip.transcript is None for clip in clips):
                warn_of_language(info)
            try:
                self._work_off(clips, engine, (info.audio.width if info.audio else 0, info.vision.width if info.vision else 0))
            finally:
                info = self._finish(info, time.perf_counter() - start, references)
        except OSError as error:
            raise UserError(
                f"--output {self.folder}: cannot be written ({error.strerror or error}); mend that, then the same command goes on"
            ) from error
        finally:
            engine.close()
        return info

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def _work_off(self, clips: Sequence[Clip], engine: Engine, widths: tuple[int, int]) -> None:
        place = {clip.id: number for number, clip in enumerate(clips)}
        following = 0
        self.progress.started = time.perf_counter()
        with tqdm(total=len(clips), unit="clip", desc="clips", smoothing=0.1, dynamic_ncols=True) as bar:
            try:
                for outcome in engine.run(clips):
                    number = place[outcome.clip_id]
                    entry = self._entry(clips[number], outcome, widths)
                    self._journal.add(entry)
                    self._early[number] = entry
                    self.progress.add(outcome)
                    bar.set_postfix_str(self.progress.describe(), refresh=False)
                    bar.update()
                    while following in self._early:
                        self._pending.append(self._early.pop(following))
                        following += 1
                    if len(self._pending) >= SHARD_CLIPS:
                        self._flush()
            finally:
                self._pending.extend(self._early[number] for number in sorted(self._early))
                self._early = {}
                self._flush()

    def _entry(self, clip: Clip, outcome: Outcome, widths: tuple[int, int]) -> Entry:
        path = clip.path.relative_to(self.corpus.info["root"]).as_posix()
        if isinstance(outcome.result, Utterance):
            return Entry(ManifestRow(clip.id, path, KEPT), utterances_to_table([outcome.result], *widths))
        return Entry(ManifestRow(clip.id, path, SKIPPED, outcome.result.reason, outcome.result.detail), None)

    def _flush(self) -> None:
        """Write the pending utterances as a shard, then the manifest's rows of all pending clips, then forget their records."""
        if not self._pending:
            return
        tables = [entry.table for entry in self._pending if entry.table is not None]
        if tables:
            write_tables(shard_path(self.folder, self.next_shard), tables)
        for entry in self._pending:
            if entry.table is not None:
                entry.row.shard = str(self.next_shard)
        append_rows(self._manifest, [entry.row for entry in self._pending])
        written = (shard_path(self.folder, self.next_shard), self._manifest) if tables else (self._manifest,)
        self._pending = []
        self.next_shard += self.part.count * bool(tables)
        self._journal.keep_only(list(self._early.values()))
        for path in written if self._mirror is not None else ():  # last: where it fails, nothing is written a second time
            self._mirror.put(path)  # type: ignore[union-attr]

    def _begin(self, description: dict[str, Any]) -> DatasetInfo:
        """Write `dataset.json` as far as it is known; what it says of earlier runs stays."""
        with info_lock(self.folder):
            before = read_info(self.folder) if (self.folder / INFO_FILE).is_file() else None
            info = DatasetInfo(corpus=self.corpus.info, label_range=self.corpus.label_range, **description)
            info.versions = {name: metadata.version(name) for name in PACKAGES}
            info.seconds = dict(before.seconds) if before is not None else {}
            info.peak_memory_mb = before.peak_memory_mb if before is not None else None
            if info.asr is not None:
                info.asr["word_error_rate"] = before.asr.get("word_error_rate") if before is not None and before.asr else None
            info.counts = count_clips(self.folder, tally_manifest(self.folder))
            write_info(self.folder, info)
        return info

    def _finish(self, info: DatasetInfo, wall: float, references: dict[str, str] | None) -> DatasetInfo:
        """Bring `dataset.json` up to date; other parts may have changed it meanwhile."""
        self.progress.seconds["total"] += wall
        self.progress.seconds["media"] += self.progress.media_seconds
        here = peak_memory_mb()
        others = sum(value for process, value in self.progress.memory.items() if process not in (0, os.getpid()))
        with info_lock(self.folder):
            written = read_info(self.folder)
            info.seconds = {
                name: round(written.seconds.get(name, 0.0) + self.progress.seconds.get(name, 0.0), 3)
                for name in dict.fromkeys((*written.seconds, *self.progress.seconds))
            }
            info.peak_memory_mb = round(max(written.peak_memory_mb or 0.0, here + others), 1)
            info.counts = count_clips(self.folder, tally_manifest(self.folder))
            if references and info.asr is not None:
                info.asr["word_error_rate"] = word_error_rate(kept_texts(self.folder), references)
            write_info(self.folder, info)
        return info


def warn_of_language(info: DatasetInfo) -> None:
    """Print a note where an English model is let loose on speech that nobody says is English: it writes English whatever is spoken."""
    known = info.corpus.get("made") or info.corpus.get("language") == "en"
    if info.asr is not None and not info.asr["multilingual"] and not known:
        print(
            f"note: the recogniser {info.asr['model']} takes all speech for English; if other languages may be spoken, choose a "
            "multilingual --asr.model such as base (docs/faq.md)"
        )


def count_clips(folder: Path, tally: Tally) -> dict[str, Any]:
    """`counts` of `dataset.json`: kept, skipped by reason, kept without a face, languages, hours kept, mean face rate."""
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
    return {
        "clips": len(tally.ids),
        "kept": tally.kept,
        "skipped": dict(tally.skipped.most_common()),
        "kept_without_face": faceless,
        "languages": dict(languages.most_common()),
        "hours": round(seconds / 3600.0, 6),
        "mean_face_rate": round(rates / looked_at, 4) if looked_at else None,
    }


def kept_texts(folder: Path) -> dict[str, str]:
    """The recognised text of every kept clip, by id."""
    texts: dict[str, str] = {}
    for path in sorted((folder / SHARD_FOLDER).glob("*.parquet")):
        table = pq.read_table(path, columns=["id", "text"])
        texts.update(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))
    return texts
