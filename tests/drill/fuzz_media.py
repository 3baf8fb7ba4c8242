"""Fuzzing of recordings: `python -m tests.drill.fuzz_media --minutes 15 --seed 1` (or `make fuzz`).

Small files of every kind are cut, bit-flipped, joined, and remuxed with other timestamps, and read as the product reads them, in a child
process with limits of time and memory. Allowed are a result that makes sense and a `MediaError`. A file that breaks this is kept with its
stack trace; `--only NUMBER` with the same seed makes it again.
"""

import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tests' builders

import av
import numpy as np
from media_kinds import SOUNDS, VIDEOS, content, write

from skesl_mug.memory import peak_memory_mb

HANGS = 60.0  # seconds
MEMORY = 2 * 2**30  # bytes: resident memory above which a case fails
ADDRESSES = 6 * 2**30  # bytes of address space of the child: it must not take the machine with it
LISTENED = 600.0  # seconds of a recording in which speech is looked for
MAX_SECONDS = 60.0  # as --max-seconds of preprocessing
CASES = 400  # after which a child is replaced, so that each peak of memory is that of few cases
SPECIAL = {
    "two tracks.mkv": lambda path: write(path, "libx264", "flac", layout="stereo", sound=np.concatenate([content(), -content()])),
    "long.flac": lambda path: write(path, None, "flac", rate=8_000, sound=content(8_000, seconds=120.0)),
    "call.wav": lambda path: write(path, None, "pcm_s16le", layout="stereo", sound=np.concatenate([content(), content(tone_from=2.0)])),
    "vfr.mkv": lambda path: write(path, "libx264", "flac", times=[0, 1, 2, 9, 10, 25, 26, 29]),
}
MAKERS = {**{f"sound {name}": make for name, make in SOUNDS.items()}, **{f"video {name}": make for name, make in VIDEOS.items()}, **SPECIAL}
CONTAINERS = ("mp4", "mkv", "ts", "avi", "mov", "webm", "flv", "mp4", "mkv", "ts", "ogg", "wav", "mp3")


@dataclass(frozen=True)
class Outcome:
    """What a case came to: a kind for the count, and the text of a fault."""

    kind: str
    fault: str = ""


