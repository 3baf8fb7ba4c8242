"""A recording as utterances with features: which of its sound is read, and whether it is divided."""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypedDict

from finetune.prediction.recipe import LONGEST_CLIP
from preprocessing.channels import SoundChoice
from preprocessing.layouts import Clip
from preprocessing.long_media import NO_WORDS, LongMedia, Stretch
from preprocessing.media import decode, probe
from preprocessing.options import AUTO, MIX, SPLIT, Channels, checked_track
from preprocessing.pipeline import ClipProcessor, Skip
from preprocessing.segments import SegmentLimits
from preprocessing.timeline import Faults
from preprocessing.tracks import names_of, track_note, voices_of
from skesl_mug.wording import printable

Segments = Literal["pauses", "whole"]


class Reading(TypedDict, total=False):
    """How a recording is read.

    Attributes:
        segments: "pauses" (default) divides a recording into utterances; "whole" takes it as one, as in a corpus of clips.
        limits: pause and maximum length of utterances.
        audio_track: of several sound tracks "auto" (the first that has speech), a number from 1, or a language.
        channels: "mix", "left", "right", or "split": each channel is read on its own, and is the `speaker` of its utterances.
    """

    segments: Segments
    limits: SegmentLimits | None
    audio_track: str
    channels: Channels


def read_recording(
    processor: ClipProcessor,
    path: Path,
    add_time: Callable[[str, float], None],
    set_faults: Callable[[Faults], None],
    *,
    segments: Segments = "pauses",
    limits: SegmentLimits | None = None,
    audio_track: str = AUTO,
    channels: Channels = MIX,
) -> Iterator[Stretch]:
    """The utterances of a recording in the order of their starts, and skips. `add_time` is called with stages and their seconds,
    `set_faults` with what is missing from the recording so far.

    Raises:
        MediaError: the file cannot be read, or has no such sound track.
        UserError: there is no speech recogniser, or the track is not a number or language.
    """
    found = voices_of(path, checked_track(audio_track), channels)
    read = _whole if segments == "whole" else _divided
    parts = [read(processor, path, limits or SegmentLimits(), *voice, add_time, set_faults) for voice in found.voices]
    yield from heapq.merge(*parts, key=lambda stretch: stretch.start)
    if found.others:
        length = probe(path)[0]
        yield from (Stretch(0.0, length, Skip(*why), name) for name, why in found.others.items())


def _divided(
    processor: ClipProcessor,
    path: Path,
    limits: SegmentLimits,
    choice: SoundChoice,
    speaker: str,
    add_time: Callable[[str, float], None],
    set_faults: Callable[[Faults], None],
) -> Iterator[Stretch]:
    reader = LongMedia(processor, limits, choice, speaker)
    yield from reader.read(path)
    set_faults(reader.faults)
    for name, seconds in reader.seconds.items():
        add_time(name, seconds)


def _whole(
    processor: ClipProcessor,
    path: Path,
    limits: SegmentLimits,
    choice: SoundChoice,
    speaker: str,
    add_time: Callable[[str, float], None],
    set_faults: Callable[[Faults], None],
) -> Iterator[Stretch]:
    """A file as one utterance; without an audio track it has no words."""
    name, settings = printable(path.stem), processor.settings
    clip = Clip(name, path, speaker, name, channel=speaker or None)
    if probe(path)[1]:
        processor.settings = replace(settings, audio_track=choice.track, channels=choice.channel)
        try:
            outcome = processor.process(clip)
        finally:
            processor.settings = settings
    else:
        decoded = decode(path, settings.vision_fps, LONGEST_CLIP)
        outcome = processor.process_stretch(clip, decoded, NO_WORDS)
        outcome.faults = decoded.faults
    set_faults(outcome.faults)
    for stage, spent in outcome.seconds.items():
        add_time(stage, spent)
    yield Stretch(0.0, outcome.media_seconds, outcome.result, speaker)


def sound_notes(path: Path, audio_track: str = AUTO, channels: Channels = MIX) -> list[str]:
    """Notes for the user on the sound that is read: another track than the first, or a channel that the file does not have."""
    track = checked_track(audio_track)
    notes = [note] if (note := track_note(path, track)) else []
    if channels != MIX and len(names_of(path, track)) == 1:
        notes.append("its sound is mono: one voice" if channels == SPLIT else f"its sound is mono: there is no {channels} channel")
    return notes
