"""Where the pipeline runs: in this process, in local worker processes, or on a Ray cluster (extra `cluster`)."""

import multiprocessing
import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from preprocessing.layouts import Clip
from preprocessing.options import THREAD_VARIABLES, RayOptions, one_thread
from preprocessing.pipeline import ClipProcessor, ClipResult, PipelineSettings, Skip
from skesl_mug.errors import UserError
from skesl_mug.interruption import ctrl_c_ignored, end_with_parent

IN_FLIGHT = 2  # batches of clips submitted per process or actor: bounds memory, keeps every one busy
MIN_BATCHES = 4  # per process: with few clips the batches are smaller, so that no process is idle at the end
MAX_FAILED_STARTS = 3  # in a row
DYING = "the worker processes die while loading their models (out of memory?); use fewer --workers"
ATTEMPTS = 2  # further Ray actors that a clip may kill before it is a skip
PACKAGES_ROOT = Path(__file__).resolve().parents[1]


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
        pending: dict[Future[list[ClipResult]], Sequence[Clip]] = {}
        broken = False
        while pending or (todo and not broken):
            try:
                while todo and not broken and len(pending) < self._workers * IN_FLIGHT:
                    pending[self._pool.submit(_work, todo[0])] = todo[0]
                    todo.popleft()
            except BrokenProcessPool:
                broken = True
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                batch = pending.pop(future)
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


def _load(settings: PipelineSettings) -> ClipProcessor:
    """The models in a worker process."""
    if settings.quiet:
        from skesl_mug.console import quiet_libraries

        quiet_libraries()
    processor = ClipProcessor(settings)
    processor.warm_up()
    return processor


# In a worker process: its processor, or the error that kept it from having one.
_processor: ClipProcessor | UserError = UserError("the process was not started with its models")


def _start(settings: PipelineSettings) -> None:
    global _processor
    end_with_parent()
    try:
        _processor = _load(settings)
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


class ModelActor:
    """The models in one process; `describe` reports the error if they cannot be loaded."""

    def __init__(self, settings: PipelineSettings):
        self._processor: ClipProcessor | None = None
        self._fault: str | None = None
        try:
            self._processor = _load(settings)
        except UserError as error:
            self._fault = str(error)

    def describe(self) -> tuple[dict[str, Any], str | None]:
        """How the features are made (`ClipProcessor.describe`), and the error that keeps the actor from working (None: it works)."""
        return (self._processor.describe() if self._processor is not None else {}), self._fault

    def work(self, clips: Sequence[Clip]) -> list[ClipResult]:
        """Take clips through the pipeline."""
        if self._processor is None:
            raise UserError(self._fault)
        return self._processor.process_many(clips)


class RayActors:
    """Actors of one core each, with their own models, on the machines of a Ray cluster. Media and output have to be on storage that all
    of them see under the same path.

    An actor that dies is replaced; the clips in flight on it are processed again, each alone, and one that kills `ATTEMPTS` more actors
    is a skip `crashed`.

    Raises:
        UserError: Ray is not installed, there is no cluster at the address, or the models cannot be loaded.
    """

    actor_class: type = ModelActor

    def __init__(self, settings: PipelineSettings, workers: int, options: RayOptions):
        try:
            import ray as library
        except ImportError as error:
            raise UserError("--engine ray: Ray is not installed; `pip install 'skesl-mug[cluster]'`, or use --engine local") from error
        ray: Any = library
        self._ray, self._settings, self._batch = ray, settings, settings.batch
        variables = dict.fromkeys(THREAD_VARIABLES, "1") | {"OMP_WAIT_POLICY": "PASSIVE"}
        # driver and actors import the same checkout (and plugins); other machines see it under the same path, or have it installed
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, (str(PACKAGES_ROOT), os.environ.get("PYTHONPATH"), os.getcwd())))  # noqa: PTH109
        self._started = not ray.is_initialized()
        if self._started:
            self._connect(options, workers, variables)
        self._actor = ray.remote(num_cpus=1, num_gpus=options.gpus)(self.actor_class)
        self._actors: list[Any] = [self._actor.remote(settings) for _ in range(max(1, workers))]

    def _connect(self, options: RayOptions, workers: int, variables: dict[str, str]) -> None:
        local = {"num_cpus": max(1, workers), "include_dashboard": False} if options.address is None else {}
        try:
            self._ray.init(
                address=options.address,
                log_to_driver=not self._settings.quiet,
                runtime_env={"env_vars": variables},
                logging_level=40,
                **local,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"--ray.address {options.address}: no Ray cluster found there ({error}); start one with `ray start`") from error

    def describe(self) -> dict[str, Any]:
        """See `Engine`.

        Raises:
            UserError: the models cannot be loaded.
        """
        return self._described(self._actors[0])

    def _described(self, actor: Any) -> dict[str, Any]:
        try:
            described, fault = self._ray.get(actor.describe.remote())
        except self._ray.exceptions.RayError as error:
            raise UserError(f"the Ray actors die while loading their models ({type(error).__name__}); use fewer --workers") from error
        if fault is not None:
            raise UserError(fault)
        return dict(described)

    def run(self, clips: Sequence[Clip]) -> Iterator[ClipResult]:
        """See `Engine`. The clips of actors that died come last.

        Raises:
            UserError: an actor that replaces a dead one cannot load its models.
        """
        lost: list[Clip] = []
        batches = deque(list(batch) for batch in batches_of(clips, self._batch, len(self._actors)))
        yield from self._process(batches, IN_FLIGHT, lost)
        for _ in range(ATTEMPTS):
            again: list[Clip] = []
            # one clip at a time per actor: the clip that kills it is then known, and takes no other with it
            yield from self._process(deque([clip] for clip in lost), 1, again)
            lost = again
        for clip in lost:
            yield ClipResult(clip.id, Skip("crashed", f"{ATTEMPTS} actors died on it, alone with it"))

    def _process(self, todo: deque[list[Clip]], in_flight: int, lost: list[Clip]) -> Iterator[ClipResult]:
        """Process the batches, `in_flight` at a time per actor; clips of an actor that dies are added to `lost`."""
        pending: dict[Any, tuple[int, Any, list[Clip]]] = {}
        free = deque(place for _ in range(in_flight) for place in range(len(self._actors)))
        while todo or pending:
            while todo and free:
                place, batch = free.popleft(), todo.popleft()
                actor = self._actors[place]
                pending[actor.work.remote(batch)] = place, actor, batch
            for reference in self._ray.wait(list(pending), num_returns=1)[0]:
                place, actor, batch = pending.pop(reference)
                free.append(place)
                try:
                    results = self._ray.get(reference)
                except self._ray.exceptions.RayTaskError as error:
                    raise UserError(f"a Ray actor failed: {error.cause}") from error
                except self._ray.exceptions.RayError:  # the actor, or its machine, died
                    lost.extend(batch)
                    if self._actors[place] is actor:
                        self._actors[place] = self._actor.remote(self._settings)
                        self._described(self._actors[place])  # one that dies before it has a clip dies of something else
                else:
                    yield from results

    def close(self) -> None:
        """End the actors, and the cluster if it was started here."""
        for actor in self._actors:
            self._ray.kill(actor)
        if self._started:
            self._ray.shutdown()
