"""The recipe of pretraining, top to bottom: data, model, text states, training, controls, results."""

import io
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DataLoaderConfiguration, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedType, DynamoBackend, TorchDynamoPlugin, set_seed
from filelock import FileLock, Timeout

from lexicons.rated import HUTTO
from pretrain.card import write_card
from pretrain.checkpoints import Progress
from pretrain.controls import run_controls, verdict
from pretrain.crossmodal import feature_statistics
from pretrain.encoder import SkeslForMaskedIntensity, load_tokenizer
from pretrain.evaluation import DISTIL, RATED, WORD, Score, evaluate, labels_of
from pretrain.loop import Trainer
from pretrain.options import PretrainOptions
from pretrain.run_folder import (
    CONFIG_FILE,
    MASKED_TEXTS,
    RESULTS_FILE,
    TEXT_STATES,
    open_run_folder,
    other_options,
    read_results,
    save_model,
    versions,
)
from pretrain.starter import STARTER, is_trained, starter_lm, starter_options
from pretrain.text_cache import TextStateCache, cache_bytes
from pretrain.text_layers import check_layer, describe_layers
from pretrain.text_models import load_config, quiet_loading, resolve_text_model
from pretrain.training_data import TrainingData, announce, describe_data, load_data
from skesl_mug.console import COMMAND_FIELDS, next_command, to_plain
from skesl_mug.errors import UserError
from skesl_mug.files import write_json
from skesl_mug.memory import peak_memory_mb
from skesl_mug.wording import counted

SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
JOB_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
"""By which a process knows that it is one of several."""
RATING_DIM = 64
"""Inner width of the head that rates utterances: `--model.dim` of fine-tuning, which can start from it."""
SAMPLE = {WORD: "utterance", RATED: "sentence", DISTIL: "utterance"}
LEARNED = {WORD: "SKESL", RATED: "rated sentences", DISTIL: "teacher's scores"}


def pretrain(options: PretrainOptions) -> dict[str, Any]:
    """Run pretraining as `options` say and return the content of `results.json`.

    Raises:
        UserError: the data, the text model or the output folder cannot be used.
    """
    teacher = None
    if options.objective.distil:
        lm = starter_lm(options.teacher)
        teacher = options.teacher if lm is None else str(ensure_starter(options.lm if options.teacher == STARTER else lm))
    with ExitStack() as held:
        return _pretrain(options, held, teacher)


