"""MUG fine-tuning, from a labelled corpus to a model and its report: `python finetune/run_mug.py --help`."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: import from the checkout, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import contextlib
import importlib.metadata
import io
import os
import shlex
import shutil
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from finetune.options import MugOptions, TrainOptions
from finetune.training.first_checks import check_places
from finetune.training.output_folder import (
    CHECKPOINTS,
    MARGINS,
    check_output,
    claim_output,
    first_margins,
    seconds_of_sessions,
    timed_session,
)
from finetune.training.variants import humanise, model_name, variant_name
from skesl_mug.console import next_command, run_command, say_loading
from skesl_mug.errors import UserError
from skesl_mug.files import write_json
from skesl_mug.memory import peak_memory_mb
from skesl_mug.wording import counted

if TYPE_CHECKING:
    from finetune.corpora import LabelledCorpus
    from finetune.model.encoders import EncoderSource
    from finetune.training.variants import Variant

PACKAGES = ("torch", "transformers", "accelerate", "numpy", "scikit-learn")


def main(options: MugOptions) -> None:
    """Run the whole of MUG and write the run's folder; under `accelerate launch` its processes share the batches of each seed."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1 and options.workers > 1:
        raise UserError(f"--workers {options.workers}: under accelerate launch all processes share one seed after the other; leave it out")
    if processes == 1 or os.environ.get("RANK") == "0":
        check_output(options)
        check_places(options)
        say_loading("transformers")
        run(options)
        return
    try:  # what is printed, and what a user is told, comes from the main process alone
        with contextlib.redirect_stdout(io.StringIO()):
            run(options)
    except UserError as error:
        raise SystemExit(2) from error


def run(options: MugOptions) -> None:
    """One process's part of the run: all of it where there is but one."""
    began = time.perf_counter()
    from transformers.utils import logging

    from finetune.training.experiment import Experiment, open_corpus, set_threads
    from finetune.training.processes import Team
    from finetune.training.trainer import Setting, open_source

    if not options.debug:
        logging.disable_progress_bar()  # of writing a shard or loading weights, amid our own bars
    team = Team()
    set_threads(options)
    corpus = open_corpus(options)
    source = open_source(options)
    for note in source.load(corpus.audio_width, corpus.vision_width, options.seeds[0])[1]:
        print(f"encoder: {note}")
    variants = plan_variants(options, corpus, source)
    with contextlib.ExitStack() as held:
        team.on_main(partial(claim_output, options, corpus, source, held))
        print_corpus(options, corpus)
        names = ", ".join(variant_name(variant.name, options.labels) for variant in variants)
        print(f"{counted(len(options.seeds), 'seed')} x {counted(len(variants), 'model')}: {names}")
        with timed_session(options.output, began, team.is_main) as session:
            setting = Setting("", options, variants, keep_model=True, permuted="permuted" in options.controls)
            session.worked = Experiment([setting], options.seeds, corpus, options.output / CHECKPOINTS).run()
        if not team.is_main:
            return
        if not session.worked:
            print("every model of this run was trained before: only its table and report are written anew")
        gather(options, corpus, source, variants)
        write_out(options, corpus)


def write_out(options: MugOptions, corpus: "LabelledCorpus") -> None:
    """The table on the terminal, the report, and what comes next."""
    from finetune.report import write_report

    print_table(options.output)
    print(f"report: {write_report(options.output).resolve()}")
    if corpus.info is not None:  # what was made by preprocessing can be made of another video
        print(f"next:   {next_command('predict', 'finetune/predict.py')} VIDEO --model {options.output}")


def print_corpus(options: TrainOptions, corpus: "LabelledCorpus") -> None:
    """What was read, what is reported on, and what reading brought to light."""
    sizes = ", ".join(f"{name} {len(split)}" for name, split in corpus.splits.items())
    low, high = corpus.label_range
    print(f"{options.dataset}: {sizes}; labels from {low:g} to {high:g}; reported on {corpus.evaluated_on}")
    if corpus.evaluated_on_note:
        print(corpus.evaluated_on_note)
    for finding in corpus.findings:
        print(f"{finding.severity}: {finding.where}: {f'{finding.count:,} ' if finding.count > 1 else ''}{finding.what}")


def plan_variants(options: MugOptions, corpus: "LabelledCorpus", source: "EncoderSource") -> "list[Variant]":
    """The models of each seed; what does not apply to this corpus or encoder is left out and said."""
    from finetune.training.variants import plan

    check_generators(options, corpus)
    if "copy" in options.compare_labels and options.training.unimodal_weighting == "tanh":
        print("labels copy left out: --training.unimodal-weighting tanh weighs copied labels with tanh 0 = 0")
    plain = source.without_pretraining()
    if "no-pretraining" in options.controls and plain is None:
        print(
            "control no-pretraining left out: "
            + ("the run does not say its language model" if options.encoder else "the encoder is not pretrained")
        )
    if corpus.modalities == ("text",):
        print("controls text-only and permuted left out: the corpus has neither audio nor vision")
    return plan(options, plain is not None, corpus.modalities)


