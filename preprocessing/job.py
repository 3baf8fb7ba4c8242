"""The preprocessing job: clips through the pipeline into shards, manifest and `dataset.json`; resumable at any moment."""

import os
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from tqdm import tqdm

from preprocessing.engines import Engine, open_engine
from preprocessing.facts import count_clips, kept_texts, word_error_rate
from preprocessing.layouts import Clip, Corpus
from preprocessing.object_store import Mirror
from preprocessing.options import RayOptions
from preprocessing.pipeline import ClipResult, PipelineSettings
from preprocessing.records import (
    JOURNAL_STEM,
    JOURNAL_SUFFIX,
    KEPT,
    MANIFEST_STEM,
    MANIFEST_SUFFIX,
    SKIPPED,
    Entry,
    Journal,
    ManifestRow,
    Part,
    append_rows,
    delete_orphans,
    info_lock,
    read_journal,
    repair_manifest,
    tally_manifest,
)
from preprocessing.schema import FILTERS, REASONS, DatasetInfo, Utterance
from preprocessing.store import INFO_FILE, read_info, shard_path, utterances_to_table, write_info, write_tables
from skesl_mug.errors import UserError
from skesl_mug.memory import peak_memory_mb
from skesl_mug.wording import counted

SHARD_CLIPS = 256
PACKAGES = ("av", "ctranslate2", "faster-whisper", "librosa", "mediapipe", "numpy", "opencv-contrib-python", "pyarrow", "soxr")


@dataclass
class Progress:
    """Running totals of a job: seconds by stage (summed over processes), of media, and peak memory by process."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    media_seconds: float = 0.0
    kept: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    first_skips: dict[str, str] = field(default_factory=dict)
    noted: int = 0
    first_note: str = ""
    memory: dict[int, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def add(self, result: ClipResult) -> None:
        """Count one clip."""
        for name, value in result.seconds.items():
            self.seconds[name] += value
        self.media_seconds += result.media_seconds
        self.memory[result.process] = max(self.memory.get(result.process, 0.0), result.peak_memory_mb)
        if isinstance(result.result, Utterance):
            self.kept += 1
            self.noted += bool(result.notes)
            self.first_note = self.first_note or "".join(f"{result.clip_id}: {note}" for note in result.notes[:1])
        else:
            self.skipped[result.result.reason] += 1
            self.first_skips.setdefault(result.result.reason, f"{result.clip_id}: {result.result.detail}")

    def main_skip(self) -> str | None:
        """A note on the reason for which most clips were skipped, with the first one's detail; None if most were kept or filtered."""
        reason, count = self.skipped.most_common(1)[0] if self.skipped else ("", 0)
        total = self.kept + self.skipped.total()
        if 2 * count <= total or reason in FILTERS:
            return None
        return f"note: {count} of {counted(total, 'clip')} skipped as {reason} ({REASONS[reason]}); the first is {self.first_skips[reason]}"

    def main_note(self) -> str | None:
        """How many clips were kept although there is a note on their sound, and the first."""
        if not self.noted:
            return None
        return f"note: {counted(self.noted, 'clip')} kept with a note (column detail of clips.csv); the first is {self.first_note}"

    def describe(self) -> str:
        """Speed relative to real time, clips kept, clips skipped by reason."""
        rate = self.media_seconds / max(time.perf_counter() - self.started, 1e-9)
        skips = ", ".join(f"{reason} {count}" for reason, count in self.skipped.most_common())
        return f"{rate:.1f}x real time, kept {self.kept}" + (f", skipped: {skips}" if skips else "")


class Job:
    """One output folder (or one part of it) being filled; create it under the lock `job_lock`.

    Raises:
        UserError: the content of the folder is damaged.
    """

    def __init__(
        self,
        folder: Path,
        corpus: Corpus,
        settings: PipelineSettings,
        workers: int,
        part: Part | None = None,
        cluster: RayOptions | None = None,
        mirror: Mirror | None = None,
    ):
        self.cluster, self._mirror = cluster, mirror
        self.folder, self.corpus, self.settings, self.workers, self.part = folder, corpus, settings, workers, part or Part()
        self._manifest = folder / self.part.file_name(MANIFEST_STEM, MANIFEST_SUFFIX)
        repair_manifest(self._manifest)
        tally = tally_manifest(folder)
        self.next_shard = delete_orphans(folder, tally.shards, self.part)
        self.done = tally.ids
        self.progress = Progress()
        self._journal = Journal(folder / self.part.file_name(JOURNAL_STEM, JOURNAL_SUFFIX))
        self._pending: list[Entry] = []  # finished, in the journal, not yet in a shard
        self._early: dict[int, Entry] = {}  # the same, but an earlier clip is not finished: shards keep the clips' order
        self._recover()

    def _recover(self) -> None:
        """Write what killed jobs left in their journals to a shard."""
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
            if not all(clip.transcript is not None or (clip.language or "").startswith("en") for clip in clips):
                warn_about_language(info)
            try:
                self._process(clips, engine, (info.audio.width if info.audio else 0, info.vision.width if info.vision else 0))
            finally:
                info = self._finish(info, time.perf_counter() - start, references)
                for note in filter(None, (self.progress.main_skip(), self.progress.main_note())):
                    print(note)
        except OSError as error:
            raise UserError(
                f"--output {self.folder}: cannot be written ({error.strerror or error}); fix that, then run the same command to resume"
            ) from error
        finally:
            engine.close()
        return info

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def _process(self, clips: Sequence[Clip], engine: Engine, widths: tuple[int, int]) -> None:
        place = {clip.id: number for number, clip in enumerate(clips)}
        following = 0
        self.progress.started = time.perf_counter()
        with tqdm(total=len(clips), unit="clip", desc="clips", smoothing=0.1, dynamic_ncols=True) as bar:
            try:
                for result in engine.run(clips):
                    number = place[result.clip_id]
                    entry = self._entry(clips[number], result, widths)
                    self._journal.add(entry)
                    self._early[number] = entry
                    self.progress.add(result)
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

    def _entry(self, clip: Clip, result: ClipResult, widths: tuple[int, int]) -> Entry:
        path = clip.path.relative_to(self.corpus.info["root"]).as_posix()
        if isinstance(result.result, Utterance):
            entry = Entry(ManifestRow(clip.id, path, KEPT, detail="; ".join(result.notes)), utterances_to_table([result.result], *widths))
        else:
            entry = Entry(ManifestRow(clip.id, path, SKIPPED, result.result.reason, result.result.detail), None)
        entry.row.note_faults(result.faults)
        return entry

    def _flush(self) -> None:
        """Write the pending utterances as a shard, then the manifest rows of all pending clips, then delete their journal records."""
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
        if self._mirror is not None:  # last: if it fails, nothing is written a second time
            for path in written:
                self._mirror.put(path)

    def _begin(self, description: dict[str, Any]) -> DatasetInfo:
        """Write `dataset.json` as far as it is known, keeping the totals of earlier runs."""
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
        """Update `dataset.json`, which other parts may have changed in the meantime."""
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


def warn_about_language(info: DatasetInfo) -> None:
    """Print a note if an English-only model is used on speech that may not be English: it writes English whatever is spoken."""
    known = info.synthetic or info.corpus.get("language") == "en"
    if info.asr is not None and not info.asr["multilingual"] and not known:
        print(
            f"note: the recogniser {info.asr['model']} treats all speech as English; if there are other languages, choose a multilingual "
            "--asr.model such as base (docs/faq.md)"
        )
