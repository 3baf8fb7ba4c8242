"""The recipe of pretraining: data, model, text states, training, controls, results."""

import io
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, redirect_stdout
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DataLoaderConfiguration, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedType, DynamoBackend, TorchDynamoPlugin, set_seed
from filelock import FileLock, Timeout

from pretrain.crossmodal import feature_statistics
from pretrain.encoder import SkeslForMaskedIntensity, load_tokenizer
from pretrain.evaluation import Score, evaluate, labels_of, run_controls
from pretrain.loop import Trainer
from pretrain.optimisation import choose_attention_kernels
from pretrain.options import RATED, PretrainOptions
from pretrain.report import announce, collect_results, summary, write_card
from pretrain.run_folder import MASKED_TEXTS, RESULTS_FILE, TEXT_STATES, has_other_options, open_run_folder, read_results, save_model
from pretrain.starter import STARTER, is_trained, starter_lm, starter_options
from pretrain.text_models import load_config, quiet_loading, resolve_text_model
from pretrain.text_states import TextStateCache, cache_bytes, check_layer, describe_layers
from pretrain.training_data import TrainingData, load_data
from skesl_mug.console import format_error, make_options
from skesl_mug.errors import UserError
from skesl_mug.files import write_json

SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
JOB_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables that make a process one of several."""
RATING_DIM = 64
"""Inner width of the rating head; equal to the default of `--model.dim` in fine-tuning, which can start from it."""


@dataclass(frozen=True)
class PretrainResult:
    """A finished pretraining run. `str()` gives the summary that the command prints."""

    folder: Path
    """The run's folder; its `model/` can be fine-tuned."""
    results: dict[str, Any]
    """The content of `results.json`."""

    @property
    def validation(self) -> dict[str, Any]:
        """`MAE`, `Corr`, the number of samples `n`, and `split_by`: what was held out whole."""
        return dict(self.results["validation"])

    @property
    def controls(self) -> dict[str, Score]:
        """`MAE` and `Corr` of `constant`, `text_only` and `shuffled_audio_vision`; the latter two are absent for text alone."""
        return dict(self.results["controls"])

    @cached_property
    def model(self) -> SkeslForMaskedIntensity:
        """The encoder with its heads, of the best epoch."""
        return load_model(self.folder / "model")

    def __repr__(self) -> str:
        scores = {"validation": self.validation, **self.controls}
        shown = ", ".join(f"{name} MAE {score['MAE']:.3f}" for name, score in scores.items())
        return f"PretrainResult({str(self.folder)!r}, {shown})"

    def __str__(self) -> str:
        return summary(self.results, self.folder)


def pretrain(
    data: str | Path | Sequence[str | Path] | None = None, *, output: str | Path, lm: str | Path = "embedded", **options: Any
) -> PretrainResult:
    """Pretrain a SKESL encoder. The same call again resumes an interrupted run, or returns the result of a finished one.

    Args:
        data: utterance dataset(s) made by `preprocess`; may be left out with `objective={"rated": 1}`.
        output: folder of the run.
        lm: text encoder: a hub name, a folder, or an embedded model (`embedded`, `embedded-base`, `embedded-multilingual`).
        options: further options, named as on the command line (`PretrainOptions`); groups are dicts: `encoder={"num_blocks": 2}`.

    Raises:
        UserError: an option, the data, the text encoder or the output folder cannot be used.
    """
    folders = [data] if isinstance(data, (str, Path)) else list(data or ())
    values = {"data": [str(folder) for folder in folders], "lm": str(lm), "output": Path(output), **options}
    return PretrainResult(Path(output), run_pretraining(make_options(PretrainOptions, values)))


def run_pretraining(options: PretrainOptions) -> dict[str, Any]:
    """Run pretraining and return the content of `results.json`.

    Raises:
        UserError: the data, the text encoder or the output folder cannot be used.
    """
    teacher = None
    if options.objective.distil:
        lm = starter_lm(options.teacher)
        teacher = options.teacher if lm is None else str(ensure_starter(options.lm if options.teacher == STARTER else lm))
    with ExitStack() as held:
        return _run(options, held, teacher)


