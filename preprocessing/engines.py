"""Where the pipeline runs: in this process, in local worker processes, or on a Ray cluster (ray_engine.py)."""

import multiprocessing
import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import Any, Protocol

from preprocessing.layouts import Clip
from preprocessing.options import RayOptions, one_thread
from preprocessing.pipeline import ClipProcessor, ClipResult, PipelineSettings, Skip
from skesl_mug.errors import UserError
from skesl_mug.interruption import ctrl_c_ignored, end_with_parent

IN_FLIGHT = 2  # batches of clips submitted per process: bounds memory, keeps every process busy
MIN_BATCHES = 4  # per process: with few clips the batches are smaller, so that no process is idle at the end
MAX_FAILED_STARTS = 3  # in a row
DYING = "the worker processes die while loading their models (out of memory?); use fewer --workers"


class Engine(Protocol):
    """Takes clips through the pipeline."""

    def describe(self) -> dict[str, Any]:
        """The entries of `dataset.json` about how the features are made (`ClipProcessor.describe`)."""
        ...

    def run(self, clips: Sequence[Clip]) -> Iterator[ClipResult]:
        """Process the clips; results come in the order in which they are finished."""
        ...

    def close(self) -> None:
        """Free what the engine holds."""
        ...


def open_engine(settings: PipelineSettings, workers: int, cluster: RayOptions | None = None) -> Engine:
    """The engine for a number of worker processes (1: this process), or with `cluster` for a number of Ray actors.

    Raises:
        UserError: the models cannot be loaded, or there is no such cluster.
    """
    one_thread()
    if cluster is not None:
        from preprocessing.ray_engine import RayActors

        return RayActors(settings, workers, cluster)
    return InProcess(settings) if workers <= 1 else LocalProcesses(settings, workers)


def batches_of(clips: Sequence[Clip], largest: int, workers: int) -> list[Sequence[Clip]]:
    """The clips in batches of at most `largest`, small enough for the workers to share them evenly."""
    size = max(1, min(largest, len(clips) // (workers * MIN_BATCHES)))
    return [clips[start : start + size] for start in range(0, len(clips), size)]


class InProcess:
    """One clip after the other in this process."""

    def __init__(self, settings: PipelineSettings):
        self._batch = settings.batch
        self._processor = ClipProcessor(settings)
        self._processor.warm_up()

    def describe(self) -> dict[str, Any]:
        """See `Engine`."""
        return self._processor.describe()

    def run(self, clips: Sequence[Clip]) -> Iterator[ClipResult]:
        """See `Engine`."""
        for batch in batches_of(clips, self._batch, 1):
            yield from self._processor.process_many(batch)

    def close(self) -> None:
        """See `Engine`."""
        self._processor.close()


class LocalProcesses:
    """Worker processes on this machine, each with its own models.

    A process that dies (killed, out of memory, a crash in native code) loses the clips in flight: each is processed again alone in a
    fresh process, and one that kills that too becomes a skip `crashed`.
    """

    def __init__(self, settings: PipelineSettings, workers: int):
        self._settings, self._workers, self._batch = settings, workers, settings.batch
        self._pool = _open_pool(settings, workers)

    def describe(self) -> dict[str, Any]:
        """See `Engine`.

        Raises:
            UserError: the models cannot be loaded.
        """
        return _describe_in(self._pool)

    def run(self, clips: Sequence[Clip]) -> Iterator[ClipResult]:
        """See `Engine`.

        Raises:
            UserError: the processes die again and again before they have a clip.
        """
        todo = deque(batches_of(clips, self._batch, self._workers))
        failed_starts = 0
        while todo:
            before = len(todo)
            lost: list[Clip] = []
            broken = yield from self._run_until_broken(todo, lost)
            for clip in lost:
                yield _run_alone(self._settings, clip)
            if broken:
                failed_starts = failed_starts + 1 if len(todo) == before else 0
                if failed_starts == MAX_FAILED_STARTS:
                    raise UserError(DYING)
                self.close()
                self._pool = _open_pool(self._settings, self._workers)

    def _run_until_broken(self, todo: deque[Sequence[Clip]], lost: list[Clip]) -> Generator[ClipResult, None, bool]:
        """Process `todo` until it is empty or a process dies; then the clips in flight are in `lost`. Returns whether one died."""
        flying: dict[Future[list[ClipResult]], Sequence[Clip]] = {}
        broken = False
        while flying or (todo and not broken):
            try:
                while todo and not broken and len(flying) < self._workers * IN_FLIGHT:
                    flying[self._pool.submit(_work, todo[0])] = todo[0]
                    todo.popleft()
            except BrokenProcessPool:
                broken = True
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                batch = flying.pop(future)
                try:
                    results = future.result()
                except BrokenProcessPool:
                    broken = True
                    lost.extend(batch)
                else:
                    yield from results
        return broken

    def close(self) -> None:
        """End the processes; clips that are not started are dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _run_alone(settings: PipelineSettings, clip: Clip) -> ClipResult:
    with _open_pool(settings, 1) as pool:
        _describe_in(pool)  # a process that dies before it has the clip dies of something else
        try:
            return pool.submit(_work, [clip]).result()[0]
        except BrokenProcessPool:
            return ClipResult(clip.id, Skip("crashed", "its process died"))


def _describe_in(pool: ProcessPoolExecutor) -> dict[str, Any]:
    try:
        return pool.submit(_describe).result()
    except BrokenProcessPool as error:
        raise UserError(DYING) from error


def _open_pool(settings: PipelineSettings, workers: int) -> ProcessPoolExecutor:
    # spawned, not forked: the models' libraries hold threads and locks that do not survive a fork
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start, initargs=(settings,))
    with ctrl_c_ignored(), suppress(BrokenProcessPool):  # a worker may die while the others are started; the first use reports it
        for _ in range(workers):
            pool.submit(os.getpid)  # each submission starts one process
    return pool


# In a worker process: its processor, or the error that kept it from having one.
_processor: ClipProcessor | UserError = UserError("the process was not started with its models")


def _start(settings: PipelineSettings) -> None:
    global _processor
    end_with_parent()
    if settings.quiet:
        from skesl_mug.console import quiet_libraries

        quiet_libraries()
    try:
        _processor = ClipProcessor(settings)
        _processor.warm_up()
    except UserError as error:  # raised here it would reach the parent as a dead process without a message
        _processor = error


def _ready() -> ClipProcessor:
    if isinstance(_processor, UserError):
        raise _processor
    return _processor


def _describe() -> dict[str, Any]:
    return _ready().describe()


def _work(clips: Sequence[Clip]) -> list[ClipResult]:
    return _ready().process_many(clips)
