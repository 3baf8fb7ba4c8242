"""The preprocessing job: clips through the pipeline into shards, manifest and `dataset.json`; resumable at any moment."""

import fcntl
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from lexicons.errors import UserError
from preprocessing.corpora.clip import Clip, Corpus
from preprocessing.engines import Engine, open_engine
from preprocessing.manifest import KEPT, SKIPPED, ManifestRow, append_rows, delete_orphans, read_manifest
from preprocessing.pipeline import Outcome, PipelineSettings, memory_peak_mb
from preprocessing.schema import DatasetInfo, Utterance
from preprocessing.store import INFO_FILE, SHARD_FOLDER, read_info, shard_path, write_info, write_shard
from preprocessing.word_errors import word_error_rate

SHARD_CLIPS = 256
SHARD_SECONDS = 20.0  # a shard is closed after this time at the latest: what a killed job loses
PACKAGES = ("av", "ctranslate2", "faster-whisper", "librosa", "mediapipe", "numpy", "opencv-contrib-python", "pyarrow", "soxr")


@dataclass
class Progress:
    """Running totals of a job: seconds by stage (summed over processes), of media, and peak memory by process."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    media_seconds: float = 0.0
    kept: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    memory: dict[int, float] = field(default_factory=dict)

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


class Job:
    """One output folder being filled.

    Raises:
        UserError: another job writes there, or what is there is damaged.
    """

    def __init__(self, folder: Path, corpus: Corpus, settings: PipelineSettings, workers: int):
        self.folder, self.corpus, self.settings, self.workers = folder, corpus, settings, workers
        self.rows: list[ManifestRow] = read_manifest(folder)
        self.next_shard = delete_orphans(folder, self.rows)
        self.progress = Progress()

    def remaining(self, clips: Sequence[Clip]) -> list[Clip]:
        """The clips that the manifest does not have yet."""
        done = {row.id for row in self.rows}
        return [clip for clip in clips if clip.id not in done]

    def run(self, clips: Sequence[Clip], references: dict[str, str] | None = None) -> DatasetInfo:
        """Process the clips (those of `remaining`), then write `dataset.json`. An interruption keeps what is finished."""
        start = time.perf_counter()
        if not clips:
            info = read_info(self.folder)
            self._finish(info, 0.0, references)
            return info
        engine = open_engine(self.settings, min(self.workers, len(clips)))
        try:
            info = self._info_so_far(engine.describe())
            write_info(self.folder, info)
            try:
                self._work_off(clips, engine, info)
            finally:
                self._finish(info, time.perf_counter() - start, references)
        finally:
            engine.close()
        return info

    def _work_off(self, clips: Sequence[Clip], engine: Engine, info: DatasetInfo) -> None:
        widths = (info.audio.width if info.audio else 0, info.vision.width if info.vision else 0)
        by_id = {clip.id: clip for clip in clips}
        pending: list[tuple[Clip, Outcome]] = []
        opened = time.monotonic()
        with tqdm(total=len(clips), unit="clip", desc="clips", smoothing=0.1, dynamic_ncols=True) as bar:
            try:
                for outcome in engine.run(clips):
                    pending.append((by_id[outcome.clip_id], outcome))
                    self.progress.add(outcome)
                    bar.update()
                    bar.set_postfix_str(self._postfix(), refresh=False)
                    if len(pending) >= SHARD_CLIPS or time.monotonic() - opened > SHARD_SECONDS:
                        self._flush(pending, widths)
                        pending, opened = [], time.monotonic()
            finally:
                self._flush(pending, widths)

    def _postfix(self) -> str:
        skips = ", ".join(f"{reason} {count}" for reason, count in self.progress.skipped.most_common())
        return f"kept {self.progress.kept}" + (f", skipped: {skips}" if skips else "")

    def _flush(self, pending: Sequence[tuple[Clip, Outcome]], widths: tuple[int, int]) -> None:
        """Write the utterances as a shard, then the manifest's rows of all of them."""
        if not pending:
            return
        kept = [outcome.result for _, outcome in pending if isinstance(outcome.result, Utterance)]
        if kept:
            write_shard(shard_path(self.folder, self.next_shard), kept, *widths)
        rows = [self._row(clip, outcome) for clip, outcome in pending]
        append_rows(self.folder, rows)
        self.rows.extend(rows)
        self.next_shard += bool(kept)

    def _row(self, clip: Clip, outcome: Outcome) -> ManifestRow:
        path = clip.path.relative_to(self.corpus.info["root"]).as_posix()
        if isinstance(outcome.result, Utterance):
            return ManifestRow(clip.id, path, KEPT, shard=str(self.next_shard))
        return ManifestRow(clip.id, path, SKIPPED, outcome.result.reason, outcome.result.detail)

    def _info_so_far(self, description: dict[str, Any]) -> DatasetInfo:
        before = read_info(self.folder) if (self.folder / INFO_FILE).is_file() else None
        info = DatasetInfo(corpus=self.corpus.info, label_range=self.corpus.label_range, **description)
        info.versions = {name: metadata.version(name) for name in PACKAGES}
        info.seconds = dict(before.seconds) if before is not None else {}
        info.peak_memory_mb = before.peak_memory_mb if before is not None else None
        if info.asr is not None:
            info.asr["word_error_rate"] = before.asr.get("word_error_rate") if before is not None and before.asr else None
        info.counts = count_rows(self.folder, self.rows)
        return info

    def _finish(self, info: DatasetInfo, wall: float, references: dict[str, str] | None) -> None:
        self.progress.seconds["total"] += wall
        self.progress.seconds["media"] += self.progress.media_seconds
        for name, value in self.progress.seconds.items():
            info.seconds[name] = round(info.seconds.get(name, 0.0) + value, 3)
        here = memory_peak_mb()
        others = sum(value for process, value in self.progress.memory.items() if process not in (0, os.getpid()))
        info.peak_memory_mb = round(max(info.peak_memory_mb or 0.0, here + others), 1)
        info.counts = count_rows(self.folder, self.rows)
        if references and info.asr is not None:
            info.asr["word_error_rate"] = word_error_rate(kept_texts(self.folder), references)
        write_info(self.folder, info)


