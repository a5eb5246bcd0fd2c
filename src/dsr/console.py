"""Output for people: progress with time left, a table of counts at the end of a stage, one-line errors."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

T = TypeVar("T")
console = Console(stderr=True, soft_wrap=True)
PLAIN_EVERY = 60.0
"""Seconds between the lines that stand for the bar in a log file."""


class StageError(Exception):
    """An error for the user: what was wrong, where, what to do. The command line prints it without a traceback."""


def package(name: str, remedy: str) -> Any:
    """A package that a part of this project needs, or, where it is not installed, what says so when it is used.

    Args:
        name: of the module.
        remedy: what to do where it is missing.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != name.split(".")[0]:
            raise
        return _Missing(name, remedy)


class _Missing:
    def __init__(self, name: str, remedy: str) -> None:
        self._name, self._remedy = name, remedy

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # asked for by those that look at a module's names
            raise AttributeError(attribute)
        raise StageError(f"{self._name.split('.')[0]} is not installed, and this needs it: {self._remedy}")


def track(items: Iterable[T], title: str, total: int | None = None, unit: str = "") -> Iterator[T]:
    """Iterate with a progress bar and the time left.

    Args:
        unit: what the items are, for work that takes long: the bar shows how many are done a minute, and where there
            is no terminal a plain line says so once a minute.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        *([_RateColumn(unit)] if unit else []),
    )
    if unit and not console.is_terminal:
        yield from _track_plainly(items, title, total, unit)
        return
    with Progress(*columns, console=console, refresh_per_second=4, disable=not console.is_terminal) as progress:
        yield from progress.track(items, total=total, description=title)


class _RateColumn(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text(_rate(task.completed, task.elapsed or 0.0, self.unit), style="progress.data.speed")


def _rate(done: float, seconds: float, unit: str) -> str:
    return f"{60 * done / seconds:.1f} {unit}/min" if done and seconds else f"- {unit}/min"


def _track_plainly(items: Iterable[T], title: str, total: int | None, unit: str) -> Iterator[T]:
    started = said = time.monotonic()
    for done, item in enumerate(items, 1):
        now = time.monotonic()
        if now - said >= PLAIN_EVERY:
            said, seconds = now, now - started
            left = f", {(total - done) * seconds / done / 60:.0f} min left" if total else ""
            console.print(f"{title} {done}{f'/{total}' if total else ''}, {_rate(done, seconds, unit)}{left}")
        yield item


def warn(message: str) -> None:
    console.print(f"[yellow]warning:[/] {escape(message)}")


def summary(title: str, counts: Mapping[str, object]) -> None:
    """Print a stage's closing table: one row a key, in the order given."""
    table = Table(title=title, title_justify="left", show_header=False)
    for key, value in counts.items():
        table.add_row(escape(key), f"{value:,}" if isinstance(value, int) else escape(str(value)))
    console.print(table)


def num_workers(requested: int) -> int:
    """Worker processes to use: what was asked for, or with 0 the cores this process may run on."""
    return requested if requested > 0 else len(os.sched_getaffinity(0))
