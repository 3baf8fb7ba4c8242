"""MUG fine-tuning, from a labelled corpus to a model and its report: `python finetune/run_mug.py --help`."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: import from the checkout, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import contextlib
import importlib.metadata
import io
import json
import os
import resource
import shlex
import shutil
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from finetune.options import MugOptions
from finetune.output_folder import MARGINS, check_output, claim_output, first_margins, seconds_of_sessions, timed_session
from lexicons.errors import UserError
from preprocessing.console import quiet_libraries, run_command
from preprocessing.store import write_json

if TYPE_CHECKING:
    from finetune.corpora import LabelledCorpus
    from finetune.encoders import EncoderSource
    from finetune.variants import Variant

PACKAGES = ("torch", "transformers", "accelerate", "numpy", "scikit-learn")


def main(options: MugOptions) -> None:
    """Run the whole of MUG and write the run's folder; under `accelerate launch` its processes share the batches of each seed."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1 and options.workers > 1:
        raise UserError(f"--workers {options.workers}: under accelerate launch all processes share one seed after the other; leave it out")
    if processes == 1 or os.environ.get("RANK") == "0":
        run(options)
        return
    try:  # what is printed, and what a user is told, comes from the main process alone
        with contextlib.redirect_stdout(io.StringIO()):
            run(options)
    except UserError as error:
        raise SystemExit(2) from error


def run(options: MugOptions) -> None:
    """One process's part of the run: all of it where there is but one."""
    from finetune.processes import Team

    team, began = Team(), time.perf_counter()
    team.on_main(lambda: check_output(options))
    set_threads(options)
    corpus = open_corpus(options)
    source = open_source(options)
    for note in source.load(corpus.audio_width, corpus.vision_width, options.seeds[0])[1]:
        print(f"encoder: {note}")
    variants = plan_variants(options, corpus, source)
    team.on_main(lambda: claim_output(options, corpus, source))
    print_corpus(options, corpus)
    print(f"{len(options.seeds)} seeds x {len(variants)} models: {', '.join(variant.name for variant in variants)}")
    with timed_session(options.output, began, team.is_main) as session:
        session.worked = run_seeds(options, corpus, variants)
    if not team.is_main:
        return
    gather(options, corpus, source, variants)
    print_table(options.output)
    from finetune.report import write_report

    print(f"report: {write_report(options.output).resolve()}")


def print_corpus(options: MugOptions, corpus: "LabelledCorpus") -> None:
    """What was read, what is reported on, and what reading brought to light."""
    sizes = ", ".join(f"{name} {len(split)}" for name, split in corpus.splits.items())
    print(f"{options.dataset}: {sizes}; reported on {corpus.evaluated_on}")
    if corpus.evaluated_on_note:
        print(corpus.evaluated_on_note)
    for finding in corpus.findings:
        print(f"{finding.severity}: {finding.where}: {finding.what} ({finding.count})")


