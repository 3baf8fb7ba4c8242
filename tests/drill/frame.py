"""Faults, and how a command is started, disturbed and checked."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300  # seconds after which a command counts as hanging


class NotHeldError(Exception):
    """The behaviour is not the promised one."""


@dataclass
class Ended:
    """A finished command."""

    status: int
    out: str
    err: str
    seconds: float

    @property
    def lines(self) -> list[str]:
        """The lines on stderr, without progress bars and notices such as `Loading libraries …`."""
        lines = (line for line in self.err.splitlines() if line.strip() and not line.endswith(" …"))
        return [line for line in lines if not re.match(r"[^|]*\d+%\|", line)]


@dataclass(frozen=True)
class Fault:
    """A fault: its name, the command, what is promised, and the check, which returns what was seen or raises NotHeldError."""

    name: str
    command: str
    expected: str
    check: Callable[..., str]


FAULTS: list[Fault] = []


def fault(name: str, command: str, expected: str) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """Register a check, which is called with the `Ground`."""

    def enter(check: Callable[..., str]) -> Callable[..., str]:
        FAULTS.append(Fault(name, command, expected, check))
        return check

    return enter


def environment(**changes: str | None) -> dict[str, str]:
    """The environment of every command: no hub, one thread; a change of None removes a variable."""
    plain = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    return {name: value for name, value in {**plain, **changes}.items() if value is not None}


def start(command: list[str], prepare: Callable[[], None] | None = None, **changes: str | None) -> subprocess.Popen[str]:
    """Start a command (arguments of `python`, or an absolute program first) in its own process group."""

    def prepared() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored after a shell's `&`
        if prepare is not None:
            prepare()

    whole = command if command[0].startswith("/") else [sys.executable, *command]
    return subprocess.Popen(
        whole, cwd=ROOT, env=environment(**changes), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
        stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=prepared,
    )  # fmt: skip


def wait(process: "subprocess.Popen[str]", began: float | None = None) -> Ended:
    """Wait for its end; a command that hangs is killed with its workers and fails the check."""
    began = began or time.monotonic()
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise NotHeldError(f"the command or one of its workers hangs for {PATIENCE} s: {last_line(err) or last_line(out)}") from None
    except BaseException:  # Ctrl-C on the drill
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return Ended(process.returncode, out, err, time.monotonic() - began)


def run(command: list[str], prepare: Callable[[], None] | None = None, **changes: str | None) -> Ended:
    """Run a command to its end."""
    began = time.monotonic()
    return wait(start(command, prepare, **changes), began)


def disturb(command: list[str], sign: signal.Signals, when: Callable[[], bool], group: bool = False) -> Ended | None:
    """Send a signal as soon as `when()` is true, to the process or (as a terminal does) its group; None if it had ended before."""
    process = start(command)
    while not when():
        if process.poll() is not None:
            process.communicate()
            return None
        time.sleep(0.005)
    if process.poll() is not None:
        process.communicate()
        return None
    (os.killpg if group else os.kill)(process.pid, sign)
    return wait(process)


def after(seconds: float) -> Callable[[], bool]:
    """True once that many seconds have passed."""
    moment = time.monotonic() + seconds
    return lambda: time.monotonic() >= moment


def last_line(text: str) -> str:
    """The last line that is not empty."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def no_traceback(ended: Ended) -> None:
    """Check that no stack trace was printed."""
    for text in (ended.err, ended.out):
        if "Traceback (most recent call last)" in text or "core dumped" in text or "Segmentation fault" in text:
            raise NotHeldError(f"a stack trace: {last_line(text)}")


def refused(ended: Ended, *names: str) -> str:
    """Check for status 2 and one line that matches all `names` (regular expressions)."""
    no_traceback(ended)
    if ended.status != 2:
        raise NotHeldError(f"exit {ended.status}: {last_line(ended.err) or last_line(ended.out)}")
    if len(ended.lines) != 1:
        raise NotHeldError(f"{len(ended.lines)} lines on stderr: {' / '.join(ended.lines)}")
    for name in names:
        if not re.search(name, ended.err):
            raise NotHeldError(f"does not name {name}: {ended.lines[0]}")
    return f"exit 2: {ended.lines[0]}"


def done(ended: Ended) -> str:
    """Check for status 0 and an empty stderr."""
    no_traceback(ended)
    if ended.status != 0:
        raise NotHeldError(f"exit {ended.status}: {last_line(ended.err) or last_line(ended.out)}")
    if ended.lines:
        raise NotHeldError(f"done, but says on stderr: {' / '.join(ended.lines)}")
    return "done"


def holds(condition: object, otherwise: str) -> None:
    """Raise NotHeldError unless the condition is true."""
    if not condition:
        raise NotHeldError(otherwise)
