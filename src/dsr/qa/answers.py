"""Signals at key moments -> states -> answers.

A state is -1, 0 or 1 on each of A axes; the states of a question are [M, A] and its answer is their run-length
sequence. Every tolerance and floor is relative (to the first value of a run, to the scene's median depth), so
that an answer does not change when all lengths are multiplied.
"""

import numpy as np

from dsr.geometry.signals import length

MAX_RUN_BASE = 28
"""27 states of three axes, and 0 for the end of the sequence."""


def change_states(values: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """How a positive signal changes from moment to moment, and whether that is clear.

    A step is `grows` (1) or `shrinks` (-1) where the ratio of its ends exceeds 1 + tolerance, either way, else
    `constant` (0). All values of a constant run lie within the tolerance of each other; where they do not, the signal
    drifts slowly, and there is no telling where it stays and where it changes.

    Args:
        values: [K, M + 1, S].

    Returns:
        States [K, M, 1, S] int8, and [K, S] bool: no constant run drifts.
    """
    log = np.log(values)
    limit = np.log1p(tolerance)
    states = _sign(np.diff(log, axis=1), limit)
    low = high = log[:, 0]
    clear = np.ones(low.shape, bool)
    for step in range(states.shape[1]):
        constant, value = states[:, step] == 0, log[:, step + 1]
        low = np.where(constant, np.minimum(low, value), value)
        high = np.where(constant, np.maximum(high, value), value)
        clear &= high - low <= limit
    return states[:, :, None], clear


def comparison_states(first: np.ndarray, second: np.ndarray, tolerance: float) -> np.ndarray:
    """Whether the first of two positive signals [K, M, S] is larger (1), smaller (-1) or about the same (0)."""
    return _sign(np.log(first) - np.log(second), np.log1p(tolerance))[:, :, None]


def direction_states(vectors: np.ndarray, dead_zone: float) -> np.ndarray:
    """Signs of unit vectors on (forward, left, up), 0 within the dead zone: [K, M, 3, S] -> [K, M, 3, S] int8."""
    return _sign(vectors / length(vectors)[:, :, None], dead_zone)


def run_lengths(states: np.ndarray) -> np.ndarray:
    """Code of each answer: equal codes are equal run-length sequences.

    Args:
        states: [K, M, A] int8.

    Returns:
        [K] int64.
    """
    symbols = np.zeros(states.shape[:2], np.int64)
    for axis in range(states.shape[-1]):
        symbols = 3 * symbols + (states[:, :, axis] + 1)
    code = symbols[:, 0] + 1
    for moment in range(1, states.shape[1]):
        changed = symbols[:, moment] != symbols[:, moment - 1]
        code = np.where(changed, MAX_RUN_BASE * code + symbols[:, moment] + 1, code)
    return code


def decode_run_lengths(code: int, num_axes: int) -> tuple[tuple[int, ...], ...]:
    """The run-length sequence of a code, one tuple of A states a run."""
    runs = []
    while code:
        code, symbol = divmod(code, MAX_RUN_BASE)
        symbol -= 1
        axes = []
        for _ in range(num_axes):
            symbol, state = divmod(symbol, 3)
            axes.append(state - 1)
        runs.append(tuple(reversed(axes)))
    return tuple(reversed(runs))


def answer_distances(codes: np.ndarray, num_axes: int, num_moments: int) -> np.ndarray:
    """Smallest mean state difference a moment that two answers can have, over all ways to spread them.

    An answer says the order of its states, not how long each lasts; so the distance of two answers is that of
    their nearest spreads over the moments. It is what a wrong option must keep from the right one.

    Args:
        codes: [C] of `run_lengths`.

    Returns:
        [C, C] float, summed over axes and divided by the number of moments.
    """
    sequences = [decode_run_lengths(int(code), num_axes) for code in codes]
    runs = np.array([len(s) for s in sequences])
    longest = int(runs.max(initial=1))
    states = np.zeros((len(codes), longest, num_axes))
    for row, sequence in enumerate(sequences):
        states[row, : len(sequence)] = sequence
    cost = np.abs(states[:, None, :, None] - states[None, :, None, :]).sum(axis=-1)
    # total[..., i, j]: cheapest spread so far whose current moment lies in run i of one answer and j of the other.
    total = np.full(cost.shape, np.inf)
    total[:, :, 0, 0] = cost[:, :, 0, 0]
    for _ in range(num_moments - 1):
        best = total.copy()
        best[:, :, 1:] = np.minimum(best[:, :, 1:], total[:, :, :-1])
        best[:, :, :, 1:] = np.minimum(best[:, :, :, 1:], total[:, :, :, :-1])
        best[:, :, 1:, 1:] = np.minimum(best[:, :, 1:, 1:], total[:, :, :-1, :-1])
        total = best + cost
    index = np.arange(len(codes))
    return total[index[:, None], index[None], runs[:, None] - 1, runs[None] - 1] / num_moments


def _sign(values: np.ndarray, limit: float) -> np.ndarray:
    return (values > limit).astype(np.int8) - (values < -limit).astype(np.int8)
