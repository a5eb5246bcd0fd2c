"""Conditional logit over the options of questions: what attackers fit, and what the matching balances out."""

import numpy as np
from scipy.optimize import minimize


def fit_logit(words: np.ndarray, tokens: np.ndarray, right: np.ndarray, penalty: float, steps: int) -> np.ndarray:
    """Conditional logit: the score of an option is the sum of a weight for each (word of the question, its token).

    Args:
        words: [Q, W] float32.
        tokens: [Q, 4, O] float32.
        right: [Q] int.

    Returns:
        [W, O] float32.
    """
    rows = np.arange(len(words))
    shape = (words.shape[1], tokens.shape[2])
    of_right = tokens[rows, right]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.astype(np.float32).reshape(shape)
        scores = np.matmul(tokens, (words @ weights)[:, :, None])[:, :, 0]
        scores -= scores.max(axis=1, keepdims=True)
        odds = np.exp(scores)
        total = odds.sum(axis=1)
        residual = np.matmul((odds / total[:, None])[:, None], tokens)[:, 0] - of_right
        value = float((np.log(total) - scores[rows, right]).sum()) + 0.5 * penalty * float(flat @ flat)
        return value, (words.T @ residual).ravel().astype(np.float64) + penalty * flat

    found = minimize(loss, np.zeros(shape[0] * shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": steps})
    return found.x.astype(np.float32).reshape(shape)
