"""MUG's stages 1 and 3: one fitting loop, two losses. Stage 2, the label generators, is `finetune/labels/`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from finetune.labels import LabelInputs, OnlineLabels, random_stream
from finetune.modalities import FUSED, HUMAN_LABELS
from finetune.model.alignment import alignment_loss
from finetune.model.alternating import GradientProjector, laplace_loss
from finetune.model.minibatches import PreparedSplit
from finetune.model.networks import MugModel, MugOutput
from finetune.options import TrainingOptions
from finetune.training.processes import Present, Team
from skesl_mug.errors import DivergedError

Loss = Callable[[MugOutput, Present, Tensor], Tensor]
"""A stage's loss of one batch: the networks' output, which samples have which modality, and the batch's rows of the training split."""


@dataclass
class Epoch:
    """One line of the learning curves; MAE in label units."""

    stage: int
    epoch: int
    train_loss: float
    dev_MAE: float  # noqa: N815 - the metric's name


def present_error(errors: Tensor, present: Tensor, weights: Tensor | float = 1.0) -> Tensor:
    """The weighted mean of errors [B] over the utterances that have the modality; 0 where none has."""
    here = present.to(errors.dtype)
    return (errors * here * weights).sum() / here.sum().clamp(min=1.0)


def task_errors(output: MugOutput, name: str, target: Tensor) -> Tensor:
    """L1 by utterance [B]; of a shared head, the Laplace loss in its place."""
    prediction = output.predictions[name]
    return laplace_loss(prediction, output.log_scales[name], target) if output.log_scales else (prediction - target).abs()


def stage_one_loss(y: Tensor, options: TrainingOptions, unimodal: bool, plugin_options: Sequence[str] = ()) -> Loss:
    """The multimodal task; with `unimodal` also every unimodal task on y, and the chosen alignment losses.

    Where tasks take turns the output holds one of them, and the loss is its own; the alignment is part of the fused turn.
    """
    weight = vars(options.task_weights)

    def loss(output: MugOutput, present: Present, rows: Tensor) -> Tensor:
        target = y[rows].to(_device(output))
        total = target.new_zeros(())
        for name in output.predictions:
            if name == FUSED:
                total = total + task_errors(output, FUSED, target).mean()
            elif unimodal:
                total = total + weight[name] * present_error(task_errors(output, name, target), present[name])
        if unimodal and FUSED in output.predictions:
            total = total + alignment_loss(output, present, target, options.alignment, plugin_options)
        return total

    return loss


def stage_three_loss(y: Tensor, labels: Mapping[str, Tensor], options: TrainingOptions, tanh: bool) -> Loss:
    """L1(y_M^, y) + sum_m lambda_m L1(y_m^, learned label of m); with `tanh` each sample's unimodal error weighs tanh |label - y|
    (Self-MM: samples whose modalities disagree count more). `labels` may change in place between steps. Turns as in stage 1."""
    weight = vars(options.task_weights)

    def loss(output: MugOutput, present: Present, rows: Tensor) -> Tensor:
        target = y[rows].to(_device(output))
        total = target.new_zeros(())
        if FUSED in output.predictions:
            total = total + task_errors(output, FUSED, target).mean()
        for name, learned in labels.items():
            if name in output.predictions:
                label = learned[rows].to(target.device)
                weights = torch.tanh((label - target).abs()) if tanh else 1.0
                error = present_error(task_errors(output, name, label), present[name], weights)
                total = total + weight[name] * error
        return total

    return loss


def _device(output: MugOutput) -> torch.device:
    return next(iter(output.predictions.values())).device


