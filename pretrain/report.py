"""What a run reports: the lines it prints, `results.json`, and the model card."""

from pathlib import Path
from typing import Any

from accelerate import Accelerator

from preprocessing.blocks import identity
from pretrain.evaluation import Score, verdict
from pretrain.options import DISTIL, RATED, WORD, PretrainOptions
from pretrain.run_folder import RESULTS_FILE, Progress, versions
from pretrain.training_data import TrainingData
from skesl_mug.console import next_command
from skesl_mug.files import write_atomically
from skesl_mug.memory import peak_memory_mb
from skesl_mug.templates import templates
from skesl_mug.wording import counted

SAMPLE = {WORD: "utterance", RATED: "sentence", DISTIL: "utterance"}
OBJECTIVES = {WORD: "SKESL", RATED: "rated sentences", DISTIL: "teacher's scores"}
PURPOSES = {
    WORD: "predict the sentiment intensity of masked words from text, voice and face",
    RATED: "predict people's ratings of texts",
    DISTIL: "predict the scores that a text model gives to the transcripts of utterances",
}
CONTROLS = {"constant": "constant (train median)", "text_only": "text only", "shuffled_audio_vision": "audio and vision permuted"}
UNFINISHED = "The run that trained this encoder is not finished: its controls are missing."


def announce(accelerator: Accelerator, data: TrainingData, options: PretrainOptions) -> None:
    """Print what was found and how it was split."""
    if data.dataset is not None and data.selection is not None and data.train_utterances is not None:
        synthetic = " (synthetic)" if any(source.info.synthetic for source in data.dataset.sources) else ""
        skipped = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in data.selection.skipped.items())
        found = f"{len(data.selection):,} of {counted(len(data.dataset), 'utterance')}{synthetic}"
        accelerator.print(f"Data: {found}{f'; skipped: {skipped}' if skipped else ''}")
        accelerator.print(
            f"Validation: {counted(len(data.held.utterances or ()), 'utterance')} held out by {data.split_by['utterances']}, "
            f"{len(data.train_utterances)} for training; audio {data.width('audio')} columns, vision {data.width('vision')}; text encoder "
            f"{options.lm}{' (frozen)' if options.freeze_lm else ''}"
        )
        if note := speaker_note(data.split_by["utterances"], data.unknown_speakers, len(data.selection)):
            accelerator.print(note)
    if data.rated is not None:
        accelerator.print(
            f"Rated sentences: {data.rated.name}; {len(data.held.sentences or ()):,} of {len(data.rated.texts):,} held out by "
            f"{data.split_by['sentences']}"
        )
        for note in data.rated.notes:
            accelerator.print(f"Note: {note}")
        if options.freeze_lm:
            accelerator.print("Note: the text encoder is frozen; with --train-lm far more is learned from rated sentences.")


def speaker_note(by: str, unknown: int, count: int) -> str:
    """A note on unknown speakers, or on too few of them; empty where all are known and held out whole."""
    if by == "speaker":
        if not unknown:
            return ""
        return f"Note: {counted(unknown, 'utterance')} without a speaker, assigned to the speaker of the same video, else one per video."
    if unknown == count:
        return f"Note: no speaker is known; the validation split is by {by}."
    return f"Note: there are too few speakers to hold out whole ones; the validation split is by {by}."


def describe_data(data: TrainingData) -> dict[str, Any]:
    """The entry `data` of `results.json`."""
    sources = [describe_source(Path(source.folder), source.info) for source in data.dataset.sources] if data.dataset is not None else []
    entries: dict[str, Any] = {
        "path": ", ".join(source["path"] for source in sources),
        "utterances": len(data.dataset) if data.dataset is not None else 0,
        "used": len(data.selection) if data.selection is not None else 0,
        "train": len(data.train_utterances or ()),
        "valid": len(data.held.utterances or ()),
        "skipped": data.selection.skipped if data.selection is not None else {},
        "made": any(source["made"] for source in sources),
        "corpus": ", ".join(str(source["corpus"]) for source in sources),
        "sources": sources,
    }
    if data.rated is not None:
        entries["rated"] = {
            "source": data.rated.name,
            "sha256": data.rated.sha256,
            "sentences": len(data.rated.texts),
            "train": len(data.train_sentences or ()),
            "valid": len(data.held.sentences or ()),
            "split_by": data.split_by["sentences"],
            "notes": list(data.rated.notes),
        }
    return entries


