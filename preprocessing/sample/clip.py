"""One clip of the sample corpus from its plan: speak, draw, encode."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from preprocessing.sample import face, voice
from preprocessing.sample.plan import ClipPlan
from skesl_mug.files import write_atomically


def make_clip(plan: ClipPlan, corpus_seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sound [samples] float32 at 24 kHz and frames [frames, 256, 256, 3] uint8 RGB at 12 per second: a pure function of the plan."""
    voice_traits, face_traits = _person(corpus_seed, plan.speaker_number)
    rng = np.random.default_rng(plan.seed)
    spoken = voice.draw_expression(plan.label_A, rng)
    shown = face.draw_expression(plan.label_V, rng)
    sound = voice.speak(plan.sentence.text, voice_traits, spoken, plan.seed)
    return sound, face.render(face_traits, shown, frame_loudness(sound), plan.seed)


@lru_cache(maxsize=64)
def _person(corpus_seed: int, number: int) -> tuple[voice.VoiceTraits, face.FaceTraits]:
    rng = np.random.default_rng([corpus_seed, 1, number])
    return voice.draw_traits(rng), face.draw_traits(rng)


def frame_loudness(sound: np.ndarray) -> np.ndarray:
    """The sound's energy in each video frame, [frames] in [0, 1], relative to the clip's loudest frames."""
    samples = voice.SAMPLE_RATE // face.FRAME_RATE
    frames = -(-len(sound) // samples)
    padded = np.pad(sound, (0, frames * samples - len(sound)))
    energy = np.sqrt(np.mean(padded.reshape(frames, samples) ** 2, axis=1))
    return np.asarray(np.clip(energy / max(float(np.percentile(energy, 95)), 1e-6), 0.0, 1.0) ** 0.8)


def write_clip(path: Path, sound: np.ndarray, frames: np.ndarray) -> None:
    """Write an mp4 (H.264 and AAC) atomically."""
    write_atomically(path, lambda temporary: _encode(temporary, sound, frames))


def _encode(path: Path, sound: np.ndarray, frames: np.ndarray) -> None:
    import av

    with av.open(str(path), "w", format="mp4") as container:
        picture = container.add_stream("libx264", rate=face.FRAME_RATE, options={"crf": "26", "preset": "ultrafast", "threads": "1"})
        picture.width = picture.height = face.FRAME_SIDE
        picture.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=voice.SAMPLE_RATE, layout="mono")
        audio.bit_rate = 64_000
        for image in frames:
            container.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(picture.encode())
        block = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[None], np.float32), format="fltp", layout="mono")
        block.sample_rate = voice.SAMPLE_RATE
        container.mux(audio.encode(block))
        container.mux(audio.encode())
