"""Every job killed, stopped, interrupted and started twice: it resumes, and the result is that of an undisturbed run."""

import os
import signal
import time
from functools import partial
from pathlib import Path

from .frame import Ended, NotHeldError, after, disturb, done, fault, holds, no_traceback, refused, start, wait
from .ground import JOBS, Ground, Job, pretrain, utterances_of

RESUMED = [job for job in JOBS if job.name != "predict.py"]
INTERRUPTED = "Interrupted. Finished work is kept: run the same command again to resume."
KILLS = 3


def ends_as_undisturbed(ground: Ground, job: Job, command: list[str], output: object) -> None:
    """Run the command to its end and compare with the undisturbed run."""
    done(wait(start(command)))
    if job.result(output) != ground.whole(job)[0]:  # type: ignore[arg-type]
        raise NotHeldError("the result is not that of an undisturbed run")


def kills(job: Job, ground: Ground) -> str:
    seconds = ground.whole(job)[1]
    output = ground.fresh()
    command = job.command(ground, output)
    moments = []
    for _ in range(KILLS):
        moment = ground.chance.uniform(0.15, 0.95) * seconds
        if disturb(command, signal.SIGKILL, after(moment)) is not None:
            moments.append(f"{moment:.1f}")
    holds(moments, "no kill hit the job")
    ends_as_undisturbed(ground, job, command, output)
    return f"killed after {', '.join(moments)} s, then done; same result"


def terminated(job: Job, ground: Ground) -> str:
    for share in (0.7, 0.5, 0.3):  # the undisturbed run may have been slower: other programs
        output = ground.fresh()
        command = job.command(ground, output)
        ended = disturb(command, signal.SIGTERM, after(share * ground.whole(job)[1]))
        if ended is not None:
            break
    holds(ended is not None, "the job was faster than the signal")
    assert ended is not None
    no_traceback(ended)
    holds(ended.status in (-signal.SIGTERM, 143), f"exit {ended.status} after SIGTERM")  # 143: with a checkpoint written first
    ends_as_undisturbed(ground, job, command, output)
    return "ended by the signal, then done; same result"


def interrupted(job: Job, ground: Ground) -> str:
    output = ground.fresh()
    command = job.command(ground, output)
    moments = []
    for share in (0.3, 0.75):
        moment = share * ground.whole(job)[1]
        ended = disturb(command, signal.SIGINT, after(moment), group=True)
        if ended is not None:
            check_interrupted(ended)
            moments.append(f"{moment:.1f}")
    holds(moments, "no Ctrl-C hit the job")
    if job in RESUMED:
        ends_as_undisturbed(ground, job, command, output)
        return f"after {', '.join(moments)} s: exit 130, one line; then done; same result"
    done(wait(start(command)))
    return f"after {', '.join(moments)} s: exit 130, one line; then done"


def check_interrupted(ended: Ended) -> None:
    no_traceback(ended)
    # -SIGINT: while the interpreter imports; a shell calls both 130
    holds(ended.status in (130, -signal.SIGINT), f"exit {ended.status} after Ctrl-C: {' / '.join(ended.lines)}")
    holds(ended.lines == [INTERRUPTED], f"exit {ended.status}, says {' / '.join(ended.lines)}")


def twice(job: Job, ground: Ground) -> str:
    output = ground.fresh()
    command = job.command(ground, output)
    first = start(command)
    time.sleep(ground.chance.uniform(0.0, 0.05))
    second = start(command)
    ends = [wait(first), wait(second)]
    for ended in ends:
        no_traceback(ended)
    loser = next((ended for ended in ends if ended.status), None)
    if loser is not None:
        seen = refused(loser, "another", "--output")
        done(next(ended for ended in ends if ended is not loser))
    else:
        seen = "both done"
        for ended in ends:
            done(ended)
    if job.result(output) != ground.whole(job)[0]:
        raise NotHeldError(f"{seen}, but the result is not that of one job")
    return f"one done with the same result; the other: {seen}" if loser is not None else "both done, same result"


for _job in JOBS:
    fault("Ctrl-C, twice", _job.name, "exit 130, one line; the same command resumes")(partial(interrupted, _job))
    expected = "one is refused with exit 2 (or both agree); the result is that of one"
    fault("two jobs on one output", _job.name, expected)(partial(twice, _job))
for _job in RESUMED:
    fault(f"kill -9 at {KILLS} random moments", _job.name, "resumes; the same result as undisturbed")(partial(kills, _job))
    if _job.name != "sample_corpus.py":
        fault("SIGTERM", _job.name, "ends at once; resumes; same result")(partial(terminated, _job))


@fault("kill -9 between two shards", "remask", "pretraining refuses the mixed masks; the same command gives the same result")
def remask_killed(ground: Ground) -> str:
    lexicon = ground.fresh("lexicon.tsv")
    lexicon.write_text("great\t3\nawful\t-3\nfilm\t1\n")
    whole, data = ground.copy(ground.data), ground.copy(ground.data)
    done(wait(start(["-m", "preprocessing.remask", str(whole), "--lexicon", str(lexicon)])))
    command = ["-m", "preprocessing.remask", str(data), "--lexicon", str(lexicon)]
    before = {path: path.stat().st_mtime_ns for path in sorted((data / "data").glob("*.parquet"))}

    def half() -> bool:
        return any(path.stat().st_mtime_ns != when for path, when in before.items())

    killed = disturb(command, signal.SIGKILL, half)
    mixed = killed is not None and "unfinished" in (data / "dataset.json").read_text()
    seen = ""
    if mixed:
        arguments = pretrain(ground, ground.fresh())
        arguments[arguments.index("--data") + 1] = str(data)
        seen = refused(wait(start(arguments)), "two lexicons") + "; "
    done(wait(start(command)))
    holds(utterances_of(data) == utterances_of(whole), "the masks are not those of an undisturbed run")
    return f"{seen}then done; same result"


def workers_of(pid: int) -> list[int]:
    """The worker processes of a job, without multiprocessing's own helpers."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


@fault("kill -9 of a worker process", "preprocessing/run.py", "the job or the same command resumes; nothing is lost")
def worker_killed(ground: Ground) -> str:
    output = ground.fresh()
    job = next(job for job in JOBS if job.name == "preprocessing/run.py")
    command = job.command(ground, output)
    process = start(command)
    while not (workers := workers_of(process.pid)) and process.poll() is None:
        time.sleep(0.05)
    holds(workers, "the job has no worker processes")
    time.sleep(ground.chance.uniform(0.0, 0.3) * ground.whole(job)[1])
    holds(process.poll() is None, "the job was faster than the signal")
    os.kill(workers[-1], signal.SIGKILL)
    ended = wait(process)
    no_traceback(ended)
    if ended.status:
        refused(ended)
    ends_as_undisturbed(ground, job, command, output)
    return f"exit {ended.status}; the same command ends with the same result"