def make_bases(folder: Path) -> list[Path]:
    """The files that are damaged."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in MAKERS.items():
        if not (folder / name).is_file():
            make(folder / name)
    return [folder / name for name in MAKERS]


def make_case(number: int, seed: int, bases: list[Path], folder: Path) -> tuple[Path, str]:
    """A damaged file, and how it was made."""
    chance = random.Random(f"{seed}/{number}")
    base = chance.choice(bases)
    path, steps = folder / f"case{base.suffix}", [base.name]
    path.write_bytes(base.read_bytes())
    if chance.random() < 0.55:
        path, how = remux(path, chance, folder)
        steps.append(how)
    if chance.random() < 0.7 or len(steps) == 1:
        data = path.read_bytes()
        for _ in range(chance.choice((1, 1, 2, 4))):
            how = chance.choice(EDITS)
            data = edit(data, how, chance, bases)
            steps.append(how)
        path.write_bytes(data)
    if chance.random() < 0.1:  # the wrong extension
        path = path.rename(path.with_suffix(chance.choice((".mp4", ".wav", ".ts", ".mp3", ""))))
    return path, ", ".join(steps)


EDITS = ("bits", "bytes", "header", "noise", "zeros", "cut", "truncate", "repeat", "swap", "insert", "join", "number")


def edit(data: bytes, how: str, chance: random.Random, bases: list[Path]) -> bytes:
    """The bytes after one change."""
    raw = bytearray(data)
    if not raw:
        return data
    place = chance.randrange(len(raw))
    length = int(len(raw) ** chance.random()) + 1
    if how in ("bits", "bytes", "header"):
        for _ in range(int(200 ** chance.random())):
            at = chance.randrange(min(len(raw), 400) if how == "header" else len(raw))
            raw[at] = raw[at] ^ (1 << chance.randrange(8)) if how == "bits" else chance.randrange(256)
    elif how == "noise":
        raw[place : place + length] = chance.randbytes(min(length, len(raw) - place))
    elif how == "zeros":
        raw[place : place + length] = bytes(min(length, len(raw) - place))
    elif how == "cut":
        del raw[place : place + length]
    elif how == "truncate":
        del raw[place:]
    elif how == "repeat":
        raw[place:place] = raw[place : place + length] * chance.choice((1, 1, 20))
    elif how == "swap":
        other = chance.randrange(len(raw))
        one, two = bytes(raw[place : place + length]), bytes(raw[other : other + length])
        raw[place : place + length], raw[other : other + length] = two, one
    elif how == "insert":
        raw[place:place] = chance.randbytes(length)
    elif how == "join":
        raw += chance.choice(bases).read_bytes()
    else:  # a length, a count or a rate that is off by far
        value = chance.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**24, 0x80000000, chance.randrange(2**32)))
        raw[place : place + 4] = value.to_bytes(4, chance.choice(("big", "little")))
    return bytes(raw)


def remux(path: Path, chance: random.Random, folder: Path) -> tuple[Path, str]:
    """The packets in another container, with other timestamps and in another order; the file as it is if the muxer refuses."""
    target, how = folder / f"remuxed.{chance.choice(CONTAINERS)}", chance.choice(TIMES)
    try:
        with av.open(str(path)) as source, av.open(str(target), "w") as out:
            streams: dict[int, Any] = {}
            for stream in source.streams:
                streams[stream.index] = out.add_stream_from_template(stream)
            packets = [packet for packet in source.demux() if packet.size and packet.dts is not None]
            shifts = {index: chance.choice((0.0, 0.5, -0.5, 3.0, -3.0)) for index in streams}
            for packet in reorder(packets, how, chance):
                packet.stream = streams[packet.stream_index]
                retime(packet, how, chance, shifts[packet.stream_index])
                try:
                    out.mux(packet)
                except (av.error.FFmpegError, ValueError, OverflowError):
                    continue
    except (av.error.FFmpegError, ValueError, OSError, OverflowError, NotImplementedError):
        return path, f"{how} (refused)"
    return (target, f"{how} in {target.suffix}") if target.is_file() and target.stat().st_size else (path, f"{how} (empty)")


TIMES = (
    "as they are",
    "jitter",
    "jumps",
    "far",
    "negative",
    "shift",
    "hole",
    "restart",
    "shuffle",
    "twice",
    "dropped",
    "presentation",
    "same",
)


def reorder(packets: list[Any], how: str, chance: random.Random) -> list[Any]:
    """The packets in the order in which they are written."""
    if how == "shuffle":
        for _ in range(chance.choice((1, 5, 50))):
            one, two = chance.randrange(len(packets)), chance.randrange(len(packets))
            packets[one], packets[two] = packets[two], packets[one]
    elif how == "dropped":
        packets = [packet for packet in packets if chance.random() > 0.3]
    return packets


def retime(packet: Any, how: str, chance: random.Random, shift: float) -> None:
    """Change the timestamps of a packet."""
    base = packet.time_base or Fraction(1, 1000)
    seconds = float((packet.dts or 0) * base)
    move = {
        "jitter": chance.uniform(-0.3, 0.3),
        "jumps": chance.choice((0.0,) * 30 + (100.0, -2.0, 5000.0)),
        "far": chance.choice((0.0,) * 60 + (1e5, 1e7, 2e9, -1e7)),
        "negative": -2.0,
        "shift": shift,
        "hole": 3.0 if seconds > 1.5 else 0.0,
        "restart": -1.5 if seconds > 1.5 else 0.0,
    }.get(how, 0.0)
    ticks = round(move / base)
    if packet.pts is not None:
        packet.pts += ticks
    packet.dts += ticks
    if how == "presentation" and chance.random() < 0.3:
        packet.pts = None
    elif how == "same":
        packet.pts = packet.dts = 0


def read_all(path: Path, chance: random.Random) -> str:
    """Read a file in each of the product's ways; returns a kind of outcome.

    Raises:
        Exception: anything but a `MediaError`; an `AssertionError` if a result makes no sense.
    """
    from preprocessing.media import MediaError, decode, probe, read_frame
    from preprocessing.tracks import SoundChoice

    kinds = []
    start = chance.uniform(0.0, 3.0)
    for name, use in {
        "probe": lambda: probe(path),
        "decode": lambda: check_media(decode(path, 6.0, MAX_SECONDS), None),
        "stretch": lambda: check_media(decode(path, 6.0, MAX_SECONDS, start, start + 1.0), 1.0),
        "left": lambda: check_media(decode(path, 0.0, MAX_SECONDS, choice=SoundChoice(channel="left")), None),
        "track": lambda: check_media(decode(path, 0.0, MAX_SECONDS, choice=SoundChoice(chance.choice(("2", "de")))), None),
        "frame": lambda: check_frame(read_frame(path, start)),
        "long": lambda: check_long(path),
        "voices": lambda: check_voices(path),
    }.items():
        try:
            use()
            kinds.append(name)
        except MediaError as error:
            check_words(str(error))
    return "read in every way" if len(kinds) == 8 else "read" if "decode" in kinds else "read in part" if kinds else "refused"


def check_words(text: str) -> None:
    assert text, "an error without words"
    assert len(text.splitlines()) == 1, text


def check_frame(image: np.ndarray) -> None:
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.dtype == np.uint8


def check_media(media: Any, length: float | None) -> None:
    """Whether a decoded clip makes sense."""
    assert np.isfinite(media.duration), media.duration
    assert 0.0 <= media.duration <= (length or MAX_SECONDS) + 1.5, media.duration
    if media.sound is not None:
        assert np.isfinite(media.sound).all()
        assert media.sound.dtype == np.float32
        assert abs(len(media.sound) / media.sound_rate - media.duration) < 0.01
        media.sound_at(16_000)
    assert len(media.frames) == len(media.frame_times)
    assert media.frame_times == sorted(media.frame_times), media.frame_times
    assert all(-0.01 <= time < MAX_SECONDS + 12.0 for time in media.frame_times), media.frame_times
    for image in media.frames:
        check_frame(image)


def check_voices(path: Path) -> None:
    """Read a file as `predict --channels split` does."""
    from preprocessing.tracks import voices_of

    for choice, _ in voices_of(path, "auto", "split").voices:
        check_long(path, choice)


def check_long(path: Path, choice: Any = None) -> None:
    """Read a file as `predict` does, with a recogniser that writes two words per second."""
    from preprocessing import long_media
    from preprocessing.pipeline import Skip
    from preprocessing.schema import Word
    from preprocessing.segments import SegmentLimits
    from preprocessing.transcription.transcript import Transcript, speech_spans

    def spans(sound: np.ndarray) -> list[tuple[float, float]]:  # a damaged header may make days of three seconds
        return speech_spans(sound) if reader.position < LISTENED else []

    long_media.speech_spans = spans  # type: ignore[assignment]

    def words(sounds: list[np.ndarray], _: Any) -> list[Transcript]:
        found = []
        for sound in sounds:
            count = int(len(sound) / 8_000)
            spoken = [Word("so", 3 * place, 3 * place + 2, place / 2, place / 2 + 0.3) for place in range(count)]
            found.append(Transcript("so " * count, spoken, "en", -0.1, 0.0))
        return found

    processed = SimpleNamespace(seconds={}, result=Skip("too_short"))
    processor: Any = SimpleNamespace(
        transcriber=SimpleNamespace(transcribe_many=words), frame_rate=6.0, process_stretch=lambda clip, part, spoken: processed
    )
    reader = long_media.LongMedia(processor, SegmentLimits(), *([choice] if choice else []))
    end = 0.0
    for stretch in reader.read(path):
        assert end - 0.01 <= stretch.start <= stretch.end, (end, stretch.start, stretch.end)
        end = stretch.end
    assert np.isfinite(reader.length)
    assert end <= reader.length + 0.1, (end, reader.length)
    assert isinstance(reader.faults.notes(), list)


def child(pipe: Connection, seed: int, bases: list[Path], folder: Path) -> None:
    """Make and read the cases whose numbers arrive."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    av.logging.set_level(av.logging.PANIC)
    while True:
        number = pipe.recv()
        path, how = make_case(number, seed, bases, folder)
        pipe.send((path, how))
        try:
            outcome = Outcome(read_all(path, random.Random(number)))
        except Exception as error:
            outcome = Outcome("fault", f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
        peak = peak_memory_mb() * 1e6  # not ru_maxrss, which begins at the peak of the process that started this one
        if peak > MEMORY and not outcome.fault:
            outcome = Outcome("memory", f"memory: {peak / 2**30:.1f} GiB")
        pipe.send(outcome)


class Child:
    """A child process and the end of its pipe."""

    def __init__(self, seed: int, bases: list[Path], folder: Path):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=child, args=(theirs, seed, bases, folder), daemon=True)
        self.process.start()
        theirs.close()

    def try_case(self, number: int) -> tuple[Path | None, str, Outcome]:
        """The file of a case, how it was made, and what reading it came to."""
        path, how = None, "not made"
        try:
            self.pipe.send(number)
            if not self.pipe.poll(HANGS):
                return path, how, Outcome("hangs", "making the file hangs")
            path, how = self.pipe.recv()
            if not self.pipe.poll(HANGS):
                return path, how, Outcome("hangs", f"hangs for {HANGS:.0f} s")
            return path, how, self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join(10)
            code = self.process.exitcode
            name = signal.Signals(-code).name if code is not None and code < 0 else str(code)
            return path, how, Outcome("not made", "") if path is None else Outcome("crash", f"the process ended with {name}")

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.join()