def load_model(folder: Path) -> SkeslForMaskedIntensity:
    """The model that a run saved, in float32."""
    with quiet_loading():
        return SkeslForMaskedIntensity.from_pretrained(folder, dtype=torch.float32)


def ensure_starter(lm: str, rated: str | None = None) -> Path:
    """The run of the starter with this language model; trained now if it is not in the cache, by one process while others wait.

    Raises:
        UserError: the rated sentences or the language model cannot be loaded.
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
        lock.release()  # the block acquired it a second time
        if not is_trained(folder):
            print(f"Training the starter model with {lm} on {options.rated}, once, into {folder} …", file=sys.stderr, flush=True)
            if has_other_options(options):  # unfinished, of an older recipe
                shutil.rmtree(folder)
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                outside_the_job(_run_silently, options)
            else:
                _run_silently(options)
            for name in ("checkpoints", "logs"):
                shutil.rmtree(folder / name, ignore_errors=True)
    return folder


def _run_silently(options: PretrainOptions) -> None:
    with redirect_stdout(io.StringIO()):
        run_pretraining(options)


def outside_the_job(work: Callable[[PretrainOptions], None], options: PretrainOptions) -> None:
    """Work in a process outside the job of `accelerate launch`, whose other processes are waiting elsewhere."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name in JOB_VARIABLES or name.startswith("TORCHELASTIC_")}
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(work, options).result()
    finally:
        os.environ.update(hidden)


def _run(options: PretrainOptions, held: ExitStack, teacher: str | None) -> dict[str, Any]:
    started = time.perf_counter()
    accelerator = make_accelerator(options)
    finished = prepare_folder(accelerator, options, held)
    if finished:
        accelerator.print(f"{options.output}: this run is already finished; --overwrite starts again.")
        leave(accelerator)
        return read_results(options.output)
    seconds: dict[str, float] = {}
    tokenizer = load_tokenizer(options.lm)
    check_layer(options.lm_layer, load_config(resolve_text_model(options.lm)))
    data = load_data(accelerator, tokenizer, options, teacher)
    announce(accelerator, data, options)
    seconds["data"] = time.perf_counter() - started

    set_seed(options.seed)
    model = build_model(data, options)
    seconds["model"] = time.perf_counter() - started - sum(seconds.values())
    # a rating reads every token: too many states to store; a learned sum of layers changes with every step
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
        lambda best, scores: save_model(model_folder, best, tokenizer, lambda folder: write_card(folder, data, options, scores)),
    )
    progress = trainer.fit()
    seconds["training"] = progress.seconds
    accelerator.wait_for_everyone()

    before_controls = time.perf_counter()
    best = load_model(model_folder).to(accelerator.device)
    scores = evaluate(accelerator, best, data.held, tokenizer.pad_token_id, options)
    main = next(iter(scores))
    trained = data.train_sentences if main == RATED else data.train_utterances
    assert trained is not None
    controls = run_controls(accelerator, best, labels_of(trained, main), data.held, tokenizer.pad_token_id, options)
    seconds["controls"] = time.perf_counter() - before_controls
    seconds["total"] = time.perf_counter() - started
    results = collect_results(options, data, progress, scores, controls, seconds, accelerator.mixed_precision)
    results |= describe_layers(best.skesl)
    if accelerator.is_main_process:
        write_card(model_folder, data, options, scores, controls, (results["sentence"],))
        write_json(options.output / RESULTS_FILE, results)
        for name in (TEXT_STATES, MASKED_TEXTS):  # large, and of no use to other runs
            shutil.rmtree(options.output / name, ignore_errors=True)
    leave(accelerator)
    return results


def leave(accelerator: Accelerator) -> None:
    """Close trackers and the process group when all processes are done: one that left early would close connections still in use."""
    accelerator.wait_for_everyone()
    accelerator.end_training()


