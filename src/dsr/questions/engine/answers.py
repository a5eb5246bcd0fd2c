"""States at key moments -> answers, and how far answers are apart.

A state is -1, 0 or 1 on each of A axes; the states of a question are [M, A] and its answer is their run-length
sequence.
"""

from collections.abc import Sequence
from functools import cache
from itertools import groupby, pairwise

import numpy as np

MAX_RUN_BASE = 28
"""27 states of three axes, and 0 for the end of the sequence."""


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
    """Features of a run-length sequence of A states a run, as names that sequences share: of all axes and of each."""
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
