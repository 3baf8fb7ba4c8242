"""Where the pipeline runs: in this process, or in local processes of one thread each."""

import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any, Protocol

from preprocessing.corpora.clip import Clip
from preprocessing.pipeline import ClipProcessor, Outcome, PipelineSettings, Skip
from preprocessing.work_sharing import batches_of, one_thread
from skesl_mug.errors import UserError
from skesl_mug.interruption import ctrl_c_ignored, end_with_parent

if TYPE_CHECKING:
    from preprocessing.cluster_options import RayOptions

IN_FLIGHT = 2  # batches of clips handed out per process: bounds memory, keeps every process busy


class Engine(Protocol):
    """Something that takes clips through the pipeline."""

    def describe(self) -> dict[str, Any]:
        """The parts of `dataset.json` that say how the features are made (`ClipProcessor.describe`)."""
        ...

    def run(self, clips: Sequence[Clip]) -> Iterator[Outcome]:
        """Process the clips."""
        ...

    def close(self) -> None:
        """Free what the engine holds."""
        ...


def open_engine(settings: PipelineSettings, workers: int, cluster: "RayOptions | None" = None) -> Engine:
    """The engine for a number of processes, 1 stays in this process; with `cluster`, for a number of actors of a Ray cluster.

    Raises:
        UserError: the models cannot be loaded, or there is no such cluster.
    """
    one_thread()
    if cluster is not None:
        from preprocessing.ray_engine import RayActors

        return RayActors(settings, workers, cluster)
    return InProcess(settings) if workers <= 1 else LocalProcesses(settings, workers)


class InProcess:
    """One clip after the other in this process."""

    def __init__(self, settings: PipelineSettings):
        self._batch = settings.batch
        self._processor = ClipProcessor(settings)
        self._processor.warm_up()

    def describe(self) -> dict[str, Any]:
        """See `Engine`."""
        return self._processor.describe()

    def run(self, clips: Sequence[Clip]) -> Iterator[Outcome]:
        """See `Engine`."""
        for batch in batches_of(clips, self._batch, 1):
            yield from self._processor.process_many(batch)

    def close(self) -> None:
        """See `Engine`."""
        self._processor.close()


class LocalProcesses:
    """Processes of this machine, each with its own models.

    A process that dies (killed, out of memory, a fault in native code) takes the clips in flight with it: they are done again, each
    alone in a fresh process, and one that kills this too is a skip `crashed`.
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

    def run(self, clips: Sequence[Clip]) -> Iterator[Outcome]:
        """See `Engine`. Outcomes come as they are finished."""
        todo = deque(batches_of(clips, self._batch, self._workers))
        while todo:
            lost: list[Clip] = []
            yield from self._run_until_broken(todo, lost)
            for clip in lost:
                yield _run_alone(self._settings, clip)
            if lost:
                self.close()
                self._pool = _open_pool(self._settings, self._workers)

    def _run_until_broken(self, todo: deque[Sequence[Clip]], lost: list[Clip]) -> Iterator[Outcome]:
        """Work off `todo` until it is empty or a process dies; then the clips in flight are in `lost`."""
        flying: dict[Future[list[Outcome]], Sequence[Clip]] = {}
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
                    outcomes = future.result()
                except BrokenProcessPool:
                    broken = True
                    lost.extend(batch)
                else:
                    yield from outcomes

    def close(self) -> None:
        """End the processes; what has not begun is not begun."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _run_alone(settings: PipelineSettings, clip: Clip) -> Outcome:
    with _open_pool(settings, 1) as pool:
        _describe_in(pool)  # a process that dies before it has the clip dies of something else
        try:
            return pool.submit(_work, [clip]).result()[0]
        except BrokenProcessPool:
            return Outcome(clip.id, Skip("crashed", "its process died"))


def _describe_in(pool: ProcessPoolExecutor) -> dict[str, Any]:
    try:
        return pool.submit(_describe).result()
    except BrokenProcessPool as error:
        raise UserError("the worker processes die while they load their models (out of memory?); give fewer --workers") from error


def _open_pool(settings: PipelineSettings, workers: int) -> ProcessPoolExecutor:
    # spawned, not forked: the models' libraries hold threads and locks that do not survive a fork
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start, initargs=(settings,))
    with ctrl_c_ignored():
        for _ in range(workers):
            pool.submit(os.getpid)  # a submission starts one process
    return pool


# In a worker process: its processor, or the fault that kept it from having one.
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
    except UserError as error:  # raised here it would reach the parent as a dead process without a word
        _processor = error


def _ready() -> ClipProcessor:
    if isinstance(_processor, UserError):
        raise _processor
    return _processor


def _describe() -> dict[str, Any]:
    return _ready().describe()


def _work(clips: Sequence[Clip]) -> list[Outcome]:
    return _ready().process_many(clips)
