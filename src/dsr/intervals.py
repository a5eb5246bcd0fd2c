"""95 % intervals by bootstrap over source videos: questions about one video share its scene, and are right or wrong
together, so that questions drawn one by one would look surer than they are.

How often each video is drawn is counted; a sum over drawn videos is then a matrix product, and every statistic of a
table is resampled with the same draws, so that differences between them are paired.
"""

import numpy as np

LEVEL = (2.5, 97.5)
"""Percentiles between which 95 % of the resamples lie."""
_RESAMPLES_AT_ONCE = 100


def resampled_means(sums: np.ndarray, counts: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means over draws of source videos with replacement, V draws a resample.

    Letters: V source videos, C statistics.

    Args:
        sums: [V, C] of a video's values.
        counts: [V, C] of its values, or [V, 1] where all statistics are about the same ones.

    Returns:
        [resamples, C] float64; NaN where a resample holds no value.

    Whichever of two videos are drawn, 3 of 4 answers are right:

    >>> resampled_means(np.array([[3], [6]]), np.array([[4], [8]]), resamples=2, seed=0).tolist()
    [[0.75], [0.75]]
    """
    num_videos = len(sums)
    sums, counts = sums.astype(float), counts.astype(float)
    rng = np.random.default_rng(seed)
    means = np.full((resamples, sums.shape[1]), np.nan)
    for start in range(0, resamples, _RESAMPLES_AT_ONCE):
        rows = means[start : start + _RESAMPLES_AT_ONCE]
        # Counting draws gives a multinomial, many times faster than numpy's own where there are many videos.
        draws = rng.integers(num_videos, size=(len(rows), num_videos))
        drawn = np.stack([np.bincount(draw, minlength=num_videos) for draw in draws]).astype(float)
        totals = np.broadcast_to(drawn @ counts, rows.shape)
        np.divide(drawn @ sums, totals, out=rows, where=totals > 0)
    return means


def interval(means: np.ndarray) -> np.ndarray:
    """[2, C] low and high of resampled means [R, C]; NaN where there is none."""
    known = ~np.isnan(means).all(axis=0)
    ends = np.full((2, means.shape[1]), np.nan)
    ends[:, known] = np.nanpercentile(means[:, known], LEVEL, axis=0)
    return ends
