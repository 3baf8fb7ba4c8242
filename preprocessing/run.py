"""Videos of people talking in, utterance dataset out."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: import from the checkout, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import os
import shutil
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import yaml

from preprocessing.asr_options import AsrOptions, whisper_settings
from preprocessing.cluster_options import RayOptions
from preprocessing.object_store import Mirror, cache_of, is_url
from preprocessing.remask import MaskOptions
from skesl_mug.console import (
    COMMAND_FIELDS,
    CommandOptions,
    check_writable,
    read_stored_options,
    run_command,
    say_loading,
    to_plain,
)
from skesl_mug.errors import UserError
from skesl_mug.wording import counted

if TYPE_CHECKING:
    from preprocessing.corpora import Corpus
    from preprocessing.parts import Part
    from preprocessing.pipeline import PipelineSettings
    from preprocessing.schema import DatasetInfo

CONFIG_FILE = "config.yaml"
FREE_FIELDS = frozenset(
    {"output", "plugin", "work", "workers", "engine", "ray", "part", "limit", "overwrite", "reference_transcripts", "label_range"}
)
"""Options that may change between two runs into one folder: they do not touch what an utterance holds (the range goes to dataset.json)."""


@dataclass(kw_only=True)
class Options(CommandOptions):
    """Turn a folder of videos into an utterance dataset: transcripts with word times, sentiment word masks, audio and face features.

    Every clip ends as an utterance or as a counted skip with its reason (clips.csv in the output). The same command again goes on
    where it stopped.
    """

    corpus: Literal["voxceleb1", "voxceleb2", "mosi", "mosei", "sims", "simsv2", "folder"]
    """Layout of the corpus (docs/corpora.md): voxceleb2 is mp4/<speaker>/<video>/<clip>.mp4, voxceleb1 wav/<speaker>/<video>/<clip>.wav;
    mosi, mosei, sims and simsv2 are a csv of utterances and their videos; folder is any folder of videos, one utterance each."""
    root: Path
    """Folder that holds the videos."""
    output: str
    """Folder of the utterance dataset to write, or a place on an object store (s3://bucket/name; docs/cluster.md)."""
    work: Path | None = None
    """Where --output is on an object store: the folder of this machine in which the dataset is made and whose finished files are copied
    there. Default: a folder of that place's own in the user's cache (SKESL_MUG_CACHE)."""
    asr: AsrOptions = field(default_factory=AsrOptions)
    """Speech recognition."""
    audio: Literal["librosa33", "egemaps", "none"] = "librosa33"
    """Audio features: librosa33 is zero-crossing rate, 20 MFCC and 12 chroma values at 43 frames a second; egemaps is openSMILE's 25
    descriptors at 100 frames a second (extra `egemaps`, whose licence admits research use alone)."""
    vision: Literal["mesh", "mesh-au", "openface", "none"] = "mesh"
    """Face features: mesh is head pose, mouth, jaw, brows, eyes and gaze from mediapipe's face mesh; mesh-au adds 16 measures named after
    FACS action units; openface is the 709 columns of OpenFace (your own files or program)."""
    faces: Literal["first", "largest", "speaking"] = "first"
    """Of several faces: the most certain one of each frame, or through the clip the largest one, or the one that speaks (mouth
    movement against the sound's energy)."""
    openface: Path | None = None
    """Where --vision openface finds OpenFace's csv files (<clip id>.csv), or its program FeatureExtraction. Default: beside the videos."""
    align: Literal["none", "words"] = "none"
    """words: one row of audio and vision features a word (the mean over its frames), as the `aligned_50` files of MOSI have them."""
    vision_fps: float = 6.0
    """Frames looked at per second."""
    skip_without_face: bool = False
    """Skip clips in which no frame shows a face; else they are kept with vision absent. (Clips without words are always skipped.)"""
    min_seconds: float = 0.5
    """Shorter clips are skipped."""
    max_seconds: float = 60.0
    """Longer clips are skipped."""
    labels: Path | None = None
    """Csv file of a folder: clip (path below the root), label, label_T, label_A, label_V, split, speaker, video_id, transcript; or
    ROOT/labels.csv. Of mosi, mosei, sims, simsv2: their table of utterances, by default the one in ROOT."""
    folds: Path | None = None
    """Splits of mosi and mosei where their table has none: the SDK's cmu_mosei_std_folds.py, or a csv file video_id,split."""
    transcripts: Literal["given", "asr"] = "given"
    """Transcripts that the corpus brings are used as they are (given), or all speech is recognised (asr)."""
    nationality: list[str] = field(default_factory=list)
    """Keep the speakers of these nationalities alone (SKESL: USA UK Canada Australia), by the corpus's table of speakers."""
    metadata: Path | None = None
    """Table of speakers with a column Nationality. Default: vox1_meta.csv, vox2_meta.csv or meta.csv in or above ROOT."""
    label_range: tuple[float, float] | None = None
    """Lowest and highest label of the corpus. Default: what corpus.json says, else the symmetric range that holds all labels."""
    lexicon: str = "vader"
    """Lexicon of the sentiment word masks: vader, afinn, senticnet, labmt, senticnet-zh, emobank-zh, labmt-zh (extra `lexicons`), or a
    file of words and numbers (.tsv, .csv, .yaml, .json)."""
    lexicon_scale: float = 3.0
    """Intensities are scaled to plus and minus this (SKESL: VADER times 0.75, so 3)."""
    mask: MaskOptions = field(default_factory=MaskOptions)
    """Sentiment word masking."""
    reference_transcripts: Path | None = None
    """Csv file with the columns clip and true_text: used to measure the word error rate and for nothing else."""
    seed: int = 1
    """Seed of the random mask in clips without any word of the lexicon."""
    workers: int = field(default_factory=lambda: len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    """Processes, of one thread each. Default: one a core."""
    engine: Literal["local", "ray"] = "local"
    """local: processes of this machine; ray: as many actors on a Ray cluster (docs/cluster.md)."""
    ray: RayOptions = field(default_factory=RayOptions)
    """The Ray cluster."""
    part: str = "1/1"
    """i/n: take the i-th of n disjoint parts of the corpus; all n jobs may write into one --output at the same time."""
    limit: int | None = None
    """Stop after the first so many clips of the corpus."""
    overwrite: bool = False
    """Delete the dataset in --output first."""

    @property
    def folder(self) -> Path:
        """Where the dataset is made."""
        if not is_url(self.output):
            return Path(self.output)
        return self.work if self.work is not None else cache_of(self.output, "work")

    def __post_init__(self) -> None:
        if self.work is not None and not is_url(self.output):
            raise UserError(f"--work {self.work}: is for an --output on an object store (s3://...) alone")
        if not 0 < self.vision_fps <= 120:
            raise UserError(f"--vision-fps {self.vision_fps:g}: give a number above 0 and up to 120")
        if self.workers < 1:
            raise UserError(f"--workers {self.workers}: give 1 or more")
        if self.limit is not None and self.limit < 1:
            raise UserError(f"--limit {self.limit}: give 1 or more")
        if not 0 <= self.min_seconds < self.max_seconds:
            raise UserError(f"--min-seconds {self.min_seconds:g}: has to be below --max-seconds {self.max_seconds:g}")
        if self.lexicon_scale <= 0:
            raise UserError(f"--lexicon-scale {self.lexicon_scale:g}: give a number above 0")
        if self.overwrite and self.part != "1/1":
            raise UserError("--overwrite: not with --part, for it would delete what the other parts wrote; delete the folder by hand first")
        if self.label_range is not None and not self.label_range[0] < self.label_range[1]:
            raise UserError("--label-range: give the lowest label first, then the highest")
        if self.openface is not None and self.vision != "openface":
            raise UserError(f"--openface {self.openface}: is for --vision openface alone")


def main(options: Options) -> None:
    """Find the clips, process those that are not done yet, say what came out."""
    from preprocessing.work_sharing import one_thread

    check_writable(options.folder)
    one_thread()  # before numpy and its like are imported
    from preprocessing.corpora import find_corpus

    corpus = find_corpus(options.corpus, options.root, options.labels, options.folds)
    settle_label_range(corpus, options)
    filter_corpus(corpus, options)
    clips = corpus.clips[: options.limit]
    announce(corpus, len(clips))
    say_loading("mediapipe")
    from preprocessing.corpus_facts import edited_transcripts, renew_facts
    from preprocessing.job import Job
    from preprocessing.outcome import summarise
    from preprocessing.parts import Part, info_lock, sole_writer
    from preprocessing.summary import write_summary
    from preprocessing.word_errors import read_references

    references = read_references(options.reference_transcripts) if options.reference_transcripts is not None else None
    settings = pipeline_settings(options)
    part = Part.parse(options.part)
    mirror = Mirror(options.folder, options.output) if is_url(options.output) else None
    with sole_writer(options.folder, part):
        if options.overwrite:
            delete_dataset(options.folder, mirror)
        elif mirror is not None:
            mirror.pull()
        with info_lock(options.folder):
            check_config(options)
            job = Job(options.folder, corpus, settings, options.workers, part, options.ray if options.engine == "ray" else None, mirror)
        try:
            with info_lock(options.folder):
                renewed = renew_facts(options.folder, corpus, part)
            if renewed:
                print(f"labels, splits and speakers of {counted(renewed, 'utterance')} brought up to date")
            if edited := edited_transcripts(options.folder, corpus, part):
                say_edited(edited)
            remaining = job.remaining(clips)
            if not remaining and references is None and (options.folder / "dataset.json").is_file():
                leave_complete(options, mirror, renewed > 0, part.whole)
                print(f"{options.output}: already complete, {counted(len(clips), 'clip')}; nothing to do (--overwrite starts anew)")
                return
            done = sum(part.owns_clip(clip.id) for clip in clips) - len(remaining)
            if remaining and done:
                print(f"{counted(done, 'clip')} done already; {len(remaining)} to go")
            info = job.run(remaining, references)
            info = cap_zero_masks(info, options, part)
            write_summary(options.folder)
            if mirror is not None:
                mirror.push(rewritten=renewed > 0 or options.mask.max_zero_share < 1.0, whole=part.whole)
        finally:
            job.close()
    summarise(info, options.output, options.folder)
    if not info.counts["kept"] and part.whole:
        raise UserError(f"--root {options.root}: no clip could be used; {options.folder / 'clips.csv'} says why of each")


def leave_complete(options: Options, mirror: "Mirror | None", renewed: bool, whole: bool) -> None:
    """Where no clip is left to do: what changed of the corpus's facts still reaches the summary and the object store."""
    from preprocessing.store import read_info
    from preprocessing.summary import write_summary

    read_info(options.folder)  # not complete where it is damaged
    if renewed:
        write_summary(options.folder)
    if mirror is not None:
        mirror.push(rewritten=renewed, whole=whole)


def say_edited(ids: list[str]) -> None:
    """Transcripts, unlike labels, cannot be brought up to date: words, masks and what lies on the words' times depend on them."""
    print(
        f"note: the corpus's transcripts of {counted(len(ids), 'utterance')} (such as {ids[0]}) are not those in the dataset, which keeps "
        "the old ones; --overwrite processes all anew"
    )


def cap_zero_masks(info: "DatasetInfo", options: Options, part: "Part") -> "DatasetInfo":
    """Keep the share of masks of intensity 0 within --mask.max-zero-share, once all clips are there to count."""
    if options.mask.max_zero_share >= 1.0 or not info.counts["kept"]:
        return info
    if not part.whole:
        print(f"note: after all parts are done: python -m preprocessing.remask {options.folder} with the same --lexicon and --mask flags")
        return info
    from lexicons.sources import load_lexicon
    from preprocessing.remask import remask
    from preprocessing.store import read_info

    remask(options.folder, load_lexicon(options.lexicon, options.lexicon_scale), options.mask, options.seed)
    return read_info(options.folder)


def filter_corpus(corpus: "Corpus", options: Options) -> None:
    """Mark the clips that the options leave out, and forget given transcripts where they are not wanted."""
    from preprocessing.corpora.speakers import keep_nationalities

    if options.nationality:
        keep_nationalities(corpus, options.nationality, options.root, options.metadata)
    if options.transcripts == "asr":
        corpus.clips = [replace(clip, transcript=None, language=None) for clip in corpus.clips]
    if options.asr.model == "none" and not any(clip.transcript for clip in corpus.clips):
        brings = "--transcripts asr leaves its transcripts out" if options.transcripts == "asr" else "the corpus brings no transcripts"
        raise UserError(f"--asr.model none: {brings}, and an utterance needs its words; give a model, or transcripts (docs/corpora.md)")


def settle_label_range(corpus: "Corpus", options: Options) -> None:
    """The label range by flag, else of corpus.json, else as observed (which is printed)."""
    from preprocessing.corpora.folder import check_range, observed_range, range_taken

    values = [value for clip in corpus.clips for value in clip.labels.values()]
    if not values:
        return
    if options.label_range is not None:
        corpus.label_range = options.label_range
        check_range(corpus.clips, options.label_range, "--label-range")
    elif corpus.label_range is None:
        corpus.label_range = observed_range(values)
        print(range_taken(values, corpus.label_range))


def pipeline_settings(options: Options) -> "PipelineSettings":
    """What the worker processes need."""
    from preprocessing.pipeline import PipelineSettings

    whisper = whisper_settings(options.asr)
    return PipelineSettings(
        whisper=whisper,
        batch=options.asr.batch,
        align=options.asr.align,
        audio=options.audio,
        vision=options.vision,
        vision_fps=options.vision_fps,
        faces=options.faces,
        openface=str(options.openface) if options.openface is not None else None,
        align_features=options.align == "words",
        lexicon=options.lexicon,
        lexicon_scale=options.lexicon_scale,
        mask_context=options.mask.context,
        skip_without_face=options.skip_without_face,
        min_seconds=options.min_seconds,
        max_seconds=options.max_seconds,
        seed=options.seed,
        quiet=not options.debug,
    )


def announce(corpus: "Corpus", count: int) -> None:
    """One line about the corpus, and its notes."""
    speakers = len({clip.speaker for clip in corpus.clips})
    of_whom = f" of {counted(speakers, 'speaker')}" if speakers < len(corpus.clips) else ""  # else nobody said who speaks
    kind = " (made data)" if corpus.info.get("made") else ""
    labelled = sum(bool(clip.labels) for clip in corpus.clips)
    print(
        f"{corpus.info['name']}{kind}: {counted(len(corpus.clips), 'clip')}{of_whom}, {labelled} labelled"
        + (f"; the first {count} of them" if count < len(corpus.clips) else "")
    )
    for note in corpus.notes:
        print(f"note: {note}")


def delete_dataset(folder: Path, mirror: Mirror | None = None) -> None:
    """Delete the dataset in a folder, and on the object store: the files this program writes and no others."""
    if mirror is not None:
        mirror.delete()
    for pattern in ("dataset.json", CONFIG_FILE, "summary.html", "clips.csv", "clips-*-of-*.csv", ".journal*.bin"):
        for path in folder.glob(pattern):
            path.unlink()
    shutil.rmtree(folder / "data", ignore_errors=True)


def check_config(options: Options) -> None:
    """Record the resolved options in the output folder, or compare them with those that are there.

    Raises:
        UserError: the folder was made with other options, or holds something else.
    """
    path = options.folder / CONFIG_FILE
    resolved = to_plain(options, leave_out=COMMAND_FIELDS)
    begun = any(any(options.folder.glob(pattern)) for pattern in ("dataset.json", "clips*.csv", ".journal*.bin"))
    if path.is_file() and begun:
        stored = read_stored_options(path)
        changed = first_difference(stored, resolved)
        if changed is not None:
            name, *values = changed
            before, now = ("unset" if value is None else value for value in values)
            raise UserError(
                f"--output {options.output}: was made with --{name} {before}, not {now}; give another folder, or --overwrite to start anew"
            )
        if stored.get("label_range") != resolved["label_range"]:
            _write_config(path, {**stored, "label_range": resolved["label_range"]})
        return
    strangers = [entry.name for entry in options.folder.iterdir() if not entry.name.startswith(".lock") and entry.name != CONFIG_FILE]
    if strangers:
        raise UserError(f"--output {options.output}: is not empty and no dataset ({strangers[0]}...); give another folder")
    _write_config(path, resolved)


def _write_config(path: Path, resolved: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True), encoding="utf-8")


def first_difference(former: dict[str, Any], now: dict[str, Any], prefix: str = "") -> tuple[str, Any, Any] | None:
    """The first option that differs and matters, as a flag's name with both values."""
    for key, value in now.items():
        if not prefix and key in FREE_FIELDS:
            continue
        before = former.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            inner = first_difference(before, value, f"{prefix}{key}.")
            if inner is not None:
                return inner
        elif before != value:
            return (prefix + key).replace("_", "-"), before, value
    return None


if __name__ == "__main__":
    run_command(Options, main)
