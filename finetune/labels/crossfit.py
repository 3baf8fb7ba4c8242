"""Cross-fitting: predictions of y that have not seen this utterance's y (`regressor`), and the MUCN that reads them (`mucn-crossfit`).

A network that sees y (corrupted) and a representation that was fitted to y learns to copy y. Here the modality contributes through a
prediction that has not seen this utterance's y, and y is treated as noisy when the label is read out (docs/method.md). Opinions formed
before this corpus was seen (`anchors`) join that prediction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from finetune.generator_options import AUTO, CrossfitOptions
from finetune.labels import LabelInputs, LearnedLabels, random_stream
from finetune.labels.anchors import Opinions, anchored_share, described, joint_prediction, shares_noise, without_outliers
from finetune.modalities import FUSED, TEXT
from skesl_mug.errors import UserError

RIDGE_STRENGTHS = np.logspace(0, 5, 11)
HIDDEN, TEXT_DROPOUT, LEARNING_RATE, WEIGHT_DECAY, BATCH, PATIENCE, MAX_EPOCHS = 64, 0.35, 5e-4, 0.3, 64, 8, 300
"""The network backend as used on CH-SIMS (docs/method.md); dropout applies to the text columns only."""
HELD_BACK = 0.15
"""Share of the network's training rows that decides when it stops; whole videos where there are several."""


@cache
def note_left_out(modality: str, names: tuple[str, ...]) -> None:
    """Report opinions that share the noise of y, once per process."""
    tqdm.write(
        f"note: {' and '.join(names)}: not used as an anchor for {modality}: it agrees with the multimodal label more than the "
        f"{modality} can explain; it may have been fitted to these labels, or to another modality"
    )


@dataclass
class FoldTask:
    """Training data of one predictor: features [N, D], the first `text_columns` of them text; y [N]; the video of each row."""

    features: np.ndarray
    y: np.ndarray
    groups: list[str]
    text_columns: int
    seed: int


def out_of_fold(inputs: LabelInputs, options: CrossfitOptions) -> dict[str, np.ndarray]:
    """Out-of-fold predictions of y [N] from each modality and from all together (`fused`).

    An utterance without the modality gets the training mean of y.

    Raises:
        UserError: fewer than two utterances to split into folds.
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
    """Rows without the modality get the mean of those with it; no label is involved."""
    return np.where(present[:, None], matrix, matrix[present].mean(0))


def fold_unit(groups: Sequence[str], folds_by: str) -> str:
    """What folds keep together: "video" or "utterance"; a corpus of one video has folds by utterance."""
    return folds_by if len(set(groups)) > 1 else "utterance"


def make_folds(groups: Sequence[str], count: int, folds_by: str, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows to train on and held-out rows of each fold, given the video of each utterance.

    Raises:
        UserError: fewer than two utterances.
    """
    from sklearn.model_selection import GroupKFold, KFold  # imported here because it takes a second

    if len(groups) < 2:
        raise UserError(f"cross-fitting needs at least two utterances in train; this corpus has {len(groups)}; use --labels copy")
    videos = np.asarray(groups)
    by_video = fold_unit(groups, folds_by) == "video"
    count = min(count, len(set(groups)) if by_video else len(groups))
    splitter = (GroupKFold if by_video else KFold)(count, shuffle=True, random_state=seed)
    return list(splitter.split(videos, groups=videos if by_video else None))


def _folds(inputs: LabelInputs, options: CrossfitOptions) -> list[tuple[np.ndarray, np.ndarray]]:
    return make_folds(inputs.groups, options.folds, options.folds_by, inputs.seed)


