"""The recipe of pretraining, top to bottom: data, model, text states, training, controls, results."""

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DataLoaderConfiguration, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedType, DynamoBackend, TorchDynamoPlugin, set_seed

from preprocessing.console import next_command
from preprocessing.wording import counted
from pretrain.card import write_card
from pretrain.checkpoints import Progress
from pretrain.controls import run_controls, verdict
from pretrain.corpora import Corpora
from pretrain.encoder import SkeslForMaskedIntensity, load_tokenizer
from pretrain.holdout import hold_out, thin_zeros
from pretrain.loop import Score, Trainer
from pretrain.options import PretrainOptions
from pretrain.run_folder import MASKED_TEXTS, RESULTS_FILE, TEXT_STATES, open_run_folder, peak_memory_mb, read_results, save_model, versions
from pretrain.samples import MaskedUtterances, feature_statistics
from pretrain.selection import MaskingOptions, Selection, select
from pretrain.text_cache import TextStateCache, cache_bytes
from pretrain.text_layers import check_layer, describe_layers
from pretrain.text_models import load_config, quiet_loading, resolve_text_model
from skesl_mug.errors import UserError
from skesl_mug.files import write_json

SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)


@dataclass
class Parts:
    """The samples of both sides and how they were divided."""

    corpora: Corpora
    selection: Selection
    train: MaskedUtterances
    valid: MaskedUtterances
    split_by: str


def pretrain(options: PretrainOptions) -> dict[str, Any]:
    """Run pretraining as `options` say and return the content of `results.json`.

    Raises:
        UserError: the data, the text model or the output folder cannot be used.
    """
    with ExitStack() as held:
        return _pretrain(options, held)


def _pretrain(options: PretrainOptions, held: ExitStack) -> dict[str, Any]:
    started = time.perf_counter()
    accelerator = make_accelerator(options)
    finished = prepare_folder(accelerator, options, held)
    if finished:
        results = read_results(options.output)
        accelerator.print(f"{options.output}: this run is already finished; --overwrite starts anew.")
        accelerator.print(summary(results, options))
        return results
    seconds: dict[str, float] = {}
    tokenizer = load_tokenizer(options.lm)
    check_layer(options.lm_layer, load_config(resolve_text_model(options.lm)))
    parts = load_data(accelerator, tokenizer, options)
    announce(accelerator, parts, options)
    seconds["data"] = time.perf_counter() - started

    set_seed(options.seed)
    model = build_model(parts, options)
    seconds["model"] = time.perf_counter() - started - sum(seconds.values())
    if options.freeze_lm:
        cache_text_states(accelerator, model, parts, options)
        seconds["text_states"] = time.perf_counter() - started - sum(seconds.values())

    accelerator.init_trackers("" if options.trackers == ["tensorboard"] else "skesl-pretraining")
    model_folder = options.output / "model"
    trainer = Trainer(
        model,
        parts.train,
        parts.valid,
        tokenizer.pad_token_id,
        options,
        accelerator,
        lambda best, score: save_model(model_folder, best, tokenizer, lambda folder: describe_model(folder, parts, options, score)),
    )
    progress = trainer.fit()
    seconds["training"] = progress.seconds
    accelerator.wait_for_everyone()

    before_controls = time.perf_counter()
    with quiet_loading():
        best = SkeslForMaskedIntensity.from_pretrained(model_folder, dtype=torch.float32).to(accelerator.device)
    train_labels = parts.selection.intensities[parts.train.members]
    score, controls = run_controls(accelerator, best, train_labels, parts.valid, tokenizer.pad_token_id, options)
    seconds["controls"] = time.perf_counter() - before_controls
    seconds["total"] = time.perf_counter() - started
    results = collect_results(options, parts, progress, score, controls, seconds, accelerator.mixed_precision)
    results |= describe_layers(best.skesl)
    if accelerator.is_main_process:
        describe_model(model_folder, parts, options, results["validation"], controls, [results["sentence"]])
        write_json(options.output / RESULTS_FILE, results)
        for name in (TEXT_STATES, MASKED_TEXTS):  # large, and of use to this run alone
            shutil.rmtree(options.output / name, ignore_errors=True)
    accelerator.print(summary(results, options))
    accelerator.end_training()
    return results


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
        log_with=options.trackers,
        project_dir=str(options.output / "logs"),
        dataloader_config=DataLoaderConfiguration(even_batches=False),
        dynamo_plugin=None if options.compile == "no" else TorchDynamoPlugin(backend=options.compile, dynamic=True),  # lengths differ
        # a batch in which nobody shows a face uses no vision weight
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
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


