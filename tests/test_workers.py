"""Work over processes that die."""

import os
import signal
import time

import pytest

from dsr.console import StageError
from dsr.workers import Failure, map_isolated


def square(item: int | str) -> int:
    """Squares numbers; a text says how to fail."""
    if item == "raise":
        raise ValueError("no\nnumber")
    if item == "bug":
        raise KeyError("x")
    if item == "exit":
        os._exit(3)
    if item == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    assert isinstance(item, int)
    time.sleep(0.001)
    return item * item


@pytest.mark.parametrize("workers", [1, 3])
def test_every_item_has_a_result_or_a_reason(workers: int) -> None:
    items = [0, 1, "exit", "killed", 2, "raise", "segfault", "bug", *range(3, 40)]
    results = dict(map_isolated(square, items, workers))
    assert sorted(results) == list(range(len(items)))
    reasons = {items[k]: r.reason for k, r in results.items() if isinstance(r, Failure)}
    assert reasons == {
        "exit": "its worker process ended with exit code 3",
        "killed": "its worker process died of SIGKILL: out of memory?",
        "segfault": "its worker process died of SIGSEGV",
        "raise": "no number",
        "bug": "KeyError: 'x'",
    }
    assert all(results[k] == item**2 for k, item in enumerate(items) if isinstance(item, int))


def test_nothing_to_do_starts_no_process() -> None:
    assert list(map_isolated(square, [], 4)) == []


def test_closing_early_ends_the_processes() -> None:
    results = map_isolated(square, list(range(10_000)), 2)
    next(results)
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < 4


class _Unloadable:
    """Picklable, but the process that unpickles it ends."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (7,)

    def __call__(self, item: int) -> int:
        return item


def test_a_process_that_cannot_start_is_an_error_and_not_a_loop() -> None:
    with pytest.raises(StageError, match=r"did not start: .* exit code 7"):
        list(map_isolated(_Unloadable(), [1, 2, 3], 2))
