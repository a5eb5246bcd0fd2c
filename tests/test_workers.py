"""Work over processes that die."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator

import pytest

from dsr.console import StageError
from dsr.workers import Failure, ended_after, map_isolated, slot


def square(item: int | str) -> int:
    """Squares numbers; a text says how to fail."""
    if item == "raise":
        raise ValueError("no\nnumber")
    if item == "bug":
        raise KeyError("x")
    if item == "exit":
        os._exit(3)
    if item == "leave":
        os._exit(0)
    if item == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    assert isinstance(item, int)
    time.sleep(0.001)
    return item * item


@pytest.mark.parametrize("workers", [1, 3])
def test_every_item_has_a_result_or_a_reason(workers: int) -> None:
    items = [0, 1, "exit", "leave", "killed", 2, "raise", "segfault", "bug", *range(3, 40)]
    results = dict(map_isolated(square, items, workers))
    assert sorted(results) == list(range(len(items)))
    reasons = {items[k]: r.reason for k, r in results.items() if isinstance(r, Failure)}
    assert reasons == {
        "exit": "its worker process ended with exit code 3",
        "leave": "its worker process ended with exit code 0",
        "killed": "its worker process died of SIGKILL: out of memory?",
        "segfault": "its worker process died of SIGSEGV",
        "raise": "no number",
        "bug": "KeyError: 'x'",
    }
    assert all(results[k] == item**2 for k, item in enumerate(items) if isinstance(item, int))


def test_nothing_to_do_starts_no_process() -> None:
    assert list(map_isolated(square, [], 4)) == []


def test_closing_early_ends_the_processes() -> None:
    items = iter(range(10_000))
    results = map_isolated(square, items, 2)
    next(results)
    results.close()
    # Four in each of the two processes, one answered, and a few that wait for a process to start.
    assert next(items) < 20
    assert multiprocessing.active_children() == []


class _Unloadable:
    """Picklable, but the process that unpickles it ends."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (7,)

    def __call__(self, item: int) -> int:
        return item


def test_a_process_that_cannot_start_is_an_error_and_not_a_loop() -> None:
    with pytest.raises(StageError, match=r"did not start: .* exit code 7"):
        list(map_isolated(_Unloadable(), [1, 2, 3], 2))


def slow_square(item: int) -> tuple[int, int, float]:
    """The square, the process's slot, and when it began."""
    began = time.monotonic()
    time.sleep(0.02)
    return item * item, slot(), began


def test_items_may_still_be_in_the_making() -> None:
    """Work on the first begins before the last is made, and no more are taken than there is room for."""
    made: list[float] = []

    def making() -> Iterator[int]:
        for item in range(12):
            time.sleep(0.02)
            made.append(time.monotonic())
            yield item

    results, most = {}, 0
    for done, (index, result) in enumerate(map_isolated(slow_square, making(), 2, ahead=1), 1):
        results[index] = result
        most = max(most, len(made) - done)
    assert [results[k][0] for k in range(12)] == [k * k for k in range(12)]
    assert results[0][2] < made[-1]
    # Two in the processes, one waiting, one in the making.
    assert most <= 4


def test_processes_are_numbered_and_replaced_by_number() -> None:
    items = [*range(6), "exit", *range(6), "killed", *range(30)]
    slots = [r[1] for _, r in map_isolated(number, items, 2) if not isinstance(r, Failure)]
    assert set(slots) == {0, 1}


def number(item: int | str) -> tuple[int, int]:
    return square(item), slot()


def hang(item: float) -> float:
    with ended_after(0.3):
        time.sleep(item)
    return item


def test_an_item_that_hangs_is_ended_after_its_time() -> None:
    results = dict(map_isolated(hang, [0.0, 30.0, 0.01, 0.02], 1))
    assert {k for k, r in results.items() if isinstance(r, Failure)} == {1}
    assert "longer than its time limit" in results[1].reason


def test_one_item_at_a_time_comes_to_an_end() -> None:
    """That nothing is left is found out when every process is idle."""
    assert sorted(map_isolated(square, [1, 2, 3], 2, ahead=1)) == [(0, 1), (1, 4), (2, 9)]


def doubled(item: bytes) -> bytes:
    return item * 2


def test_large_items_and_large_answers_do_not_wait_for_each_other() -> None:
    """Both ways of a pipe are full at once where items are sent ahead of answers that nobody reads yet."""
    signal.alarm(60)  # Ends the test, and says so, where they do.
    try:
        items = [bytes([i]) * 400_000 for i in range(12)]
        results = dict(map_isolated(doubled, items, 2))
    finally:
        signal.alarm(0)
    assert all(results[i] == item * 2 for i, item in enumerate(items))


def process_or_large(item: str) -> int | bytes:
    return os.getpid() if item == "process" else bytes(4_000_000)


def test_a_process_that_is_killed_within_its_answer_costs_that_item_alone() -> None:
    """Nobody reads yet, so that the large answer is at most half sent when its process dies."""
    results = map_isolated(process_or_large, ["process", "large", "large"], 1)
    index, process = next(results)
    assert isinstance(process, int)
    time.sleep(0.1)
    os.kill(process, signal.SIGKILL)
    rest = dict(results)
    assert index == 0
    assert rest == {1: Failure("its worker process died of SIGKILL: out of memory?"), 2: bytes(4_000_000)}
