"""Partial information decomposition of two discrete sources about a target (Bertschinger et al., 2014; used in arXiv 2306.04539).

With Delta the distributions that keep p(x1, y) and p(x2, y): I_q is the least I_q(X1, X2; Y) over Delta, synergy what the true one has
above it, U1 = I_q - I(X2; Y), U2 = I_q - I(X1; Y), R = I(X1; Y) - U1. All in bits.
"""

import numpy as np
from scipy.optimize import minimize

SMALL = 1e-12


def information(joint: np.ndarray) -> float:
    """I(X; Y) in bits of a joint distribution [X, Y]."""
    product = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    kept = joint > SMALL
    return float((joint[kept] * np.log2(joint[kept] / product[kept])).sum())


def least_information(joint: np.ndarray) -> float:
    """The least I_q(X1, X2; Y) over the distributions that share both pairwise margins with `joint` [X1, X2, Y].

    Around the conditionally independent one, all of them are reached by moving mass between the corners of rectangles; a convex problem.
    """
    first, second, classes = joint.shape
    target = joint.sum((0, 1))
    safe = np.maximum(target, SMALL)
    start = joint.sum(1)[:, None, :] * joint.sum(0)[None, :, :] / safe
    moves = []
    for y in range(classes):
        for a in range(first - 1):
            for b in range(second - 1):
                move = np.zeros_like(start)
                move[a, b, y] = move[-1, -1, y] = 1.0
                move[a, -1, y] = move[-1, b, y] = -1.0
                moves.append(move.ravel())
    basis = np.array(moves)

    def objective(steps: np.ndarray) -> tuple[float, np.ndarray]:
        q = np.maximum((start.ravel() + steps @ basis).reshape(start.shape), SMALL)
        both = q.sum(2, keepdims=True)
        ratio = np.log2(q / both)
        return float((q * ratio).sum() - (target * np.log2(safe)).sum()), basis @ ratio.ravel()

    stay = {"type": "ineq", "fun": lambda steps: start.ravel() + steps @ basis, "jac": lambda _: basis.T}
    found = minimize(objective, np.zeros(len(basis)), jac=True, constraints=[stay], method="SLSQP", options={"maxiter": 500, "ftol": 1e-10})
    return min(float(found.fun), information(joint.reshape(-1, classes)))


def decompose(first: np.ndarray, second: np.ndarray, target: np.ndarray, classes: int) -> dict[str, float]:
    """Redundancy, uniqueness of either and synergy (bits) of two sources [N] about a target [N], all whole numbers below `classes`."""
    joint = np.zeros((classes, classes, classes))
    np.add.at(joint, (first, second, target), 1.0 / len(target))
    one, other, both = information(joint.sum(1)), information(joint.sum(0)), information(joint.reshape(-1, classes))
    least = max(least_information(joint), one, other)
    parts = {"redundancy": one + other - least, "unique_first": least - other, "unique_second": least - one, "synergy": both - least}
    return {name: round(max(0.0, value), 4) for name, value in parts.items()}