def set_threads(options: MugOptions) -> None:
    """The same number in every process, whatever --workers says: sums over several threads differ in their last digits."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(options.threads)
    threadpool_limits(options.threads)


def open_corpus(options: MugOptions) -> "LabelledCorpus":
    """Read and check the labelled corpus."""
    from finetune.corpora import load_corpus

    fold = {"auto": None, "fold": True, "keep": False}[options.case]
    return load_corpus(
        options.dataset, options.data, fold_case=fold, dev_share=options.dev_share, label_range=options.label_range, made=options.made,
        text_bert=options.text_bert, cache=options.cache,
    )  # fmt: skip


def open_source(options: MugOptions) -> "EncoderSource":
    """Where the encoder comes from."""
    from finetune.encoders import EncoderSource

    return EncoderSource(options.encoder, options.lm, quiet_blocks=options.model.quiet_blocks)


def plan_variants(options: MugOptions, corpus: "LabelledCorpus", source: "EncoderSource") -> "list[Variant]":
    """The models of each seed; what does not apply to this corpus or encoder is left out and said."""
    from finetune.variants import plan

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


def run_seeds(options: MugOptions, corpus: "LabelledCorpus", variants: "list[Variant]") -> bool:
    """Every seed, in this process or in several; says whether anything was left to do."""
    if options.workers == 1 or len(options.seeds) == 1:
        worked = [run_one_seed(options, seed, corpus, variants) for seed in options.seeds]
        return any(worked)
    warm_cache(options, corpus, variants)
    with ProcessPoolExecutor(min(options.workers, len(options.seeds)), get_context("spawn")) as pool:
        futures = [pool.submit(run_one_seed, options, seed, None, variants) for seed in options.seeds]
        try:
            worked = [future.result() for future in as_completed(futures)]
        except BrokenProcessPool as error:
            raise UserError("a worker process died (out of memory?); use fewer --workers, the same command goes on") from error
        finally:
            pool.shutdown(cancel_futures=True)
    return any(worked)


def run_one_seed(options: MugOptions, seed: int, corpus: "LabelledCorpus | None", variants: "list[Variant]") -> bool:
    """One seed; a worker process reads the corpus itself."""
    from finetune.seed_run import SeedRun

    if corpus is None:
        quiet_libraries()
        set_threads(options)
        corpus = open_corpus(options)
    return SeedRun(options, corpus, open_source(options), options.output / "checkpoints" / f"seed-{seed}", seed).run(variants)


def warm_cache(options: MugOptions, corpus: "LabelledCorpus", variants: "list[Variant]") -> None:
    """Have the LM's states on disk before several processes want them at once."""
    from finetune.labels import CROSSFITTED
    from finetune.seed_run import SeedRun

    run = SeedRun(options, corpus, open_source(options), options.output / "checkpoints" / f"seed-{options.seeds[0]}", options.seeds[0])
    for variant in variants:
        train = run.data(variant.start)["train"]
        if variant.generator in CROSSFITTED:
            _ = train.states.cache


def gather(options: MugOptions, corpus: "LabelledCorpus", source: "EncoderSource", variants: "list[Variant]") -> None:
    """Write results.json and the files beside it."""
    from finetune import results
    from finetune.examples import write_examples
    from finetune.recipe import recipe_of
    from finetune.sharing import write_card
    from preprocessing.store import UtteranceDataset

    pieces = results.Pieces(options.output / "checkpoints", options.seeds, variants)
    seconds = seconds_of_sessions(options.output)
    quality = results.unimodal_label_quality(pieces, corpus)
    pretraining = source.pretraining_results()
    peak = max(pieces.peak_memory_mb, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
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
    write_json(options.output / "results.json", entries)
    write_card(options.output / "model", options.output)


def keep_model(options: MugOptions, source: "EncoderSource") -> None:
    """`model/`: the first seed's headline model with its tokenizer, chosen by position and not by result."""
    target = options.output / "model"
    shutil.copytree(options.output / "checkpoints" / f"seed-{options.seeds[0]}" / "model", target, dirs_exist_ok=True)
    source.tokenizer().save_pretrained(target)


def print_table(run: Path) -> None:
    """The result and its controls as a short table on the terminal."""
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    rows = {f"MUG ({results['headline']})": results["metrics"], **results["controls"]}
    keys = [key for key in results["metrics"]["mean"] if "F1" not in key]
    print(f"\n{'':<26}" + "".join(f"{key:>18}" for key in keys))
    for name, values in rows.items():
        cells = [(values["mean"].get(key), values["std"].get(key)) for key in keys]
        print(f"{name:<26}" + "".join(f"{'–' if mean is None else f'{mean:.3f} ± {deviation or 0:.3f}':>18}" for mean, deviation in cells))
    use = results["audio_vision_use"]
    print(f"\n{use['sentence']}\n" if use else "")


if __name__ == "__main__":
    run_command(MugOptions, main)
