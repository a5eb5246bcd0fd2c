"""Batches that do not fit into memory."""

from collections.abc import Iterator

import pytest
import torch

from dsr.perception.batches import in_batches


class Device:
    """Doubles numbers, but no more than `room` at a time."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sizes: list[int] = []

    def __call__(self, items: list[int]) -> list[int]:
        self.sizes.append(len(items))
        if len(items) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [2 * item for item in items]


def test_a_batch_that_does_not_fit_is_halved_and_what_was_smaller_stays_smaller() -> None:
    device = Device(room=2)
    assert in_batches(device, range(7), 5) == [0, 2, 4, 6, 8, 10, 12]
    assert device.sizes == [5, 2, 2, 2, 1]


def test_a_single_item_that_does_not_fit_is_an_error() -> None:
    device = Device(room=0)
    with pytest.raises(torch.OutOfMemoryError):
        in_batches(device, [1, 2, 3], 8)
    assert device.sizes == [3, 1]


def test_items_are_taken_as_they_are_needed() -> None:
    device = Device(room=8)
    ahead: list[int] = []

    def items() -> Iterator[int]:
        for k in range(5):
            ahead.append(k - 2 * len(device.sizes))
            yield k

    assert in_batches(device, items(), 2) == [0, 2, 4, 6, 8]
    assert max(ahead) == 1
    assert in_batches(device, iter(()), 2) == []
