"""Anchors: opinions on a modality that were formed before this corpus's labels were seen, as further evidence for `mucn-crossfit`.

Model. Of one modality, s is the latent unimodal score, y = s + n its noisy reading (n: what the other modalities and the annotators add),
and each opinion is a reading o_k = a_k + b_k s + e_k with unknown offset, scale and noise. The errors e may be correlated with each other
in any way (two opinions read the same words); they are assumed uncorrelated with n.

1. *How opinions are combined.* With C = Cov((y, o)) and v = Var(n), Cov((y, o), s) is C's first column minus v in its first entry, so the
   best linear estimate of s is

       s^ = y - v C^-1 e_1 . (y, o) = y - (v / tau^2) (y - h),    h = the regression of y on all o,    tau^2 = Var(y - h).

   Hence the weights of the opinions are those of the regression of y on them, whatever the covariance of their errors: copies share one
   weight, noise gets none, scale and offset cancel. Only v is left to estimate, and lambda = v / tau^2 is how far the label moves to h.
2. *Bounds of v.* Below: the part of (y - h) that the other modalities explain (the R2 rule, docs/method.md), if they tell nothing of s
   that h lacks. Above: errors of opinions of
   the same input are positively correlated if at all, so Cov(g, a) >= b_g b_a Var(s), that is Var(s) >= Cov(y, g) Cov(y, a) / Cov(g, a),
   where g is the out-of-fold prediction, a the anchors' joint one (equality for independent errors: the method of triads).
3. *Between the bounds v is not identified*: opinions agree because both are right or because both err alike. We take
   lambda = lower + (1 - Corr(g, a)^2) (upper - lower), at most twice the lower bound. An anchor that repeats g moves nothing; where the
   other modalities explain nothing of y, the label stays y. From the upper bound, two of its standard errors are subtracted (delta method):
   a weak opinion, or one on few utterances, must not move labels by an upper bound that it can hardly estimate.
4. *An opinion that shares n is left out.* It has seen y or hears another modality, so it agrees with y more than with g: the upper bound
   of v that follows from g and this opinion alone is below `ROOM` times the lower bound without anchors. On synthetic opinions this ratio
   is below .1 for copies of y with any noise and for readings of another modality, and above .5 for readings of s, also if the modalities
   correlate by .6. Where it cannot be judged (g says nothing about y), opinions are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RIDGE = 0.01
"""Penalty of the regression of y on the standardised opinions, relative to their variance: near-copies share one weight."""
HIGHEST_SHARE = 0.95
INSIGNIFICANT = 2.0
"""Standard errors below which a correlation is not significant."""
ROOM = 0.25
TAILS = 1
"""Percent of an opinion's values that are clipped at either end: a single wild value must not decide the weights."""