def make_accelerator(options: PretrainOptions) -> Accelerator:
    """An accelerator for batches of different sizes that logs to the run's folder.

    Raises:
        UserError: an unknown tracker or compiler backend, or Accelerate is configured to shard the model.
    """
    known = [str(tracker.value) for tracker in get_available_trackers()]
    for name in options.trackers:
        if name not in known:
            raise UserError(f"--trackers {name}: is unknown to Accelerate or not installed; choose from {', '.join(known)}")
    if options.compile != "no" and options.compile.upper() not in DynamoBackend.__members__:
        backends = ", ".join(name.lower() for name in DynamoBackend.__members__)
        raise UserError(f"--compile {options.compile}: is not a backend that Accelerate knows; choose from {backends}")
    choose_attention_kernels()
    AcceleratorState._reset_state()  # an earlier run in this process may have used another precision
    accelerator = Accelerator(
        mixed_precision=resolve_precision(options.precision),
        log_with=options.trackers or None,
        project_dir=str(options.output / "logs"),
        dataloader_config=DataLoaderConfiguration(even_batches=False),
        dynamo_plugin=None if options.compile == "no" else TorchDynamoPlugin(backend=options.compile, dynamic=True),  # lengths vary
        # a batch without faces uses no vision weights; no buffer changes during training
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)],
    )
    if accelerator.distributed_type in SHARDED:  # validation and saving need the whole model in every process
        raise UserError(
            f"Accelerate's config asks for {accelerator.distributed_type.value}, which shards the model: not supported; use plain data "
            "parallelism (MULTI_GPU), with --gradient-checkpointing and --accumulate where memory is short"
        )
    return accelerator


def resolve_precision(name: str) -> str | None:
    """Accelerate's name of a precision; None leaves the choice to Accelerate's config.

    `auto`: the precision of that config if it sets one, else bf16 where the hardware supports it natively, else float32.
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
    """Call `open_run_folder` in the main process; every process returns its answer or raises its error."""
    from accelerate.utils import broadcast_object_list

    answer: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            answer = [open_run_folder(options, held)]
        except (UserError, OSError) as error:
            answer = [format_error(error, options.output)]
    if accelerator.num_processes > 1:
        broadcast_object_list(answer)
    if isinstance(answer[0], str):
        raise UserError(answer[0])
    return bool(answer[0])


def build_model(data: TrainingData, options: PretrainOptions) -> SkeslForMaskedIntensity:
    """A new encoder with the feature statistics of the training samples.

    An encoder that learns ratings gets a head for them, and cross-modal blocks that initially add nothing, so that the knowledge of the
    language model reaches that head.
    """
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
        model.skesl.crossmodal.zero_init()
    if model.config.feature_dims and data.train_utterances is not None:
        model.skesl.set_feature_statistics(**feature_statistics(data.train_utterances.feature_sample(options.seed)))
    if options.freeze_lm:
        model.skesl.text_model.requires_grad_(False)
    elif options.freeze_embeddings:
        model.skesl.text_model.get_input_embeddings().requires_grad_(False)
    return model


def cache_text_states(accelerator: Accelerator, model: SkeslForMaskedIntensity, data: TrainingData, options: PretrainOptions) -> None:
    """Compute the states of the frozen text encoder once, in the main process, for training and validation."""
    assert data.selection is not None
    model.skesl.to(accelerator.device)
    token_lists, pieces = data.selection.token_lists, data.selection.pieces
    folder = options.output / TEXT_STATES
    size = cache_bytes(pieces, model.config.hidden_size)
    accelerator.print(f"Text states of {len(pieces)} masked words: {size / 1e6:.1f} MB in {folder} until the run ends.")
    with accelerator.main_process_first(), accelerator.autocast():
        cache = TextStateCache.build(model.skesl, token_lists, folder, progress=accelerator.is_local_main_process, positions=pieces)
    for part in (data.train_utterances, data.held.utterances):
        assert part is not None
        part.cache = cache
