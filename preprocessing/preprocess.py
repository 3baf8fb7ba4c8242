"""`preprocess`: a corpus of videos becomes an utterance dataset."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocessing.extensions import LAST_LAYER
from preprocessing.object_store import Mirror, is_url
from preprocessing.options import AUTO, MIX, SPLIT, Options, one_thread, whisper_settings
from skesl_mug.console import COMMAND_FIELDS, check_writable, make_options, read_stored_options, say_loading, to_plain
from skesl_mug.errors import UserError
from skesl_mug.registry import as_path, fingerprint
from skesl_mug.run_folder import CONFIG_FILE, RunFolder
from skesl_mug.wording import counted

if TYPE_CHECKING:
    from preprocessing.layouts import Corpus
    from preprocessing.pipeline import PipelineSettings
    from preprocessing.records import Part
    from preprocessing.schema import DatasetInfo

FREE_OPTIONS = frozenset(
    {"output", "plugin", "work", "workers", "engine", "ray", "part", "limit", "overwrite", "reference_transcripts", "label_range"}
)
"""Options that may change when a job resumes: utterances do not depend on them (the label range is in dataset.json)."""
OUR_FILES = ("dataset.json", "clips.csv", "clips-*-of-*.csv", ".journal*.bin")


def preprocess(corpus: str, root: str | Path, output: str | Path, **options: Any) -> "DatasetInfo":
    """Turn a corpus of videos or sound files into an utterance dataset; calling it again resumes an unfinished job.

    Args:
        corpus: its layout: voxceleb1, voxceleb2, mosi, mosei, sims, simsv2, folder, or a registered one.
        root: folder of the videos and sound files.
        output: folder of the dataset, or a location on an object store (s3://...).
        **options: those of the command `skesl-mug preprocess` (docs/options.md), with `_` for `-`; groups are dicts:
            `workers=4, vision="mesh-au", asr={"model": "base"}`. `plugin=["my_module"]` is needed if worker processes have to import a
            plugin that the calling script does not import itself.

    Returns:
        the content of `dataset.json`: how features were made, clips kept and skipped. Open the dataset with `read_dataset(output)`.

    Raises:
        UserError: an option, the corpus or the output folder is unusable, or no clip could be used.

    Worker processes are spawned: with `workers` above 1, scripts need the usual `if __name__ == "__main__":`.
    """
    options |= {name: [options[name]] for name in ("audio", "vision") if isinstance(options.get(name), str)}
    resolved = make_options(Options, {"corpus": corpus, "root": root, "output": output, **options})
    info, _ = run_job(resolved)
    check_used(info, resolved)
    return info


def run_job(options: Options) -> "tuple[DatasetInfo, bool]":
    """Find the clips and process those that are not done yet.

    Returns:
        the content of `dataset.json`, and whether there was anything to do.
    """
    check_writable(options.folder)
    one_thread()  # before numpy and its like are imported
    from preprocessing.layouts import find_corpus

    corpus = find_corpus(options.corpus, options.root, options.labels, options.folds)
    set_label_range(corpus, options)
    filter_corpus(corpus, options)
    clips = corpus.clips[: options.limit]
    announce(corpus, len(clips))
    say_loading("mediapipe")
    from preprocessing.facts import edited_transcripts, read_references, renew_facts
    from preprocessing.job import Job
    from preprocessing.records import Part, info_lock, job_lock
    from preprocessing.summary import write_summary

    references = read_references(options.reference_transcripts) if options.reference_transcripts is not None else None
    settings = pipeline_settings(options)
    part = Part.parse(options.part)
    mirror = Mirror(options.folder, options.output) if is_url(options.output) else None
    with job_lock(options.folder, part):
        replaced = options.overwrite and delete_dataset(options.folder, mirror)
        if mirror is not None and not options.overwrite:
            mirror.pull()
        with info_lock(options.folder):
            claim_folder(options, replaced)
            check_plugins(options)
            job = Job(options.folder, corpus, settings, options.workers, part, options.ray if options.engine == "ray" else None, mirror)
        try:
            with info_lock(options.folder):
                renewed = renew_facts(options.folder, corpus, part)
            if renewed:
                print(f"updated labels, splits and speakers of {counted(renewed, 'utterance')}")
            if edited := edited_transcripts(options.folder, corpus, part):
                # words, masks and features aligned to words depend on transcripts: unlike labels they cannot be updated
                print(
                    f"note: the corpus's transcripts of {counted(len(edited), 'utterance')} (such as {edited[0]}) differ from those in the "
                    "dataset, which are kept; --overwrite processes everything again"
                )
            remaining = job.remaining(clips)
            if not remaining and references is None and is_finished(options, part, len(job.done), renewed > 0):
                info = finish_complete(options, mirror, renewed > 0, part)
                print(f"{options.output}: already complete, {counted(len(clips), 'clip')}; nothing to do (--overwrite starts again)")
                return info, False
            done = sum(part.owns_clip(clip.id) for clip in clips) - len(remaining)
            if remaining and done:
                print(f"{counted(done, 'clip')} done already; {len(remaining)} to go")
            info = cap_zero_masks(job.run(remaining, references), options, part)
            related = relate(options.folder, part)
            write_summary(options.folder)
            if mirror is not None:
                mirror.push(rewritten=renewed > 0 or options.mask.max_zero_share < 1.0 or related, whole=part.whole)
        finally:
            job.close()
    return info, True


def check_used(info: "DatasetInfo", options: Options) -> None:
    """Check that at least one clip was kept, once the whole corpus is processed.

    Raises:
        UserError: none was.
    """
    if not info.counts["kept"] and options.part == "1/1":
        raise UserError(f"--root {options.root}: no clip could be used; the reasons are in {options.folder / 'clips.csv'}")


def finish_complete(options: Options, mirror: Mirror | None, renewed: bool, part: "Part") -> "DatasetInfo":
    """With no clip left to do: bring updated facts into the summary and to the object store."""
    from preprocessing.store import read_info
    from preprocessing.summary import write_summary

    info = read_info(options.folder)  # raises an error if it is damaged
    if renewed:
        write_summary(options.folder)
    if mirror is not None:
        mirror.push(rewritten=renewed, whole=part.whole)
    return info


def cap_zero_masks(info: "DatasetInfo", options: Options, part: "Part") -> "DatasetInfo":
    """Limit the share of masks of intensity 0 to --mask.max-zero-share, once all clips are counted."""
    if options.mask.max_zero_share >= 1.0 or not info.counts["kept"]:
        return info
    if not part.whole:
        print(f"note: when all parts are done, run `python -m preprocessing.remask {options.folder}` with the same --lexicon and --mask")
        return info
    from lexicons.sources import load_lexicon
    from preprocessing.remask import remask
    from preprocessing.store import read_info

    remask(options.folder, load_lexicon(options.lexicon, options.lexicon_scale), options.mask, options.seed)
    return read_info(options.folder)


def relate(folder: Path, part: "Part") -> bool:
    """Fill the columns that are relative to the speaker, once all clips are done; says whether shards were rewritten."""
    from preprocessing.sound.speakers import has_speaker_columns, relate_to_speakers
    from preprocessing.store import read_info

    info = read_info(folder)
    if not has_speaker_columns(info) or not info.counts["kept"]:
        return False
    if not part.whole:
        print("note: the columns relative to the speaker are 0 until the same command runs without --part, when all parts are done")
        return False
    return relate_to_speakers(folder)


def filter_corpus(corpus: "Corpus", options: Options) -> None:
    """Mark the clips that the options exclude, drop given transcripts with --transcripts asr, and divide clips with --channels split."""
    from preprocessing.layouts.voxceleb import keep_nationalities

    if options.nationality:
        keep_nationalities(corpus, options.nationality, options.root, options.metadata)
    if options.transcripts == "asr":
        corpus.clips = [replace(clip, transcript=None) for clip in corpus.clips]
    if options.channels == SPLIT:
        from preprocessing.tracks import split_clips

        corpus.clips, notes = split_clips(corpus.clips, options.audio_track)
        corpus.notes += notes
    changed = {"audio_track": options.audio_track, "channels": options.channels}
    corpus.info |= {name: value for name, value in changed.items() if value not in (AUTO, MIX)}
    if options.asr.model == "none" and not any(clip.transcript for clip in corpus.clips):
        why = "--transcripts asr ignores its transcripts" if options.transcripts == "asr" else "the corpus has no transcripts"
        raise UserError(f"--asr.model none: {why}, and utterances need words; choose a model, or supply transcripts (docs/corpora.md)")


def set_label_range(corpus: "Corpus", options: Options) -> None:
    """Set the label range: from --label-range, else corpus.json, else the labels (which is printed)."""
    from preprocessing.layouts.folder import check_range, describe_range, observed_range

    values = [value for clip in corpus.clips for value in clip.labels.values()]
    if not values:
        return
    if options.label_range is not None:
        corpus.label_range = options.label_range
        check_range(corpus.clips, options.label_range, "--label-range")
    elif corpus.label_range is None:
        corpus.label_range = observed_range(values)
        print(describe_range(values, corpus.label_range))


def pipeline_settings(options: Options) -> "PipelineSettings":
    """The settings that worker processes need."""
    from preprocessing.pipeline import PipelineSettings

    return PipelineSettings(
        whisper=whisper_settings(options.asr),
        batch=options.asr.batch,
        align=options.asr.align,
        audio=options.audio,
        audio_layer=options.audio_layer,
        vision=options.vision,
        vision_fps=options.vision_fps,
        faces=options.faces,
        openface=str(options.openface) if options.openface is not None else None,
        align_features=options.align == "words",
        lexicon=options.lexicon,
        lexicon_scale=options.lexicon_scale,
        mask_context=options.mask.context,
        skip_without_face=options.skip_without_face,
        audio_track=options.audio_track,
        channels=MIX if options.channels == SPLIT else options.channels,  # clips of one channel say which
        min_seconds=options.min_seconds,
        max_seconds=options.max_seconds,
        seed=options.seed,
        quiet=not options.debug,
        plugins=[name if (path := as_path(name)) is None else str(path) for name in options.plugin],  # workers may start elsewhere
    )


def announce(corpus: "Corpus", count: int) -> None:
    """Print one line about the corpus, and its notes."""
    speakers = len({clip.speaker for clip in corpus.clips})
    of_speakers = f" of {counted(speakers, 'speaker')}" if speakers < len(corpus.clips) else ""  # else speakers are unknown
    kind = " (synthetic)" if corpus.info.get("synthetic") else ""
    labelled = sum(bool(clip.labels) for clip in corpus.clips)
    print(
        f"{corpus.info['name']}{kind}: {counted(len(corpus.clips), 'clip')}{of_speakers}, {labelled} labelled"
        + (f"; only the first {count}" if count < len(corpus.clips) else "")
    )
    for note in corpus.notes:
        print(f"note: {note}")


def check_plugins(options: Options) -> None:
    """Check that the code of the plugins is that with which the dataset in the output folder was made.

    Raises:
        UserError: it is not, so that utterances already there would differ from the others.
    """
    from preprocessing.blocks import blocks_of
    from preprocessing.extensions import AUDIO_FEATURES, LAYOUTS, VISION_FEATURES
    from preprocessing.features import SOURCE
    from preprocessing.store import INFO_FILE, read_info

    if not (options.folder / INFO_FILE).is_file():
        return
    info = read_info(options.folder)
    stored = [
        ("--corpus", LAYOUTS, options.corpus, info.corpus),
    ]
    stored += [("--audio", AUDIO_FEATURES, block.extractor, block.settings) for block in blocks_of(info.audio)]
    stored += [("--vision", VISION_FEATURES, block.extractor, block.settings) for block in blocks_of(info.vision)]
    for flag, registry, name, settings in stored:
        if SOURCE in settings and name in registry:
            registered = registry.get(name)
            source = fingerprint(getattr(registered, "maker", registered))
            if source not in (None, settings[SOURCE]):
                raise UserError(
                    f"{flag} {name}: the plugin's code has changed since this dataset was made; choose another folder, or add --overwrite"
                )


def is_finished(options: Options, part: "Part", clips: int, renewed: bool) -> bool:
    """Whether a job over `clips` clips, all of them done, also wrote what is written at its end. `renewed`: speakers may have changed."""
    from preprocessing.sound.speakers import SPEAKERS, has_speaker_columns
    from preprocessing.store import read_info

    if not (options.folder / "dataset.json").is_file():
        return False
    info = read_info(options.folder)
    if not part.whole:
        return True
    capped = options.mask.max_zero_share >= 1.0 or not info.counts["kept"] or "max_zero_share" in (info.lexicon or {})
    summarised = not info.counts["kept"] or (options.folder / "summary.html").is_file()
    related = not has_speaker_columns(info) or not info.counts["kept"] or (SPEAKERS in info.counts and not renewed)
    return info.counts["kept"] + sum(info.counts["skipped"].values()) == clips and capped and summarised and related


def has_dataset(folder: Path) -> bool:
    """Whether a folder has files of a dataset or of an unfinished job."""
    return any(any(folder.glob(pattern)) for pattern in OUR_FILES)


def delete_dataset(folder: Path, mirror: Mirror | None = None) -> bool:
    """Delete the dataset in a folder and on the object store, only files that preprocessing writes; says whether the folder had one."""
    if mirror is not None:
        mirror.delete()
    if not has_dataset(folder):
        return False
    if not (folder / "dataset.json").is_file() and not _is_ours(folder):
        raise UserError(f"--output {folder}: is not empty and does not hold an utterance dataset; choose another folder")
    for pattern in (*OUR_FILES, CONFIG_FILE, "summary.html", "data/part-*.parquet", "data/.*.tmp"):
        for path in folder.glob(pattern):
            path.unlink()
    with suppress(OSError):  # it holds other files
        (folder / "data").rmdir()
    return True


def _is_ours(folder: Path) -> bool:
    """Whether a folder's config.yaml is one of preprocessing."""
    config = folder / CONFIG_FILE
    return config.is_file() and "root" in read_stored_options(config)


def claim_folder(options: Options, replaced: bool = False) -> None:
    """Write the resolved options to the output folder, after comparing them with those of the job that is in it.

    Raises:
        UserError: the folder has a job with other options, or something else.
    """
    newer = {"audio_track": AUTO, "channels": MIX, "audio_layer": LAST_LAYER}
    run = RunFolder(options.folder, "an utterance dataset", FREE_OPTIONS, newer, is_ours=lambda stored: "root" in stored)
    others = [path for path in options.folder.iterdir() if not path.name.startswith(".lock") and path.name != CONFIG_FILE]
    if not others and _is_ours(options.folder):
        run.config.unlink()  # of a job that failed before its first clip
    if replaced:  # other files may be left
        run.write_config(to_plain(options, leave_out=COMMAND_FIELDS))
        return
    try:
        run.claim(to_plain(options, leave_out=COMMAND_FIELDS))
    except UserError as error:
        raise UserError(str(error).replace(f"--output {options.folder}:", f"--output {options.output}:")) from error