def fit_ridge(task: FoldTask, held_out: np.ndarray) -> np.ndarray:
    """Ridge predictions [M] for `held_out` [M, D]; the penalty is chosen by leave-one-out."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), RidgeCV(RIDGE_STRENGTHS))
    model.fit(task.features, task.y)
    return np.asarray(model.predict(held_out))


def fit_network(task: FoldTask, held_out: np.ndarray) -> np.ndarray:
    """Predictions [M] for `held_out` [M, D] of a network with one hidden layer: L1 loss, early stopping on part of its own rows."""
    from sklearn.preprocessing import StandardScaler

    random = random_stream(task.seed, 200)
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
    for _ in range(MAX_EPOCHS):
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
    """Which rows [N] decide when to stop: whole videos, or single rows where there is only one video; at least one, never all."""
    names = sorted(set(groups))
    units = [names.index(group) for group in groups] if len(names) > 1 else list(range(len(groups)))
    count = max(units) + 1
    chosen = set(torch.randperm(count, generator=random)[: max(1, round(HELD_BACK * count))].tolist())
    return torch.tensor([unit in chosen for unit in units])


def noise_levels(
    y: np.ndarray, predictions: dict[str, np.ndarray], rule: str, present: Mapping[str, np.ndarray] | None = None
) -> dict[str, dict[str, float]]:
    """How noisy y is as the label of each modality, estimated without any unimodal label.

    tau^2 = Var(y - g_m). `residual`: sigma = tau. `r2`: lambda = the R2 of an OLS fit of (y - g_m) on all out-of-fold predictions,
    clamped to [0, .95], the share of the residual that the other modalities explain; sigma = tau sqrt(lambda / (1 - lambda)).
    Each modality is measured on the utterances that have it (`present[m]` [N]).
    """
    names = [name for name in predictions if name != FUSED]
    design = np.column_stack([np.ones(len(y)), *predictions.values()])
    levels = {}
    for name in names:
        here = present[name] if present is not None else np.ones(len(y), bool)
        residual = (y - predictions[name])[here]
        tau = float(residual.std())
        fitted = design[here] @ np.linalg.lstsq(design[here], residual, rcond=None)[0]
        explained = 1.0 - float(np.var(residual - fitted)) / max(tau**2, 1e-12)
        share = float(np.clip(explained, 0.0, 0.95))
        sigma = tau if rule == "residual" else tau * float(np.sqrt(share / (1.0 - share)))
        levels[name] = {"tau": tau, "lambda": share, "sigma": sigma}
    return levels


def chosen_opinions(inputs: LabelInputs, options: CrossfitOptions) -> dict[str, Opinions]:
    """The opinions that `--generators.crossfit.anchors` selects, by modality; {} if there are none."""
    selected = set(options.anchors)
    names = [name for name in inputs.modalities if AUTO in selected or name in selected]
    found = {name: inputs.opinions[name] for name in names if name in inputs.opinions}
    for name in sorted((selected & set(names)) - set(found)):
        tqdm.write(f"note: --generators.crossfit.anchors {name}: the encoder offers no rating of {name} alone; its label has no anchor")
    return {name: opinions for name, opinions in found.items() if opinions.names}


def with_anchors(
    inputs: LabelInputs, options: CrossfitOptions, predictions: dict[str, np.ndarray], opinions: Mapping[str, Opinions]
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, float]], dict[str, Any]]:
    """The predictions joined with the anchors, the noise levels for them, and the figures of each anchored modality.

    Raises:
        UserError: an opinion is not one number per utterance.
    """
    folds, joined, readings, names = _folds(inputs, options), dict(predictions), {}, {}
    facts: dict[str, dict[str, Any]] = {}
    plain = noise_levels(inputs.y, predictions, "r2", inputs.present)
    for name, given in opinions.items():
        here, values = inputs.present[name], np.asarray(given.values, np.float64)
        if values.shape != (len(inputs.y), len(given.names)):
            raise UserError(
                f"opinions on {name}: must be numbers [{len(inputs.y)}, {len(given.names)}] (utterances, names), not {list(values.shape)}"
            )
        for each, column in zip(given.names, values[here].T, strict=True):
            if missing := int((~np.isfinite(column)).sum()):
                raise UserError(
                    f"opinions on {name}: {each} has no finite number for {missing:,} of {len(column):,} utterances; fill them in"
                )
        values = np.where(here[:, None], values, 0.0)
        values[here] = without_outliers(values[here])
        lowest = plain[name]["lambda"] * plain[name]["tau"] ** 2
        leaks = [shares_noise(inputs.y[here], predictions[name][here], column, lowest) for column in values[here].T]
        left_out = [each for each, leak in zip(given.names, leaks, strict=True) if leak]
        if left_out:
            note_left_out(name, tuple(left_out))
            facts[name] = {"left_out": left_out}
        if not all(leaks):
            names[name] = ["out-of-fold", *(each for each in given.names if each not in left_out)]
            readings[name] = np.column_stack([predictions[name], values[:, ~np.array(leaks)]])
            joined[name] = joint_prediction(inputs.y, readings[name], here, folds)
    levels = noise_levels(inputs.y, joined, options.sigma, inputs.present)
    for name, columns in readings.items():
        here, level = inputs.present[name], levels[name]
        alone = joint_prediction(inputs.y, columns[:, 1:], here, folds)
        share, upper = anchored_share(inputs.y[here], predictions[name][here], alone[here], level["tau"], level["lambda"])
        if options.sigma == "r2":
            level["lambda_r2"], level["lambda"] = level["lambda"], share
            level["sigma"] = level["tau"] * float(np.sqrt(share / (1.0 - share)))
        facts[name] = {**described(inputs.y[here], columns[here], names[name], level, upper), **facts.get(name, {})}
        facts[name]["lambda_without"] = plain[name]["lambda"]
    return joined, levels, facts


class ScalarMucn(nn.Module):
    """MUCN(g, y~, s) = 1.02 tanh(W3 ReLU(W2 [standardised g; tanh(W1 [y~, s])])), all inputs and the output [N].

    The bound slightly exceeds 1 so that the ends of the label range can be reached.
    """

    def __init__(self, mean: float, deviation: float):
        super().__init__()
        self.mean, self.deviation = mean, max(deviation, 1e-6)
        self.embed = nn.Linear(2, 16)
        self.hidden = nn.Linear(17, 64)
        self.out = nn.Linear(64, 1)

    def forward(self, prediction: Tensor, label: Tensor, noise: Tensor) -> Tensor:
        """The corrected label of each sample."""
        seen = torch.tanh(self.embed(torch.stack([label, noise], dim=-1)))
        evidence = ((prediction - self.mean) / self.deviation).unsqueeze(-1)
        return 1.02 * torch.tanh(self.out(torch.relu(self.hidden(torch.cat([evidence, seen], dim=-1))))).squeeze(-1)


def train_scalar_mucn(prediction: np.ndarray, y: np.ndarray, options: CrossfitOptions, seed: int, salt: int) -> ScalarMucn:
    """Fit a MUCN to undo noise of known size s ~ U(0, max_noise) on y, given the out-of-fold prediction; L1 loss."""
    random = random_stream(seed, salt)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed * 1_000_003 + salt)
        network = ScalarMucn(float(prediction.mean()), float(prediction.std()))
    evidence, target = torch.as_tensor(prediction, dtype=torch.float32), torch.as_tensor(y, dtype=torch.float32)
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.lr, weight_decay=1e-4, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, options.steps))
    for _ in range(options.steps):
        rows = torch.randint(len(target), (min(options.batch_size, len(target)),), generator=random)
        noise = torch.rand(len(rows), generator=random) * options.max_noise
        corrupted = target[rows] + noise * torch.randn(len(rows), generator=random)
        loss = (network(evidence[rows], corrupted, noise) - target[rows]).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


class CrossfitMucn:
    """`mucn-crossfit`: the form of MUCN that recovers human labels (docs/method.md)."""

    reads_human_labels = False
    options_class = CrossfitOptions

    def __init__(self, options: CrossfitOptions):
        self.options = options

    def __call__(self, inputs: LabelInputs) -> LearnedLabels:
        """clip(MUCN_m(g_m, y, sigma_m)) for every modality; with anchors, g_m is the joint prediction of all opinions."""
        predictions = out_of_fold(inputs, self.options)
        opinions = chosen_opinions(inputs, self.options)
        if opinions:
            predictions, levels, anchored = with_anchors(inputs, self.options, predictions, opinions)
        else:
            levels, anchored = noise_levels(inputs.y, predictions, self.options.sigma, inputs.present), {}
        labels = {}
        for salt, name in enumerate(inputs.modalities):
            here = inputs.present[name]
            network = train_scalar_mucn(predictions[name][here], inputs.y[here], self.options, inputs.seed, salt)
            with torch.no_grad():
                evidence, y = torch.as_tensor(predictions[name], dtype=torch.float32), torch.as_tensor(inputs.y, dtype=torch.float32)
                corrected = network(evidence, y, torch.full_like(y, levels[name]["sigma"])).clamp(-1, 1).double().numpy()
            labels[name] = np.where(inputs.present[name], corrected, inputs.y)
        facts = {"noise": levels, "folds_by": fold_unit(inputs.groups, self.options.folds_by)}
        return LearnedLabels(labels, facts | ({"anchors": anchored} if anchored else {}))


class OutOfFoldRegressor:
    """`regressor`: the out-of-fold prediction itself as the label."""

    reads_human_labels = False
    options_class = CrossfitOptions

    def __init__(self, options: CrossfitOptions):
        self.options = options

    def __call__(self, inputs: LabelInputs) -> LearnedLabels:
        """The clipped out-of-fold predictions."""
        predictions = out_of_fold(inputs, self.options)
        return LearnedLabels(
            {name: np.clip(predictions[name], -1, 1) for name in inputs.modalities},
            {"folds_by": fold_unit(inputs.groups, self.options.folds_by)},
        )
