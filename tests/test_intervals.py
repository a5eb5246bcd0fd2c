"""Bootstrap over source videos, on numbers worked out by hand and against draws made one by one."""

import numpy as np
import pytest

from dsr.intervals import interval, resampled_means


def test_intervals_are_those_of_resampled_source_videos() -> None:
    # Two videos: 4 of 4 right and 0 of 4. A resample has both (accuracy 1/2), or one of them twice (1 or 0).
    low, high = interval(resampled_means(np.array([[4], [0]]), np.array([[4], [4]]), 2000, seed=1))
    assert (low[0], high[0]) == (0, 1)
    # As questions, the same numbers would be far surer.
    low, high = interval(resampled_means(np.repeat([[1], [0]], 4, axis=0), np.ones((8, 1)), 2000, seed=1))
    assert low[0] > 0.1
    assert high[0] < 0.9


def test_intervals_agree_with_resampling_one_by_one() -> None:
    rng = np.random.default_rng(0)
    videos = rng.integers(0, 30, 400)
    values = (rng.random(400) < 0.3 + 0.5 * (videos % 2)).astype(float)
    rows_of = [np.flatnonzero(videos == v) for v in range(30)]
    samples = [values[np.concatenate([rows_of[v] for v in rng.integers(0, 30, 30)])].mean() for _ in range(1500)]
    sums, counts = np.bincount(videos, values, 30)[:, None], np.bincount(videos, minlength=30)[:, None]
    found = interval(resampled_means(sums, counts, 1500, seed=1))[:, 0]
    assert found == pytest.approx(np.percentile(samples, [2.5, 97.5]), abs=0.025)


def test_statistics_share_their_draws_and_follow_the_seed() -> None:
    sums, counts = np.array([[3, 1, 3], [1, 3, 1], [2, 2, 2]]), np.full((3, 1), 4)
    means = resampled_means(sums, counts, 250, seed=3)
    assert means.shape == (250, 3)
    assert np.array_equal(means[:, 0], means[:, 2])
    # Right answers of the first are wrong ones of the second: their sum is the same in every resample.
    assert means[:, 0] + means[:, 1] == pytest.approx(1)
    assert np.array_equal(means, resampled_means(sums, counts, 250, seed=3))
    assert not np.array_equal(means, resampled_means(sums, counts, 250, seed=4))


def test_what_no_resample_holds_has_no_interval() -> None:
    means = resampled_means(np.array([[1, 0], [0, 0]]), np.array([[1, 0], [1, 0]]), 200, seed=1)
    assert np.isnan(means[:, 1]).all()
    low, high = interval(means)
    assert np.isnan([low[1], high[1]]).all()
    assert np.isfinite([low[0], high[0]]).all()
