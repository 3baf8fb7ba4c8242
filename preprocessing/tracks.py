"""The sound track of a recording that is used, and its channels as one."""

import av
import numpy as np


def pick_sound(container: "av.container.InputContainer") -> "av.AudioStream | None":
    """The sound track to decode; None if there is none."""
    return next((stream for stream in container.streams.audio if stream.codec_context is not None), None)


def mix(sound: np.ndarray) -> np.ndarray:
    """Channels [channels, samples] as one [samples]: their mean, like librosa (FFmpeg's weights of 0.7 can exceed -1..1)."""
    return sound[0] if len(sound) == 1 else np.asarray(sound.mean(axis=0))
