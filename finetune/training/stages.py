"""Stages 1 and 3 of MUG: one training loop, two losses. Stage 2, the label generators, is `finetune/labels/`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from finetune.labels import LabelInputs, OnlineLabels, Opinions, random_stream
from finetune.modalities import FUSED, HUMAN_LABELS, TEXT
from finetune.model.alignment import AlignmentLoss
from finetune.model.minibatches import PreparedSplit
from finetune.model.networks import MugModel, MugOutput
from finetune.options import TrainingOptions
from finetune.training.processes import Present, Team
from pretrain.optimisation import layerwise_rates, learning_rate_schedule, parameter_groups
from skesl_mug.errors import DivergedError

Loss = Callable[[MugOutput, Present, Tensor], Tensor]
"""The loss of a stage for one batch, from the output, the present modalities, and the rows of the batch in the training split."""


TaskError = Callable[[MugOutput, str, Tensor], Tensor]
"""The error of a task by utterance [B], from the output, the name of the task and its targets [B]; see `MugModel.error`."""


@dataclass
class Epoch:
    """One point of the learning curves; MAE in label units."""

    stage: int
    epoch: int
    train_loss: float
    dev_MAE: float | None  # noqa: N815 - the metric's name; None without a development part


def present_error(errors: Tensor, present: Tensor, weights: Tensor | float = 1.0) -> Tensor:
    """The weighted mean of errors [B] over the utterances that have the modality; 0 if none has."""
    here = present.to(errors.dtype)
    return (errors * here * weights).sum() / here.sum().clamp(min=1.0)


def absolute_error(output: MugOutput, name: str, target: Tensor) -> Tensor:
    """L1 of a task by utterance [B]."""
    return (output.predictions[name] - target).abs()


def stage_one_loss(
    y: Tensor,
    options: TrainingOptions,
    unimodal: bool,
    plugin_options: Sequence[str] = (),
    error: TaskError = absolute_error,
    used: Callable[[Present], Present] = dict,
) -> Loss:
    """The multimodal task; with `unimodal` also every unimodal task on y, and the chosen alignment losses.

    Where the tasks have steps of their own, the output holds one task; the alignment is part of the step of the fused task. It leaves out
    what `used` leaves out of the present modalities (`MugModel.without_closed`).
    """
    weight, align = vars(options.task_weights), AlignmentLoss(options.alignment, plugin_options)

    def loss(output: MugOutput, present: Present, rows: Tensor) -> Tensor:
        target = y[rows].to(_device(output))
        total = target.new_zeros(())
        for name in output.predictions:
            if name == FUSED:
                total = total + error(output, FUSED, target).mean()
            elif unimodal:
                total = total + weight[name] * present_error(error(output, name, target), present[name])
        if unimodal and FUSED in output.predictions:
            total = total + align(output, used(present), target)
        return total

    return loss


def stage_three_loss(
    y: Tensor, labels: Mapping[str, Tensor], options: TrainingOptions, tanh: bool, error: TaskError = absolute_error
) -> Loss:
    """L1(y_M^, y) + sum_m lambda_m L1(y_m^, learned label of m). With `tanh` the unimodal error of each sample is weighted by
    tanh |label - y| (Self-MM: samples whose modalities disagree count more). `labels` may change in place between steps."""
    weight = vars(options.task_weights)

    def loss(output: MugOutput, present: Present, rows: Tensor) -> Tensor:
        target = y[rows].to(_device(output))
        total = target.new_zeros(())
        if FUSED in output.predictions:
            total = total + error(output, FUSED, target).mean()
        for name, learned in labels.items():
            if name in output.predictions:
                label = learned[rows].to(target.device)
                weights = torch.tanh((label - target).abs()) if tanh else 1.0
                total = total + weight[name] * present_error(error(output, name, label), present[name], weights)
        return total

    return loss


def _device(output: MugOutput) -> torch.device:
    return next(iter(output.predictions.values())).device


def fit(
    model: MugModel,
    train: PreparedSplit,
    dev: PreparedSplit | None,
    loss_of: Loss,
    *,
    stage: int,
    options: TrainingOptions,
    seed: int,
    online: OnlineLabels | None = None,
    bar: str = "",
    line: int = 0,
) -> list[Epoch]:
    """Train one stage in place and keep the weights of the epoch with the best development MAE of the multimodal task (or of the last, or
    the mean over the last `average_epochs`: Izmailov et al. 2018, arXiv 1803.05407; the networks have no batch statistics).

    With several processes each takes its part of every batch; apart from dropout the curve is that of one process with the same batches.
    `online` labels receive every step and are restored to that best epoch too. `bar` names the progress bar (on a terminal only), `line`
    is its position among several seeds.

    Raises:
        UserError: the stage diverged.
    """
    epochs = options.align_epochs if stage == 1 else options.joint_epochs
    team = Team()
    optimiser = torch.optim.AdamW(trained_parameters(model, options, train.use_states), fused=True)
    steps = max(1, epochs * -(-len(train) // options.batch_size))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, learning_rate_schedule(steps, steps // 10))
    torch.manual_seed(seed * 10 + stage + 1_000_003 * team.rank)
    random = random_stream(seed, 1000 + stage)
    for mechanism in model.mechanisms:
        mechanism.begin_stage(model)
    history: list[Epoch] = []
    best: dict[str, Tensor] = {}
    best_error, waited = float("inf"), 0
    hidden = None if team.is_main else True  # None: shown on a terminal
    for epoch in tqdm(range(1, epochs + 1), desc=bar, unit="epoch", leave=False, position=line, disable=hidden):
        train_loss = _train_epoch(model, train, loss_of, optimiser, schedule, options, random, team, epoch, online)
        error = float((predict(model, dev)[FUSED] - dev.y).abs().mean()) if dev is not None else None
        if not np.isfinite(train_loss if error is None else error):
            raise DivergedError(f"stage {stage} diverged in epoch {epoch}; lower --training.lr, --training.encoder-lr or --training.lm-lr")
        history.append(Epoch(stage, epoch, train_loss, None if error is None else error * model.config.label_scale))
        if options.keep == "last" or error is None:
            counted = epoch - max(0, epochs - max(1, options.average_epochs))
            if counted > 0:
                for name, value in _moving(model, online).items():
                    best[name] = value.detach().clone() if counted == 1 else best[name].lerp_(value.detach(), 1 / counted)
            continue
        if error < best_error:
            best_error, waited = error, 0
            best = {name: value.detach().clone() for name, value in _moving(model, online).items()}
        else:
            waited += 1
            if waited >= options.patience:
                break
    with torch.no_grad():
        for name, value in _moving(model, online).items():
            if name in best:
                value.copy_(best[name])
    return history


def _moving(model: MugModel, online: OnlineLabels | None) -> dict[str, Tensor]:
    """Everything that a stage changes: weights, and online labels."""
    moving: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return moving | ({f"label of {name}": target for name, target in online.targets.items()} if online is not None else {})


def _train_epoch(
    model: MugModel,
    train: PreparedSplit,
    loss_of: Loss,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    options: TrainingOptions,
    random: torch.Generator,
    team: Team,
    epoch: int,
    online: OnlineLabels | None,
) -> float:
    """One pass over train; returns the mean loss of its samples."""
    trained = [p for group in optimiser.param_groups for p in group["params"]]
    model.train()
    if train.use_states:  # the cached states were computed without dropout
        model.encoder.text_model.eval()
    summed = 0.0
    for rows in train.batches(options.batch_size, random):
        inputs = train.batch(team.share(rows) or rows[:1]).to(model.device)
        places = torch.as_tensor(rows)
        seen: dict[str, Tensor] = {}
        for turn in model.turns({name: any(train.has(name, row) for row in rows) for name in model.modalities}):
            with torch.autocast(model.device.type, torch.bfloat16, enabled=options.precision == "bf16"):
                local = model(inputs, turn)
            output, present = team.whole_batch(local, inputs.present, len(rows))
            loss = loss_of(output, present, places)
            if not loss.requires_grad:  # the step of a task without a label
                continue
            optimiser.zero_grad()
            loss.backward()
            team.add_gradients(trained)
            for mechanism in model.mechanisms:
                mechanism.before_update(model)
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            for mechanism in model.mechanisms:
                mechanism.after_update(model, output, present, turn)
            seen |= {name: values.detach() for name, values in output.representations.items()}
            summed += float(loss.detach()) * len(rows)
        if online is not None:
            online.after_step(places, seen, epoch)
        schedule.step()
    return summed / len(train)


def trained_parameters(model: MugModel, options: TrainingOptions, frozen: bool) -> list[dict[str, Any]]:
    """Parameter groups by learning rate: the language model (left out if `frozen`), the rest of the encoder, and everything else; no
    weight decay on biases and norms."""
    model.encoder.text_model.requires_grad_(not frozen)
    if model.pool is None and (TEXT not in model.unimodal or model.config.text_dim):
        model.encoder.requires_grad_(False)  # nothing reads it: its weights need not be copied for every better epoch

    def others(name: str) -> float:
        return options.encoder_lr if name.startswith("encoder.") else options.lr

    rate = layerwise_rates(model, others, options.lm_lr, options.lm_layer_decay)
    return parameter_groups(model.named_parameters(), rate, options.weight_decay)


@torch.no_grad()
def predict(model: MugModel, data: PreparedSplit, batch_size: int = 64) -> dict[str, Tensor]:
    """Predictions [N] by task, labels divided by the largest label, in the split's order."""
    return _concatenate([output.predictions for output in _outputs(model, data, batch_size)])


