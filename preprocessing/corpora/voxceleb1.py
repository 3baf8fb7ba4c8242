"""VoxCeleb1's layout: `wav/<speaker>/<video>/<clip>.wav`, unlabelled, with face pictures where their tree is there."""

from pathlib import Path

from preprocessing.corpora import speakers
from preprocessing.corpora.clip import (
    SOUND_SUFFIXES,
    VIDEO_SUFFIXES,
    Clip,
    Corpus,
    Pictures,
    check_root,
    clip_ids,
    find_videos,
    no_videos,
    read_corpus_file,
)
from skesl_mug.errors import UserError

FACE_TREES = ("faces", "unzippedFaces", "frames")
TRACK_TREES = ("txt",)


def find(root: Path, labels: Path | None = None) -> Corpus:
    """The clips of a VoxCeleb1 tree; `root` is its `wav` (or `mp4`) folder or the folder above it.

    Where videos are there (`mp4/`) they are taken, else the sound files of `wav/`. Face pictures of a sound file lie in
    `faces/<speaker>/<video>/<clip>/<frame>.jpg`, or as the authors publish them in `unzippedFaces/<name>/1.6/<video>/<frame>.jpg`;
    the latter need `txt/<speaker>/<video>/<clip>.txt`, which say which frames of the video a clip spans.

    Raises:
        UserError: no such tree is there, or labels are given.
    """
    check_root(root)
    if labels is not None:
        raise UserError(f"--labels {labels}: voxceleb1 has no labels; use --corpus folder for labelled clips")
    base = root.parent if root.name in ("wav", "mp4") else root
    trees = ("mp4", "wav") if (base / "mp4").is_dir() else ("wav", "mp4")
    tree = next((base / name for name in trees if (base / name).is_dir()), root)
    paths = find_videos(tree, VIDEO_SUFFIXES | set(SOUND_SUFFIXES))
    names = speakers.names(root)
    faces = next((base / name for name in FACE_TREES if (base / name).is_dir()), None)
    clips = []
    elsewhere = 0
    for name, path in zip(clip_ids(paths, tree), paths, strict=True):
        parts = path.relative_to(tree).parts
        if len(parts) != 3:
            elsewhere += 1
            continue
        pictures = None
        if faces is not None and path.suffix.lower() in SOUND_SUFFIXES:
            pictures = _pictures(faces, base, parts[0], names.get(parts[0]), parts[1], path.stem)
        clips.append(Clip(id=name, path=path, speaker=parts[0], video_id=parts[1], pictures=pictures))
    if not clips:
        raise no_videos(root, "voxceleb1 (wav/<speaker>/<video>/<clip>.wav)")
    about, _ = read_corpus_file(root)
    notes = [f"{elsewhere} files lie elsewhere than <speaker>/<video>/<clip> and are left out"] if elsewhere else []
    if faces is not None:
        pictured = sum(clip.pictures is not None for clip in clips)
        notes.append(f"face pictures in {faces.name}/ for {pictured} of {len(clips)} clips")
    return Corpus(clips, {"name": "voxceleb1", **about, "layout": "voxceleb1", "root": str(root)}, None, notes)


def _pictures(faces: Path, base: Path, speaker: str, name: str | None, video: str, clip: str) -> Pictures | None:
    """Where the pictures of a clip lie: a folder of its own, or the video's folder and the text file with the clip's frame numbers."""
    own = faces / speaker / video / clip
    if own.is_dir():
        return Pictures(own)
    track = next((path for tree in TRACK_TREES if (path := base / tree / speaker / video / f"{clip}.txt").is_file()), None)
    if track is None:
        return None
    for who in (speaker, name):
        for folder in () if who is None else (faces / who / "1.6" / video, faces / who / video):
            if folder.is_dir():
                return Pictures(folder, track)
    return None
