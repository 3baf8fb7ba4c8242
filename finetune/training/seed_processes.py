"""The seeds of a run, one after the other in this process or side by side in several."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from finetune.corpora import LabelledCorpus, load_corpus
from finetune.labels import WITHOUT_DESCRIPTORS
from finetune.model.encoders import EncoderSource, encoder_source
from finetune.options import MugOptions, TrainOptions
from finetune.training.seed_run import SeedRun
from finetune.training.variants import Variant
from skesl_mug.console import line_by_line, quiet_libraries
from skesl_mug.errors import UserError
from skesl_mug.interruption import ctrl_c_ignored, end_with_parent

FEW_DRAW = 64
"""Of the draw of --few's utterances, beside the seed."""


def open_corpus(options: TrainOptions) -> LabelledCorpus:
    """Read and check the labelled corpus; with --few its train split is that many of its utterances."""
    fold = {"auto": None, "fold": True, "keep": False}[options.case]
    corpus = load_corpus(
        options.dataset, options.data, fold_case=fold, dev_share=options.dev_share, label_range=options.label_range, made=options.made,
        text_bert=options.text_bert, cache=options.cache,
    )  # fmt: skip
    if isinstance(options, MugOptions) and options.few is not None:
        if options.few > len(corpus.splits["train"]):
            raise UserError(f"--few {options.few}: train has {len(corpus.splits['train'])} utterances; give that number, or fewer")
        draw_few(corpus, options.few, options.seeds[0])
    return corpus


def draw_few(corpus: LabelledCorpus, few: int, seed: int) -> None:
    """Leave so many utterances of a corpus's train split, drawn at random."""
    train = corpus.splits["train"]
    chosen = np.random.default_rng((seed, FEW_DRAW)).permutation(len(train))[:few]
    corpus.splits["train"] = train.select(np.sort(chosen))


def open_source(options: TrainOptions) -> EncoderSource:
    """Where the encoder comes from."""
    return encoder_source(options.encoder, options.lm, options.model.zero_init_blocks, options.lm_layer)


def set_threads(options: TrainOptions) -> None:
    """The same number in every process, whatever --workers says: sums over several threads differ in their last digits."""
    torch.set_num_threads(options.threads)
    threadpool_limits(options.threads)


def run_seeds(options: MugOptions, corpus: LabelledCorpus, variants: list[Variant]) -> bool:
    """Every seed; says whether anything was left to do.

    Raises:
        UserError: a worker process died.
    """
    permuted = "permuted" in options.controls
    if options.workers == 1 or len(options.seeds) == 1:
        worked = [seed_run(options, seed, corpus).run(variants, permuted) for seed in options.seeds]
        return any(worked)
    if not any(seed_run(options, seed, corpus).missing(variants, permuted) for seed in options.seeds):
        return False
    warm_cache(options, corpus, variants)
    return any(in_processes(options, partial(_run_one_seed, options, variants)))


def in_processes(options: TrainOptions, work: Callable[[int], bool]) -> list[bool]:
    """`work` of every seed, --workers at a time, each in a process of its own; it has to be picklable.

    Raises:
        UserError: a worker process died.
    """
    context = multiprocessing.get_context("spawn")  # not forked: torch's threads and locks do not survive a fork
    with ProcessPoolExecutor(min(options.workers, len(options.seeds)), context, initializer=_start) as pool:
        with ctrl_c_ignored():
            futures = [pool.submit(work, seed) for seed in options.seeds]
        try:
            return [future.result() for future in as_completed(futures)]
        except BrokenProcessPool as error:
            raise UserError("a worker process died (out of memory?); use fewer --workers, the same command goes on") from error
        except BaseException:
            for child in multiprocessing.active_children():  # every finished piece is on disk; nobody waits for the ones in work
                child.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def seed_run(options: MugOptions, seed: int, corpus: LabelledCorpus) -> SeedRun:
    """One seed's part of the run's folder."""
    return SeedRun(options, corpus, open_source(options), options.output / "checkpoints" / f"seed-{seed}", seed)


def warm_cache(options: MugOptions, corpus: LabelledCorpus, variants: list[Variant]) -> None:
    """Have the LM's states on disk before several processes want them at once."""
    run = seed_run(options, options.seeds[0], corpus)
    for variant in variants:
        train = run.data(variant.start)["train"]
        if variant.generator not in WITHOUT_DESCRIPTORS:
            _ = train.states.cache


def _start() -> None:
    quiet_libraries()
    line_by_line()
    end_with_parent()


def _run_one_seed(options: MugOptions, variants: list[Variant], seed: int) -> bool:
    """In a worker process, which reads the corpus itself (memory-mapped, so its pages are shared)."""
    set_threads(options)
    return seed_run(options, seed, open_corpus(options)).run(variants, "permuted" in options.controls)
