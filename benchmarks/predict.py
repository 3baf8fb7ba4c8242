"""Time of prediction on a one-minute video, by stage, warm and cold: `python benchmarks/predict.py --model RUN [--video FILE]`.

Without --video, a synthetic minute is used. Cold: the first recording of a process; imports and model loading are printed separately. Warm:
the median of later recordings, with the trained network's share.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)
sys.path.append(str(ROOT / "tests"))

SENTENCES = (
    "I really liked the dinner.",
    "The hotel was terrible and my brother left early.",
    "We watched a wonderful movie in the evening.",
    "My neighbour bought a new camera last week.",
    "The service was awful, but the food was nice.",
)
TARGET = 1.5
NETWORK_SHARE = 0.05


def make_minute(path: Path, seconds: float) -> Path:
    import numpy as np
    from clip_factory import SOUND_RATE, face, silence, voice, write_clip

    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < seconds * SOUND_RATE:
        parts += [voice(SENTENCES[len(parts) // 2 % len(SENTENCES)]), silence(0.6)]
    return write_clip(path, np.concatenate(parts)[: int(seconds * SOUND_RATE)], face())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a run of finetune/run_mug.py")
    parser.add_argument("--video", type=Path, help="a recording (default: a synthetic minute)")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    from skesl_mug.console import quiet_libraries

    quiet_libraries()
    began = time.perf_counter()
    from finetune.prediction.sentiment_model import SentimentModel
    from preprocessing.media import probe

    imported = time.perf_counter() - began
    print(f"load at the start {os.getloadavg()[0]:.1f}, {len(os.sched_getaffinity(0))} cores, one thread")
    with tempfile.TemporaryDirectory() as folder:
        video = options.video or make_minute(Path(folder) / "minute.mp4", 60.0)
        seconds = probe(video)[0]
        began = time.perf_counter()
        model = SentimentModel.from_pretrained(options.model)
        model.processor  # noqa: B018
        loaded = time.perf_counter() - began
        rounds = []
        for _ in range(options.rounds + 1):
            model.seconds.clear()
            began, cpu = time.perf_counter(), time.process_time()
            count = len(model.predict(video))
            rounds.append((time.perf_counter() - began, time.process_time() - cpu, dict(model.seconds)))
    first, *warm = rounds
    print(f"{video.name}: {seconds:.1f} s, {count} utterances")
    print(f"cold: imports {imported:.1f} s, models {loaded:.1f} s, first recording {first[0]:.1f} s")
    whole = statistics.median(wall for wall, _, _ in warm)
    print(f"warm (median of {len(warm)}): {whole:.2f} s, of which processor time {statistics.median(cpu for _, cpu, _ in warm):.2f} s")
    stages = {name: statistics.median(spent.get(name, 0.0) for _, _, spent in warm) for name in warm[0][2]}
    for name, spent in sorted(stages.items(), key=lambda pair: -pair[1]):
        print(f"  {name:<18}{spent:7.2f} s  {spent / whole:6.1%}")
    share, speed = stages["network"] / whole, seconds / whole
    print(f"network {share:.1%} of it ({'under' if share < NETWORK_SHARE else 'NOT under'} {NETWORK_SHARE:.0%})")
    print(f"{speed:.1f} times real time ({'at least' if speed >= TARGET else 'NOT'} {TARGET:g})")


if __name__ == "__main__":
    main()
