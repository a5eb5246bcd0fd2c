"""Batches sized to memory: one that does not fit is tried again in halves."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


def in_batches(run: Callable[[Any], list[Result]], items: Sequence[Any] | Any, size: int) -> list[Result]:
    """Results of all items, `size` at a time; fewer where that is more than the device's memory holds.

    Args:
        run: a slice of `items` -> one result an item.

    Raises:
        torch.OutOfMemoryError: a single item does not fit.
    """
    results: list[Result] = []
    while len(results) < len(items):
        try:
            results += run(items[len(results) : len(results) + size])
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            size = max(size // 2, 1)
            torch.cuda.empty_cache()
    return results
