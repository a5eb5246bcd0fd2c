"""What a person sees of long work."""

import io

import pytest
from rich.console import Console

from dsr import console


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    out = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=out, width=160))
    return out


def test_where_there_is_no_terminal_a_line_a_minute_says_how_fast_it_goes(
    printed: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(console.time, "monotonic", lambda: float(next(clock)))
    assert list(console.track(range(10), "cues: making", 10, unit="clips")) == list(range(10))
    # Twenty seconds an item, so three a minute.
    assert printed.getvalue().splitlines() == [
        "cues: making 3/10, 3.0 clips/min, 2 min left",
        "cues: making 6/10, 3.0 clips/min, 1 min left",
        "cues: making 9/10, 3.0 clips/min, 0 min left",
    ]


def test_quick_work_says_nothing_in_a_log(printed: io.StringIO) -> None:
    assert list(console.track(range(10), "reading", 10)) == list(range(10))
    assert list(console.track(range(10), "making", 10, unit="clips")) == list(range(10))
    assert printed.getvalue() == ""


def test_the_bar_of_a_terminal_shows_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=out, width=160, force_terminal=True))
    assert list(console.track(range(3), "cues: making", 3, unit="clips")) == [0, 1, 2]
    assert "clips/min" in out.getvalue()
