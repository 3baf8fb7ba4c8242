"""Hours of media per core-hour, by stage, against the plain form, interleaved in one run, eight clips at a time.

    python benchmarks/preprocess.py [--clips 60] [--root DIR] [--audio librosa33 prosody egemaps] [--vision mesh expression]
        [--processes 2] [--memory]

The plain form calls faster-whisper's `transcribe` per clip (30 s window, the same model and beam) and librosa's functions; decoding, face
mesh and masks are the same. Every --audio extractor is timed alone (hf:DIR too), every --vision extractor without the face mesh, which
they share, and recognition also with `--audio whisper`, by turns before and after. Rates are in processor time of all threads, so that
other work on the machine does not count. The clips are synthetic: sentences of the sample corpus, 5 to 10 s, over a still face; with
--root, those of a folder.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "tests")]

from preprocessing.options import one_thread

one_thread()

import numpy as np

from preprocessing import audio, media
from preprocessing.blocks import AudioBlocks, open_blocks
from preprocessing.extensions import VISION_FEATURES
from preprocessing.facts import word_error_rate
from preprocessing.layouts import Clip, find_corpus
from preprocessing.options import AsrOptions
from preprocessing.pipeline import ClipProcessor, PipelineSettings
from preprocessing.schema import Utterance
from preprocessing.sound.whisper_states import pooled
from preprocessing.transcription import find_model
from preprocessing.transcription.transcript import WhisperSettings, find_speech
from preprocessing.transcription.whisper_ct2 import WhisperCT2
from preprocessing.vision.faces import tracker_of
from skesl_mug.console import quiet_libraries
from skesl_mug.errors import UserError

ResultT = TypeVar("ResultT")
REPEATS = 4
SCRIPT = Path(__file__).resolve().parents[1] / "preprocessing" / "run.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--root", type=Path, help="a folder of videos instead of synthetic clips")
    parser.add_argument("--audio", nargs="+", default=["librosa33", "prosody", "egemaps"], help="extractors to time, besides whisper")
    parser.add_argument("--vision", nargs="+", default=["mesh", "mesh-au", "expression"], help="extractors of faces to time")
    parser.add_argument("--processes", type=int, default=0, help="also time run.py with 1 and this many processes (wall-clock)")
    parser.add_argument("--memory", action="store_true", help="also compare the peak memory on the clips and on ten times as many")
    options = parser.parse_args()
    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder:
        root = options.root or Path(folder) / "corpus"
        truth = make_clips(root, options.clips) if options.root is None else {}
        clips = find_corpus("folder", root).clips[: options.clips]
        compare(clips, truth, options.audio, options.vision)
        if options.processes:
            compare_processes(clips, Path(folder), options)
        if options.memory:
            compare_memory(root, clips, Path(folder))


def make_clips(root: Path, count: int) -> dict[str, str]:
    """Clips of 5 to 10 s; their true texts by id."""
    from clip_factory import SOUND_RATE, face, voice, write_clip

    from preprocessing.sample.plan import plan_corpus

    sentences = [plan.sentence.text for plan in plan_corpus(60, 1)]
    truth = {}
    generator = np.random.default_rng(1)
    for number in range(count):
        text, sound = "", np.zeros(0, np.float32)
        while len(sound) < 5 * SOUND_RATE:
            sentence = str(generator.choice(sentences))
            text, sound = f"{text} {sentence}", np.concatenate([sound, voice(sentence)])
        sound = sound[: 10 * SOUND_RATE]
        write_clip(root / f"{number:03d}.mp4", sound, face())
        truth[f"{number:03d}"] = text
    return truth


class Plain:
    """The plain way, with the models of the processor."""

    def __init__(self, processor: ClipProcessor):
        self._model = processor.transcriber._model  # type: ignore[union-attr]

    def transcribe(self, sound: np.ndarray) -> str:
        segments, _ = self._model.transcribe(sound, language="en", beam_size=5, word_timestamps=True, condition_on_previous_text=False)
        return "".join(segment.text for segment in segments)

    def hear(self, sound: np.ndarray) -> None:
        import librosa

        common = {"sr": audio.SAMPLE_RATE, "hop_length": audio.HOP}
        librosa.feature.zero_crossing_rate(sound, hop_length=audio.HOP)
        librosa.feature.mfcc(y=sound, n_mfcc=20, htk=True, **common)
        librosa.feature.chroma_cqt(y=sound, **common)


def open_extractors(names: list[str], settings: PipelineSettings) -> dict[str, AudioBlocks]:
    """The extractors, those without their package left out."""
    found: dict[str, AudioBlocks] = {}
    for name in names:
        try:
            blocks = open_blocks(replace(settings, audio=[name]), None)
        except UserError as error:
            print(f"left out: {error}")
            continue
        assert blocks is not None
        blocks.warm_up()
        found[name] = blocks
    return found


def compare_states(transcriber: WhisperCT2, sounds: list[np.ndarray], spent: defaultdict[str, float], first: bool) -> None:
    """Recognition without and with the states of `--audio whisper`; `first` says which comes first."""
    speeches = [find_speech(sound) for sound in sounds]
    for keep in (first, not first):
        transcriber.keep_states = keep
        with clock(spent, "asr with states" if keep else "asr without"):
            for sound, found in zip(sounds, transcriber.transcribe_many(sounds, speeches), strict=True):
                if found.states is not None:
                    pooled(found.states, len(sound) / 16_000)
    transcriber.keep_states = False


def compare(clips: list[Clip], truth: dict[str, str], names: list[str], vision: list[str]) -> None:
    """Both ways in turn, a batch of clips at a time; prints a line a figure."""
    size = AsrOptions().batch
    settings = PipelineSettings(whisper=WhisperSettings(model=str(find_model("embedded")), name="embedded"), batch=size)
    processor = ClipProcessor(settings)
    processor.warm_up()
    plain = Plain(processor)
    extractors = open_extractors(names, settings)
    apart = replace(settings)  # else the processor would share the tracker
    tracker, faces = tracker_of(apart), {name: VISION_FEATURES.get(name)(apart) for name in vision}
    spent: defaultdict[str, float] = defaultdict(float)
    texts: dict[str, dict[str, str]] = {"ours": {}, "plain": {}}
    processor.process(clips[0])
    seconds = 0.0
    for start in range(0, len(clips), size):
        batch = clips[start : start + size]
        for outcome in stage(spent, "all", lambda batch=batch: processor.process_many(batch)):
            seconds += outcome.media_seconds
            if isinstance(outcome.result, Utterance):
                texts["ours"][outcome.clip_id] = outcome.result.text
        decoded = stage(spent, "decode", lambda batch=batch: [media.decode(clip.path, 6.0) for clip in batch])
        at_16k = [clip.sound_at(16_000) for clip in decoded]
        with clock(spent, "asr"):
            processor.transcriber.transcribe_many(at_16k, [find_speech(sound) for sound in at_16k])  # type: ignore[union-attr]
        compare_states(processor.transcriber, at_16k, spent, first=bool(start // size % 2))  # type: ignore[arg-type]
        for clip, found, sound in zip(batch, decoded, at_16k, strict=True):
            for name, blocks in extractors.items():
                stage(spent, f"--audio {name}", lambda blocks=blocks, found=found: blocks.extract(found))
            stage(spent, "face mesh alone", lambda found=found: tracker.face_in(found))
            for name, extractor in faces.items():
                stage(spent, f"--vision {name}", lambda extractor=extractor, clip=clip, found=found: extractor.extract(clip, found))
            texts["plain"][clip.id] = stage(spent, "asr, plain", lambda sound=sound: plain.transcribe(sound))
            at_22k = found.sound_at(audio.SAMPLE_RATE)
            stage(spent, "audio", lambda sound=at_22k: audio.librosa33(sound))
            stage(spent, "audio, plain", lambda sound=at_22k: plain.hear(sound))
            stage(spent, "vision", lambda clip=clip, found=found: processor._vision.extract(clip, found))  # type: ignore[union-attr,misc]
    spent["all, plain"] = spent["decode"] + spent["asr, plain"] + spent["audio, plain"] + spent["vision"]
    processor.close()
    print(f"clips {len(clips)}, {seconds / 60:.1f} minutes of media; hours of media per core-hour:")
    for name, value in spent.items():
        print(f"  {name[:28]:28} {seconds / value:6.1f}")
    print(f"  --audio whisper: {spent['asr with states'] / spent['asr without'] - 1:+.1%} on top of recognition")
    for name in ("all", "asr", "audio"):
        print(f"  {name}: {spent[name + ', plain'] / spent[name]:.2f} times the plain way")
    for name, found in texts.items():
        print(f"  word error rate, {name}: {word_error_rate(found, truth)}")


@contextmanager
def clock(spent: defaultdict[str, float], name: str) -> Iterator[None]:
    before = time.process_time()
    yield
    spent[name] += time.process_time() - before


def stage(spent: defaultdict[str, float], name: str, work: Callable[[], ResultT]) -> ResultT:
    with clock(spent, name):
        return work()


def run_command(root: Path, output: Path, workers: int) -> dict[str, float]:
    """Run the command; `seconds` and peak memory of its dataset.json."""
    command = [sys.executable, SCRIPT, "--corpus", "folder", "--root", root, "--output", output, "--workers", workers]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    info = json.loads((output / "dataset.json").read_text())
    return {**info["seconds"], "memory": info["peak_memory_mb"]}


def compare_processes(clips: list[Clip], folder: Path, options: argparse.Namespace) -> None:
    repeat(clips, folder / "again", REPEATS)  # so that loading the models is a small part of it
    one = run_command(folder / "again", folder / "one", 1)
    many = run_command(folder / "again", folder / "many", options.processes)
    print(f"processes: {options.processes} take {many['total']:.1f} s, one {one['total']:.1f} s (wall-clock, with the loading of models)")
    print(f"processes: {one['total'] / many['total']:.2f} times one")


def repeat(clips: list[Clip], folder: Path, times: int) -> None:
    """The same clips repeated, as links in separate folders."""
    for copy in range(times):
        for clip in clips:
            place = folder / f"{copy}" / clip.path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(clip.path.resolve())


def compare_memory(root: Path, clips: list[Clip], folder: Path) -> None:
    repeat(clips, folder / "ten", 10)
    small, large = run_command(root, folder / "small", 1), run_command(folder / "ten", folder / "large", 1)
    ratio = large["memory"] / small["memory"]
    print(f"memory: {large['memory']:.0f} MB at most on ten times the clips, {small['memory']:.0f} MB on them: {ratio:.3f}")


if __name__ == "__main__":
    main()
