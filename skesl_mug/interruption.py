"""Worker processes and Ctrl-C."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

INTERRUPTED = "\nInterrupted. Finished work is kept: run the same command again to resume."
_ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("skesl_mug", "lexicons", "preprocessing", "pretrain", "finetune")


def one_line_while_importing() -> None:
    """Have a Ctrl-C that comes while one of our commands still imports its libraries be one line too (`run_command` sees to the rest).

    Other programs that import us keep their own way.
    """
    usual = sys.excepthook

    def told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt) and _ours() and "--debug" not in sys.argv:
            print(INTERRUPTED, file=sys.stderr)
        else:
            usual(kind, error, trace)

    sys.excepthook = told


def _ours() -> bool:
    """Whether the program is one of our commands; `python -m` has not set its file yet while the package is imported."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    if file is None:
        return sys.argv[:1] == ["-m"]
    place = Path(file).resolve()
    return place.stem == "skesl-mug" or (place.is_relative_to(_ROOT) and place.relative_to(_ROOT).parts[0] in PACKAGES)


def end_with_parent() -> None:
    """In a worker process: end when the parent is gone (killed), for else it would wait for work for ever."""
    threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def ctrl_c_ignored() -> Iterator[None]:
    """Processes started in this block ignore Ctrl-C from their first instruction: it goes to the whole group, and the parent ends the
    work in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def ctrl_c_deferred() -> Iterator[None]:
    """Let a Ctrl-C that comes in this block take effect at its end: for code that would swallow it."""
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(usual):
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if came:
        raise KeyboardInterrupt
