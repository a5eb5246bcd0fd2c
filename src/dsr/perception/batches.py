"""Batches sized to memory: one that does not fit is tried again in halves."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_batches(run: Callable[[list[Item]], list[Result]], items: Iterable[Item], size: int) -> list[Result]:
    """Results of all items, `size` at a time; fewer where that is more than the device's memory holds.

    Args:
        run: a batch -> one result an item.
        items: consumed as they are needed, so that they may still be in the making.

    Raises:
        torch.OutOfMemoryError: a single item does not fit.
    """
    iterator = iter(items)
    results: list[Result] = []
    waiting: list[Item] = []
    while waiting := waiting + list(islice(iterator, max(size - len(waiting), 0))):
        batch = waiting[:size]
        try:
            results += run(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            size = len(batch) // 2
            torch.cuda.empty_cache()
        else:
            waiting = waiting[len(batch) :]
    return results
