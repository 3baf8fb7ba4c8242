"""Memory and start-up time of pretraining by the number of utterances, on synthetic data.

    python benchmarks/pretrain_memory.py --rows 10000 1000000 --steps 200

For each size, a dataset is written (text from a grammar, masks, speakers; no features) and a separate process pretrains on it, with audio
and vision generated when read, shaped like VoxCeleb2's (8 s: 33 columns at 43 Hz, 709 at 6 Hz). `private` is memory of the process itself;
`resident` includes pages of memory-mapped files, which the system can reclaim.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from preprocessing.schema import DatasetInfo, Mask, Utterance
from preprocessing.store import INFO_FILE, write_dataset

SUBJECTS = ["the film", "this phone", "our hotel", "that dinner", "the new camera", "her speech", "the whole week", "my old car"]
WORDS = {"great": 2.3, "awful": -1.5, "good": 1.4, "bad": -1.9, "lovely": 2.1, "horrible": -1.9, "nice": 1.4, "sad": -1.6}
ENDINGS = ["and we stayed for the rest of the day", "but nobody told us about it before", "so i would go there again next year", "i think"]
SPEAKERS = 6000


def utterances(count: int) -> Iterator[Utterance]:
    generator = np.random.default_rng(0)
    words = list(WORDS)
    for number in range(count):
        subject, word, ending = generator.integers([len(SUBJECTS), len(words), len(ENDINGS)])
        start = f"i have to say that {SUBJECTS[subject]} was really "
        chosen = words[word]
        mask = Mask(len(start), len(start) + len(chosen), WORDS[chosen])
        video = f"v{number // 8}"
        yield Utterance(
            f"u{number:08d}", video, f"s{number // 8 % SPEAKERS}", 0.0, 8.0, "en", f"{start}{chosen} {ENDINGS[ending]}", masks=[mask]
        )


def write(folder: Path, count: int) -> None:
    if (folder / INFO_FILE).is_file():
        return
    info = DatasetInfo(corpus={"name": "grammar", "root": "", "made": True})
    write_dataset(folder, utterances(count), info, shard_rows=20_000)


def train(folder: Path, output: Path, steps: int) -> None:
    """In a separate process: pretrain, then print time and memory."""
    from pretrain import training_data
    from pretrain.options import PretrainOptions
    from pretrain.pretraining import run_pretraining
    from pretrain.selection import JoinedDatasets

    class WithFeatures(JoinedDatasets):
        def __getitem__(self, row: int) -> Utterance:
            generator = np.random.default_rng(row)
            audio, vision = (generator.standard_normal((frames, width), np.float32) for frames, width in ((344, 33), (48, 709)))
            return replace(super().__getitem__(row), audio=audio, vision=vision)

        def width(self, name: str) -> int:
            return {"audio": 33, "vision": 709}[name]

    training_data.JoinedDatasets = WithFeatures  # type: ignore[misc]
    watch = Watch()
    run_pretraining(
        PretrainOptions(data=[str(folder)], output=output, freeze_lm=False, max_steps=steps, epochs=1, checkpoint_steps=0, valid_most=200)
    )
    results = json.loads((output / "results.json").read_text())
    start = results["seconds"]["data"] + results["seconds"]["model"]
    figures = {"private_mb": watch.private, "resident_mb": watch.resident, "start_seconds": start}
    print(json.dumps({name: round(value, 1) for name, value in figures.items()}))


class Watch(threading.Thread):
    """Keeps the largest private and resident memory of this process."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.private = self.resident = 0.0
        self.start()

    def run(self) -> None:
        while True:
            status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            anonymous, resident = (int(status[name].split()[0]) / 1e3 for name in ("RssAnon", "VmRSS"))
            self.private, self.resident = max(self.private, anonymous), max(self.resident, resident)
            time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="keep the datasets here")
    parser.add_argument("--train", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        return train(*options.train, options.steps)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        found = []
        for rows in options.rows:
            data = folder / f"grammar-{rows}"
            write(data, rows)
            command = [sys.executable, __file__, "--train", data, Path(scratch) / f"run-{rows}", "--steps", options.steps]
            environment = {**os.environ, "HF_DATASETS_CACHE": str(Path(scratch) / "cache")}
            done = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True, env=environment)
            found.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{rows:9d} rows: " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in found[-1].items()), flush=True)
        print(f"private memory, most rows to fewest: {found[-1]['private_mb'] / found[0]['private_mb']:.2f}")


if __name__ == "__main__":
    main()