Folds = Sequence[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Opinions:
    """Opinions on one modality: `values` [N, K] in any unit, by `names` (K); rows without the modality are ignored.

    None may have been fitted to the labels of this corpus.
    """

    names: tuple[str, ...]
    values: np.ndarray


def without_outliers(values: np.ndarray) -> np.ndarray:
    """Opinions [N, K], each clipped to its 1st and 99th percentile; of fewer than 100 values, the two extreme ones are clipped."""
    low = np.percentile(values, TAILS, axis=0, method="higher")
    clipped: np.ndarray = np.clip(values, low, np.percentile(values, 100 - TAILS, axis=0, method="lower"))
    return clipped


def shares_noise(y: np.ndarray, prediction: np.ndarray, opinion: np.ndarray, noise_variance: float) -> bool:
    """Whether an opinion agrees with y more than its modality can explain (point 4 above).

    Args:
        y, prediction, opinion: [N], the utterances that have the modality; `prediction` is g.
        noise_variance: lower bound of v, by the R2 rule without anchors.
    """
    covariance = np.cov([y, prediction, opinion], bias=True)
    with_y = float(covariance[0, 1])
    if with_y * np.sqrt(len(y)) <= INSIGNIFICANT * np.sqrt(covariance[0, 0] * covariance[1, 1]):
        return False
    orientation = np.sign(covariance[0, 2])
    room = float(covariance[0, 0]) - ROOM * noise_variance
    return bool(orientation * covariance[1, 2] * room < with_y * orientation * covariance[0, 2])


def regression(y: np.ndarray, readings: np.ndarray) -> tuple[float, np.ndarray]:
    """Intercept and weights [K] of y [N] on readings [N, K]: a slightly penalised fit, calibrated to slope 1; constant columns get 0."""
    mean, deviation = readings.mean(0), readings.std(0)
    varies = deviation > 1e-9 * np.maximum(1.0, np.abs(mean))
    scale = np.where(varies, deviation, 1.0)
    standard = np.where(varies, (readings - mean) / scale, 0.0)
    centred = y - y.mean()
    weights = np.linalg.solve(standard.T @ standard / len(y) + RIDGE * np.eye(readings.shape[1]), standard.T @ centred / len(y))
    joint = standard @ weights
    weights *= max(0.0, float(joint @ centred) / max(float(joint @ joint), 1e-12))
    weights = weights / scale
    return float(y.mean() - mean @ weights), weights


def joint_prediction(y: np.ndarray, readings: np.ndarray, present: np.ndarray, folds: Folds) -> np.ndarray:
    """Out-of-fold prediction of y [N] from readings [N, K]: the opinions combined and calibrated; the mean where the modality is absent.

    If a reading is an out-of-fold prediction itself, this utterance's y reaches the result only through the K + 1 coefficients.
    """
    prediction = np.zeros(len(y))
    for train, held_out in folds:
        rows, here = train[present[train]], held_out[present[held_out]]
        prediction[held_out] = y[train].mean()
        if len(rows) > readings.shape[1] + 1 and len(here):
            intercept, weights = regression(y[rows], readings[rows])
            prediction[here] = intercept + readings[here] @ weights
    return prediction


def anchored_share(y: np.ndarray, prediction: np.ndarray, anchor: np.ndarray, tau: float, lower: float) -> tuple[float, float]:
    """lambda between its bounds (point 3 above), and the upper bound.

    Args:
        y, prediction, anchor: [N], the utterances that have the modality; g and the anchors' joint prediction.
        tau: standard deviation of y minus the prediction from all opinions.
        lower: the R2 rule's lambda.
    """
    covariance = np.cov([y, prediction, anchor], bias=True)
    deviation = np.sqrt(np.diag(covariance))
    if deviation.min() < 1e-9:
        return lower, HIGHEST_SHARE
    correlation = covariance / np.outer(deviation, deviation)
    weakest = min(correlation[0, 1], correlation[0, 2], correlation[1, 2]) * np.sqrt(len(y))
    if weakest <= INSIGNIFICANT:
        return lower, HIGHEST_SHARE
    score_variance = covariance[0, 1] * covariance[0, 2] / covariance[1, 2]
    centred = np.stack([y, prediction, anchor]) - np.mean([y, prediction, anchor], axis=1, keepdims=True)
    relative = [centred[i] * centred[j] / covariance[i, j] for i, j in ((0, 1), (0, 2), (1, 2))]
    influence = centred[0] ** 2 - score_variance * (relative[0] + relative[1] - relative[2])  # of each utterance on Var(y) - Var(s)
    error = float(influence.std()) / np.sqrt(len(y))
    bound = covariance[0, 0] - score_variance - INSIGNIFICANT * error
    upper = float(np.clip(bound / max(tau**2, 1e-12), lower, HIGHEST_SHARE))
    return float(min(lower + (1.0 - correlation[1, 2] ** 2) * (upper - lower), 2.0 * lower)), upper


def error_covariance(y: np.ndarray, readings: np.ndarray, noise_variance: float) -> np.ndarray:
    """Covariance [K, K] of the errors of readings [N, K] in the unit of y, given v = Var(n): Cov(o_j, o_k) / (b_j b_k) - Var(s)."""
    score_variance = float(np.var(y)) - noise_variance
    centred = readings - readings.mean(0)
    slopes = centred.T @ (y - y.mean()) / len(y) / score_variance
    result: np.ndarray = centred.T @ centred / len(y) / np.outer(slopes, slopes) - score_variance
    return result


def described(y: np.ndarray, readings: np.ndarray, names: Sequence[str], levels: dict[str, float], upper: float) -> dict[str, Any]:
    """The opinions of a modality for results.json: weights per standard deviation, estimated noise in the unit of y, upper bound."""
    weights = regression(y, readings)[1] * readings.std(0)
    noise_variance = levels["lambda"] * levels["tau"] ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        variances = np.diag(error_covariance(y, readings, noise_variance)) if np.var(y) > noise_variance else np.full(len(names), np.nan)
    noise = [round(float(np.sqrt(max(value, 0.0))), 4) if np.isfinite(value) else None for value in variances]
    return {
        "weights": dict(zip(names, [round(float(weight), 4) for weight in weights], strict=True)),
        "noise": dict(zip(names, noise, strict=True)),
        "lambda_upper": round(upper, 4),
    }


def mean_anchors(facts: Sequence[dict[str, Any]], scale: float) -> dict[str, Any]:
    """The entry `anchors` of results.json: by modality, the mean over the seeds of what `described` returns, in label units.

    An opinion's `seeds` is the number of seeds that used it; `lambda_without` and the labels' scores `without` are those without anchors.
    """
    found = [each.get("anchors") or {} for each in facts]
    result: dict[str, Any] = {}
    for name in dict.fromkeys(name for each in found for name in each):
        used = [(each[name], entry["noise"][name]) for each, entry in zip(found, facts, strict=True) if "weights" in each.get(name, {})]
        opinions = {}
        for opinion in dict.fromkeys(opinion for entry, _ in used for opinion in entry["weights"]):
            entries = [entry for entry, _ in used if opinion in entry["weights"]]
            noise = [entry["noise"][opinion] for entry in entries if entry["noise"][opinion] is not None]
            opinions[opinion] = {
                "weight": _mean([entry["weights"][opinion] * scale for entry in entries]),
                "noise": _mean([value * scale for value in noise]),
                "seeds": len(entries),
            }
        left_out = [opinion for each in found for opinion in each.get(name, {}).get("left_out", [])]
        scores = [entry["without"] for entry, _ in used if "without" in entry]
        result[name] = {
            "opinions": opinions,
            "left_out": {opinion: left_out.count(opinion) for opinion in dict.fromkeys(left_out)},
            "lambda": _mean([level["lambda"] for _, level in used]),
            "lambda_without": _mean([entry["lambda_without"] for entry, _ in used if "lambda_without" in entry]),
            **({"without": {key: _mean([score[key] for score in scores]) for key in scores[0]}} if scores else {}),
        }
    return result


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None
