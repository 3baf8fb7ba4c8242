"""Every job on a full disk, without write permission, without a home, without a network, and under an odd path."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from .frame import NotHeldError, done, fault, holds, refused, run
from .ground import JOBS, Ground, Job, pretrain

ROOT_USER = os.geteuid() == 0
TOO_SMALL = {
    "sample_corpus.py": 96,
    "preprocessing/run.py": 48,
    "pretrain/run.py": 48,
    "run_mug.py": 96,
    "studies": 96,
    "search": 96,
    "predict.py": 4,
}
"""Disk sizes (KiB) that are too small for each job."""


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Callable[[], None] | None]:
    """A tmpfs of that size at `folder`; yields a function that enlarges it, or None where nothing may be mounted."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if not ROOT_USER or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=512m", str(folder)], check=True) and None
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def full_disk(job: Job, ground: Ground) -> str:
    ground.whole(job)
    disk = ground.fresh("disk")
    with small_disk(disk, TOO_SMALL[job.name]) as make_room:
        command = job.command(ground, disk / "o")
        if make_room is None:
            ended = run(command, partial(limit_files, TOO_SMALL[job.name] * 256))
        else:
            ended = run(command)
        seen = refused(ended, "No space left|File too large|no room|make room|disk", str(disk))
        if make_room is not None:
            make_room()
        done(run(command))
        if job.result(disk / "o") != ground.whole(job)[0]:
            raise NotHeldError("after room was made the result is not that of an undisturbed run")
    return f"{seen}; with room, the same result"


def limit_files(size: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def without_rights(command: list[str]) -> list[str]:
    """The command as a process that obeys file permissions, without root's power to override them."""
    import sys

    whole = [sys.executable, *command]
    setpriv = shutil.which("setpriv")
    if not ROOT_USER:
        return whole
    holds(setpriv, "not tried: setpriv is not installed, so root's permissions cannot be dropped")
    return [str(setpriv), "--bounding-set=-all", "--inh-caps=-all", *whole]


def unwritable(job: Job, ground: Ground) -> str:
    closed = ground.fresh("closed")
    closed.mkdir()
    closed.chmod(0o555)
    return refused(run(without_rights(job.command(ground, closed / "o"))), str(closed))


def homeless(job: Job, ground: Ground) -> str:
    output = ground.fresh()
    ended = run(without_rights(job.command(ground, output)), HOME="/proc/no/home", XDG_CACHE_HOME=None, HF_HOME=None, MPLCONFIGDIR=None)
    seen = done(ended)
    if job.result(output) != ground.whole(job)[0]:
        raise NotHeldError("the result is another")
    return f"{seen}, same result"


def odd_name(job: Job, ground: Ground) -> str:
    output = ground.fresh("a 'b' \"c\" $d 好é {x} [y] %s #1") / "o"
    done(run(job.command(ground, output)))
    if job.result(output) != ground.whole(job)[0]:
        raise NotHeldError("the result is another")
    return "done, same result"


def output_is_a_file(job: Job, ground: Ground) -> str:
    output = ground.fresh()
    output.write_text("mine")
    seen = refused(run(job.command(ground, output)), str(output))
    holds(output.read_text() == "mine", "the file was written over")
    return seen


def foreign_folder(job: Job, ground: Ground) -> str:
    output = ground.fresh()
    output.mkdir()
    (output / "thesis.txt").write_text("mine")
    seen = refused(run(job.command(ground, output)), str(output))
    holds([path.name for path in output.iterdir() if not path.name.startswith(".")] == ["thesis.txt"], "something was written there")
    return seen


for _job in JOBS:
    fault("full disk", _job.name, "exit 2, one line that names the file; with space again, the same result")(partial(full_disk, _job))
    fault("folder without write permission", _job.name, "exit 2, one line that names it")(partial(unwritable, _job))
    if _job.name != "sample_corpus.py":
        fault("HOME that cannot be created", _job.name, "done, nothing on stderr, same result")(partial(homeless, _job))
        fault("spaces, quotes, Chinese in the path", _job.name, "done, same result")(partial(odd_name, _job))
    fault("--output is a file", _job.name, "exit 2, one line; the file is kept")(partial(output_is_a_file, _job))
    if _job.name != "predict.py":  # which writes to any folder
        fault("--output holds other files", _job.name, "exit 2, one line; they are kept")(partial(foreign_folder, _job))


def offline(command: list[str]) -> list[str]:
    """The command in an empty network namespace, where that is possible."""
    import sys

    whole = [sys.executable, *command]
    unshare = shutil.which("unshare")
    able = unshare and subprocess.run([unshare, "-n", "true"], capture_output=True, check=False).returncode == 0
    return [str(unshare), "-n", *whole] if able else whole


NO_HUB = {"HF_HUB_OFFLINE": None, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_ETAG_TIMEOUT": "2"}


@fault("no network, --lm by hub name", "pretrain/run.py", "exit 2, one line that names the model and the fix")
def no_network_pretrain(ground: Ground) -> str:
    command = pretrain(ground, ground.fresh())
    command[command.index("--lm") + 1] = "nobody/no-such-model"
    return refused(run(offline(command), **NO_HUB), "nobody/no-such-model", "network|local folder")


@fault("no network, --lm by hub name", "run_mug.py", "exit 2, one line that names the model and the fix")
def no_network_mug(ground: Ground) -> str:
    command = next(job for job in JOBS if job.name == "run_mug.py").command(ground, ground.fresh())
    command[command.index("--lm") + 1] = "nobody/no-such-model"
    return refused(run(offline(command), **NO_HUB), "nobody/no-such-model", "network|local folder")


@fault("no network, --asr.model by hub name", "preprocessing/run.py", "exit 2, one line that names the model and the fix")
def no_network_asr(ground: Ground) -> str:
    command = next(job for job in JOBS if job.name == "preprocessing/run.py").command(ground, ground.fresh())
    return refused(run(offline([*command, "--asr.model", "nobody/no-such-model"]), **NO_HUB), "nobody/no-such-model", "network|folder")


@fault("no network, --model by hub name", "predict.py", "exit 2, one line that names the model and the fix")
def no_network_predict(ground: Ground) -> str:
    command = ["finetune/predict.py", str(ground.predictable), "--model", "nobody/no-such-model"]
    return refused(run(offline(command), **NO_HUB), "nobody/no-such-model", "network|folder")


@fault("no network at all, everything local", "preprocessing/run.py", "done, same result: nothing needs a network")
def no_network_needed(ground: Ground) -> str:
    job = next(job for job in JOBS if job.name == "preprocessing/run.py")
    output = ground.fresh()
    done(run(offline(job.command(ground, output)), **NO_HUB))
    if job.result(output) != ground.whole(job)[0]:
        raise NotHeldError("the result is another")
    return "done, same result"