def describe_source(folder: Path, info: Any) -> dict[str, Any]:
    """The parts of `dataset.json` that matter to a reader of the results."""
    features = {name: getattr(info, name) for name in ("audio", "vision")}
    return {
        "path": str(folder),
        "corpus": info.corpus.get("name"),
        "made": info.synthetic,
        "asr": info.asr,
        "lexicon": info.lexicon,
        "counts": info.counts,
        **{
            name: None if f is None else {"extractor": f.extractor, "width": f.width, "rate_hz": f.rate_hz, "identity": identity(f)}
            for name, f in features.items()
        },
    }


def collect_results(
    options: PretrainOptions,
    data: TrainingData,
    progress: Progress,
    scores: dict[str, Score],
    controls: dict[str, Score],
    seconds: dict[str, float],
    precision: str,
) -> dict[str, Any]:
    """The content of `results.json`."""
    main, *others = scores

    def entry(kind: str) -> dict[str, Any]:
        return {**scores[kind], "n": len(data.held.data(kind)), "split_by": data.split_by["sentences" if kind == RATED else "utterances"]}

    return {
        "learned": main,
        "validation": entry(main),
        "also_learned": {kind: entry(kind) for kind in others},
        "controls": controls,
        "best_epoch": progress.best_epoch,
        "history": progress.history,
        "data": describe_data(data),
        "teacher": options.teacher if options.objective.distil else None,
        "text_model": {"name": options.lm, "frozen": options.freeze_lm},
        "av_margin": options.av_margin,
        "precision": precision,
        "versions": versions(),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "peak_memory_mb": peak_memory_mb(),
        "sentence": verdict(scores[main], controls, options.av_margin, len(data.held.data(main)), SAMPLE[main]),
    }


def write_card(
    folder: Path,
    data: TrainingData,
    options: PretrainOptions,
    scores: dict[str, Score],
    controls: dict[str, Score] | None = None,
    remarks: tuple[str, ...] = (UNFINISHED,),
) -> None:
    """Write the model card of the encoder in `folder` (README.md as the Hugging Face hub shows it)."""
    main, *others = scores
    rows = {OBJECTIVES[main]: scores[main]}
    rows |= {CONTROLS.get(name, name): score for name, score in (controls or {}).items()}
    rows |= {OBJECTIVES[kind]: scores[kind] for kind in others}
    lm = Path(options.lm)
    text = (
        templates(Path(__file__).parent)
        .get_template("model_card.md.jinja")
        .render(
            purposes=[PURPOSES[kind] for kind in PURPOSES if kind in scores],
            lm=lm.name if lm.is_absolute() else options.lm,  # no path of this machine in a card
            frozen=options.freeze_lm,
            data={"rated": None, **describe_data(data)},
            rows=rows,
            remarks=remarks,
        )
    )
    write_atomically(folder / "README.md", lambda path: path.write_text(f"{text}\n", encoding="utf-8"))


def summary(results: dict[str, Any], folder: Path) -> str:
    """The closing lines of a run: scores beside their controls, the verdict, where the files are, and the next command."""
    held, main = results["validation"], results.get("learned", WORD)
    lines = [f"\nValidation on {counted(held['n'], SAMPLE[main])} held out by {held['split_by']}, best epoch {results['best_epoch']}:"]
    lines.append(f"  {OBJECTIVES[main] if main != WORD else '':26s}{'MAE':>7s}{'Corr':>8s}")
    lines += [score_line("SKESL", held), *(score_line(CONTROLS[name], score) for name, score in results["controls"].items())]
    for kind, score in results.get("also_learned", {}).items():
        lines.append(score_line(OBJECTIVES[kind], score) + f"   on {score['n']:,} held out by {score['split_by']}")
    lines.append(results["sentence"])
    lines.append(f"{results['seconds']['total']:.0f} s in all, peak memory {results['peak_memory_mb']:.0f} MB.")
    lines.append(f"Model: {folder / 'model'}   results: {folder / RESULTS_FILE}")
    lines.append(f"Curves: tensorboard --logdir {folder / 'logs'}")
    encoder = f"{folder}{' --freeze-lm' if results['text_model']['frozen'] else ''}"
    command = next_command("finetune", "finetune/run_mug.py")
    lines.append(f"Next: {command} --dataset custom --data LABELLED_DATASET --encoder {encoder} --output RUN2")
    return "\n".join(lines)


def score_line(name: str, score: Score) -> str:
    """A row of the closing table."""
    corr = score.get("Corr")
    return f"  {name:26s}{score['MAE']:7.3f}{'–' if corr is None else f'{corr:.3f}'.replace('-', '−'):>8s}"
