"""Corpus layouts: each turns a root folder into a list of clips. New ones are registered with `register_layout` (docs/extending.md)."""

import inspect
import json
import math
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from types import NoneType
from typing import Any

from preprocessing.extensions import LAYOUTS
from preprocessing.layouts.files import in_words, list_files
from preprocessing.schema import LABEL_COLUMNS
from skesl_mug.errors import UserError
from skesl_mug.registry import definition_name, fingerprint, is_plugin, plugin_errors
from skesl_mug.text_files import read_text
from skesl_mug.transcripts import EMPTY, is_missing, read_transcripts
from skesl_mug.wording import a_kind, counted, printable

CORPUS_FILE = "corpus.json"
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "dev", "development"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The split that each of its usual names, in lower case, stands for."""


@dataclass(frozen=True)
class Clip:
    """One utterance: a video (or sound) file, or a stretch of one.

    Attributes:
        id: unique in the corpus; the built-in layouts use the path below the root without suffix, with forward slashes.
        path: the file (`Path` or `str`), below the corpus root: absolute, or relative to the working folder or to the root.
        speaker: who speaks; pretraining holds out complete speakers for validation.
        video_id: the video that the clip was cut from; folds, the development split and the bootstrap keep its clips together.
        split: train, valid, test or None; other usual names (Train, dev, validation) are replaced with these.
        labels: of `label`, `label_T`, `label_A`, `label_V` those that are known.
        start: where the utterance starts in the file, seconds.
        end: where it ends, seconds; None: at the end of the file.
        transcript: the corpus's own transcript, used in place of speech recognition.
        language: spoken in the clip and written in the transcript, as a code such as `en`.
        sound: file with the sound of a video without a sound track; like `path`.
        pictures: face pictures that go with a sound file.
        filtered: reason and detail if a filter excludes the clip, which becomes such a skip.
        channel: the channel of the sound that is the clip's (`left`, `right`, ...); None: as `--channels` says.
    """

    id: str
    path: Path
    speaker: str
    video_id: str
    split: str | None = None
    labels: dict[str, float] = field(default_factory=dict)
    start: float = 0.0
    end: float | None = None
    transcript: str | None = None
    language: str | None = None
    sound: Path | None = None
    pictures: "Pictures | None" = None
    filtered: tuple[str, str] | None = None
    channel: str | None = None

    @property
    def file_id(self) -> str:
        """The id without the channel."""
        return self.id.removesuffix(f"#{self.channel}")


@dataclass(frozen=True)
class Pictures:
    """Frames of a clip as image files in `folder`, whose names contain their video frame number.

    `track` is VoxCeleb's text file of the clip, which lists its first and last video frame; None: the whole folder belongs to the clip.
    `rate` is the number of video frames per second.
    """

    folder: Path
    track: Path | None = None
    rate: float = 25.0


@dataclass
class Corpus:
    """The clips of a corpus sorted by id, its entry in `dataset.json` (`name`, `layout`, `root`, ...), and notes for the user."""

    clips: list[Clip]
    info: dict[str, Any]
    label_range: tuple[float, float] | None = None
    notes: list[str] = field(default_factory=list)


def find_corpus(layout: str, root: Path, labels: Path | None = None, folds: Path | None = None) -> Corpus:
    """The clips under `root` in a registered layout.

    Args:
        layout: name in `LAYOUTS`.
        root: the folder of the corpus.
        labels: csv file of labels, for layouts that read one.
        folds: file of splits, for layouts that read one.

    Raises:
        UserError: the folder does not exist or has no clips in this layout, a table is faulty, or the layout does not read it.
    """
    if not root.is_dir():
        raise UserError(f"--root {root}: is not a folder")
    if any("\udc80" <= letter <= "\udcff" for letter in str(root)):
        raise UserError(f"--root {printable(str(root))}: the name contains bytes that are not UTF-8; rename the folder")
    find = LAYOUTS.get(layout)
    accepted = inspect.signature(find).parameters
    files = {"labels": labels, "folds": folds}
    for name, path in files.items():
        if path is not None and name not in accepted:
            other = "use --corpus folder for labelled clips" if name == "labels" else "only mosi and mosei read one"
            raise UserError(f"--{name} {path}: --corpus {layout} does not read such a file; {other}")
    with plugin_errors(find):
        found = find(root, **{name: path for name, path in files.items() if name in accepted})
        found = found if isinstance(found, Corpus) else list(found)
    clips = found.clips if isinstance(found, Corpus) else found
    transcript_notes = clean_transcripts(clips)
    for clip in clips:
        check_fields(clip, layout)
    if isinstance(found, Corpus):
        corpus = found
    else:
        about, span = read_corpus_file(root)
        corpus = Corpus(sorted(found, key=lambda clip: clip.id), about, span)
    corpus.info = {"name": layout, "root": str(root), **corpus.info, "layout": layout, **_origin(find)}
    root = Path(corpus.info["root"])
    corpus.clips = [_normalised(clip, root, layout) for clip in corpus.clips]
    check_clips(corpus, layout)
    corpus.notes += [*transcript_notes, *speaker_notes(corpus.clips)]
    return corpus


def clean_transcripts(clips: list[Any]) -> list[str]:
    """Replace the transcripts of clips with clean text, and missing ones (NaN, blank) with None: they are recognised. Returns notes."""
    known = ((place, clip.transcript) for place, clip in enumerate(clips) if isinstance(clip, Clip) and clip.transcript is not None)
    able = [place for place, transcript in known if isinstance(transcript, str) or is_missing(transcript)]
    texts, counts = read_transcripts(clips[place].transcript for place in able)
    for place, text in zip(able, texts, strict=True):
        clips[place] = replace(clips[place], transcript=text if text.strip() else None)
    del counts[EMPTY]  # usual; other notes count the transcripts that are recognised
    return [f"{what}: {count:,}" for what, count in counts.items()]


def _origin(find: Callable[..., Any]) -> dict[str, str]:
    """What `dataset.json` records of a plugin's layout."""
    if not is_plugin(find):
        return {}
    source = fingerprint(find)
    return {"plugin": definition_name(find)} | ({} if source is None else {"source_sha256": source})


