"""Where the pipeline runs: in this process, or in local processes of one thread each."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from lexicons.errors import UserError
from preprocessing.corpora.clip import Clip
from preprocessing.pipeline import ClipProcessor, Outcome, PipelineSettings, Skip

IN_FLIGHT = 4  # clips handed out per process: bounds memory, keeps every process busy
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

_processor: ClipProcessor | None = None


def one_thread() -> None:
    """Have numerical libraries use one thread a process, and wait without spinning; to be called before they are imported."""
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def run_here(processor: ClipProcessor, clips: Sequence[Clip]) -> Iterator[Outcome]:
    """Process the clips one after the other in this process."""
    return (processor.process(clip) for clip in clips)


def run_in_processes(settings: PipelineSettings, clips: Sequence[Clip], workers: int) -> Iterator[Outcome]:
    """Process the clips in `workers` processes; outcomes come in the order of the clips, but for those done again.

    A process that dies (killed, out of memory, a fault in native code) takes the clips in flight with it: they are done again, each
    alone in a fresh process, and one that kills this too is a skip `crashed`.

    Raises:
        UserError: processes die before they are given a clip.
    """
    todo = deque(clips)
    while todo:
        lost: list[Clip] = []
        yield from _run_pool(settings, todo, workers, lost)
        for clip in lost:
            yield _run_alone(settings, clip)


def _run_pool(settings: PipelineSettings, todo: deque[Clip], workers: int, lost: list[Clip]) -> Iterator[Outcome]:
    """Work off `todo` until it is empty or the pool breaks; then the clips in flight are in `lost`."""
    flying: deque[tuple[Clip, Future[Outcome]]] = deque()
    pool = _open_pool(settings, min(workers, len(todo)))
    try:
        while todo or flying:
            while todo and len(flying) < workers * IN_FLIGHT:
                flying.append((todo[0], pool.submit(_work, todo[0])))
                todo.popleft()
            outcome = flying[0][1].result()
            flying.popleft()
            yield outcome
    except BrokenProcessPool:
        lost.extend(clip for clip, _ in flying)
    finally:
        # also on Ctrl-C and when the reader stops: what has not begun is not begun
        pool.shutdown(wait=True, cancel_futures=True)


def _run_alone(settings: PipelineSettings, clip: Clip) -> Outcome:
    with _open_pool(settings, 1) as pool:
        try:
            pool.submit(os.getpid).result()
        except BrokenProcessPool as error:  # not the clip's fault
            raise UserError("the worker processes die while they load their models (out of memory?); give fewer --workers") from error
        try:
            return pool.submit(_work, clip).result()
        except BrokenProcessPool:
            return Outcome(clip.id, Skip("crashed", "its process died"))


def _open_pool(settings: PipelineSettings, workers: int) -> ProcessPoolExecutor:
    one_thread()
    # spawned, not forked: the models' libraries hold threads and locks that do not survive a fork
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start, initargs=(settings,))


def _start(settings: PipelineSettings) -> None:
    global _processor
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent ends the work in order
    if settings.quiet:
        from preprocessing.console import quiet_libraries

        quiet_libraries()
    _processor = ClipProcessor(settings)


def _work(clip: Clip) -> Outcome:
    if _processor is None:
        raise RuntimeError("the process was not started with its models")
    return _processor.process(clip)
