"""The files below a corpus folder: which are recordings, which belong to others, and which are left out."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from skesl_mug.wording import counted, printable

_VIDEO = "mp4 m4v mov qt mkv webm avi divx mpg mpeg mpe m1v m2v vob wmv asf flv f4v ts mts m2ts m2t 3gp 3g2 ogv ogm mxf dv rm rmvb mjpeg"
_SOUND = (
    "m4a aac wav flac mp3 ogg oga opus wma amr awb aif aiff aifc au snd caf mka weba m4b mp2 ac3 eac3 dts wv ape tta w64 rf64 bwf sph spx "
    "3ga voc gsm mpc ra"
)
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _VIDEO.split())
SOUND_SUFFIXES = tuple(f".{name}" for name in _SOUND.split())
"""If several sound files belong to one video, the first of these suffixes counts."""
RECORDING_SUFFIXES = VIDEO_SUFFIXES | set(SOUND_SUFFIXES)

SYSTEM_FOLDERS = frozenset({"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"})
SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
DATASET_FILE = "dataset.json"
DATASET_FILES = re.compile(r"dataset\.json|clips.*\.csv|config\.yaml|summary\.html|part-\d+\.parquet")
KINDS = 8  # extensions that a note names
NO_EXTENSION = "without extension"


@dataclass
class Files:
    """The files below `root`, without hidden and system files.

    `recordings` are sorted by their paths below the root. Of the others, csv files are in `tables` and the rest in `others`, by extension.
    `closed` are the folders that could not be opened, with the reason.
    """

    root: Path
    recordings: list[Path] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    closed: list[str] = field(default_factory=list)

    def left_out(self, used: Iterable[Path | None] = (), recordings: Iterable[Path] = ()) -> dict[str, int]:
        """Files that are not used, by extension: all but recordings, csv files of a recording's name (OpenFace's) and `used` files.

        Args:
            used: other files that are used, such as the table of labels.
            recordings: those that are left out too.
        """
        counts, root = Counter(self.others), self.root.resolve()
        known = {path.resolve() for path in used if path is not None}
        named = {(path.parent, path.stem) for path in self.recordings} if self.tables else set()
        counts.update(extension(path) for path in recordings)
        counts.update(".csv" for path in self.tables if (path.parent, path.stem) not in named and path.resolve() not in known)
        for path in known:
            if path.suffix.lower() != ".csv" and path.is_file() and path.is_relative_to(root):
                counts[extension(path)] -= 1
        return {name: number for name, number in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if number > 0}

    def notes(self, left_out: Mapping[str, int]) -> list[str]:
        """Sentences about what was left out."""
        notes = [f"left out: {in_words(left_out)}"] if left_out else []
        if self.closed:
            notes.append(f"left out: {counted(len(self.closed), 'folder')} that cannot be opened (first: {self.closed[0]})")
        return notes


def in_words(left_out: Mapping[str, int]) -> str:
    """`3 .txt, 1 .docx, 1 without extension`; rare extensions are summed up."""
    named = list(left_out.items())
    if len(named) > KINDS:
        named = [*named[: KINDS - 1], ("with other extensions", sum(number for _, number in named[KINDS - 1 :]))]
    return ", ".join(f"{number:,} {name}" for name, number in named)


def extension(path: Path) -> str:
    """The extension of a file in lower case, for display."""
    suffix = path.suffix.lower()
    return suffix if re.fullmatch(r"\.[\w+-]{1,12}", suffix) and suffix.isprintable() else NO_EXTENSION


def list_files(root: Path, skip: Collection[Path | None] = ()) -> Files:
    """The files below a folder, without those in the folders `skip`.

    Links are followed, each real folder once. A folder with the name of a recording counts as one, and so ends as a skip with a reason
    rather than unnoticed.
    """
    files = Files(root)
    seen = {os.path.realpath(root)}
    ours: set[str] = set()

    def note_closed(error: OSError) -> None:
        files.closed.append(printable(f"{Path(error.filename).relative_to(root)}, {error.strerror}"))

    for folder, folders, names in os.walk(root, followlinks=True, onerror=note_closed):
        for name in sorted(folders):
            real = os.path.realpath(Path(folder, name))
            if real in seen or name.startswith(".") or name.lower() in SYSTEM_FOLDERS or Path(folder, name) in skip:
                folders.remove(name)
            elif Path(name).suffix.lower() in RECORDING_SUFFIXES:
                files.recordings.append(Path(folder, name))
            seen.add(real)
        if DATASET_FILE in names:
            ours |= {folder, str(Path(folder, "data"))}
        for name in names:
            if name.startswith(".") or name.lower() in SYSTEM_FILES:
                continue
            path = Path(folder, name)
            suffix = path.suffix.lower()
            if suffix in RECORDING_SUFFIXES:
                files.recordings.append(path)
            elif folder in ours and DATASET_FILES.fullmatch(name):
                continue
            elif suffix == ".csv":
                files.tables.append(path)
            else:
                files.others[extension(path)] += 1
    files.recordings.sort(key=lambda path: path.relative_to(root).as_posix())
    return files


def pair_tracks(paths: Collection[Path]) -> tuple[list[Path], dict[Path, Path]]:
    """Separate the sound files that lie beside a video of the same name, such as an extracted track.

    Returns:
        the recordings without them, and each video's sound file; of several, that with the first of `SOUND_SUFFIXES`.
    """
    videos: dict[tuple[Path, str], Path] = {}
    for path in paths:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            videos.setdefault((path.parent, path.stem.casefold()), path)
    rest: list[Path] = []
    tracks: dict[Path, Path] = {}
    for path in paths:
        video = videos.get((path.parent, path.stem.casefold())) if path.suffix.lower() not in VIDEO_SUFFIXES else None
        if video is None:
            rest.append(path)
        elif video not in tracks or _rank(path) < _rank(tracks[video]):
            tracks[video] = path
    return rest, tracks


def _rank(path: Path) -> int:
    return SOUND_SUFFIXES.index(path.suffix.lower())


def beside_note(recordings: Collection[Path], kept: Collection[Path], use: str) -> list[str]:
    """A note about the sound files that `pair_tracks` separated; `use` is what happens to them."""
    count = len(recordings) - len(kept)
    if not count:
        return []
    first = min(set(recordings) - set(kept))
    return [f"sound files that belong to a video of the same name beside them: {count:,} (first: {printable(first.name)}); {use}"]


def same_name_note(root: Path, recordings: Collection[Path]) -> list[str]:
    """A note about recordings that may be copies: equal names in one folder, or in two that differ in one part (`video/a`, `sound/a`)."""
    if len({path.suffix.lower() for path in recordings}) < 2:
        return []
    groups: dict[tuple[str, ...], dict[str, Path]] = {}
    pairs: dict[Path, Path] = {}
    for path in recordings:
        place, suffix = path.relative_to(root).with_suffix("").parts, path.suffix.lower()
        for key in (place, *((*place[:part], "*", *place[part + 1 :]) for part in range(len(place) - 1))):
            same = groups.setdefault(key, {})
            other = next((one for kind, one in same.items() if kind != suffix), None)
            if other is not None:
                pairs.setdefault(path, other)
            same.setdefault(suffix, path)
    if not pairs:
        return []
    copy, original = (printable(path.relative_to(root).as_posix()) for path in next(iter(pairs.items())))
    return [
        f"recordings with the name of another in another format: {len(pairs):,} (first: {original}, {copy}); each is an utterance: if they "
        "are copies, keep one format"
    ]


def clip_ids(paths: list[Path], root: Path) -> list[str]:
    """The ids of clips: their paths below the root without suffix, with forward slashes, as text (see `printable`).

    Of files that differ only in their suffix (`a.avi`, `a.mp4`), the first loses it and the others keep it.
    """
    taken: set[str] = set()
    ids = []
    for path in paths:
        place = path.relative_to(root)
        bare = printable(place.with_suffix("").as_posix())
        name = printable(place.as_posix()) if bare in taken else bare
        taken.add(name)
        ids.append(name)
    return ids


def composed(name: str) -> str:
    """A name with composed letters: macOS takes those of file names apart (é as e and an accent), tables do not."""
    return unicodedata.normalize("NFC", name)