def ensure_starter(lm: str, rated: str = HUTTO) -> Path:
    """The run of the starter around a language model, trained here where it is not in the cache; a second process waits for the first.

    Raises:
        UserError: neither the rated sentences nor the language model can be had.
    """
    options = starter_options(lm, rated)
    folder = options.output
    if is_trained(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        lock.acquire(timeout=0.1)
    except Timeout:
        print("Another process is training the starter model: waiting for it …", file=sys.stderr, flush=True)
        lock.acquire()
    with lock:
        lock.release()  # the block holds it once more
        if not is_trained(folder):
            print(f"Training the starter model around {lm} on rated sentences, once, into {folder} …", file=sys.stderr, flush=True)
            clear_other_recipe(options)
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                outside_the_job(_pretrain_silently, options)
            else:
                _pretrain_silently(options)
            for name in ("checkpoints", "logs"):
                shutil.rmtree(folder / name, ignore_errors=True)
    return folder


def clear_other_recipe(options: PretrainOptions) -> None:
    """Remove an unfinished starter that was begun with other options (the same texts from another place, an older recipe)."""
    config = options.output / CONFIG_FILE
    if config.is_file() and other_options(config, to_plain(options, leave_out=COMMAND_FIELDS)):
        shutil.rmtree(options.output)


def _pretrain_silently(options: PretrainOptions) -> None:
    with redirect_stdout(io.StringIO()):
        pretrain(options)


def outside_the_job(work: Callable[[PretrainOptions], None], options: PretrainOptions) -> None:
    """Do a piece of work in a process that is no part of the job of `accelerate launch`, whose other processes wait elsewhere."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name in JOB_VARIABLES or name.startswith("TORCHELASTIC_")}
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(work, options).result()
    finally:
        os.environ.update(hidden)


def _pretrain(options: PretrainOptions, held: ExitStack, teacher: str | None) -> dict[str, Any]:
    started = time.perf_counter()
    accelerator = make_accelerator(options)
    finished = prepare_folder(accelerator, options, held)
    if finished:
        results = read_results(options.output)
        accelerator.print(f"{options.output}: this run is already finished; --overwrite starts anew.")
        accelerator.print(summary(results, options))
        leave(accelerator)
        return results
    seconds: dict[str, float] = {}
    tokenizer = load_tokenizer(options.lm)
    check_layer(options.lm_layer, load_config(resolve_text_model(options.lm)))
    data = load_data(accelerator, tokenizer, options, teacher)
    announce(accelerator, data, options)
    seconds["data"] = time.perf_counter() - started

    set_seed(options.seed)
    model = build_model(data, options)
    seconds["model"] = time.perf_counter() - started - sum(seconds.values())
    # a rating reads every token, whose states take too much room; a sum that is learned changes with every step
    if options.freeze_lm and not model.config.rating_dim and model.skesl.text_mix is None:
        cache_text_states(accelerator, model, data, options)
        seconds["text_states"] = time.perf_counter() - started - sum(seconds.values())

    accelerator.init_trackers("" if options.trackers == ["tensorboard"] else "skesl-pretraining")
    model_folder = options.output / "model"
    trainer = Trainer(
        model,
        data.train,
        data.held,
        tokenizer.pad_token_id,
        options,
        accelerator,
        lambda best, scores: save_model(model_folder, best, tokenizer, lambda folder: describe_model(folder, data, options, scores)),
    )
    progress = trainer.fit()
    seconds["training"] = progress.seconds
    accelerator.wait_for_everyone()

    before_controls = time.perf_counter()
    with quiet_loading():
        best = SkeslForMaskedIntensity.from_pretrained(model_folder, dtype=torch.float32).to(accelerator.device)
    scores = evaluate(accelerator, best, data.held, tokenizer.pad_token_id, options)
    leading = next(iter(scores))
    trained = data.train_sentences if leading == RATED else data.train_utterances
    assert trained is not None
    controls = run_controls(accelerator, best, labels_of(trained, leading), data.held, tokenizer.pad_token_id, options)
    seconds["controls"] = time.perf_counter() - before_controls
    seconds["total"] = time.perf_counter() - started
    results = collect_results(options, data, progress, scores, controls, seconds, accelerator.mixed_precision)
    results |= describe_layers(best.skesl)
    if accelerator.is_main_process:
        describe_model(model_folder, data, options, scores, controls, [results["sentence"]])
        write_json(options.output / RESULTS_FILE, results)
        for name in (TEXT_STATES, MASKED_TEXTS):  # large, and of use to this run alone
            shutil.rmtree(options.output / name, ignore_errors=True)
    accelerator.print(summary(results, options))
    leave(accelerator)
    return results


def leave(accelerator: Accelerator) -> None:
    """Close trackers and the process group, together: a process that left early would tear down connections that others still use."""
    accelerator.wait_for_everyone()
    accelerator.end_training()


def make_accelerator(options: PretrainOptions) -> Accelerator:
    """Accelerate with batches of differing sizes allowed and TensorBoard logs in the run's folder."""
    known = [str(tracker.value) for tracker in get_available_trackers()]
    for name in options.trackers:
        if name not in known:
            raise UserError(f"--trackers {name}: is not known to Accelerate or not installed; there is {', '.join(known)}")
    if options.compile != "no" and options.compile.upper() not in DynamoBackend.__members__:
        backends = ", ".join(name.lower() for name in DynamoBackend.__members__)
        raise UserError(f"--compile {options.compile}: is no backend that Accelerate knows; there is {backends}")
    AcceleratorState._reset_state()  # a run before this one in the same process may have had another precision
    accelerator = Accelerator(
        mixed_precision=resolve_precision(options.precision),
        log_with=options.trackers or None,
        project_dir=str(options.output / "logs"),
        dataloader_config=DataLoaderConfiguration(even_batches=False),
        dynamo_plugin=None if options.compile == "no" else TorchDynamoPlugin(backend=options.compile, dynamic=True),  # lengths differ
        # a batch in which nobody shows a face uses no vision weight
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)],
    )
    if accelerator.distributed_type in SHARDED:  # validation and saving want the whole model on every process
        raise UserError(
            f"Accelerate's config asks for {accelerator.distributed_type.value}, which shards the model: not supported; use plain data "
            "parallelism (MULTI_GPU), with --gradient-checkpointing and --accumulate where memory is short"
        )
    return accelerator


