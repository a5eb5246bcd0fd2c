"""`dsr report`: one HTML file with everything that a run of the pipeline has to say.

Self-contained: pictures are data URLs, charts are SVG, there is no script, and the file's own policy lets a browser
load nothing. All text is escaped where it is put in, whatever a label or a caption holds.
"""

import math
from pathlib import Path
from typing import Any

import jinja2

from dsr import project
from dsr.console import StageError, summary, track, warn
from dsr.files import write_bytes
from dsr.params import Params
from dsr.report.contents import MOST_ROWS, read_contents
from dsr.report.gallery import Card, cards, choose

MOST_BYTES = 10_000_000
"""A report stays below this: its gallery is cut, and says so."""


def run(params: Params, root: Path, path: Path | None = None, gallery: int = 8) -> None:
    """Write the report of what there is; missing parts are named in it.

    Args:
        path: default metrics/report.html.
        gallery: most questions shown of those answered right, and of those answered wrong.
    """
    path = path or root / project.REPORT
    contents = read_contents(root)
    groups, left_out = _gallery(params, root, gallery)
    page = render({"contents": contents, "gallery": groups, "left_out": left_out, "most_rows": MOST_ROWS})
    write_bytes(path, page.encode())
    for problem in contents.missing:
        warn(problem)
    shown = sum(len(group) for _, group in groups)
    summary("report", {"file": str(path), "megabytes": f"{len(page) / 1e6:.1f}", "questions shown": shown})


def render(content: dict[str, Any]) -> str:
    """The page of its contents."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dsr.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "count": count}
    return environment.get_template("report.html.jinja").render(content)


def percent(value: float | None, digits: int = 1) -> str:
    """Such as "28.5 %"; a dash for what is not defined."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.{digits}f} %"


def count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _gallery(params: Params, root: Path, most: int) -> tuple[list[tuple[str, list[Card]]], int]:
    """Cards by heading, and how many were left out for the file's size."""
    try:
        chosen = choose(root, most)
    except StageError:
        return [], 0
    groups, size, left_out = [], 0, 0
    for title, questions in chosen.items():
        shown = []
        for card in track(cards(params, root, questions), f"report: {title.lower()}", len(questions)):
            size += len(card.picture) + len(card.explanation)
            if size > 0.9 * MOST_BYTES:
                left_out += 1
            else:
                shown.append(card)
        groups.append((title, shown))
    return groups, left_out
