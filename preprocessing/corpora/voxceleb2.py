"""VoxCeleb2's layout: `mp4/<speaker>/<video>/<clip>.mp4`, unlabelled."""

from pathlib import Path

from lexicons.errors import UserError
from preprocessing.corpora.clip import Clip, Corpus, check_root, clip_ids, find_videos, no_videos, read_corpus_file


def find(root: Path, labels: Path | None = None) -> Corpus:
    """The clips of a VoxCeleb2 tree; `root` is its `mp4` folder or the folder above it. Ids never contain `mp4/`.

    Raises:
        UserError: no such tree is there, or labels are given.
    """
    check_root(root)
    if labels is not None:
        raise UserError(f"--labels {labels}: voxceleb2 has no labels; use --corpus folder for labelled clips")
    tree = root / "mp4" if (root / "mp4").is_dir() else root
    clips = []
    elsewhere = 0
    paths = find_videos(tree)
    for name, path in zip(clip_ids(paths, tree), paths, strict=True):
        parts = path.relative_to(tree).parts
        if len(parts) == 3:
            clips.append(Clip(id=name, path=path, speaker=parts[0], video_id=parts[1]))
        else:
            elsewhere += 1
    if not clips:
        raise no_videos(root, "voxceleb2 (mp4/<speaker>/<video>/<clip>.mp4)")
    about, _ = read_corpus_file(root)
    notes = [f"{elsewhere} video files lie elsewhere than <speaker>/<video>/<clip> and are left out"] if elsewhere else []
    return Corpus(clips, {"name": "voxceleb2", **about, "layout": "voxceleb2", "root": str(root)}, None, notes)