def fit(
    model: MugModel,
    train: PreparedSplit,
    dev: PreparedSplit,
    loss_of: Loss,
    *,
    stage: int,
    options: TrainingOptions,
    seed: int,
    online: OnlineLabels | None = None,
    bar: str = "",
    line: int = 0,
) -> list[Epoch]:
    """Train one stage in place and leave the weights of the epoch with the best development MAE of the multimodal task (or of the last).

    With several processes each takes its part of every batch; the curve is that of one process with the same batches (save for dropout).
    `online` labels see every step, and are left as they were in that best epoch. `bar` names the progress bar (on a terminal alone),
    `line` its place among several seeds.
    """
    epochs = options.align_epochs if stage == 1 else options.joint_epochs
    team = Team()
    optimiser = torch.optim.AdamW(parameter_groups(model, options, train.use_states), weight_decay=options.weight_decay, fused=True)
    steps = max(1, epochs * -(-len(train) // options.batch_size))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _warm_cosine(step, steps))
    torch.manual_seed(seed * 10 + stage + 1_000_003 * team.rank)
    random = random_stream(seed, 1000 + stage)
    projector = None if model.shared_head is None else GradientProjector(model.shared_head.weight)
    history: list[Epoch] = []
    best: dict[str, Tensor] = {}
    best_error, waited = float("inf"), 0
    hidden = None if team.is_main else True  # None: shown on a terminal
    for epoch in tqdm(range(1, epochs + 1), desc=bar, unit="epoch", leave=False, position=line, disable=hidden):
        train_loss = _train_epoch(model, train, loss_of, optimiser, schedule, options, random, team, epoch, online, projector)
        error = float((predict(model, dev)[FUSED] - dev.y).abs().mean())
        if not np.isfinite(error):
            raise DivergedError(f"stage {stage} diverged in epoch {epoch}; lower --training.lr, --training.encoder-lr or --training.lm-lr")
        history.append(Epoch(stage, epoch, train_loss, error * model.config.label_scale))
        if options.keep == "last":
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
    """All that a stage changes: weights, and labels that move with them."""
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
    projector: GradientProjector | None,
) -> float:
    """One pass over train; gives the mean loss of its samples. With a projector every task of a batch has a step of its own."""
    trained = [p for group in optimiser.param_groups for p in group["params"]]
    model.train()
    if train.use_states:  # the cached states were made without dropout
        model.encoder.text_model.eval()
    summed = 0.0
    for rows in train.batches(options.batch_size, random):
        inputs = train.batch(team.share(rows) or rows[:1]).to(model.device)
        places = torch.as_tensor(rows)
        seen: dict[str, Tensor] = {}
        for turn in _turns(model, train, rows):
            with torch.autocast(model.device.type, torch.bfloat16, enabled=options.precision == "bf16"):
                local = model(inputs, turn)
            output, present = team.whole_batch(local, inputs.present, len(rows))
            loss = loss_of(output, present, places)
            if not loss.requires_grad:  # the turn of a task without a label
                continue
            optimiser.zero_grad()
            loss.backward()
            team.add_gradients(trained)
            if projector is not None:
                projector.project()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            if projector is not None and turn is not None:
                vectors = output.representations[turn]
                projector.after_step(vectors[present[turn]] if turn in present else vectors)
            seen |= {name: values.detach() for name, values in output.representations.items()}
            summed += float(loss.detach()) * len(rows)
        if online is not None:
            online.after_step(places, seen, epoch)
        schedule.step()
    return summed / len(train)


def _turns(model: MugModel, train: PreparedSplit, rows: list[int]) -> list[str | None]:
    """All tasks in one step; where they alternate, the modalities that the batch has one after the other, then the fused task."""
    if not model.config.alternate:
        return [None]
    return [*(name for name in model.modalities if any(train.has(name, row) for row in rows)), FUSED]


def parameter_groups(model: MugModel, options: TrainingOptions, frozen: bool) -> list[dict[str, Any]]:
    """The trained weights by learning rate: the language model's (left out where `frozen`), the encoder's, and the rest."""
    language_model = {id(p) for p in model.encoder.text_model.parameters()}
    encoder = {id(p) for p in model.encoder.parameters()} - language_model
    for parameter in model.encoder.text_model.parameters():
        parameter.requires_grad_(not frozen)
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        rate = options.lm_lr if id(parameter) in language_model else options.encoder_lr if id(parameter) in encoder else options.lr
        groups.setdefault(rate, []).append(parameter)
    return [{"params": members, "lr": rate} for rate, members in groups.items()]


def _warm_cosine(step: int, steps: int) -> float:
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1.0 + float(np.cos(np.pi * (step - warm) / max(1, steps - warm))))


@torch.no_grad()
def predict(model: MugModel, data: PreparedSplit, batch_size: int = 64) -> dict[str, Tensor]:
    """Predictions [N] by task, labels divided by their range, in the split's order."""
    return _concatenate([output.predictions for output in _outputs(model, data, batch_size)])


@torch.no_grad()
def represent(model: MugModel, data: PreparedSplit, batch_size: int = 64) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Unimodal representations h_m and projected multimodal ones P_m(h_M), each [N, dim] by modality."""
    outputs = _outputs(model, data, batch_size)
    unimodal = [{name: output.representations[name] for name in output.projected} for output in outputs]
    return _concatenate(unimodal), _concatenate([output.projected for output in outputs])


def _outputs(model: MugModel, data: PreparedSplit, batch_size: int) -> list[MugOutput]:
    """The outputs of all batches, on the CPU; several processes take turns and exchange them."""
    model.train(False)
    team = Team()
    own = (model(data.batch(rows).to(model.device)) for rows in team.share(list(data.batches(batch_size))))
    return team.gather([MugOutput(*({name: v.float().cpu() for name, v in part.items()} for part in vars(o).values())) for o in own])


def _concatenate(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


class Descriptors(Mapping[str, np.ndarray]):
    """`PreparedSplit.descriptors` by modality, computed when a generator reads them: only cross-fitting does."""

    def __init__(self, train: PreparedSplit, modalities: list[str]):
        self._train, self._modalities = train, modalities

    def __getitem__(self, modality: str) -> np.ndarray:
        return self._train.descriptors(modality)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modalities)

    def __len__(self) -> int:
        return len(self._modalities)


def label_inputs(model: MugModel, train: PreparedSplit, seed: int, scale: float, with_human: bool) -> LabelInputs:
    """What a label generator may see of the training split; human labels only where the generator is the one that reads them."""
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
        human=human,
    )
