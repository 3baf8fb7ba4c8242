"""The pipeline on a Ray cluster: actors that hold the models, each working off batches of clips (the extra `cluster`)."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from preprocessing.cluster_options import RayOptions
from preprocessing.corpora.clip import Clip
from preprocessing.pipeline import ClipProcessor, Outcome, PipelineSettings, Skip
from preprocessing.work_sharing import THREAD_VARIABLES, batches_of
from skesl_mug.errors import UserError

IN_FLIGHT = 2  # batches handed out per actor: an actor never waits for the driver
ATTEMPTS = 2  # more actors that may die of a clip before it is a skip
PACKAGES_ROOT = Path(__file__).resolve().parents[1]


class ModelActor:
    """The models in one process; a fault that keeps it from having them is told by `describe`."""

    def __init__(self, settings: PipelineSettings):
        self._processor: ClipProcessor | None = None
        self._fault: str | None = None
        try:
            self._processor = _open_processor(settings)
        except UserError as error:
            self._fault = str(error)

    def describe(self) -> tuple[dict[str, Any], str | None]:
        """How the features are made (`ClipProcessor.describe`), and the fault that keeps the actor from working (None: it can)."""
        return (self._processor.describe() if self._processor is not None else {}), self._fault

    def work(self, clips: Sequence[Clip]) -> list[Outcome]:
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
    """Actors of one core each, with their own models, on the machines of a Ray cluster; the media and the output are on storage that
    all of them see under the same path.

    An actor that dies is replaced by a new one; the clips that were in flight on it are done again, each alone, and one that kills
    `ATTEMPTS` more actors is a skip `crashed`.

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
        # driver and actors import the same checkout; a cluster's other machines see it under the same path, or have it installed
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, (str(PACKAGES_ROOT), os.environ.get("PYTHONPATH"))))
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
            raise UserError(
                f"--ray.address {options.address}: no Ray cluster answers there ({error}); start one with `ray start`"
            ) from error

    def describe(self) -> dict[str, Any]:
        """See `Engine`.

        Raises:
            UserError: the models cannot be loaded.
        """
        try:
            described, fault = self._ray.get(self._actors[0].describe.remote())
        except self._ray.exceptions.RayError as error:
            raise UserError(f"the Ray actors die while they load their models ({type(error).__name__}); give fewer --workers") from error
        if fault is not None:
            raise UserError(fault)
        return dict(described)

    def run(self, clips: Sequence[Clip]) -> Iterator[Outcome]:
        """See `Engine`. Outcomes come as they are finished, those of clips that were lost with an actor at the end."""
        lost: list[Clip] = []
        batches = deque(list(batch) for batch in batches_of(clips, self._batch, len(self._actors)))
        yield from self._work_off(batches, IN_FLIGHT, lost)
        for _ in range(ATTEMPTS):
            again: list[Clip] = []
            # one at a time on an actor: the clip that kills it is then known, and takes no other with it
            yield from self._work_off(deque([clip] for clip in lost), 1, again)
            lost = again
        for clip in lost:
            yield Outcome(clip.id, Skip("crashed", f"{ATTEMPTS} actors died on it, alone with it"))

    def _work_off(self, todo: deque[list[Clip]], in_flight: int, lost: list[Clip]) -> Iterator[Outcome]:
        """Work off the batches, so many handed out per actor; clips of an actor that dies are added to `lost`."""
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
                    outcomes = self._ray.get(reference)
                except self._ray.exceptions.RayTaskError as error:
                    raise UserError(f"a Ray actor cannot work: {error.cause}") from error
                except self._ray.exceptions.RayError:  # the actor, or its machine, died
                    lost.extend(batch)
                    if self._actors[place] is actor:
                        self._actors[place] = self._actor.remote(self._settings)
                else:
                    yield from outcomes

    def close(self) -> None:
        """End the actors, and the cluster where it was started here."""
        for actor in self._actors:
            self._ray.kill(actor)
        if self._started:
            self._ray.shutdown()