@torch.no_grad()
def represent(model: MugModel, data: PreparedSplit, batch_size: int = 64) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Unimodal representations h_m and projected multimodal ones P_m(h_M), each [N, dim] by modality."""
    outputs = _outputs(model, data, batch_size)
    unimodal = [{name: output.representations[name] for name in output.projected} for output in outputs]
    return _concatenate(unimodal), _concatenate([output.projected for output in outputs])


def _outputs(model: MugModel, data: PreparedSplit, batch_size: int) -> list[MugOutput]:
    """The outputs of all batches, on the CPU; several processes share the batches."""
    model.train(False)
    team = Team()
    own = (model(data.batch(rows).to(model.device)) for rows in team.share(list(data.batches(batch_size))))
    return team.gather([MugOutput(*({name: v.float().cpu() for name, v in part.items()} for part in vars(o).values())) for o in own])


def _concatenate(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


class Descriptors(Mapping[str, np.ndarray]):
    """`PreparedSplit.descriptors` by modality, computed when a generator reads them (of the built-in ones only cross-fitting does)."""

    def __init__(self, train: PreparedSplit, modalities: list[str]):
        self._train, self._modalities = train, modalities

    def __getitem__(self, modality: str) -> np.ndarray:
        return self._train.descriptors(modality)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modalities)

    def __len__(self) -> int:
        return len(self._modalities)


def label_inputs(
    model: MugModel, train: PreparedSplit, seed: int, scale: float, with_human: bool, opinions: Mapping[str, Opinions] | None = None
) -> LabelInputs:
    """What a label generator may see of the training split; human labels only if `with_human`."""
    representations, projected = represent(model, train)
    present = {name: train.present(name) for name in representations}
    human = None
    if with_human:
        known = {name: getattr(train.split, HUMAN_LABELS[name]) for name in representations}
        human = {name: np.asarray(values, np.float64) / scale for name, values in known.items() if values is not None}
    return LabelInputs(
        y=train.y.double().numpy(),
        groups=list(train.split.video_ids),
        representations={name: vectors.numpy() for name, vectors in representations.items()},
        projected={name: vectors.numpy() for name, vectors in projected.items()},
        descriptors=Descriptors(train, [name for name in representations if present[name].any()]),
        present=present,
        seed=seed,
        scale=scale,
        opinions=opinions if opinions is not None else {},
        human=human,
        ids=list(train.split.ids),
    )
