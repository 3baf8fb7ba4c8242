"""Utterances per second that one process reads from a dataset in random order and collates: what can feed a GPU.

    python benchmarks/reading.py --rows 2000

The dataset is synthetic, shaped like VoxCeleb2 with the authors' columns: 8 s, audio 344 x 33, vision 48 x 709. `opening` happens once per
machine (the memory-mapped copy of `datasets`); `features` reads rows, `batches` also pads and stacks them, 32 at a time.
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.pretrain_memory import utterances
from preprocessing.schema import DatasetInfo, FeatureInfo
from preprocessing.store import write_dataset
from pretrain.batches import MaskedCollator, MaskedSample
from pretrain.selection import JoinedDatasets
from pretrain.tokens import MaskedText

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    rows = parser.parse_args().rows
    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["HF_DATASETS_CACHE"] = str(Path(scratch) / "cache")
        shapes = {"audio": (344, 33), "vision": (48, 709)}
        made = (
            replace(row, **{name: draw.standard_normal(shape, np.float32) for name, shape in shapes.items()}) for row in utterances(rows)
        )
        folder = Path(scratch) / "data"
        described = {
            name: FeatureInfo("noise", shape[0] / 8.0, [{"name": f"c{number}"} for number in range(shape[1])])
            for name, shape in shapes.items()
        }
        write_dataset(folder, made, DatasetInfo(corpus={"name": "grammar", "root": "", "made": True}, **described), shard_rows=500)
        size = sum(file.stat().st_size for file in folder.rglob("*.parquet"))
        began = time.perf_counter()
        corpora = JoinedDatasets([str(folder)])
        corpora[0]
        opened = rows / (time.perf_counter() - began)
        print(f"{rows} utterances, {size / rows / 1e3:.0f} kB each on disk; opening: {opened:.0f} a second, once")
        order = draw.permutation(rows).tolist()
        began = time.perf_counter()
        read = [corpora[row] for row in order]
        print(f"features: {rows / (time.perf_counter() - began):.0f} utterances a second")
        collate = MaskedCollator(0)
        began = time.perf_counter()
        for start in range(0, rows, BATCH):
            samples = [
                MaskedSample(0, MaskedText([101, *range(200, 222), 102], ((5,),)), (1.0,), audio=row.audio, vision=row.vision)
                for row in (corpora[place] for place in order[start : start + BATCH])
            ]
            collate(samples)
        print(f"batches:  {len(read) / (time.perf_counter() - began):.0f} utterances a second")


if __name__ == "__main__":
    main()