def count_rows(folder: Path, rows: Sequence[ManifestRow]) -> dict[str, Any]:
    """`counts` of `dataset.json`: kept, skipped by reason, kept without a face, hours kept, mean face rate."""
    skipped = Counter(row.reason for row in rows if row.state == SKIPPED)
    seconds, rates, faceless = 0.0, [], 0
    for path in sorted((folder / SHARD_FOLDER).glob("*.parquet")):
        table = pq.read_table(path, columns=["start", "end", "face_rate"])
        seconds += pc.sum(pc.subtract(table["end"], table["start"])).as_py() or 0.0
        known = [rate for rate in table["face_rate"].to_pylist() if rate is not None]
        rates.extend(known)
        faceless += sum(rate == 0.0 for rate in known)
    return {
        "kept": sum(row.state == KEPT for row in rows),
        "skipped": dict(skipped.most_common()),
        "kept_without_face": faceless,
        "hours": round(seconds / 3600.0, 6),
        "mean_face_rate": round(sum(rates) / len(rates), 4) if rates else None,
    }


def kept_texts(folder: Path) -> dict[str, str]:
    """The recognised text of every kept clip, by id."""
    texts: dict[str, str] = {}
    for path in sorted((folder / SHARD_FOLDER).glob("*.parquet")):
        table = pq.read_table(path, columns=["id", "text"])
        texts.update(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))
    return texts


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold a lock on an output folder while the block runs.

    Raises:
        UserError: another job holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"--output {folder}: another job is writing there; wait for it or give another folder") from error
        yield
