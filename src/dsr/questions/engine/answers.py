"""Signals at key moments -> states -> answers.

A state is -1, 0 or 1 on each of A axes; the states of a question are [M, A] and its answer is their run-length
sequence. Every tolerance and floor is relative (to the first value of a run, to the scene's median depth), so
that an answer does not change when all lengths are multiplied.
"""

from collections.abc import Sequence
from functools import cache
from itertools import groupby, pairwise
from math import log1p

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

    A distance that grows and then stays, and one that drifts by 10 % and again by 10 %:

    >>> states, clear = change_states(np.array([[1.0, 2.0, 2.1], [1.0, 1.1, 1.21]])[..., None], tolerance=0.15)
    >>> states[:, :, 0, 0].tolist(), clear[:, 0].tolist()
    ([[1, 0], [0, 0]], [True, False])
    """
    log = np.log(values)
    limit = log1p(tolerance)
    states = signs(np.diff(log, axis=1), limit)
    moments = np.moveaxis(log, 1, 0)
    return states[:, :, None], clear_changes(list(moments), list(np.moveaxis(states, 1, 0)), limit)


def clear_changes(logs: Sequence[np.ndarray], changes: Sequence[np.ndarray], limit: float) -> np.ndarray:
    """Whether all values of each constant run lie within the limit of each other.

    Args:
        logs: logarithms at each moment, arrays of one shape.
        changes: states from each moment to the next, arrays that broadcast to that shape; a constant one stays within
            the limit.
    """
    clear = np.ones(logs[0].shape, bool)
    runs = constant = [change == 0 for change in changes]
    for apart in range(2, len(logs)):
        runs = [run & more for run, more in zip(runs, constant[apart - 1 :], strict=False)]
        for run, first, last in zip(runs, logs, logs[apart:], strict=False):
            clear &= (np.abs(last - first) <= limit) | ~run
    return clear


def comparison_states(first: np.ndarray, second: np.ndarray, tolerance: float) -> np.ndarray:
    """States of two positive signals [K, M, S]: the first is larger (1), smaller (-1) or about the same (0).

    >>> comparison_states(np.array([[[3.0]]]), np.array([[[2.0]]]), tolerance=0.2).ravel().tolist()
    [1]
    """
    return signs(np.log(first) - np.log(second), log1p(tolerance))[:, :, None]


def comparable(slow: np.ndarray, other_slow: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Where two speeds have a state: two slow ones are not compared, and no slow one is called about as fast.

    Args:
        slow, other_slow: bool, arrays of one shape; a slow speed is measured as the floor's.
        states: how the two compare, likewise.
    """
    return ~((slow & other_slow) | ((slow | other_slow) & (states == 0)))


def direction_states(vectors: np.ndarray, dead_zone: float) -> np.ndarray:
    """Signs of unit vectors on (forward, left, up), 0 within the dead zone: [K, M, 3, S] -> [K, M, 3, S] int8.

    Ahead and to the right, a little above:

    >>> direction_states(np.array([4.0, -3.0, 0.5]).reshape(1, 1, 3, 1), dead_zone=0.2).ravel().tolist()
    [1, -1, 0]
    """
    return signs(vectors / length(vectors)[:, :, None], dead_zone)


def run_lengths(states: np.ndarray) -> np.ndarray:
    """Code of each answer: equal codes are equal run-length sequences.

    Args:
        states: [K, M, A] int8.

    Returns:
        [K] int64.

    How long a state lasts is no part of an answer:

    >>> states = np.array([[1, 1, -1], [1, -1, -1], [1, -1, 1]], np.int8)[..., None]
    >>> codes = run_lengths(states)
    >>> [decode_run_lengths(code, 1) for code in codes.tolist()]
    [((1,), (-1,)), ((1,), (-1,)), ((1,), (-1,), (1,))]
    """
    symbols = np.zeros(states.shape[:2], np.int64)
    for axis in range(states.shape[-1]):
        symbols = 3 * symbols + (states[:, :, axis] + 1)
    return run_length_codes(list(symbols.T))