_TEXT, _TEXT_OR_NONE = ((str,), "text"), ((str, NoneType), "text or None")
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("id", "speaker", "video_id"), _TEXT),
    **dict.fromkeys(("split", "transcript", "language", "channel"), _TEXT_OR_NONE),
    "path": ((str, Path), "a path"),
    "sound": ((str, Path, NoneType), "a path or None"),
    "labels": ((dict,), "a dict"),
    "start": ((Real,), "seconds"),
    "end": ((Real, NoneType), "seconds or None"),
}


def check_fields(clip: Any, layout: str) -> None:
    """Check the types of what a layout returned as a clip.

    Raises:
        UserError: it is not a clip, or a field has the wrong type (such as NaN for an empty cell).
    """
    if not isinstance(clip, Clip):
        raise UserError(f"--corpus {layout}: returned {a_kind(clip)} in place of a clip (skesl_mug.Clip)")
    for name, (types, what) in _TYPES.items():
        value = getattr(clip, name)
        if not isinstance(value, types):
            raise UserError(f"--corpus {layout}: clip {clip.id} has the {name} {value!r}; expected {what}")


def _normalised(clip: Clip, root: Path, layout: str) -> Clip:
    """The clip with paths as `root / ...` and a split of `train`, `valid`, `test` or None.

    Raises:
        UserError: the split has another name.
    """
    split = SPLITS.get(str(clip.split).strip().lower()) if clip.split else None
    if clip.split and split is None:
        raise UserError(f"--corpus {layout}: clip {clip.id} has the split {clip.split!r}; use train, valid or test")
    path = _below(clip.path, root)
    sound = None if clip.sound is None else _below(clip.sound, root)
    if (path, sound, split) == (clip.path, clip.sound, clip.split):
        return clip
    return replace(clip, path=path, sound=sound, split=split)


def _below(given: str | Path, root: Path) -> Path:
    """A path as `root / ...`; one that does not lie below the root stays as it is."""
    path = Path(given)
    if path.is_relative_to(root):
        return path
    if not path.is_absolute():
        return root / path
    for inner, outer in ((path, root.absolute()), (path.resolve(), root.resolve())):
        if inner.is_relative_to(outer):
            return root / inner.relative_to(outer)
    return path


def speaker_notes(clips: Collection[Clip]) -> list[str]:
    """A note if speakers (where they are unknown: videos) have clips in more than one split."""
    splits: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        if clip.split is not None:
            splits[clip.speaker].add(clip.split)
    shared = sorted(speaker for speaker, found in splits.items() if len(found) > 1)
    if not shared:
        return []
    what = "video" if all(clip.speaker == clip.video_id for clip in clips) else "speaker"
    return [f"{counted(len(shared), what)} in more than one split (first: {shared[0]}): scores for new {what}s may be lower"]


def check_clips(corpus: Corpus, layout: str) -> None:
    """Check the clips of a layout.

    Raises:
        UserError: there are none, an id is not unique, a file does not lie below the root, or a label is unknown or not a number.
    """
    if not corpus.clips:
        raise no_recordings(Path(corpus.info["root"]), layout)
    taken: set[str] = set()
    for clip in corpus.clips:
        if clip.id in taken:
            raise UserError(f"--corpus {layout}: two clips have the id {clip.id}")
        if not clip.path.is_relative_to(corpus.info["root"]):
            raise UserError(f"--corpus {layout}: the file of clip {clip.id}, {clip.path}, is not below --root {corpus.info['root']}")
        for name, value in clip.labels.items():
            if name not in LABEL_COLUMNS:
                raise UserError(f"--corpus {layout}: clip {clip.id} has the label {name!r}; use {', '.join(LABEL_COLUMNS)}")
            if not isinstance(value, Real) or not math.isfinite(value):
                raise UserError(f"--corpus {layout}: clip {clip.id} has the {name} {value!r}, which is not a number; omit it if unknown")
        taken.add(clip.id)


def no_recordings(root: Path, layout: str) -> UserError:
    """The error for a folder in which a layout finds nothing."""
    advice = "choose the folder that contains the clips"
    files = list_files(root)
    if layout != "folder" and files.recordings:
        advice += "; there are recordings in another layout: --corpus folder reads any"
    elif left_out := files.left_out([root / CORPUS_FILE]):
        advice += f" (found: {in_words(left_out)})"
    return UserError(f"--root {root}: contains no recordings in the {layout} layout; {advice}")


def read_corpus_file(root: Path) -> tuple[dict[str, Any], tuple[float, float] | None]:
    """The entries of a `corpus.json` in the root, or up to two folders above it, and the label range.

    Raises:
        UserError: the file is damaged.
    """
    here = root.resolve()
    for folder in (here, *list(here.parents)[:2]):
        path = folder / CORPUS_FILE
        if not path.is_file():
            continue
        try:
            entries = dict(json.loads(read_text(path)[0]))
            span = entries.pop("label_range", None)
            if "made" in entries:  # the former name
                entries["synthetic"] = entries.pop("made")
            return entries, None if span is None else (float(span[0]), float(span[1]))
        except (OSError, ValueError, TypeError, IndexError) as error:
            raise UserError(f"{path}: is not a readable description of a corpus ({error}); fix or remove it") from error
    return {}, None
