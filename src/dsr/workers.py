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
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from dsr.console import StageError

Item = TypeVar("Item")
Result = TypeVar("Result")

_IN_FLIGHT = 4
"""Items handed to a process ahead of its answers, so that it never waits for this one."""
_READY = "ready"
_context = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Failure:
    """An item without a result: its function raised, or its process died."""

    reason: str


def map_isolated(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Generator[tuple[int, Result | Failure], None, None]:
    """Yield (index, result or Failure) of every item, in the order in which they finish.

    Closing the iterator lets the processes finish what they are at and ends them.

    Args:
        function: picklable; sent to each process once.
        items: picklable.
        workers: processes, at least 1; no more than items are started.

    Raises:
        StageError: a process dies before its first item (its imports fail, say).
    """
    # Takes effect where no server runs yet; elsewhere each process makes its own imports.
    _context.set_forkserver_preload(["__main__", function.__module__])
    waiting = deque(range(len(items)))
    pool: list[_Worker[Item]] = []
    try:
        while waiting or pool:
            while waiting and len(pool) < min(workers, len(waiting) + len(pool)):
                pool.append(_Worker(function))
            for worker in pool:
                worker.feed(waiting, items)
            for connection in wait([w.connection for w in pool]):
                worker = next(w for w in pool if w.connection is connection)
                answer = worker.receive()
                if answer is not None:
                    yield answer
                elif worker.is_over():
                    pool.remove(worker)
                    waiting.extendleft(reversed(worker.unanswered()))
                    if worker.at_fault is not None:
                        yield worker.at_fault, Failure(worker.cause())
            for worker in [w for w in pool if w.ready and not w.in_flight and not waiting]:
                pool.remove(worker)
                worker.stop()
    finally:
        for worker in pool:
            worker.connection.close()
        for worker in pool:
            worker.stop()


def reason(error: BaseException) -> str:
    """One line for a person: the message, with the error's type unless the message was written for a person."""
    text = " ".join(str(error).split())
    return text if text and isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {text}"


class _Worker(Generic[Item]):
    """One process, its pipe, and the indices that it has been handed but has not answered."""

    def __init__(self, function: Callable[[Item], Any]) -> None:
        self.connection, theirs = _context.Pipe()
        self.process: BaseProcess = _context.Process(target=_serve, args=(theirs, function), daemon=True)
        self.process.start()
        # Its end must be open in that process alone, or its death would not end the stream.
        theirs.close()
        self.in_flight: deque[int] = deque()
        self.ready = False
        self.at_fault: int | None = None
        self._over = False

    def feed(self, waiting: deque[int], items: Sequence[Item]) -> None:
        while self.ready and waiting and len(self.in_flight) < _IN_FLIGHT:
            index = waiting.popleft()
            self.in_flight.append(index)
            try:
                self.connection.send((index, items[index]))
            except OSError:
                return  # It died; receive() will say so.

    def receive(self) -> tuple[int, Any] | None:
        """The next answer, or None: it has just become ready, or is over."""
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            self._end()
            return None
        if message == _READY:
            self.ready = True
            return None
        self.in_flight.popleft()
        index, result = message
        return index, result

    def is_over(self) -> bool:
        return self._over

    def unanswered(self) -> list[int]:
        """What it had been handed after the item at fault."""
        return list(self.in_flight)

    def cause(self) -> str:
        code = self.process.exitcode
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

    def _end(self) -> None:
        self._over = True
        self.stop()
        if not self.ready:
            raise StageError(f"a worker process did not start: {self.cause()}; its output above says why")
        if self.in_flight:
            self.at_fault = self.in_flight.popleft()


def _serve(connection: Connection, function: Callable[[Any], Any]) -> None:
    """Answer items until the other end closes."""
    # Ctrl-C goes to the whole group; the parent ends this process by closing the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection.send(_READY)
    while True:
        try:
            index, item = connection.recv()
        except (EOFError, OSError):
            return
        try:
            result = function(item)
        # Any error of one item is that item's failure, to be shown with its reason.
        except Exception as error:
            result = Failure(reason(error))
        try:
            connection.send((index, result))
        except OSError:
            return  # The parent has gone.
