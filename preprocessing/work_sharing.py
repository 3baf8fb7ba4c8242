"""How processes share the work: one thread each, clips in batches."""

import os
from collections.abc import Sequence

from preprocessing.corpora.clip import Clip

LEAST_BATCHES = 4  # a process: where there are few clips, batches are smaller, so that no process is idle at the end
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def one_thread() -> None:
    """Have numerical libraries use one thread a process, and wait without spinning; to be called before they are imported."""
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def batches_of(clips: Sequence[Clip], most: int, workers: int) -> list[Sequence[Clip]]:
    """The clips in batches of at most `most`, and so many batches that some processes share them evenly."""
    size = max(1, min(most, len(clips) // (workers * LEAST_BATCHES)))
    return [clips[start : start + size] for start in range(0, len(clips), size)]
