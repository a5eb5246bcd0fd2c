"""Values known at some times, wanted at others: interpolated, taken from the nearest entry, or not known.

Letters: K entries, T wanted times; both in seconds.
"""

from dataclasses import dataclass

import numpy as np

from dsr.geometry.frames import nearest_rotations


@dataclass(frozen=True)
class Match:
    """Entries that stand for T times: (1 - weight) of the entry `before` and `weight` of the entry `after`."""

    before: np.ndarray
    after: np.ndarray
    weight: np.ndarray
    known: np.ndarray

    def blend(self, values: np.ndarray) -> np.ndarray:
        """[T, ...] of values [K, ...]; NaN where not known."""
        weight, known = (a.reshape(-1, *[1] * (values.ndim - 1)) for a in (self.weight, self.known))
        first, second = values[self.before], values[self.after]
        # Not first + weight * (second - first), which is not exactly `second` at weight 1.
        mixed = np.where(weight == 0, first, (1 - weight) * first + weight * second)
        return np.where(known, mixed, np.nan)

    def blend_rotations(self, values: np.ndarray) -> np.ndarray:
        """Blend rotations [K, 3, 3]: the rotation nearest to the mean.

        It lies on the shortest path between the two; its speed along it differs from a slerp's by 0.01 degrees at
        10 degrees between entries.
        """
        result = self.blend(values)
        mixed = np.isfinite(result).all(axis=(1, 2)) & (self.weight > 0)
        if mixed.any():
            result[mixed] = nearest_rotations(result[mixed])
        return result


@dataclass(frozen=True)
class Sampling:
    """Rule that matches entries to times; seconds."""

    tolerance: float
    """Longest time between a wanted time and the entry that is taken for it."""
    max_gap: float
    """Longest time between two entries that are interpolated between."""

    def match(self, entries: np.ndarray, known: np.ndarray, times: np.ndarray) -> Match:
        """Match times [T] to entries at increasing times [K], of which some are known [K] bool.

        Entries 1 s apart are interpolated between, entries 2 s apart are not:

        >>> entries, known = np.array([0.0, 1.0, 3.0]), np.array([True, True, True])
        >>> match = Sampling(tolerance=0.1, max_gap=1.0).match(entries, known, np.array([0.25, 1.05, 2.0]))
        >>> match.blend(np.array([10.0, 20.0, 30.0])).tolist()
        [12.5, 20.0, nan]
        """
        slack = 1e-6
        before = np.clip(np.searchsorted(entries, times, side="right") - 1, 0, len(entries) - 1)
        after = np.minimum(before + 1, len(entries) - 1)
        gap = entries[after] - entries[before]
        offset = times - entries[before]
        between = (offset > slack) & (offset < gap - slack) & (gap <= self.max_gap + slack)
        between &= known[before] & known[after]
        nearest = np.where(np.abs(offset) <= np.abs(entries[after] - times), before, after)
        close = (np.abs(entries[nearest] - times) <= self.tolerance + slack) & known[nearest]
        return Match(
            before=np.where(between, before, nearest),
            after=np.where(between, after, nearest),
            weight=np.where(between, offset / np.where(gap > 0, gap, 1), 0.0),
            known=between | close,
        )
