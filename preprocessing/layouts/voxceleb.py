"""VoxCeleb1 and VoxCeleb2: trees of <speaker>/<video>/<clip>, unlabelled, with a table of speakers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from preprocessing.layouts import CORPUS_FILE, Clip, Corpus, Pictures, no_recordings, read_corpus_file
from preprocessing.layouts.files import SOUND_SUFFIXES, Files, beside_note, clip_ids, list_files, pair_tracks
from skesl_mug.errors import UserError
from skesl_mug.tables import read_table
from skesl_mug.wording import counted, printable

FACE_TREES = ("faces", "unzippedFaces", "frames")
SOUND_TREES = ("aac", "wav")
SPEAKER_TABLES = ("vox1_meta.csv", "vox2_meta.csv", "meta.csv", "metadata.csv")


def find_voxceleb1(root: Path) -> Corpus:
    """The clips of a VoxCeleb1 tree; `root` is its `wav` (or `mp4`) folder or the folder above it.

    Videos (`mp4/`) are preferred to the sound files of `wav/`. Face pictures of a sound file lie in
    `faces/<speaker>/<video>/<clip>/<frame>.jpg`, or as published in `unzippedFaces/<name>/1.6/<video>/<frame>.jpg`; the latter need
    `txt/<speaker>/<video>/<clip>.txt`, which list the video frames of a clip.

    Raises:
        UserError: there is no such tree.
    """
    base = root.parent if root.name in ("wav", "mp4") else root
    trees = ("mp4", "wav") if (base / "mp4").is_dir() else ("wav", "mp4")
    tree = next((base / name for name in trees if (base / name).is_dir()), root)
    names = speaker_names(root)
    faces = next((base / name for name in FACE_TREES if (base / name).is_dir()), None)
    clips, notes = _clips_of(list_files(tree, skip=[faces, base / "txt"]), root)
    if not clips:
        raise no_recordings(root, "voxceleb1 (wav/<speaker>/<video>/<clip>.wav)")
    if faces is not None:
        clips = [
            replace(clip, pictures=_pictures(faces, base, clip.speaker, names.get(clip.speaker), clip.video_id, clip.path.stem))
            if clip.path.suffix.lower() in SOUND_SUFFIXES
            else clip
            for clip in clips
        ]
        pictured = sum(clip.pictures is not None for clip in clips)
        notes.append(f"face pictures in {faces.name}/ for {pictured} of {len(clips)} clips")
    about, _ = read_corpus_file(root)
    info = {"name": "voxceleb1", **about, "layout": "voxceleb1", "root": str(root if tree.is_relative_to(root) else base)}
    return Corpus(clips, info, None, notes)


def find_voxceleb2(root: Path) -> Corpus:
    """The clips of a VoxCeleb2 tree; `root` is its `mp4` folder or the folder above it. Ids never contain `mp4/`.

    A video without a sound track uses `aac/<speaker>/<video>/<clip>.m4a` or `wav/.../<clip>.wav` next to `mp4/`; without `mp4/`, those
    sound files are the clips.

    Raises:
        UserError: there is no such tree.
    """
    tree = next((root / name for name in ("mp4", *SOUND_TREES) if (root / name).is_dir()), root)
    sounds = [tree.parent / name for name in SOUND_TREES if tree.name == "mp4" and (tree.parent / name).is_dir()]
    clips, notes = _clips_of(list_files(tree), root)
    if not clips:
        raise no_recordings(root, "voxceleb2 (mp4/<speaker>/<video>/<clip>.mp4)")
    if sounds:
        clips = [replace(clip, sound=_sound_of(sounds, clip.path.relative_to(tree)) or clip.sound) for clip in clips]
        found = sum(clip.sound is not None for clip in clips)
        notes.append(f"sound files in {', '.join(folder.name for folder in sounds)}/ for {found} of {len(clips)} clips")
    about, _ = read_corpus_file(root)
    return Corpus(clips, {"name": "voxceleb2", **about, "layout": "voxceleb2", "root": str(root)}, None, notes)


def _clips_of(files: Files, root: Path) -> tuple[list[Clip], list[str]]:
    """The clips of a tree <speaker>/<video>/<clip>, and notes about what is left out."""
    paths, tracks = pair_tracks(files.recordings)
    clips = [
        Clip(id=name, path=path, speaker=printable(path.parts[-3]), video_id=printable(path.parts[-2]), sound=tracks.get(path))
        for name, path in zip(clip_ids(paths, files.root), paths, strict=True)
        if len(path.relative_to(files.root).parts) == 3
    ]
    elsewhere = len(paths) - len(clips)
    notes = [f"left out: {counted(elsewhere, 'recording')} in other places than <speaker>/<video>/<clip>"] if elsewhere else []
    notes += beside_note(files.recordings, paths, "used where the video has no sound track")
    return clips, files.notes(files.left_out([root / CORPUS_FILE, find_speaker_table(root)])) + notes


def _sound_of(trees: list[Path], video: Path) -> Path | None:
    places = ((tree / video).with_suffix(suffix) for tree in trees for suffix in SOUND_SUFFIXES)
    return next((path for path in places if path.is_file()), None)


def _pictures(faces: Path, base: Path, speaker: str, name: str | None, video: str, clip: str) -> Pictures | None:
    """The pictures of a clip: in a folder of its own, or in the video's folder, with the text file of the clip's frame numbers."""
    own = faces / speaker / video / clip
    if own.is_dir():
        return Pictures(own)
    track = base / "txt" / speaker / video / f"{clip}.txt"
    if not track.is_file():
        return None
    for who in (speaker, name):
        for folder in () if who is None else (faces / who / "1.6" / video, faces / who / video):
            if folder.is_dir():
                return Pictures(folder, track)
    return None


def find_speaker_table(root: Path) -> Path | None:
    """The table of speakers in the root or up to two folders above it."""
    here = root.resolve()
    places = [folder / name for folder in (here, *list(here.parents)[:2]) for name in SPEAKER_TABLES]
    return next((path for path in places if path.is_file()), None)


def read_speaker_table(path: Path) -> list[dict[str, str]]:
    """The rows of a table of speakers, separated by tabs (VoxCeleb1) or commas (VoxCeleb2); column names in lower case.

    Raises:
        UserError: the file cannot be read.
    """
    table = read_table(
        path, ("nationality",), needed="expected a line of column names (with `Nationality`) and one line per speaker", quiet=False
    )  # fmt: skip
    return [row for _, row in table.renamed({name.lower(): name for name in table.columns})]


def speaker_names(root: Path) -> dict[str, str]:
    """Speaker id -> name (column `VGGFace1 ID`), by which VoxCeleb1's face pictures are filed; empty without a table."""
    path = find_speaker_table(root)
    rows = read_speaker_table(path) if path is not None else []
    return {next(iter(row.values())): row["vggface1 id"] for row in rows if "vggface1 id" in row}


