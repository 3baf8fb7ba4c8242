"""Which clips a model was made with, kept beside it as hashes of their ids: prediction can tell a clip of its own corpus from a new one."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from skesl_mug.files import write_json

CLIPS_FILE = "corpus_clips.json"
DIGITS = 16  # of the hash: names of recordings are nobody's business where a model is shared


def write_clips(model: Path, splits: Mapping[str, Iterable[str]]) -> None:
    """Write the ids of each split (paths below the corpus's root, without suffix) into a model folder."""
    write_json(model / CLIPS_FILE, {name: sorted(map(_mark, ids)) for name, ids in splits.items()})


def read_clips(model: Path) -> dict[str, str]:
    """The split of each clip by its mark; nothing where the model does not tell."""
    try:
        entries = json.loads((model / CLIPS_FILE).read_text(encoding="utf-8"))
        return {mark: name for name, marks in entries.items() for mark in marks}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def split_with(clips: Mapping[str, str], path: Path) -> str | None:
    """The split that has a clip of this name: its id has to be the end of the path (`speaker/video/clip`, or the bare name)."""
    parts = path.absolute().with_suffix("").parts[1:]
    names = ("/".join(parts[-count:]) for count in range(len(parts), 0, -1))
    return next((clips[mark] for mark in map(_mark, names) if mark in clips), None)


def _mark(clip_id: str) -> str:
    return hashlib.sha256(clip_id.encode()).hexdigest()[:DIGITS]
