"""Predictions of y that have not seen this sample's y: cross-fitting, by ridge regression or by a small network."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from finetune.generator_options import CrossfitOptions
from finetune.labels.protocol import LabelInputs, generator_for
from finetune.modalities import FUSED, TEXT
from skesl_mug.errors import UserError

RIDGE_STRENGTHS = np.logspace(0, 5, 11)
HIDDEN, TEXT_DROPOUT, LEARNING_RATE, WEIGHT_DECAY, BATCH, PATIENCE, MOST_EPOCHS = 64, 0.35, 5e-4, 0.3, 64, 8, 300
"""The network backend, as the study on CH-SIMS had it (docs/method.md): text columns are dropped out, those of sound and face are not."""
HELD_BACK = 0.15
"""Share of the network's training rows, by video where there are several, that decides when it stops."""


@dataclass
class FoldTask:
    """What one predictor is fitted on: features [N, D] whose first `text_columns` are text, y [N], the samples' videos."""

    features: np.ndarray
    y: np.ndarray
    groups: list[str]
    text_columns: int
    seed: int


def out_of_fold(inputs: LabelInputs, options: CrossfitOptions) -> dict[str, np.ndarray]:
    """Predictions of y [N] for each modality and for all together (`fused`), each made without its own fold.

    An utterance without the modality gets the training mean of y (it says nothing).

    Raises:
        UserError: fewer than two videos (or utterances) to make folds of.
    """
    features = {name: _mean_where_absent(inputs.descriptors[name], inputs.present[name]) for name in inputs.modalities}
    features[FUSED] = np.concatenate([features[name] for name in sorted(features, key=lambda name: name != TEXT)], axis=1)
    text_columns = {name: matrix.shape[1] if name == TEXT else 0 for name, matrix in features.items()}
    text_columns[FUSED] = text_columns.get(TEXT, 0)  # text comes first
    present = {**inputs.present, FUSED: np.ones(len(inputs.y), bool)}
    folds = _folds(inputs, options)
    predictions = {}
    for name, matrix in features.items():
        guess = np.zeros(len(inputs.y))
        for train, held_out in folds:
            rows = train[present[name][train]]
            guess[held_out] = inputs.y[train].mean()
            here = held_out[present[name][held_out]]
            if len(rows) >= 3 and len(here):
                predict = fit_ridge if options.backend == "ridge" else fit_network
                task = FoldTask(matrix[rows], inputs.y[rows], [inputs.groups[row] for row in rows], text_columns[name], inputs.seed)
                guess[here] = predict(task, matrix[here])
        predictions[name] = guess
    return predictions


def _mean_where_absent(matrix: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Rows without the modality say nothing: they get the mean of those with it (no label is involved)."""
    return np.where(present[:, None], matrix, matrix[present].mean(0))


def _folds(inputs: LabelInputs, options: CrossfitOptions) -> list[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import GroupKFold, KFold  # a second to import: only where it is used

    groups = np.asarray(inputs.groups)
    by_video = options.folds_by == "video"
    units = len(set(inputs.groups)) if by_video else len(groups)
    if units < 2:
        unit = "videos" if by_video else "utterances"
        mend = "use --labels copy or --generators.crossfit.folds-by utterance"
        raise UserError(f"cross-fitting needs at least two {unit} in train, this corpus has {units}; {mend}")
    count = min(options.folds, units)
    splitter = (GroupKFold if by_video else KFold)(count, shuffle=True, random_state=inputs.seed)
    return list(splitter.split(groups, groups=groups if by_video else None))


def fit_ridge(task: FoldTask, held_out: np.ndarray) -> np.ndarray:
    """Ridge predictions [M] for `held_out` [M, D]; the strength by leave-one-out."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), RidgeCV(RIDGE_STRENGTHS))
    model.fit(task.features, task.y)
    return np.asarray(model.predict(held_out))


def fit_network(task: FoldTask, held_out: np.ndarray) -> np.ndarray:
    """Predictions [M] for `held_out` [M, D] of a network with one hidden layer under L1, stopped early on a part of its own rows."""
    from sklearn.preprocessing import StandardScaler

    random = generator_for(task.seed, 200)
    scaler = StandardScaler().fit(task.features)
    features, target = torch.as_tensor(scaler.transform(task.features)).float(), torch.as_tensor(task.y).float()
    back = _held_back(task.groups, random)
    used = torch.nonzero(~back).squeeze(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed * 1_000_003 + 200)
        network = nn.Sequential(nn.Linear(features.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
    nn.init.constant_(network[-1].bias, float(target[used].median()))  # type: ignore[arg-type]
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    best, best_error, waited = network.state_dict(), float("inf"), 0
    for _ in range(MOST_EPOCHS):
        for rows in used[torch.randperm(len(used), generator=random)].split(BATCH):
            batch = features[rows].clone()
            kept = torch.rand(len(rows), task.text_columns, generator=random) >= TEXT_DROPOUT
            batch[:, : task.text_columns] *= kept / (1.0 - TEXT_DROPOUT)
            loss = (network(batch).squeeze(1) - target[rows]).abs().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            error = float((network(features[back]).squeeze(1) - target[back]).abs().mean())
        if error < best_error:
            best, best_error, waited = {name: value.clone() for name, value in network.state_dict().items()}, error, 0
        else:
            waited += 1
            if waited >= PATIENCE:
                break
    network.load_state_dict(best)
    with torch.no_grad():
        return np.asarray(network(torch.as_tensor(scaler.transform(held_out)).float()).squeeze(1).double().numpy())


def _held_back(groups: list[str], random: torch.Generator) -> torch.Tensor:
    """Which rows [N] decide when to stop: whole videos, or single rows where there is but one video; at least one, never all."""
    names = sorted(set(groups))
    units = [names.index(group) for group in groups] if len(names) > 1 else list(range(len(groups)))
    count = max(units) + 1
    chosen = set(torch.randperm(count, generator=random)[: max(1, round(HELD_BACK * count))].tolist())
    return torch.tensor([unit in chosen for unit in units])