def keep_nationalities(corpus: Corpus, nationalities: Sequence[str], root: Path, table: Path | None = None) -> None:
    """Mark the clips of other speakers as filtered: `nationality`, or `nationality_unknown` if the table lacks the speaker.

    Raises:
        UserError: there is no table, it has no column of nationalities, or no speaker is left.
    """
    path = table if table is not None else find_speaker_table(root)
    if path is None:
        raise UserError(f"--nationality: no table of speakers ({', '.join(SPEAKER_TABLES)}) in or above {root}; use --metadata FILE")
    rows = read_speaker_table(path)
    if not rows or "nationality" not in rows[0]:
        raise UserError(f"{path}: has no column Nationality; remove --nationality, or choose a table that has one with --metadata FILE")
    known = {next(iter(row.values())): row.get("nationality", "") for row in rows}
    wanted = {name.casefold() for name in nationalities}
    for place, clip in enumerate(corpus.clips):
        land = known.get(clip.speaker, "")
        if not land:
            corpus.clips[place] = replace(clip, filtered=("nationality_unknown", f"{path.name} has none for speaker {clip.speaker}"))
        elif land.casefold() not in wanted:
            corpus.clips[place] = replace(clip, filtered=("nationality", land))
    if all(clip.filtered for clip in corpus.clips):
        lands = sorted({known[clip.speaker] for clip in corpus.clips if known.get(clip.speaker)})
        raise UserError(f"--nationality {' '.join(nationalities)}: no speaker is left; {path.name} has {', '.join(lands) or 'none'}")
    corpus.info["nationalities"] = list(nationalities)
