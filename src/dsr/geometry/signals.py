"""Signals over time and their smoothing; every function takes and returns arrays with the ensemble axis last."""

import numpy as np


def fill_single_gaps(values: np.ndarray, axis: int) -> np.ndarray:
    """Replace a NaN between two known neighbours on `axis` by their mean; longer gaps stay NaN.

    >>> fill_single_gaps(np.array([1.0, np.nan, 2.0, np.nan, np.nan]), axis=0).tolist()
    [1.0, 1.5, 2.0, nan, nan]
    """
    moved = np.moveaxis(values, axis, 0)
    filled = moved.copy()
    np.copyto(filled[1:-1], 0.5 * (moved[:-2] + moved[2:]), where=np.isnan(moved[1:-1]))
    return np.moveaxis(filled, 0, axis)


def smooth(values: np.ndarray, weights: tuple[float, float, float], axis: int) -> np.ndarray:
    """Three-tap weighted mean along `axis`; a value without two known neighbours stays as it is.

    A one-sided mean would pull the ends of a moving track inwards, and a NaN filled in would invent motion.

    >>> smooth(np.array([0.0, 4.0, 0.0, np.nan, 8.0]), (0.25, 0.5, 0.25), axis=0).tolist()
    [0.0, 2.0, 0.0, nan, 8.0]
    """
    moved = np.moveaxis(values, axis, 0)
    smoothed = moved.copy()
    before, centre, after = weights
    mean = before * moved[:-2] + centre * moved[1:-1] + after * moved[2:]
    np.copyto(smoothed[1:-1], mean, where=~np.isnan(mean))
    return np.moveaxis(smoothed, 0, axis)


def length(vectors: np.ndarray) -> np.ndarray:
    """Euclidean length of [..., 3, S]: [..., S].

    >>> length(np.array([[2.0], [3.0], [6.0]])).tolist()
    [7.0]
    """
    # Three products and two sums are several times faster than a reduction over an axis of three.
    x, y, z = vectors[..., 0, :], vectors[..., 1, :], vectors[..., 2, :]
    return np.sqrt(x * x + y * y + z * z)


def jitter(values: np.ndarray) -> np.ndarray:
    """Standard deviation of the frame-to-frame noise of series, whatever smooth motion they carry.

    The third difference removes motion up to constant acceleration; white noise of deviation s gives it a
    deviation of sqrt(20) s. The median makes it robust against a few jumps.

    Args:
        values: [..., T]; NaN where unknown.

    Returns:
        [...], NaN where fewer than four consecutive values are known.

    Constant acceleration is no noise; fewer than four values say nothing:

    >>> jitter(np.array([[0.0, 1.0, 4.0, 9.0, 16.0], [0.0, 5.0, 2.0, np.nan, 1.0]])).tolist()
    [0.0, nan]
    """
    third = np.abs(np.diff(values, n=3, axis=-1))
    known = np.isfinite(third).any(axis=-1)
    result = np.full(values.shape[:-1], np.nan)
    if known.any():
        result[known] = 1.4826 / np.sqrt(20.0) * np.nanmedian(third[known], axis=-1)
    return result
