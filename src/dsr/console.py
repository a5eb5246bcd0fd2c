"""What a person sees while a stage runs: progress with time left, a table of counts at the end, one-line errors."""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

T = TypeVar("T")
console = Console(stderr=True, soft_wrap=True)


class StageError(Exception):
    """An error for the user: what was wrong, where, what to do. The command line prints it without a traceback."""


def track(items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
    """Iterate with a progress bar, the rate and the time left; one plain line at the end when not a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=4, disable=not console.is_terminal) as progress:
        yield from progress.track(items, total=total, description=title)


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
