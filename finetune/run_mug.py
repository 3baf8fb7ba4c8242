"""MUG fine-tuning, from a labelled corpus to a model and its report: `python finetune/run_mug.py --help`."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: import from the checkout, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import importlib.metadata
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

import yaml

from finetune.options import MugOptions
from lexicons.errors import UserError
from preprocessing.console import COMMAND_FIELDS, quiet_libraries, run_command, to_plain
from preprocessing.store import write_atomically, write_json

if TYPE_CHECKING:
    from finetune.corpora import LabelledCorpus
    from finetune.encoders import EncoderSource
    from finetune.variants import Variant

PACKAGES = ("torch", "transformers", "accelerate", "numpy", "scikit-learn")
FREE_OPTIONS = ("workers", "title", "overwrite")
"""Options that may differ when a stopped run goes on."""


def main(options: MugOptions) -> None:
    """Run the whole of MUG and write the run's folder."""
    check_output(options)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("run_mug.py is one process for each seed: start it plainly and let --workers run seeds side by side")
    began = time.perf_counter()
    corpus = open_corpus(options)
    source = open_source(options)
    for note in source.load(corpus.audio_width, corpus.vision_width, options.seeds[0])[1]:
        print(f"encoder: {note}")
    variants = plan_variants(options, corpus, source)
    claim_output(options, corpus, source)
    trained = [v.name for v in variants]
    print(
        f"{options.dataset}: "
        + ", ".join(f"{name} {len(split)}" for name, split in corpus.splits.items())
        + f"; reported on {corpus.evaluated_on}"
    )
    if corpus.evaluated_on_note:
        print(corpus.evaluated_on_note)
    for finding in corpus.findings:
        print(f"{finding.severity}: {finding.where}: {finding.what} ({finding.count})")
    print(f"{len(options.seeds)} seeds x {len(trained)} models: {', '.join(trained)}")
    run_seeds(options, corpus, variants)
    gather(options, corpus, source, variants, time.perf_counter() - began)
    print_table(options.output)
    from finetune.report import write_report

    print(f"report: {write_report(options.output).resolve()}")


def check_output(options: MugOptions) -> None:
    """See that the output folder is new, or holds a run of the very same options to go on with.

    Raises:
        UserError: it holds a run of other options (named), or something that is no run.
    """
    stored = stored_config(options.output)
    if stored is not None and not options.overwrite:
        wanted = to_plain(options, leave_out=COMMAND_FIELDS | {"output", *FREE_OPTIONS})
        differing = sorted(key for key in wanted if stored.get(key) != wanted[key])
        if differing:
            raise UserError(
                f"--output {options.output}: holds a run of other options ({', '.join(differing)}); name another or add --overwrite"
            )
    elif stored is None and options.output.exists() and any(options.output.iterdir()):
        raise UserError(f"--output {options.output}: is not empty and holds no run of this command; name another folder")


def stored_config(run: Path) -> dict[str, Any] | None:
    """The options of the run that a folder holds; None where it holds none."""
    try:
        stored = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return None
    return stored if isinstance(stored, dict) and {"dataset", "data", "labels", "training"} <= set(stored) else None


def claim_output(options: MugOptions, corpus: "LabelledCorpus", source: "EncoderSource") -> None:
    """Take the run's folder, now that everything could be read: write the resolved options and what they were read from.

    Raises:
        UserError: the folder holds a run of the same options over other data or another encoder.
    """
    if options.overwrite and stored_config(options.output) is not None:  # nothing but a run of this command is ever deleted
        shutil.rmtree(options.output)
    identity = {"data": corpus.sha256, "encoder": source.fingerprint()}
    path = options.output / "checkpoints" / "identity.json"
    if path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
        changed = [f"--{name}" for name in identity if stored.get(name) != identity[name]]
        if changed:
            raise UserError(f"--output {options.output}: was begun with other content behind {' and '.join(changed)}; add --overwrite")
    else:
        write_json(path, identity)
    text = yaml.safe_dump(to_plain(options, leave_out=COMMAND_FIELDS), sort_keys=False, allow_unicode=True)
    write_atomically(options.output / "config.yaml", lambda path: path.write_text(text, encoding="utf-8"))


def open_corpus(options: MugOptions) -> "LabelledCorpus":
    """Read and check the labelled corpus."""
    from finetune.corpora import load_corpus

    fold = {"auto": None, "fold": True, "keep": False}[options.case]
    return load_corpus(
        options.dataset, options.data, fold_case=fold, dev_share=options.dev_share, label_range=options.label_range, made=options.made
    )


