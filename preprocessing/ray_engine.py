"""The pipeline on a Ray cluster: actors that hold the models and process batches of clips (extra `cluster`)."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from preprocessing.engines import batches_of
from preprocessing.layouts import Clip
from preprocessing.options import THREAD_VARIABLES, RayOptions
from preprocessing.pipeline import ClipProcessor, ClipResult, PipelineSettings, Skip
from skesl_mug.errors import UserError

IN_FLIGHT = 2  # batches submitted per actor: an actor never waits for the driver
ATTEMPTS = 2  # further actors that a clip may kill before it is a skip
PACKAGES_ROOT = Path(__file__).resolve().parents[1]


class ModelActor:
    """The models in one process; `describe` reports the error if they cannot be loaded."""

    def __init__(self, settings: PipelineSettings):
        self._processor: ClipProcessor | None = None
        self._fault: str | None = None
        try:
            self._processor = _open_processor(settings)
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


def _open_processor(settings: PipelineSettings) -> ClipProcessor:
    if settings.quiet:
        from skesl_mug.console import quiet_libraries

        quiet_libraries()
    processor = ClipProcessor(settings)
    processor.warm_up()
    return processor


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
        flying: dict[Any, tuple[int, Any, list[Clip]]] = {}
        free = deque(place for _ in range(in_flight) for place in range(len(self._actors)))
        while todo or flying:
            while todo and free:
                place, batch = free.popleft(), todo.popleft()
                actor = self._actors[place]
                flying[actor.work.remote(batch)] = place, actor, batch
            for reference in self._ray.wait(list(flying), num_returns=1)[0]:
                place, actor, batch = flying.pop(reference)
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
