"""What every layout yields: clips, and the corpus they belong to."""

import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skesl_mug.errors import UserError

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv"})
SOUND_SUFFIXES = (".m4a", ".aac", ".wav", ".flac")
CORPUS_FILE = "corpus.json"


@dataclass(frozen=True)
class Clip:
    """One video file that holds one utterance. `id` is its path below the corpus root without suffix, with forward slashes."""

    id: str
    path: Path
    speaker: str
    video_id: str
    split: str | None = None
    labels: dict[str, float] = field(default_factory=dict)
    """Of `label`, `label_T`, `label_A`, `label_V`, those that are known."""
    start: float = 0.0
    """Where the utterance begins in its file, seconds."""
    end: float | None = None
    """Where it ends; None: with the file."""
    transcript: str | None = None
    """What the corpus says was spoken; speech recognition is not asked then."""
    language: str | None = None
    """Of the transcript, where there is one."""
    sound: Path | None = None
    """File with the sound, for a video without a sound track."""
    pictures: "Pictures | None" = None
    """Face pictures, for a sound file without a video track."""
    filtered: tuple[str, str] | None = None
    """Reason and detail, where the corpus's filters leave it out: it ends as that skip."""


@dataclass(frozen=True)
class Pictures:
    """Pictures of a clip as image files: those in `folder` whose number (their file name) lies in the clip's stretch of the video.

    `track` is VoxCeleb's text file of the clip, which names its first and last video frame; None: all pictures of the folder belong to
    the clip. `rate` is the number of video frames a second that the numbers count.
    """

    folder: Path
    track: Path | None = None
    rate: float = 25.0


@dataclass
class Corpus:
    """The clips of a corpus in the order of their ids, and what `dataset.json` says about it (`name`, `layout`, `root`, `made`...)."""

    clips: list[Clip]
    info: dict[str, Any]
    label_range: tuple[float, float] | None = None
    notes: list[str] = field(default_factory=list)
    """Lines for the user: rows without a video and the like."""


def find_videos(root: Path, suffixes: Collection[str] = VIDEO_SUFFIXES) -> list[Path]:
    """All video files (or files of other suffixes) below a folder, sorted. Linked folders are followed, each real folder once."""
    return sorted(_walk(root, suffixes), key=lambda path: path.relative_to(root).as_posix())


def _walk(root: Path, suffixes: Collection[str]) -> Iterator[Path]:
    seen = {os.path.realpath(root)}
    for folder, folders, files in os.walk(root, followlinks=True):
        for name in list(folders):
            real = os.path.realpath(Path(folder) / name)
            if real in seen or name.startswith("."):
                folders.remove(name)
            seen.add(real)
        # a folder that is named like a video is no clip, but ends as a counted skip rather than unseen
        for name in (*files, *folders):
            if Path(name).suffix.lower() in suffixes and not name.startswith("."):
                yield Path(folder) / name


def clip_ids(paths: list[Path], root: Path) -> list[str]:
    """The ids of clips: their paths below the root without suffix, with forward slashes.

    Of files that differ by suffix alone (`a.avi`, `a.mp4`) the first gives its up and the others keep theirs.
    """
    taken: set[str] = set()
    ids = []
    for path in paths:
        place = path.relative_to(root)
        bare = place.with_suffix("").as_posix()
        name = place.as_posix() if bare in taken else bare
        taken.add(name)
        ids.append(name)
    return ids


def check_root(root: Path) -> None:
    """Raise `UserError` where the root is no folder."""
    if not root.is_dir():
        raise UserError(f"--root {root}: is no folder")


def no_videos(root: Path, layout: str) -> UserError:
    """The error of a folder in which a layout finds nothing."""
    mend = "give the folder that the clips lie under"
    if layout != "folder" and next(_walk(root, VIDEO_SUFFIXES), None) is not None:
        mend += "; there are videos in another layout: --corpus folder takes any"
    return UserError(f"--root {root}: holds no video files in the {layout} layout; {mend}")


def read_corpus_file(root: Path) -> tuple[dict[str, Any], tuple[float, float] | None]:
    """What a `corpus.json` in the root, or up to two folders above it, says about the corpus, and its label range.

    Raises:
        UserError: the file is damaged.
    """
    here = root.resolve()
    for folder in (here, *list(here.parents)[:2]):
        path = folder / CORPUS_FILE
        if not path.is_file():
            continue
        try:
            entries = dict(json.loads(path.read_text(encoding="utf-8")))
            span = entries.pop("label_range", None)
            return entries, None if span is None else (float(span[0]), float(span[1]))
        except (OSError, ValueError, TypeError, IndexError) as error:
            raise UserError(f"{path}: is no readable description of a corpus ({error}); mend it or take it away") from error
    return {}, None
