"""Work spread over processes, where a process that dies costs one item and not the run.

A decoder that segfaults or a kernel that kills for memory takes its process along; `concurrent.futures` then
gives up every item that was under way and cannot say which one was at fault. Here each process has a pipe of its
own and answers item by item, so the item at fault is the first unanswered one.

Processes are forked from a fork server: it has made the imports and nothing else, so that a process starts (and is
replaced) in milliseconds, and shares no threads, locks or device with the one that asks, as with `spawn`.
"""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeVar

from dsr.console import StageError

Item = TypeVar("Item")
Result = TypeVar("Result")

_IN_FLIGHT = 4
"""Items handed to a process ahead of its answers, so that it never waits for this one."""
_SENT_AHEAD = 8 << 10
"""Most bytes of an item that is sent ahead: with _IN_FLIGHT of them far below what a pipe holds."""
_slot = 0
_context = multiprocessing.get_context("forkserver")
_Pickled = tuple[int, bytes]
"""An item: its index, and its pickle."""


@dataclass(frozen=True)
class Failure:
    """An item without a result: its function raised, or its process died."""

    reason: str


def map_all(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, name: str
) -> Iterator[tuple[int, Result]]:
    """Yield (index, result) of every item, in this process where one is enough.

    Raises:
        StageError: an item's function raised in its process, or its process died; the error begins with `name`.
    """
    if workers == 1:
        yield from ((index, function(item)) for index, item in enumerate(items))
        return
    for index, result in map_isolated(function, items, workers):
        if isinstance(result, Failure):
            raise StageError(f"{name}: {result.reason}")
        yield index, result


def map_isolated(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int = _IN_FLIGHT
) -> Generator[tuple[int, Result | Failure], None, None]:
    """Yield (index, result or Failure) of every item, in the order in which they finish.

    Closing the iterator lets the processes finish what they are at and ends them.

    Args:
        function: picklable; sent to each process once.
        items: picklable; taken one by one as there is room for them, so that they may still be in the making.
        workers: processes, at least 1; no more than items are started.
        ahead: items handed to a process before it has answered for them, at least 1.

    Raises:
        StageError: a process dies before its first item (its imports fail, say).
    """
    # Takes effect where no server runs yet; elsewhere each process makes its own imports.
    _context.set_forkserver_preload(["__main__", function.__module__])
    source = enumerate(items)
    more = True
    waiting: deque[_Pickled] = deque()
    pool: list[_Worker] = []
    try:
        while more or waiting or pool:
            starting = sum(not worker.ready for worker in pool)
            room = any(worker.has_room(ahead) for worker in pool)
            # One item at a time, and a look at the answers in between: to take it may mean to wait for it.
            if more and len(waiting) <= starting and (room or len(pool) < workers):
                taken = next(source, None)
                more = taken is not None
                if taken is not None:
                    waiting.append((taken[0], bytes(ForkingPickler.dumps(taken[1]))))
            if len(pool) < workers and len(waiting) > starting:
                pool.append(_Worker(function, min(set(range(workers)) - {worker.slot for worker in pool})))
            fed = bool(waiting) and _feed(pool, waiting, ahead)
            # Before waiting: one that has nothing to answer would be waited for in vain.
            for worker in [w for w in pool if w.ready and not w.in_flight and not waiting and not more]:
                pool.remove(worker)
                worker.stop()
            if not pool:
                continue
            for connection in wait([w.connection for w in pool], 0 if fed or (more and room) else None):
                worker = next(w for w in pool if w.connection is connection)
                answer = worker.receive()
                if worker.over:
                    pool.remove(worker)
                    waiting.extendleft(reversed(worker.in_flight))
                if answer is not None:
                    yield answer
    finally:
        for worker in pool:
            worker.connection.close()
        for worker in pool:
            worker.stop()


def reason(error: BaseException) -> str:
    """Say an error in one line: its message, with its type unless the message was written for a person.

    >>> reason(ValueError("no frames")), reason(KeyError("width"))
    ('no frames', "KeyError: 'width'")
    """
    text = " ".join(str(error).split())
    return text if text and isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {text}"


def slot() -> int:
    """Number of this process among those of its pool, from 0 on; one that replaces a dead one takes its number."""
    return _slot


@contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """Let the kernel end this process after a time.

    A decoder that hangs holds the interpreter's lock, so nothing that Python does could interrupt it.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class _Worker:
    """One process, its pipe, and the items that it has been handed but has not answered."""

    def __init__(self, function: Callable[[Item], Any], slot: int) -> None:
        self.slot = slot
        self.connection, theirs = _context.Pipe()
        self.process: BaseProcess = _context.Process(target=_serve, args=(theirs, function, slot), daemon=True)
        self.process.start()
        # Its end must be open in that process alone, or its death would not end the stream.
        theirs.close()
        self.in_flight: deque[_Pickled] = deque()
        self.ready = False
        self.over = False

    def has_room(self, ahead: int) -> bool:
        return self.ready and len(self.in_flight) < ahead

    def feed(self, pickled: _Pickled) -> None:
        self.in_flight.append(pickled)
        # If it died, receive() will say so.
        with suppress(OSError):
            self.connection.send_bytes(pickled[1])

    def receive(self) -> tuple[int, Any] | None:
        """Read a message: an item's index and its result or Failure, or None where it concerns no item.

        Where the process has ended, `over` is set and `in_flight` holds the items that another has to take.
        """
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            self.over = True
            self.stop()
            if not self.ready:
                raise StageError(f"a worker process did not start: {self.cause()}; its output above says why") from None
            return (self.in_flight.popleft()[0], Failure(self.cause())) if self.in_flight else None
        if not self.ready:
            self.ready = True
            return None
        return self.in_flight.popleft()[0], message

    def cause(self) -> str:
        code = self.process.exitcode
        if code == -signal.SIGALRM:
            return "its worker process was ended by SIGALRM: it took longer than its time limit"
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = ": out of memory?" if -code == signal.SIGKILL else ""
            return f"its worker process died of {name}{hint}"
        return f"its worker process ended with exit code {code}"

    def stop(self) -> None:
        self.connection.close()
        self.process.join(timeout=5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _feed(pool: list[_Worker], waiting: deque[_Pickled], ahead: int) -> bool:
    """Hand the first waiting item to the process that has the fewest, unless none has room for it."""
    # A large item is sent to a process that waits for it. Sent ahead it could fill the pipe while the process fills
    # the other way with a large answer: each would wait for the other to read.
    room = [worker for worker in pool if worker.has_room(ahead if len(waiting[0][1]) <= _SENT_AHEAD else 1)]
    if room:
        min(room, key=lambda worker: len(worker.in_flight)).feed(waiting.popleft())
    return bool(room)


def _serve(connection: Connection, function: Callable[[Any], Any], slot: int) -> None:
    """Answer items until the other end closes."""
    global _slot
    _slot = slot
    # Ctrl-C goes to the whole group; the parent ends this process by closing the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection.send(None)  # Ready.
    while True:
        try:
            item = connection.recv()
        except (EOFError, OSError):
            return
        try:
            result = function(item)
        # Any error of one item is that item's failure, to be shown with its reason.
        except Exception as error:
            result = Failure(reason(error))
        try:
            connection.send(result)
        except OSError:
            return  # The parent has gone.