def load_data(accelerator: Accelerator, tokenizer: Any, options: PretrainOptions) -> Parts:
    """Open the datasets, choose and mask the usable utterances, hold out speakers."""
    corpora = Corpora(options.data)
    masking = MaskingOptions(
        max_tokens=options.max_tokens,
        one_token=options.one_mask_token,
        context=options.context_intensity,
        all_splits=options.all_splits,
        masks_per_row=options.objective.masks,
        confidence=options.objective.confidence,
    )
    with accelerator.main_process_first():
        selection = select(corpora, tokenizer, options.output / MASKED_TEXTS, masking, accelerator.is_local_main_process)
    share = min(options.valid_share, options.valid_most / len(selection)) if options.valid_most else options.valid_share
    train, valid, split_by = hold_out(selection.speakers, selection.videos, share, options.seed, selection.skipped)
    if options.objective.zero_share is not None:
        kept = thin_zeros(selection.intensities, train, options.objective.zero_share, options.seed)
        if len(kept) < len(train):
            selection.skipped["zero_intensity_beyond_share"] = len(train) - len(kept)
        train = kept

    def samples(members: np.ndarray) -> MaskedUtterances:
        return MaskedUtterances(corpora, selection, members, options.max_audio_frames, options.max_vision_frames)

    return Parts(corpora, selection, samples(train), samples(valid), split_by)


def announce(accelerator: Accelerator, parts: Parts, options: PretrainOptions) -> None:
    """Say what was found and how it was divided."""
    made = " (made data)" if any(source.info.made for source in parts.corpora.sources) else ""
    skipped = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in parts.selection.skipped.items())
    accelerator.print(
        f"Data: {len(parts.selection):,} of {counted(len(parts.corpora), 'utterance')}{made}{f'; skipped: {skipped}' if skipped else ''}"
    )
    accelerator.print(
        f"Validation: {counted(len(parts.valid), 'utterance')} held out by {parts.split_by}, {len(parts.train)} to train on; "
        f"audio {parts.corpora.width('audio')} columns, vision {parts.corpora.width('vision')}; text encoder {options.lm}"
        f"{' (frozen)' if options.freeze_lm else ''}"
    )
    if parts.split_by != "speaker":
        accelerator.print(f"Note: there are too few speakers to hold whole ones out; the validation is by {parts.split_by}.")


def build_model(parts: Parts, options: PretrainOptions) -> SkeslForMaskedIntensity:
    """A new encoder around the text model, with the feature statistics of the training side."""
    model: SkeslForMaskedIntensity = SkeslForMaskedIntensity.from_text_model(
        options.lm, parts.corpora.width("audio"), parts.corpora.width("vision"), text_layer=options.lm_layer, **asdict(options.encoder)
    )
    if model.config.feature_dims:
        model.skesl.set_feature_statistics(**feature_statistics(parts.train, options.seed))
    if options.freeze_lm:
        model.skesl.text_model.requires_grad_(False)
    return model


def cache_text_states(accelerator: Accelerator, model: SkeslForMaskedIntensity, parts: Parts, options: PretrainOptions) -> None:
    """Compute the frozen text encoder's states once, on the main process, and hand them to both sides."""
    model.skesl.to(accelerator.device)
    token_lists, pieces = parts.selection.token_lists, parts.selection.pieces
    folder = options.output / TEXT_STATES
    size = cache_bytes(pieces, model.config.hidden_size)
    accelerator.print(f"Text states of {len(pieces)} masked words: {size / 1e6:.1f} MB under {folder} for the time of the run.")
    with accelerator.main_process_first(), accelerator.autocast():
        cache = TextStateCache.build(model.skesl, token_lists, folder, progress=accelerator.is_local_main_process, positions=pieces)
    parts.train.cache = parts.valid.cache = cache


