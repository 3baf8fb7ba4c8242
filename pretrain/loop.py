"""The training loop: one for CPU, GPU and many processes, resumable, its randomness a function of seed and step alone."""

import json
import math
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, skip_first_batches
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from lexicons.errors import UserError
from preprocessing.store import write_json
from pretrain.batches import LengthBucketSampler, MaskedCollator
from pretrain.options import PretrainOptions
from pretrain.samples import MaskedUtterances

PROGRESS_FILE = "progress.json"
Score = dict[str, float | None]


@dataclass
class Progress:
    """Where a run stands: what a checkpoint holds beside weights and optimiser."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    best_MAE: float | None = None  # noqa: N815 - the field's name
    best_epoch: int = 0
    finished: bool = False
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """Fits a `SkeslForMaskedIntensity`; `fit()` trains to the end, resuming from the newest checkpoint of the run.

    Args:
        model: the model; with a frozen text encoder its parameters must not require gradients.
        train, valid: the samples.
        pad_token_id: of the tokenizer.
        options: of the command.
        accelerator: made by the caller.
        save_best: called with the bare model on the main process whenever the validation MAE is the best yet.
    """

    def __init__(
        self,
        model: Any,
        train: MaskedUtterances,
        valid: MaskedUtterances,
        pad_token_id: int,
        options: PretrainOptions,
        accelerator: Accelerator,
        save_best: Callable[[Any], None],
    ):
        self.options = options
        self.accelerator = accelerator
        self.save_best = save_best
        self.valid = valid
        self.pad_token_id = pad_token_id
        self.checkpoints = options.output / "checkpoints"
        costs = train.selection.costs[train.members]
        self.sampler = LengthBucketSampler(costs, options.batch_size, options.seed, num_processes=accelerator.num_processes)
        loader = DataLoader(train, batch_sampler=self.sampler, collate_fn=MaskedCollator(pad_token_id), num_workers=options.num_workers)
        optimizer = torch.optim.AdamW(parameter_groups(model, options), betas=(0.9, 0.999))
        self.model, self.optimizer, self.loader = accelerator.prepare(model, optimizer, loader)
        self.total_steps = self.sampler.steps * options.epochs
        self.progress = Progress()

    def fit(self) -> Progress:
        """Train until the last epoch or until the validation MAE has stopped falling.

        Raises:
            UserError: the loss is no number any more.
        """
        self.resume()
        progress = self.progress
        while not progress.finished:
            started = time.perf_counter()
            self.train_epoch()
            score = evaluate(self.accelerator, self.accelerator.unwrap_model(self.model), self.valid, self.pad_token_id, self.options)
            self.end_epoch(score, time.perf_counter() - started)
        return progress

    def train_epoch(self) -> None:
        """One pass, or the rest of the pass that a checkpoint interrupted."""
        progress, options = self.progress, self.options
        self.loader.set_epoch(progress.epoch)  # Accelerate counts epochs from its own start and would set its count otherwise
        self.sampler.set_epoch(progress.epoch)  # with several processes Accelerate's wrapper does not pass it on
        loader = skip_first_batches(self.loader, progress.step_in_epoch) if progress.step_in_epoch else self.loader
        self.model.train()
        if options.freeze_lm:  # without dropout its states are those of the cache
            self.accelerator.unwrap_model(self.model).skesl.text_model.eval()
        bar = tqdm(
            loader,
            desc=f"epoch {progress.epoch + 1}/{options.epochs}",
            total=self.sampler.steps,
            initial=progress.step_in_epoch,
            unit=" steps",
            leave=False,
            mininterval=0.5 if sys.stderr.isatty() else 10.0,  # few lines in a log file
            disable=not self.accelerator.is_local_main_process,
        )
        for batch in bar:
            loss = self.train_step(batch)
            bar.set_postfix(MAE=f"{loss:.3f}", refresh=False)
            if options.checkpoint_steps and progress.step % options.checkpoint_steps == 0 and progress.step_in_epoch < self.sampler.steps:
                self.save_checkpoint()

    def train_step(self, batch: dict[str, Any]) -> float:
        """One update; gives the mean loss of the samples of all processes."""
        progress, accelerator = self.progress, self.accelerator
        torch.manual_seed((self.options.seed * 1_000_003 + progress.step) * 1_009 + accelerator.process_index)
        factor = learning_rate_factor(progress.step, self.total_steps, self.options.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        loss = self.model(**model_inputs(batch, accelerator.device)).loss
        counts = torch.tensor([float(loss.detach()) * len(batch["index"]), float(len(batch["index"]))], dtype=torch.float64)
        if accelerator.num_processes > 1:
            # batches of the processes may differ in size: every sample has to weigh the same
            counts = accelerator.reduce(counts.to(accelerator.device), "sum").cpu()
            loss = loss * (len(batch["index"]) * accelerator.num_processes / counts[1])
        mean = float(counts[0] / counts[1])
        if not math.isfinite(mean):
            raise UserError(
                f"the loss is no number at step {progress.step} of epoch {progress.epoch + 1}; lower --lr (now {self.options.lr})"
            )
        accelerator.backward(loss)
        accelerator.clip_grad_norm_([p for p in self.model.parameters() if p.requires_grad], self.options.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        progress.step += 1
        progress.step_in_epoch += 1
        progress.loss_sum += float(counts[0])
        progress.loss_count += int(counts[1])
        accelerator.log({"train/MAE": mean, "train/lr": self.options.lr * factor}, step=progress.step)
        return mean

    def end_epoch(self, score: Score, seconds: float) -> None:
        """Record the epoch, keep the model if it is the best, decide whether to stop, checkpoint."""
        progress, options = self.progress, self.options
        mae = score["MAE"]
        assert mae is not None
        train_loss = progress.loss_sum / max(1, progress.loss_count)
        progress.epoch += 1
        progress.step_in_epoch, progress.loss_sum, progress.loss_count = 0, 0.0, 0
        progress.seconds += seconds
        progress.history.append(
            {
                "epoch": progress.epoch,
                "step": progress.step,
                "train_loss": train_loss,
                "valid_MAE": mae,
                "valid_Corr": score["Corr"],
                "seconds": round(seconds, 3),
            }
        )
        self.accelerator.log({f"valid/{name}": value for name, value in score.items() if value is not None}, step=progress.step)
        better = progress.best_MAE is None or mae < progress.best_MAE
        if better:
            progress.best_MAE, progress.best_epoch = mae, progress.epoch
            if self.accelerator.is_main_process:
                self.save_best(self.accelerator.unwrap_model(self.model))
        waited = progress.epoch - progress.best_epoch
        progress.finished = progress.epoch >= options.epochs or bool(options.patience and waited >= options.patience)
        corr = score["Corr"]
        self.accelerator.print(
            f"epoch {progress.epoch:3d}  train MAE {train_loss:.3f}  valid MAE {mae:.3f}  Corr {'  - ' if corr is None else f'{corr:.3f}'}"
            f"  {seconds:5.1f} s{'  best' if better else ''}"
        )
        self.save_checkpoint()

    def save_checkpoint(self) -> None:
        """Write a checkpoint whole or not at all, then delete all but the newest."""
        name = f"step-{self.progress.step:08d}"
        temporary = self.checkpoints / f".{name}.tmp"
        if self.accelerator.is_main_process:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(temporary))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            write_json(temporary / PROGRESS_FILE, asdict(self.progress))
            shutil.rmtree(self.checkpoints / name, ignore_errors=True)
            temporary.rename(self.checkpoints / name)
            for old in find_checkpoints(self.checkpoints)[: -self.options.keep_checkpoints]:
                shutil.rmtree(old, ignore_errors=True)

    def resume(self) -> None:
        """Load the newest checkpoint, if there is one.

        Raises:
            UserError: it cannot be read.
        """
        found = find_checkpoints(self.checkpoints)
        if not found:
            return
        newest = found[-1]
        try:
            self.accelerator.load_state(str(newest))
            self.progress = Progress(**json.loads((newest / PROGRESS_FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RuntimeError, EOFError) as error:
            raise UserError(
                f"{newest}: cannot be read ({error}); delete this folder to resume from the one before, or use --overwrite"
            ) from error
        self.accelerator.print(f"Resuming from {newest} (epoch {self.progress.epoch + 1}, step {self.progress.step}).")


def find_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    return sorted(path.parent for path in folder.glob(f"step-*/{PROGRESS_FILE}"))


def learning_rate_factor(step: int, total: int, warmup: float) -> float:
    """Linear rise over `warmup` * total steps, then a cosine to 0 at `total`. In (0, 1] before the end."""
    rise = max(1, round(warmup * total))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1.0 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


def parameter_groups(model: Any, options: PretrainOptions) -> list[dict[str, Any]]:
    """AdamW's groups: text encoder and the rest with rates of their own, no decay on biases and LayerNorms."""
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((".text_model." in name, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": options.lm_lr if text else options.lr,
            "base_lr": options.lm_lr if text else options.lr,
            "weight_decay": options.weight_decay if decay else 0.0,
        }
        for (text, decay), parameters in groups.items()
    ]