def check_generators(options: MugOptions, corpus: "LabelledCorpus") -> None:
    """Refuse label generators that this corpus cannot feed before anything is trained.

    Raises:
        UserError: `human` without unimodal labels, or cross-fitting by video with a single video.
    """
    from finetune.labels import CROSSFITTED
    from finetune.modalities import HUMAN_LABELS

    train, chosen = corpus.splits["train"], {options.labels, *options.compare_labels}
    if "human" in chosen and all(getattr(train, name) is None for name in HUMAN_LABELS.values()):
        raise UserError("--labels human: this corpus has no unimodal labels (label_T, label_A, label_V); choose another generator")
    by_video = options.generators.crossfit.folds_by == "video"
    if by_video and len(set(train.video_ids)) < 2 and chosen & CROSSFITTED:
        raise UserError(
            "--labels: cross-fitting by video needs two videos in train, this corpus has one; add --generators.crossfit.folds-by utterance"
        )


def gather(options: MugOptions, corpus: "LabelledCorpus", source: "EncoderSource", variants: "list[Variant]") -> None:
    """Write results.json and the files beside it."""
    from finetune.prediction.model_folder import write_card
    from finetune.prediction.recipe import recipe_of, write_clips
    from finetune.training import results
    from finetune.training.examples import write_examples
    from preprocessing.store import UtteranceDataset

    pieces = results.Pieces(options.output / CHECKPOINTS, options.seeds, variants)
    seconds = seconds_of_sessions(options.output)
    quality = results.unimodal_label_quality(pieces, corpus)
    pretraining = source.pretraining_results()
    peak = max(pieces.peak_memory_mb, peak_memory_mb())
    entries: dict[str, Any] = {
        "dataset": options.dataset,
        "title": options.title,
        "data": corpus.describe(),
        "evaluated_on": corpus.evaluated_on,
        "evaluated_on_note": corpus.evaluated_on_note,
        "headline": options.labels,
        "seeds": options.seeds,
        "metrics": results.metrics_of(pieces),
        "unimodal_head_metrics": results.head_metrics_of(pieces),
        "interval": results.interval_of(pieces, corpus, options),
        "controls": results.controls_of(pieces, corpus, options),
        "unimodal_labels": quality.get(options.labels, {}),
        "unimodal_labels_by_generator": quality,
        "alignment": results.alignment_of(pieces),
        "margins": {name: getattr(options, name) for name in MARGINS},
        "margins_at_first": first_margins(options.output),
        "audio_vision_use": results.audio_vision_use(pieces, corpus, options, first_margins(options.output)["av_margin"]),
        "preprocessing": results.preprocessing_of(corpus),
        "pretraining": pretraining,
        "steps": results.steps_of(pieces, corpus, pretraining, seconds),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "data_sha256": corpus.sha256,
        "seconds": {**pieces.stage_seconds, "whole run": seconds},
        "peak_memory_mb": round(peak, 1),
        "command": "python finetune/run_mug.py " + shlex.join(sys.argv[1:]),
    }
    results.write_tables(options.output, pieces, corpus)
    results.write_curves(options.output, pieces)
    has_clips = corpus.info is not None
    write_examples(options.output, UtteranceDataset(corpus.local) if has_clips else None)
    keep_model(options, source)
    recipe_of(options, corpus, entries).write(options.output / "model")
    if has_clips:
        write_clips(options.output / "model", {name: split.ids for name, split in corpus.splits.items()})
    write_json(options.output / "results.json", entries)
    write_card(options.output / "model", options.output)


def keep_model(options: MugOptions, source: "EncoderSource") -> None:
    """`model/`: the first seed's headline model with its tokenizer, chosen by position and not by result."""
    target = options.output / "model"
    shutil.copytree(options.output / CHECKPOINTS / f"seed-{options.seeds[0]}" / "model", target, dirs_exist_ok=True)
    source.tokenizer().save_pretrained(target)


def print_table(run: Path) -> None:
    """The result and its controls as a short table on the terminal."""
    from finetune.report.run_results import RunResults
    from finetune.report.tables import columns_for, figures, result_lines
    from finetune.report.verdict import audio_vision

    results = (folder := RunResults(run)).results
    entries = {"": results["metrics"], **results["controls"]}
    several = len(results["seeds"]) > 1  # the spread of one seed is unknown, not 0; a constant has none
    columns = columns_for(results["metrics"]["mean"])
    rows = [
        (humanise(name) if name else model_name(results["headline"]), figures(entry, columns, several and name != "constant"), ())
        for name, entry in entries.items()
    ]
    print("\n" + result_lines("", columns, rows))
    used = audio_vision(folder).replace("**", "")
    print(f"\n{used}\n" if used else "")


if __name__ == "__main__":
    run_command(MugOptions, main)
