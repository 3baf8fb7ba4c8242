"""VoxCeleb2's layout: `mp4/<speaker>/<video>/<clip>.mp4`, unlabelled, with the sound in the video or in a parallel tree."""

from pathlib import Path

from preprocessing.corpora.clip import SOUND_SUFFIXES, Clip, Corpus, check_root, clip_ids, find_videos, no_videos, read_corpus_file
from skesl_mug.errors import UserError

SOUND_TREES = ("aac", "wav")


def find(root: Path, labels: Path | None = None) -> Corpus:
    """The clips of a VoxCeleb2 tree; `root` is its `mp4` folder or the folder above it. Ids never contain `mp4/`.

    A video without a sound track takes its sound from `aac/<speaker>/<video>/<clip>.m4a` or `wav/.../<clip>.wav` beside `mp4/`.

    Raises:
        UserError: no such tree is there, or labels are given.
    """
    check_root(root)
    if labels is not None:
        raise UserError(f"--labels {labels}: voxceleb2 has no labels; use --corpus folder for labelled clips")
    tree = root / "mp4" if (root / "mp4").is_dir() else root
    sounds = [tree.parent / name for name in SOUND_TREES if tree.name == "mp4" and (tree.parent / name).is_dir()]
    clips = []
    elsewhere = 0
    paths = find_videos(tree)
    for name, path in zip(clip_ids(paths, tree), paths, strict=True):
        parts = path.relative_to(tree).parts
        if len(parts) == 3:
            clips.append(Clip(id=name, path=path, speaker=parts[0], video_id=parts[1], sound=_sound_of(sounds, parts)))
        else:
            elsewhere += 1
    if not clips:
        raise no_videos(root, "voxceleb2 (mp4/<speaker>/<video>/<clip>.mp4)")
    about, _ = read_corpus_file(root)
    notes = [f"{elsewhere} video files lie elsewhere than <speaker>/<video>/<clip> and are left out"] if elsewhere else []
    if sounds:
        found = sum(clip.sound is not None for clip in clips)
        notes.append(f"sound files in {', '.join(folder.name for folder in sounds)}/ for {found} of {len(clips)} clips")
    return Corpus(clips, {"name": "voxceleb2", **about, "layout": "voxceleb2", "root": str(root)}, None, notes)


def _sound_of(trees: list[Path], parts: tuple[str, ...]) -> Path | None:
    for tree in trees:
        for suffix in SOUND_SUFFIXES:
            path = (tree / parts[0] / parts[1] / parts[2]).with_suffix(suffix)
            if path.is_file():
                return path
    return None