def resolve_precision(name: str) -> str | None:
    """Accelerate's name of a precision; None leaves the choice to Accelerate's config.

    `auto`: that config where it asks for one, else bf16 where the processor multiplies it natively, else float32.
    """
    if name != "auto":
        return {"fp32": "no"}.get(name, name)
    if os.environ.get("ACCELERATE_MIXED_PRECISION", "no") != "no":
        return None
    if torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "false").lower() not in ("true", "1", "yes"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    native = (getattr(torch.cpu, probe, None) for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return "bf16" if any(probe is not None and probe() for probe in native) else "no"


def prepare_folder(accelerator: Accelerator, options: PretrainOptions, held: ExitStack) -> bool:
    """`open_run_folder` on the main process, its answer or its error on every process."""
    from accelerate.utils import broadcast_object_list

    answer: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            answer = [open_run_folder(options, held)]
        except UserError as error:
            answer = [str(error)]
    if accelerator.num_processes > 1:
        broadcast_object_list(answer)
    if isinstance(answer[0], str):
        raise UserError(answer[0])
    return bool(answer[0])


def build_model(data: TrainingData, options: PretrainOptions) -> SkeslForMaskedIntensity:
    """A new encoder around the text model, with the feature statistics of the training side. One that learns to rate has a head for it,
    and its blocks start silent, so that what the language model knows reaches that head."""
    rates = bool(options.objective.rated or options.objective.distil)
    model: SkeslForMaskedIntensity = SkeslForMaskedIntensity.from_text_model(
        options.lm,
        data.width("audio"),
        data.width("vision"),
        text_layer=options.lm_layer,
        rating_dim=RATING_DIM if rates else 0,
        **asdict(options.encoder),
    )
    if rates:
        model.skesl.crossmodal.silence()
    if model.config.feature_dims and data.train_utterances is not None:
        model.skesl.set_feature_statistics(**feature_statistics(data.train_utterances.feature_sample(options.seed)))
    if options.freeze_lm:
        model.skesl.text_model.requires_grad_(False)
    return model


def cache_text_states(accelerator: Accelerator, model: SkeslForMaskedIntensity, data: TrainingData, options: PretrainOptions) -> None:
    """Compute the frozen text encoder's states once, on the main process, and hand them to both sides."""
    assert data.selection is not None
    model.skesl.to(accelerator.device)
    token_lists, pieces = data.selection.token_lists, data.selection.pieces
    folder = options.output / TEXT_STATES
    size = cache_bytes(pieces, model.config.hidden_size)
    accelerator.print(f"Text states of {len(pieces)} masked words: {size / 1e6:.1f} MB under {folder} for the time of the run.")
    with accelerator.main_process_first(), accelerator.autocast():
        cache = TextStateCache.build(model.skesl, token_lists, folder, progress=accelerator.is_local_main_process, positions=pieces)
    for side in (data.train_utterances, data.held.utterances):
        assert side is not None
        side.cache = cache


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
    leading, *others = scores
    count = len(data.held.data(leading))
    return {
        "learned": leading,
        "validation": validation_entry(leading, scores[leading], data),
        "also_learned": {kind: validation_entry(kind, scores[kind], data) for kind in others},
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
        "sentence": verdict(scores[leading], controls, options.av_margin, count, SAMPLE[leading]),
    }


def validation_entry(kind: str, score: Score, data: TrainingData) -> dict[str, Any]:
    """A kind's score on its held-out samples, their number and how they were held out."""
    return {**score, "n": len(data.held.data(kind)), "split_by": data.split_by["sentences" if kind == RATED else "utterances"]}


def describe_model(
    folder: Path,
    data: TrainingData,
    options: PretrainOptions,
    scores: dict[str, Score],
    controls: dict[str, Score] | None = None,
    remarks: Sequence[str] = ("The run that made this encoder is not finished: its controls are missing.",),
) -> None:
    """Write the model card of the encoder in `folder`."""
    text_model = {"name": options.lm, "frozen": options.freeze_lm}
    leading, *others = scores
    rows = {LEARNED[leading]: scores[leading], **(controls or {}), **{LEARNED[kind]: scores[kind] for kind in others}}
    write_card(folder, describe_data(data), text_model, rows, list(remarks))


def summary(results: dict[str, Any], options: PretrainOptions) -> str:
    """What the user reads at the end: scores beside the controls, the verdict, where things are, the next command."""
    names = {"constant": "constant (train median)", "text_only": "text only", "shuffled_audio_vision": "audio, vision permuted"}
    held, learned = results["validation"], results.get("learned", WORD)
    rows = [("SKESL", held), *((names[name], score) for name, score in results["controls"].items())]
    lines = [f"\nValidation on {counted(held['n'], SAMPLE[learned])} held out by {held['split_by']}, best epoch {results['best_epoch']}:"]
    lines.append(f"  {LEARNED[learned] if learned != WORD else '':26s}{'MAE':>7s}{'Corr':>8s}")
    lines += [score_line(name, score) for name, score in rows]
    for kind, score in results.get("also_learned", {}).items():
        lines.append(score_line(LEARNED[kind], score) + f"   on {score['n']:,} held out by {score['split_by']}")
    lines.append(results["sentence"])
    seconds = results["seconds"]
    lines.append(f"{seconds['total']:.0f} s in all, {results['peak_memory_mb']:.0f} MB at most.")
    lines.append(f"Model: {options.output / 'model'}   results: {options.output / RESULTS_FILE}")
    lines.append(f"Curves: tensorboard --logdir {options.output / 'logs'}")
    start = f"{options.output}{' --freeze-lm' if options.freeze_lm else ''}"
    command = next_command("finetune", "finetune/run_mug.py")
    lines.append(f"Next: {command} --dataset custom --data LABELLED_DATASET --encoder {start} --output RUN2")
    return "\n".join(lines)


def score_line(name: str, score: Score) -> str:
    """A row of the closing table."""
    corr = score.get("Corr")
    return f"  {name:26s}{score['MAE']:7.3f}{'–' if corr is None else f'{corr:.3f}'.replace('-', '−'):>8s}"
