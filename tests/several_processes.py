"""Runs a script in several processes, as torchrun does; a run that hangs fails with the stack of every process."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

TIMEOUT = 120
OWN_ADDRESS = "127.0.0.1"


def launch(script: Path, *arguments: object, processes: int = 2, timeout: float = TIMEOUT) -> subprocess.CompletedProcess[str]:
    """Run `script` under torchrun on the CPU; everything goes over the loopback device, so that no name has to be resolved."""
    command = ["-m", "torch.distributed.run", "--nproc_per_node", processes, "--standalone", "--local_addr", OWN_ADDRESS, script]
    environment = {
        **os.environ,
        "ACCELERATE_USE_CPU": "true",
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
        "PYTHONFAULTHANDLER": "1",
    }
    # files, not pipes: a process that is left over could keep a pipe open and the reader waiting
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        started = subprocess.Popen(
            [sys.executable, *map(str, [*command, *arguments])], env=environment, stdout=output, stderr=errors, start_new_session=True
        )
        try:
            started.wait(timeout)
            hung = False
        except subprocess.TimeoutExpired:
            hung = True
            abort(started)
        found = []
        for file in (output, errors):
            file.seek(0)
            found.append(file.read())
    if hung:
        pytest.fail(f"{script} did not end within {timeout:.0f} s\n{found[0]}\n{found[1]}", pytrace=False)
    return subprocess.CompletedProcess(started.args, started.returncode, *found)


def abort(started: "subprocess.Popen[bytes]") -> None:
    """Have every process print its stack traces (faulthandler answers SIGABRT so) and end."""
    family = psutil.Process(started.pid).children(recursive=True)  # the workers, not their parent, which would end them
    for process in family:
        process.send_signal(signal.SIGABRT)
    psutil.wait_procs(family, timeout=10)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
