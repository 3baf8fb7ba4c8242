"""The training loop, for CPU, GPU and several processes. It can resume at any step: its randomness depends only on seed and step."""

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NoReturn

import torch
from accelerate import Accelerator, skip_first_batches
from torch.utils.data import DataLoader
from tqdm import tqdm

from pretrain.batches import LengthBucketSampler, MaskedCollator
from pretrain.evaluation import Score, combined_mae, evaluate, model_inputs
from pretrain.objective import PretrainingTask
from pretrain.optimisation import layerwise_rates, learning_rate_schedule, parameter_groups
from pretrain.options import PretrainOptions
from pretrain.run_folder import Progress, leave_out_frozen_text_model, load_checkpoint, save_checkpoint
from pretrain.text_states import recompute_layers
from pretrain.training_data import HeldOut, Samples
from skesl_mug.errors import DivergedError, UserError
from skesl_mug.wording import counted


class Trainer:
    """Trains a `SkeslForMaskedIntensity`; `fit()` resumes from the newest checkpoint of the run.

    Args:
        model: the model; the parameters of a frozen text encoder must not require gradients.
        train: training samples.
        held: validation samples.
        pad_token_id: padding token of the tokenizer.
        options: options of the command.
        accelerator: from `make_accelerator`.
        save_best: called in the main process with the unwrapped model and its scores whenever the validation MAE is the lowest so far.
    """

    def __init__(
        self,
        model: Any,
        train: Samples,
        held: HeldOut,
        pad_token_id: int,
        options: PretrainOptions,
        accelerator: Accelerator,
        save_best: Callable[[Any, dict[str, Score]], None],
    ):
        self.options = options
        self.accelerator = accelerator
        self.save_best = save_best
        self.held = held
        self.pad_token_id = pad_token_id
        self.checkpoints = options.output / "checkpoints"
        self.sampler = LengthBucketSampler(
            train.costs, options.batch_size * options.accumulate, options.seed, num_processes=accelerator.num_processes
        )
        loader = DataLoader(train, batch_sampler=self.sampler, collate_fn=MaskedCollator(pad_token_id), num_workers=options.num_workers)
        task = PretrainingTask(model, options.objective)
        if options.gradient_checkpointing and not options.freeze_lm:
            recompute_layers(model.skesl.text_model)
        rates = layerwise_rates(task, options.lr, options.lm_lr, options.lm_layer_decay)
        groups = parameter_groups(task.named_parameters(), rates, options.weight_decay)
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), fused=True)
        if options.freeze_lm:
            leave_out_frozen_text_model(accelerator)
        self.task, self.optimizer, self.loader = accelerator.prepare(task, optimizer, loader)
        self.total_steps = min(self.sampler.steps * options.epochs, options.max_steps or sys.maxsize)
        self.schedule = learning_rate_schedule(self.total_steps, round(options.warmup * self.total_steps), options.schedule)
        self.progress = Progress(micro_batch=options.batch_size)
        self.signalled = False
        self.stopping = False

    @property
    def model(self) -> Any:
        """The model without auxiliary heads and without Accelerate's wrappers."""
        return self.accelerator.unwrap_model(self.task, keep_torch_compile=False).model

    def fit(self) -> Progress:
        """Train until the last epoch, or until the validation MAE stops improving.

        Raises:
            DivergedError: the loss is not finite.
            SystemExit: SIGTERM was received; a checkpoint was written after that step.
        """
        self.progress = load_checkpoint(self.accelerator, self.checkpoints) or self.progress
        progress, split = self.progress, self.held.fingerprint()
        if progress.step and progress.split != split:
            raise UserError(
                f"--output {self.options.output}: was started by a version that held out other samples, some of which this one would "
                "validate on; choose another folder, or add --overwrite to start again"
            )
        progress.split = split
        with stop_on_sigterm(self):
            while not progress.finished:
                started = time.perf_counter()
                self.train_epoch()
                scores = evaluate(self.accelerator, self.model, self.held, self.pad_token_id, self.options)
                self.end_epoch(scores, time.perf_counter() - started)
                if not progress.finished and self.gather([float(self.signalled)])[0]:
                    self.stop()
        return progress

    def train_epoch(self) -> None:
        """One epoch, or the rest of it after a checkpoint."""
        progress, options = self.progress, self.options
        self.loader.set_epoch(progress.epoch)  # otherwise Accelerate would count epochs from its own start
        self.sampler.set_epoch(progress.epoch)  # with several processes Accelerate does not pass it on
        loader = skip_first_batches(self.loader, progress.step_in_epoch) if progress.step_in_epoch else self.loader
        self.task.train()
        if options.freeze_lm:  # no dropout: its states must equal the cached ones
            self.model.skesl.text_model.eval()
        bar = tqdm(
            loader,
            desc=f"epoch {progress.epoch + 1}/{options.epochs}",
            total=self.sampler.steps,
            initial=progress.step_in_epoch,
            unit=" steps",
            leave=False,
            mininterval=0.5 if sys.stderr.isatty() else 10.0,  # few lines in log files
            disable=not self.accelerator.is_local_main_process,
        )
        for batch in bar:
            if progress.step >= self.total_steps:
                break
            loss = self.train_step(batch)
            bar.set_postfix(MAE=f"{loss:.3f}", refresh=False)
            if self.stopping:
                self.save_checkpoint()
                self.stop()
            if options.checkpoint_steps and progress.step % options.checkpoint_steps == 0 and progress.step_in_epoch < self.sampler.steps:
                self.save_checkpoint()

    def stop(self) -> NoReturn:
        """Exit after SIGTERM, when a checkpoint has been written."""
        self.accelerator.print(f"Stopped at step {self.progress.step} with a checkpoint: run the same command again to resume.")
        raise SystemExit(128 + signal.SIGTERM)

    def train_step(self, batch: dict[str, Any]) -> float:
        """One optimizer step; returns the mean absolute error over the samples of all processes."""
        progress, accelerator = self.progress, self.accelerator
        factor = self.schedule(progress.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        (weight,) = self.gather([label_weight(batch)])
        while True:
            torch.manual_seed((self.options.seed * 1_000_003 + progress.step) * 1_009 + accelerator.process_index)
            try:
                error = self.accumulate(batch, weight)
                break
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as fault:
                self.halve(fault)
        error, signalled = self.gather([error, float(self.signalled)])
        self.stopping = signalled > 0  # the same in all processes: they leave the loop after the same step
        mean = error / weight
        if not math.isfinite(mean):
            raise DivergedError(
                f"the loss is not finite at step {progress.step} of epoch {progress.epoch + 1}; lower --lr (now {self.options.lr})"
            )
        accelerator.clip_grad_norm_([p for p in self.task.parameters() if p.requires_grad], self.options.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        progress.step += 1
        progress.step_in_epoch += 1
        progress.loss_sum += error
        progress.loss_count += weight
        accelerator.log({"train/MAE": mean, "train/lr": self.options.lr * factor}, step=progress.step)
        return mean

    def accumulate(self, batch: dict[str, Any], total: float) -> float:
        """Forward and backward pass over the samples of a step in micro-batches; returns the sum of this process's weighted errors.

        Every sample has the same weight whatever the micro-batches and the number of processes; `total` is the weight of all samples.
        """
        accelerator, summed = self.accelerator, 0.0
        rows = len(batch["mask_positions"])
        starts = range(0, rows, self.progress.micro_batch)
        for start in starts:
            part = {name: None if value is None else value[start : start + self.progress.micro_batch] for name, value in batch.items()}
            weight = label_weight(part)
            with nullcontext() if start == starts[-1] else accelerator.no_sync(self.task):
                loss, error = self.task(model_inputs(part, accelerator.device))
                accelerator.backward(loss * (weight * accelerator.num_processes / max(total, 1e-12)))
            summed += float(error) * weight
        return summed

    def halve(self, fault: BaseException) -> None:
        """Halve the micro-batch after running out of memory; any other error is raised again."""
        out_of_memory = isinstance(fault, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(fault)
        if not out_of_memory:
            raise fault
        small = self.progress.micro_batch == 1
        if small or self.accelerator.num_processes > 1:  # the other processes would wait for this one
            raise UserError(
                f"out of memory with a batch of {self.progress.micro_batch}; lower --batch-size, raise --accumulate by the same factor, "
                "or use --gradient-checkpointing"
            ) from fault
        self.optimizer.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self.progress.micro_batch == self.options.batch_size:
            self.accelerator.print("Out of memory: batches are split in halves, as often as needed, and their gradients accumulated.")
        self.progress.micro_batch = max(1, self.progress.micro_batch // 2)

    def gather(self, values: list[float]) -> list[float]:
        """Sums of the values over all processes."""
        if self.accelerator.num_processes == 1:
            return values
        summed = self.accelerator.reduce(torch.tensor(values, dtype=torch.float64, device=self.accelerator.device), "sum")
        return [float(value) for value in summed]

    def end_epoch(self, scores: dict[str, Score], seconds: float) -> None:
        """Record the epoch, save the model if it is the best, decide whether to stop, and write a checkpoint."""
        progress, options = self.progress, self.options
        mae, corr = combined_mae(scores, options.objective), next(iter(scores.values()))["Corr"]
        further = {f"{kind}_{name}": value for kind, score in scores.items() for name, value in score.items()} if len(scores) > 1 else {}
        train_loss = progress.loss_sum / max(1e-12, progress.loss_count)
        progress.epoch += 1
        progress.step_in_epoch, progress.loss_sum, progress.loss_count = 0, 0.0, 0.0
        progress.seconds += seconds
        progress.history.append(
            {
                "epoch": progress.epoch,
                "step": progress.step,
                "train_loss": train_loss,
                "valid_MAE": mae,
                "valid_Corr": corr,
                **further,
                "seconds": round(seconds, 3),
            }
        )
        curves = {"MAE": mae, "Corr": corr, **further}
        self.accelerator.log({f"valid/{name}": value for name, value in curves.items() if value is not None}, step=progress.step)
        better = progress.best_MAE is None or mae < progress.best_MAE
        if better:
            progress.best_MAE, progress.best_epoch = mae, progress.epoch
            if self.accelerator.is_main_process:
                self.save_best(self.model, scores)
        waited = progress.epoch - progress.best_epoch
        progress.finished = progress.step >= self.total_steps or bool(options.patience and waited >= options.patience)
        shown = "  ".join(format_score(score, kind if further else "") for kind, score in scores.items())
        self.accelerator.print(
            f"epoch {progress.epoch:3d}  train MAE {train_loss:.3f}  {shown}  {seconds:5.1f} s{'  best' if better else ''}"
        )
        if progress.finished and progress.step < self.total_steps:
            self.accelerator.print(f"stopped: {counted(waited, 'epoch')} without a better validation MAE (--patience)")
        self.save_checkpoint()

    def save_checkpoint(self) -> None:
        """Write a checkpoint and delete all but the newest ones."""
        save_checkpoint(self.accelerator, self.checkpoints, self.progress, self.options.keep_checkpoints)


def format_score(score: Score, kind: str) -> str:
    """A validation score, formatted for the line of an epoch."""
    corr = score["Corr"]
    return f"valid{f' {kind}' if kind else ''} MAE {score['MAE']:.3f}  Corr {'  - ' if corr is None else f'{corr:.3f}'}"


@contextmanager
def stop_on_sigterm(trainer: Trainer) -> Iterator[None]:
    """Let the trainer finish its step, write a checkpoint and exit on SIGTERM. Has no effect outside the main thread."""

    def stop(*_: Any) -> None:
        trainer.signalled = True

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def label_weight(batch: dict[str, Any]) -> float:
    """Total weight of the labels of a batch: their number, or the sum of their weights."""
    total = 0.0
    for labels, weights in ((batch["labels"], batch.get("label_weights")), (batch.get("ratings"), batch.get("rating_weights"))):
        if labels is not None:
            real = ~labels.isnan()
            total += float(real.sum() if weights is None else weights[real].sum())
    return total
