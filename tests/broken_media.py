"""A folder of broken and odd recordings, and the expected result of preprocessing for each."""

import os
import wave
from pathlib import Path

import av
import numpy as np
from clip_factory import SOUND_RATE, face, plain, silence, voice, write_clip

SENTENCE = "The film was wonderful."

EXPECTED = {
    **{f"cut_good{tenth}": "unreadable" for tenth in range(1, 9)},  # its index is at the end
    **dict.fromkeys(("zero_bytes", "text", "loop_a", "loop_b", "nowhere", "pipe", "not_numbers"), "unreadable"),
    **dict.fromkeys(("no_sound", "silent", "uneven_times", "odd_sizes"), "no_sound"),
    **dict.fromkeys(("good", "good2", "fast", "wave_inside", "no_video", "one_frame", "rotated", "surround"), "kept"),
    "three_hours": "too_long",
    "名 字 with  blanks, and 'commas'": "kept",
}
"""The reason of the skip, or `kept`, by clip id."""
USUAL = {"kept", "unreadable", "no_sound", "no_speech", "too_short", "log_probability", "no_speech_probability"}
"""Possible results of all others."""


def write_sound(path: Path, sound: np.ndarray, rate: int, layout: str, codec: str = "aac", kind: str = "fltp") -> None:
    with av.open(str(path), "w") as container:
        track = container.add_stream(codec, rate=rate, layout=layout)
        for start in range(0, sound.shape[1], 1024):
            block = np.ascontiguousarray(sound[:, start : start + 1024])
            block = block if kind.endswith("p") else np.ascontiguousarray(block.T.reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(block, format=kind, layout=layout)
            frame.sample_rate, frame.pts = rate, start
            container.mux(track.encode(frame))
        container.mux(track.encode(None))


def write_pictures(path: Path, times: list[int], size: tuple[int, int] = (64, 64), rate: int = 25, pixels: str = "yuv420p") -> None:
    """A video without sound whose frames are shown at given multiples of 1/rate."""
    from fractions import Fraction

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.options = *size, pixels, {"preset": "ultrafast"}
        stream.codec_context.time_base = Fraction(1, rate)
        black = np.zeros((size[1], size[0], 3), np.uint8)
        for time in times:
            frame = av.VideoFrame.from_ndarray(black, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def remux(source: Path, target: Path, **options: str) -> None:
    """The streams of a file in another container, or with other container options."""
    with av.open(str(source)) as before, av.open(str(target), "w", options=options) as after:
        streams = {stream.index: after.add_stream_from_template(stream) for stream in before.streams}
        for packet in before.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                after.mux(packet)


def turned(path: Path, target: Path) -> None:
    """The video with the display matrix of telephones that rotates it by 90 degrees clockwise."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40
    matrix = [0, 1 << 16, 0, -(1 << 16) & 0xFFFFFFFF, 0, 0, 256 << 16, 0, 1 << 30]
    content[place : place + 36] = b"".join(value.to_bytes(4, "big") for value in matrix)
    target.write_bytes(content)


def make_broken_media(root: Path) -> Path:
    """Fill a folder with them."""
    root.mkdir(parents=True, exist_ok=True)
    spoken = voice(SENTENCE)
    good = write_clip(root / "good.mp4", spoken, face())
    remux(good, root / "good2.mkv")
    remux(good, root / "fast.mp4", movflags="faststart")
    for tenth in range(1, 10):
        for name in ("good.mp4", "good2.mkv", "fast.mp4"):
            content = (root / name).read_bytes()
            path = root / f"cut_{name[:4]}{tenth}{Path(name).suffix}"
            path.write_bytes(content[: len(content) * tenth // 10])
    (root / "zero_bytes.mp4").write_bytes(b"")
    (root / "text.mp4").write_text("this is not a video\n" * 50)
    with wave.open(str(root / "sound.wav"), "wb") as file:
        file.setparams((1, 2, SOUND_RATE, 0, "NONE", ""))
        file.writeframes((spoken * 32767).astype("<i2").tobytes())
    (root / "sound.wav").rename(root / "wave_inside.mp4")
    write_clip(root / "no_sound.mp4", None, face(), seconds=1.0)
    write_clip(root / "no_video.mp4", spoken, None)
    write_clip(root / "silent.mp4", silence(1.5), plain())
    write_clip(root / "one_frame.mp4", spoken, [face()])
    turned(write_clip(root / "lying.mp4", spoken, np.ascontiguousarray(np.rot90(face()))), root / "rotated.mp4")
    write_pictures(root / "uneven_times.mp4", [0, 1, 2, 9, 10, 40, 41, 42, 70])
    write_pictures(root / "three_hours.mp4", list(range(0, 3 * 3600, 20)), rate=1)
    write_pictures(root / "odd_sizes.mkv", list(range(30)), size=(77, 51), pixels="yuv444p")
    narrow = np.stack([spoken])[:, :: SOUND_RATE // 8_000]
    write_sound(root / "telephone.mp4", narrow, SOUND_RATE // (SOUND_RATE // 8_000), "mono")
    write_sound(root / "surround.mp4", np.stack([spoken * level for level in (0.3, 0.3, 1.0, 0.1, 0.2, 0.2)]), SOUND_RATE, "5.1")
    write_sound(root / "not_numbers.mkv", np.full((1, SOUND_RATE), np.nan, np.float32), SOUND_RATE, "mono", "pcm_f32le", "flt")
    (root / "folder.mp4").mkdir()
    (root / "loop_a.mp4").symlink_to(root / "loop_b.mp4")
    (root / "loop_b.mp4").symlink_to(root / "loop_a.mp4")
    (root / "nowhere.mp4").symlink_to(root / "absent.mp4")
    (root / "again").symlink_to(root)
    os.mkfifo(root / "pipe.mp4")
    os.link(good, root / "名 字 with  blanks, and 'commas'.mp4")
    os.link(good, os.fsencode(root) + b"/not utf-8 \xff.mp4")
    return root


def find_files(root: Path) -> int:
    """How many of its entries preprocessing has to account for: files and folders named like a video, without links that form a loop."""
    from preprocessing.layouts.files import list_files, pair_tracks

    return len(pair_tracks(list_files(root).recordings)[0])
