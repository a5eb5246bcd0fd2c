"""Reading of a free-form question: its family's conditions and curves in the words of an explanation."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dsr.explain.derivation import Band, Derivation, Panel, Series, State
from dsr.params import QA
from dsr.questions.engine.conditions import all_hold
from dsr.questions.engine.free_form import Curves, Moments, Names, apply_rule
from dsr.questions.language.families import Family

UNCLEAR = "(no clear answer)"


def derive_family(form: Family, moments: Moments, names: dict[str, str], qa: QA) -> tuple[Derivation, str]:
    """Derivation of the answer to a question of a free-form family, and the answer on the cues as they are.

    Args:
        moments: of one question, K = 1.
        names: `viewer`, `a`, `b`, `c`: what the question's words mean.
    """
    times = moments.seconds[0]
    start, end = float(times[0]), float(times[-1])
    targets = tuple(names[role] for role in "abc" if role in names)
    words = Names(targets, names.get("viewer", ""), f"{start:.1f} s", f"{end:.1f} s")
    ruling = apply_rule(form.signal, replace(moments, names=words), qa)
    case = ruling.nearest_case()
    conditions = [replace(condition, values=condition.values[0]) for condition in case.conditions]
    text = form.answers[case.answer] if all_hold(conditions)[0] else UNCLEAR
    panels = [_panel(curves, names) for curves in ruling.curves()]
    state = State(start, end, (2,), (text,), text)
    return Derivation(panels[0].title, panels, [state], conditions, *_table(panels)), text


def _panel(curves: Curves, names: dict[str, str]) -> Panel:
    times = curves.seconds[0]
    lines = [
        Series(curves.label or " and ".join(names[letter] for letter in role), role, times, values[0])
        for role, values in curves.lines.items()
    ]
    bands = [Band(times[0], times[-1], low, high) for low, high in curves.bands]
    return Panel(
        curves.what,
        curves.unit,
        lines,
        bands=bands,
        band_means=curves.band_means,
        limits=curves.limits,
        logarithmic=curves.logarithmic,
    )


def _table(panels: Sequence[Panel]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the signals that are known at the times of the first one."""
    times = panels[0].series[0].times
    rows = [
        [line.label, *(f"{v:.{0 if panel.unit == 'degrees' else 2}f}" for v in line.values[:, 0]), panel.unit]
        for panel in panels
        for line in panel.series
        if np.array_equal(line.times, times)
    ]
    return ["", *(f"{t:.1f} s" for t in times), ""], rows