def open_source(options: MugOptions) -> "EncoderSource":
    """Where the encoder comes from."""
    from finetune.encoders import EncoderSource

    return EncoderSource(options.encoder, options.lm, quiet_blocks=options.model.quiet_blocks)


def plan_variants(options: MugOptions, corpus: "LabelledCorpus", source: "EncoderSource") -> "list[Variant]":
    """The models of each seed; what does not apply to this corpus or encoder is left out and said."""
    from finetune.variants import plan

    check_generators(options, corpus)
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
    from finetune.modalities import HUMAN_LABELS

    train, chosen = corpus.splits["train"], {options.labels, *options.compare_labels}
    if "human" in chosen and all(getattr(train, name) is None for name in HUMAN_LABELS.values()):
        raise UserError("--labels human: this corpus has no unimodal labels (label_T, label_A, label_V); choose another generator")
    by_video = options.generators.crossfit.folds_by == "video"
    if by_video and len(set(train.video_ids)) < 2 and chosen & {"mucn-crossfit", "regressor", "shuffled"}:
        raise UserError(
            "--labels: cross-fitting by video needs two videos in train, this corpus has one; add --generators.crossfit.folds-by utterance"
        )


def run_seeds(options: MugOptions, corpus: "LabelledCorpus", variants: "list[Variant]") -> None:
    """Every seed, in this process or in several."""
    if options.workers == 1 or len(options.seeds) == 1:
        for seed in options.seeds:
            run_one_seed(options, seed, corpus, variants)
        return
    warm_cache(options, corpus, variants)
    with ProcessPoolExecutor(min(options.workers, len(options.seeds)), get_context("spawn")) as pool:
        futures = [pool.submit(run_one_seed, options, seed, None, variants) for seed in options.seeds]
        try:
            for future in as_completed(futures):
                future.result()
        except BrokenProcessPool as error:
            raise UserError("a worker process died (out of memory?); use fewer --workers, the same command goes on") from error
        finally:
            pool.shutdown(cancel_futures=True)


def run_one_seed(options: MugOptions, seed: int, corpus: "LabelledCorpus | None", variants: "list[Variant]") -> None:
    """One seed; a worker process reads the corpus itself."""
    import torch

    from finetune.seed_run import SeedRun

    if corpus is None:
        quiet_libraries()
        torch.set_num_threads(1)
        corpus = open_corpus(options)
    SeedRun(options, corpus, open_source(options), options.output / "checkpoints" / f"seed-{seed}", seed).run(variants)


def warm_cache(options: MugOptions, corpus: "LabelledCorpus", variants: "list[Variant]") -> None:
    """Have the LM's states on disk before several processes want them at once."""
    from finetune.seed_run import SeedRun

    run = SeedRun(options, corpus, open_source(options), options.output / "checkpoints" / f"seed-{options.seeds[0]}", options.seeds[0])
    for start in {variant.start for variant in variants}:
        run.data(start)


def gather(options: MugOptions, corpus: "LabelledCorpus", source: "EncoderSource", variants: "list[Variant]", seconds: float) -> None:
    """Write results.json and the files beside it."""
    from finetune import results
    from finetune.examples import write_examples
    from preprocessing.store import INFO_FILE, UtteranceDataset

    pieces = results.Pieces(options.output / "checkpoints", options.seeds, variants)
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
        "margins": {"label_margin": options.label_margin, "retrieval_factor": options.retrieval_factor, "av_margin": options.av_margin},
        "audio_vision_use": results.audio_vision_use(pieces, corpus, options),
        "preprocessing": results.preprocessing_of(corpus),
        "pretraining": pretraining,
        "steps": results.steps_of(pieces, corpus, pretraining, seconds),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "data_sha256": corpus.sha256,
        "seconds": {**pieces.stage_seconds, "whole run": round(seconds, 1)},
        "peak_memory_mb": round(peak, 1),
        "command": "python finetune/run_mug.py " + shlex.join(sys.argv[1:]),
    }
    results.write_tables(options.output, pieces, corpus)
    results.write_curves(options.output, pieces)
    has_clips = (options.data / INFO_FILE).is_file()
    write_examples(options.output, UtteranceDataset(options.data) if has_clips else None)
    keep_model(options, source)
    write_json(options.output / "results.json", entries)


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
