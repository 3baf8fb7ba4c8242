"""Peak memory and time of reading a MOSEI-sized corpus and preparing it for training, by step.

    OMP_NUM_THREADS=1 python benchmarks/corpus_memory.py --folder DIR

Writes a synthetic MMSA pickle to DIR (16,326, 1,871 and 4,659 rows; audio 500 x 74 and vision 500 x 35 in float32; noise in the first 100
to 500 frames; 4.6 GiB, and as much for the converted form) and reads it as `finetune/run_mug.py` does. Memory is the resident set
(`/proc/self/status`): anonymous and file pages, memory-mapped files included. The peak is the largest of samples 20 ms apart in each
step, and VmHWM of the process at the end.
"""

import argparse
import pickle
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

SIZES = {"train": 16326, "valid": 1871, "test": 4659}
WIDTHS = {"audio": 74, "vision": 35}
FRAMES = 500
WORDS = ("a", "good", "bad", "movie", "really", "not", "worth", "time")


def make(path: Path, share: float) -> None:
    """Write the pickle; in a process of its own, because pickling it takes the memory that reading must not."""
    draw = np.random.default_rng(0)
    content: dict[str, dict[str, Any]] = {}
    for name, size in SIZES.items():
        rows = max(8, int(size * share))
        lengths = draw.integers(100, FRAMES + 1, rows)
        entry: dict[str, Any] = {}
        for key, width in WIDTHS.items():
            entry[key] = np.zeros((rows, FRAMES, width), np.float32)
            for row, length in enumerate(lengths):
                entry[key][row, :length] = draw.standard_normal((length, width), dtype=np.float32)
            entry[f"{key}_lengths"] = lengths.tolist()
        entry["raw_text"] = [" ".join(draw.choice(WORDS, draw.integers(3, 49))) for _ in range(rows)]
        entry["id"] = [f"{name}{row // 8}$_${row}" for row in range(rows)]
        entry["regression_labels"] = np.clip(draw.normal(size=rows), -3, 3).astype(np.float32)
        content[name] = entry
    with path.open("wb") as file:
        pickle.dump(content, file, protocol=4)


def status() -> dict[str, float]:
    """Resident megabytes: all, anonymous, of files, and the highest so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {
        line.split(":")[0]: float(line.split()[1]) / 1024 for line in lines if line.startswith(("VmRSS", "VmHWM", "RssAnon", "RssFile"))
    }


def measured(what: str, work: Callable[[], Any]) -> Any:
    """Do a part of the work and print what it took."""
    samples, done = [status()], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            samples.append(status())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began, spent = time.perf_counter(), time.process_time()
    try:
        result = work()
    finally:
        done.set()
        watcher.join()
    top = max(samples, key=lambda sample: sample["VmRSS"])
    print(
        f"{what:26} {time.perf_counter() - began:6.1f} s ({time.process_time() - spent:5.1f} s CPU)  "
        f"peak {top['VmRSS']:5.0f} MB (anonymous {top['RssAnon']:.0f}, files {top['RssFile']:.0f})",
        flush=True,
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="a folder on a disk with 10 GB free")
    parser.add_argument("--share", type=float, default=1.0, help="of the rows")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    path = arguments.folder / f"mosei_{arguments.share:g}.pkl"
    if not path.is_file():
        process = get_context("spawn").Process(target=make, args=(path, arguments.share))
        process.start()
        process.join()

    import torch

    from finetune.corpora import load_corpus
    from finetune.model.minibatches import PreparedSplit, frames_of
    from pretrain.crossmodal import feature_statistics
    from pretrain.encoder import load_tokenizer
    from pretrain.tokens import tokenise

    torch.set_num_threads(1)
    print(f"{path.stat().st_size / 2**30:.1f} GiB of features; before reading {status()['VmRSS']:.0f} MB are resident (the libraries)")

    def load() -> Any:
        return load_corpus("mosei", path, cache=arguments.folder / "cache")

    corpus = measured("load_corpus, converting" if not (arguments.folder / "cache").exists() else "load_corpus", load)
    corpus = measured("load_corpus again", load)
    train = corpus.splits["train"]
    measured("feature_statistics", lambda: feature_statistics(frames_of(train)))
    tokens = measured("tokenise", lambda: tokenise(train.text, load_tokenizer("embedded"), 64))
    data = PreparedSplit(train, tokens, None, False, torch.zeros(len(train)), 0)
    for modality in WIDTHS:
        measured(f"descriptors, {modality}", lambda modality=modality: data.descriptors(modality))

    def epoch() -> None:
        for rows in data.batches(32, torch.Generator().manual_seed(0)):
            data.batch(rows)

    measured("an epoch of batches of 32", epoch)
    print(f"whole process: peak {status()['VmHWM']:.0f} MB")


if __name__ == "__main__":
    main()