def collect_results(
    options: PretrainOptions,
    parts: Parts,
    progress: Progress,
    score: Score,
    controls: dict[str, Score],
    seconds: dict[str, float],
    precision: str,
) -> dict[str, Any]:
    """The content of `results.json`."""
    return {
        "validation": {**score, "n": len(parts.valid), "split_by": parts.split_by},
        "controls": controls,
        "best_epoch": progress.best_epoch,
        "history": progress.history,
        "data": describe_data(parts),
        "text_model": {"name": options.lm, "frozen": options.freeze_lm},
        "av_margin": options.av_margin,
        "precision": precision,
        "versions": versions(),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "peak_memory_mb": peak_memory_mb(),
        "sentence": verdict(score, controls, options.av_margin, len(parts.valid)),
    }


def describe_data(parts: Parts) -> dict[str, Any]:
    """What the run was made of."""
    sources = [describe_source(Path(source.folder), source.info) for source in parts.corpora.sources]
    return {
        "path": ", ".join(source["path"] for source in sources),
        "utterances": len(parts.corpora),
        "used": len(parts.selection),
        "train": len(parts.train),
        "valid": len(parts.valid),
        "skipped": parts.selection.skipped,
        "made": any(source["made"] for source in sources),
        "corpus": ", ".join(str(source["corpus"]) for source in sources),
        "sources": sources,
    }


def describe_model(
    folder: Path,
    parts: Parts,
    options: PretrainOptions,
    score: Score,
    controls: dict[str, Score] | None = None,
    remarks: Sequence[str] = ("The run that made this encoder is not finished: its controls are missing.",),
) -> None:
    """Write the model card of the encoder in `folder`."""
    text_model = {"name": options.lm, "frozen": options.freeze_lm}
    write_card(folder, describe_data(parts), text_model, {"SKESL": score, **(controls or {})}, list(remarks))


def describe_source(folder: Path, info: Any) -> dict[str, Any]:
    """What a dataset's `dataset.json` says, as far as a reader of the results wants it."""
    features = {name: getattr(info, name) for name in ("audio", "vision")}
    return {
        "path": str(folder),
        "corpus": info.corpus.get("name"),
        "made": info.made,
        "asr": info.asr,
        "lexicon": info.lexicon,
        "counts": info.counts,
        **{name: None if f is None else {"extractor": f.extractor, "width": f.width, "rate_hz": f.rate_hz} for name, f in features.items()},
    }


def summary(results: dict[str, Any], options: PretrainOptions) -> str:
    """What the user reads at the end: scores beside the controls, the verdict, where things are, the next command."""
    names = {"constant": "constant (train median)", "text_only": "text only", "shuffled_audio_vision": "audio, vision permuted"}
    rows = [("SKESL", results["validation"]), *((names[name], score) for name, score in results["controls"].items())]
    held = results["validation"]
    lines = [f"\nValidation on {counted(held['n'], 'utterance')} held out by {held['split_by']}, best epoch {results['best_epoch']}:"]
    lines.append(f"  {'':26s}{'MAE':>7s}{'Corr':>8s}")
    for name, score in rows:
        corr = score.get("Corr")
        lines.append(f"  {name:26s}{score['MAE']:7.3f}{'–' if corr is None else f'{corr:.3f}'.replace('-', '−'):>8s}")
    lines.append(results["sentence"])
    seconds = results["seconds"]
    lines.append(f"{seconds['total']:.0f} s in all, {results['peak_memory_mb']:.0f} MB at most.")
    lines.append(f"Model: {options.output / 'model'}   results: {options.output / RESULTS_FILE}")
    lines.append(f"Curves: tensorboard --logdir {options.output / 'logs'}")
    start = f"{options.output}{' --freeze-lm' if options.freeze_lm else ''}"
    command = next_command("finetune", "finetune/run_mug.py")
    lines.append(f"Next: {command} --dataset custom --data LABELLED_DATASET --encoder {start} --output RUN2")
    return "\n".join(lines)