def run_length_codes(symbols: Sequence[np.ndarray]) -> np.ndarray:
    """[K] int64 codes of answers whose states are given as symbols from 0 to 26, one array [K] a moment."""
    code = symbols[0].astype(np.int64) + 1
    for before, symbol in pairwise(symbols):
        code = np.where(symbol != before, MAX_RUN_BASE * code + symbol + 1, code)
    return code


@cache
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


@cache
def sequence_features(runs: tuple[tuple[int, ...], ...]) -> tuple[str, ...]:
    """What a run-length sequence of A states a run tells, as names that sequences share: of all axes and of each."""
    features = {f"is {runs}", f"first {runs[0]}", f"last {runs[-1]}", f"runs {len(runs)}"}
    features |= {f"has {run}" for run in runs} | {f"pair {pair}" for pair in pairwise(runs)}
    if len(runs[0]) > 1:
        for axis, states in enumerate(zip(*runs, strict=True)):
            merged = [state for state, _ in groupby(states)]
            features |= {f"{axis} is {merged}", f"{axis} first {merged[0]}", f"{axis} last {merged[-1]}"}
            features |= {f"{axis} has {state}" for state in merged}
    return tuple(sorted(features))


def answer_distances(codes: np.ndarray, num_axes: int, num_moments: int) -> np.ndarray:
    """Smallest mean state difference a moment that two answers can have, over all ways to spread them.

    An answer says the order of its states, not how long each lasts; so the distance of two answers is that of
    their nearest spreads over the moments. It is what a wrong option must keep from the right one.

    Args:
        codes: [C] of `run_lengths`.

    Returns:
        [C, C] float, summed over axes and divided by the number of moments.

    "Grows" and "grows, then stays" can differ in one of four moments alone:

    >>> grows, then_stays = run_lengths(np.array([[1, 1], [1, 0]], np.int8)[..., None])
    >>> answer_distances(np.array([grows, then_stays]), num_axes=1, num_moments=4)[0, 1].item()
    0.25
    """
    one, other = np.triu_indices(len(codes))
    distances = np.zeros((len(codes), len(codes)))
    distances[one, other] = distances[other, one] = pair_distances(codes, one, other, num_axes, num_moments)
    return distances


def pair_distances(
    codes: np.ndarray, one: np.ndarray, other: np.ndarray, num_axes: int, num_moments: int
) -> np.ndarray:
    """[K] float distances, as in `answer_distances`, of the answers at places [K] and [K] of codes [C]."""
    sequences = [decode_run_lengths(int(code), num_axes) for code in codes]
    runs = np.array([len(s) for s in sequences])
    states = np.zeros((int(runs.max(initial=1)), num_axes, len(codes)), np.int8)
    for place, sequence in enumerate(sequences):
        states[: len(sequence), :, place] = sequence
    distances = np.zeros(len(one))
    # Answers of as many runs are worked out together.
    lengths = (num_moments + 1) * runs[one] + runs[other]
    for both in np.unique(lengths):
        own = np.flatnonzero(lengths == both)
        a, b = (states[:n, :, index[own]] for n, index in zip(divmod(both, num_moments + 1), (one, other), strict=True))
        distances[own] = _nearest_spreads(a, b, num_moments)
    return distances


def _nearest_spreads(a: np.ndarray, b: np.ndarray, num_moments: int) -> np.ndarray:
    """[K] mean state difference a moment of the nearest spreads of answers [runs, A, K] int8."""
    cost = np.abs(a[:, None] - b[None]).sum(axis=2, dtype=np.int16)
    # total[i, j]: cheapest spread so far whose current moment lies in run i of one answer and j of the other.
    total = np.full(cost.shape, np.iinfo(np.int16).max // 2, np.int16)
    total[0, 0] = cost[0, 0]
    for _ in range(num_moments - 1):
        best = total.copy()
        np.minimum(best[1:], total[:-1], out=best[1:])
        np.minimum(best[:, 1:], total[:, :-1], out=best[:, 1:])
        np.minimum(best[1:, 1:], total[:-1, :-1], out=best[1:, 1:])
        total = best + cost
    return total[-1, -1] / num_moments


def signs(values: np.ndarray, limit: float) -> np.ndarray:
    """1 above the limit, -1 below its negative, else 0: int8."""
    return (values > limit).view(np.int8) - (values < -limit).view(np.int8)