def model_inputs(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The collator's batch without `index`, on the device."""
    return {name: None if value is None else value.to(device) for name, value in batch.items() if name != "index"}


@torch.no_grad()
def predict(
    accelerator: Accelerator, model: Any, data: MaskedUtterances, pad_token_id: int, options: PretrainOptions, text_only: bool = False
) -> np.ndarray:
    """The predicted intensity of every sample's masked word [N], the same on all processes; `text_only`: without audio and vision."""
    model.eval()
    sampler = LengthBucketSampler(data.selection.costs[data.members], options.batch_size, shuffle=False)
    mine = list(sampler)[accelerator.process_index :: accelerator.num_processes]
    loader = DataLoader(data, batch_sampler=mine, collate_fn=MaskedCollator(pad_token_id), num_workers=options.num_workers)
    found: list[tuple[int, float]] = []
    for batch in loader:
        inputs = model_inputs(batch, accelerator.device)
        inputs.pop("labels")
        if text_only:
            inputs |= {"audio": None, "audio_mask": None, "vision": None, "vision_mask": None}
        with accelerator.autocast():
            logits = model(**inputs).logits
        found += zip(batch["index"].tolist(), logits[:, 0].float().tolist(), strict=True)
    if accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        found = gather_object(found)
    predictions = np.full(len(data), np.nan)
    for index, value in found:
        predictions[index] = value
    return predictions


def score_predictions(predictions: np.ndarray, labels: np.ndarray) -> Score:
    """MAE and Pearson's Corr (None where one side is constant)."""
    moving = len(labels) > 1 and np.ptp(predictions) > 1e-9 and np.ptp(labels) > 1e-9
    return {
        "MAE": float(np.abs(predictions - labels).mean()),
        "Corr": float(np.corrcoef(predictions, labels)[0, 1]) if moving else None,
    }


def evaluate(
    accelerator: Accelerator, model: Any, data: MaskedUtterances, pad_token_id: int, options: PretrainOptions, text_only: bool = False
) -> Score:
    """Score of the model on some samples."""
    predictions = predict(accelerator, model, data, pad_token_id, options, text_only)
    return score_predictions(predictions, data.selection.intensities[data.members])