def fuzz(minutes: float, seed: int, output: Path, only: int | None = None) -> int:
    """Try cases for that long; returns the number of faults."""
    output.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    faults, slowest = 0, (0.0, -1)
    with tempfile.TemporaryDirectory(prefix="fuzz-media-") as scratch:
        bases = make_bases(Path(scratch) / "bases")
        (Path(scratch) / "case").mkdir()
        worker = Child(seed, bases, Path(scratch) / "case")
        began, said = time.monotonic(), time.monotonic()
        number = 0 if only is None else only
        while only is None or number == only:
            before = time.monotonic()
            path, how, outcome = worker.try_case(number)
            slowest = max(slowest, (time.monotonic() - before, number))
            counts[outcome.kind] += 1
            if outcome.fault:
                faults += 1
                print(f"case {number} ({how}): {outcome.fault.splitlines()[0]}", flush=True)
                (output / f"case-{number}.txt").write_text(f"seed {seed}, case {number}: {how}\n{outcome.fault}\n", encoding="utf-8")
                if path is not None and path.is_file():
                    (output / f"case-{number}{path.suffix}").write_bytes(path.read_bytes())
            if outcome.fault or outcome.kind == "not made" or not (number + 1) % CASES:
                worker.close()
                worker = Child(seed, bases, Path(scratch) / "case")
            number += 1
            if time.monotonic() - said > 60:
                said = time.monotonic()
                print(f"{(said - began) / 60:.0f} min: {number:,} files, {faults} faults", flush=True)
            if time.monotonic() - began > 60 * minutes:
                break
        worker.close()
    shown = ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common())
    print(f"{sum(counts.values()):,} files (seed {seed}): {shown}; slowest {slowest[0]:.1f} s (case {slowest[1]}); faults: {faults}")
    if faults:
        print(f"the files and stack traces are in {output}")
    return faults


@dataclass(kw_only=True)
class Options:
    """Damage recordings of every kind and read them, in a child process with limits of time and memory."""

    minutes: float = 15.0
    """Minutes of fuzzing."""
    seed: int = 1
    """Seed of the damage."""
    output: Path = Path(tempfile.gettempdir()) / "fuzz-media-faults"
    """Folder for the files that break a promise, and their stack traces."""
    only: int | None = None
    """Try this case alone."""


if __name__ == "__main__":
    import tyro

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    options = tyro.cli(Options)
    sys.exit(1 if fuzz(options.minutes, options.seed, options.output, options.only) else 0)
