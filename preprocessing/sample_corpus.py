"""Make the sample corpus: mp4 clips of talking heads with known sentiment (synthetic data), to try the toolkit on.

`python preprocessing/sample_corpus.py --output DIR` writes

    DIR/unlabelled/mp4/<speaker>/<video>/<clip>.mp4   a third of the clips, in VoxCeleb2's layout
    DIR/labelled/<video>/<clip>.mp4                   the rest, with labelled/labels.csv
    DIR/truth.csv                                     the spoken sentences, to measure the word error rate; never used in training
    DIR/corpus.json                                   description of the corpus
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: import from the checkout, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import csv
import io
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib import metadata, util
from itertools import groupby
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from skesl_mug.console import CommandOptions, run_command
from skesl_mug.errors import UserError
from skesl_mug.wording import counted

if TYPE_CHECKING:
    from preprocessing.sample.plan import ClipPlan

INFO_FILE, TRUTH_FILE = "corpus.json", "truth.csv"
UNLABELLED_ROOT, LABELLED_ROOT = Path("unlabelled/mp4"), Path("labelled")
LABELS_FILE = LABELLED_ROOT / "labels.csv"
OURS = ("unlabelled", "labelled", TRUTH_FILE, INFO_FILE)
LABEL_COLUMNS = ("clip", "video_id", "speaker", "split", "label", "label_T", "label_A", "label_V")
TRUTH_COLUMNS = ("clip", "corpus", "part", "speaker", "kind", "true_text", "sentiment_words", "label", "label_T", "label_A", "label_V")
MIN_CLIPS, MAX_CLIPS = 6, 20_000
MAKERS = {  # module -> distribution: what the clips depend on
    "hibari": "hibari-tts",
    "skimage": "scikit-image",
    "cv2": "opencv-contrib-python",
    "librosa": "librosa",
    "av": "av",
    "numpy": "numpy",
}
HOW = (
    "Synthetic data: no person said this. Sentences come from a grammar of opinions about films, food, phones and hotels and are spoken by "
    "hibari-tts; speakers differ by pitch, formants and colours; the voice's sentiment changes its pitch, rate, level and brightness; the "
    "face is skimage.data.astronaut() (NASA, public domain), warped. In a quarter of the clips the modalities contradict each other "
    "(irony, brave face, poker face, flat voice). Labels are drawn with the clips: label = 0.45 T + 0.25 A + 0.30 V with a correction "
    "for irony, plus noise. Parts share no person and no sentence; train, valid and test share no sentiment word."
)


@dataclass(kw_only=True)
class SampleOptions(CommandOptions):
    """Make a corpus of talking-head clips with known sentiment, part of them unlabelled.

    The clips are synthetic: they show that the toolkit works end to end, but nothing about people.
    """

    output: Path
    """Output folder. A finished corpus with the same options is left unchanged, an unfinished one is completed."""
    clips: int = 600
    """Number of clips, 6 to 20000: a third unlabelled, a third train, a twelfth valid, a quarter test; clips 601 to 850 are all test."""
    seed: int = 1
    """Seed of people, sentences and labels."""
    workers: int | None = None
    """Worker processes, one thread each. Default: one per core."""
    overwrite: bool = False
    """Replace a corpus with other options in the output folder."""

    def __post_init__(self) -> None:
        if not MIN_CLIPS <= self.clips <= MAX_CLIPS:
            raise UserError(f"--clips {self.clips}: a sample corpus has {MIN_CLIPS} to {MAX_CLIPS} clips")
        if self.seed < 0:
            raise UserError(f"--seed {self.seed}: must not be negative")
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers {self.workers}: must be at least 1")


def main(options: SampleOptions) -> None:
    """Make the corpus, or complete it; the module's docstring lists what is written.

    Raises:
        UserError: the `demo` extra is not installed, or the output folder has other content.
    """
    for module, distribution in MAKERS.items():
        if util.find_spec(module) is None:
            raise UserError(f"{distribution} is not installed: install the toolkit with its `demo` extra (pip install -e '.[demo]')")
    if _claim_folder(options):
        print(f"{options.output}: already has this corpus ({counted(options.clips, 'clip')}, seed {options.seed}); nothing to do")
        return
    from preprocessing.sample.plan import plan_corpus

    started = time.perf_counter()
    plans = plan_corpus(options.clips, options.seed)
    _write_tables(options.output, plans)
    made = make_clips(options.output, plans, options.seed, options.workers or _cores())
    _write_info(options, finished=True)
    seconds = time.perf_counter() - started
    print(f"{options.output}: {counted(options.clips, 'clip')} of synthetic data ({made} made now in {seconds:.0f} s)")
    print(f"  unlabelled, VoxCeleb2's layout: {options.output / UNLABELLED_ROOT}")
    print(f"  labelled: {options.output / LABELLED_ROOT}, labels in {LABELS_FILE.name}")


def _claim_folder(options: SampleOptions) -> bool:
    """Claim the output folder. True if it already has the finished corpus with the same options."""
    folder = options.output
    info_path = folder / INFO_FILE
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder}: is a file; choose a folder")
    if info_path.is_file():
        info = _read_info(info_path)
        if info.get("clips") == options.clips and info.get("seed") == options.seed and info.get("versions") == _versions():
            finished = bool(info.get("finished")) and (folder / TRUTH_FILE).is_file() and (folder / LABELS_FILE).is_file()
            if finished and not options.overwrite:
                return True
        elif not options.overwrite:
            raise UserError(
                f"--output {folder}: has a sample corpus with other options ({info.get('clips')} clips, seed {info.get('seed')}, or other "
                "library versions); choose another folder, or replace it with --overwrite"
            )
        if options.overwrite:
            for name in OURS:
                _remove(folder / name)
    elif folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"--output {folder}: has other files and no {INFO_FILE}; choose a new folder")
    _write_info(options, finished=False)
    return False


def _read_info(path: Path) -> dict[str, Any]:
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); delete it, or choose a new folder for --output") from error
    if not isinstance(info, dict) or info.get("name") != "sample corpus":
        raise UserError(f"{path}: describes another corpus; choose a new folder for --output")
    return info


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write_info(options: SampleOptions, finished: bool) -> None:
    from skesl_mug.files import write_json

    info = {
        "name": "sample corpus",
        "synthetic": True,
        "seed": options.seed,
        "clips": options.clips,
        "label_range": [-3, 3],
        "how": HOW,
        "versions": _versions(),
        "finished": finished,
    }
    write_json(options.output / INFO_FILE, info)


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in MAKERS.values()}


def _write_tables(folder: Path, plans: Sequence["ClipPlan"]) -> None:
    labelled = [plan for plan in plans if plan.corpus == "labelled"]
    labels = [(plan.clip, plan.video, plan.speaker, plan.part, *_labels(plan)) for plan in labelled]
    truth = [
        (plan.clip, plan.corpus, plan.part, plan.speaker, plan.kind, plan.sentence.text, " ".join(plan.sentence.words), *_labels(plan))
        for plan in plans
    ]
    _write_csv(folder / LABELS_FILE, LABEL_COLUMNS, labels)
    _write_csv(folder / TRUTH_FILE, TRUTH_COLUMNS, truth)


def _labels(plan: "ClipPlan") -> tuple[float, float, float, float]:
    return plan.label, plan.label_T, plan.label_A, plan.label_V


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    from skesl_mug.files import write_atomically

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_atomically(path, lambda temporary: temporary.write_text(text.getvalue(), encoding="utf-8"))


def clip_path(folder: Path, plan: "ClipPlan") -> Path:
    """The file of a clip."""
    root = UNLABELLED_ROOT if plan.corpus == "unlabelled" else LABELLED_ROOT
    return folder / root / f"{plan.clip}.mp4"


def make_clips(folder: Path, plans: Sequence["ClipPlan"], seed: int, workers: int) -> int:
    """Make every clip whose file does not exist yet, in worker processes, one person at a time.

    Returns:
        the number of clips made.

    Raises:
        UserError: a worker process was killed.
    """
    from tqdm import tqdm

    missing = [plan for plan in plans if not clip_path(folder, plan).is_file()]
    people = [list(group) for _, group in groupby(missing, key=lambda plan: plan.speaker_number)]
    with tqdm(total=len(plans), initial=len(plans) - len(missing), desc="making clips", unit="clip", smoothing=0.1) as bar:
        for made in _work(folder, people, seed, min(workers, max(1, len(people)))):
            bar.update(made)
    return len(missing)


def _work(folder: Path, people: Sequence[list["ClipPlan"]], seed: int, workers: int) -> Iterator[int]:
    """Make the clips of each person; yields the number of clips after each."""
    if workers == 1:
        for plans in people:
            yield _make_person(folder, plans, seed)
        return
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")  # read by the workers' libraries when they are loaded
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        jobs = [pool.submit(_make_person, folder, plans, seed) for plans in people]
        for job in as_completed(jobs):
            yield job.result()
    except BrokenProcessPool as error:
        raise UserError("a worker process was killed (out of memory?); run it again, if necessary with fewer --workers") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    import signal

    from skesl_mug.interruption import end_with_parent

    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C


def _make_person(folder: Path, plans: Sequence["ClipPlan"], seed: int) -> int:
    import cv2

    from preprocessing.sample.clip import make_clip, write_clip

    cv2.setNumThreads(1)
    for plan in plans:
        write_clip(clip_path(folder, plan), *make_clip(plan, seed))
    return len(plans)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    run_command(SampleOptions, main)
