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
    """Report Ctrl-C in one line also while one of our commands is importing its libraries (`run_command` handles the rest).

    Other programs that import this package are not affected.
    """
    usual = sys.excepthook

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt) and _ours() and "--debug" not in sys.argv:
            print(INTERRUPTED, file=sys.stderr)
        else:
            usual(kind, error, trace)

    sys.excepthook = report


def _ours() -> bool:
    """Whether the program is one of our commands; `python -m` has not set its file yet while the package is imported."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    if file is None:
        return sys.argv[:1] == ["-m"]
    place = Path(file).resolve()
    return place.stem == "skesl-mug" or (place.is_relative_to(_ROOT) and place.relative_to(_ROOT).parts[0] in PACKAGES)


def end_with_parent() -> None:
    """In a worker process: exit when the parent was killed, instead of waiting for work for ever."""
    threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def ctrl_c_ignored() -> Iterator[None]:
    """Processes started in this block ignore Ctrl-C, which goes to the complete process group: the parent ends them in order."""
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
    """Delay a Ctrl-C in this block to its end, for code that would swallow it."""
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(usual):
        yield
        return
    received: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if received:
        raise KeyboardInterrupt
