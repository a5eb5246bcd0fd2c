"""An explanation as a picture: frames at the key moments, the scene from above, the signal and its states."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsr.cues.clips import Clip
from dsr.cues.schema import ClipCues
from dsr.explain.derivation import Panel
from dsr.explain.explanation import VERSIONS, Explanation, closest_call, option_text
from dsr.explain.frames import Box, clip_frames, draw_frame
from dsr.explain.model_view import ModelView, things_shown
from dsr.explain.palette import AXES, EXACT, FAINT, GREY, INK, ROLES, SIGNS, line_colour
from dsr.explain.pictures import write_png
from dsr.explain.top_down import Path as WorldPath
from dsr.explain.top_down import draw_top_down
from dsr.mcq import LETTERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_FRAMES = 6
MOST_THINGS = 10
"""Rows of the panel of attention."""
NEGLIGIBLE = 0.02
"""Share of the attention that need not be in its panel."""
_TAGS = {"viewer": "viewer", "a": "A", "b": "B", "c": "C"}
_LETTER = 7.5
"""Width of a letter in the strip of states, in pixels of a figure's own 100 an inch."""
_LINE = 0.2
"""Height of a line of text, inches."""
_WIDTH, _WIDTH_WITHOUT_WORDS = 15.0, 11.5
"""Inches; a smaller picture has larger letters beside its lines."""


def write_picture(
    path: Path, found: Explanation, cues: ClipCues, clip: Clip | None, view: ModelView | None = None
) -> None:
    """Write the picture as PNG."""
    write_png(path, lambda: draw_explanation(found, cues, clip, view=view))


def draw_explanation(
    found: Explanation, cues: ClipCues, clip: Clip | None, words: bool = True, view: ModelView | None = None
) -> "Figure":
    """The picture.

    Args:
        words: False leaves out the question above and the summary below.
        view: of a model, whose attention gets a panel of its own.
    """
    from matplotlib.figure import Figure

    header, footer = (_header(found), _footer(found)) if words else ([], [])
    width = _WIDTH if words else _WIDTH_WITHOUT_WORDS
    size = (int(cues.meta["width"]), int(cues.meta["height"]))
    shown = _frames_shown(found)
    frame_height = min(width * 0.96 / max(len(shown), 4) * size[1] / size[0], 3.2) + 0.3
    # Every second row is a space, for titles and ticks.
    ends = [max(len(lines) * _LINE, 0.01) for lines in (header, footer)]
    gaps = (0.3, 0.65) if words else (0.15, 0.3)
    things = things_shown(view, MOST_THINGS) if view else []
    attention = [0.3, max(0.5 * len(things), 0.4 * len(view.glances)), 0.55] if view else []
    heights = [ends[0], gaps[0], frame_height, 0.55, 0.35 * width, gaps[1], *attention, ends[1]]
    figure = Figure(figsize=(width, sum(heights) + 0.3), facecolor="white")
    margin = 0.15 / (sum(heights) + 0.3)
    rows = figure.add_gridspec(
        len(heights), 1, height_ratios=heights, left=0.02, right=0.985, top=1 - margin, bottom=margin, hspace=0
    )
    _write(figure.add_subplot(rows[0]), header)
    _draw_frames(figure, rows[2], found, cues, clip, shown, size)
    middle = rows[4].subgridspec(1, 4, width_ratios=(0.3, 4.2, 1.1, 9.1), wspace=0)
    _draw_world(figure.add_subplot(middle[1]), found)
    _draw_signal(figure, middle[3], found)
    if view:
        _draw_attention(figure.add_subplot(rows[7].subgridspec(1, 3, width_ratios=(3.4, 7.2, 4.4))[1]), view, things)
    _write(figure.add_subplot(rows[-1]), footer)
    return figure


def _header(found: Explanation) -> list[tuple[str, dict[str, Any]]]:
    row = found.row
    lines: list[tuple[str, dict[str, Any]]] = [
        (f"{row['qa_id']}   ({row['type']}, quartet {row['quartet_id']})", {"color": GREY, "fontsize": 9})
    ]
    lines += [(text, {"fontsize": 11, "weight": "bold"}) for text in _even_lines(row["question"], 160)]
    for letter, option in zip(LETTERS, row["options"], strict=True):
        right = letter == row["answer"]
        style = {"weight": "bold", "color": INK} if right else {"color": GREY}
        lines.append((f"{'▶' if right else '   '} {option}", {"fontsize": 10, **style}))
    return lines


def _even_lines(text: str, width: int) -> list[str]:
    """Lines of a text, as few as fit, none left with a word or two."""
    count = len(textwrap.wrap(text, width))
    return next(lines for w in range(len(text) // count, width + 1) if len(lines := textwrap.wrap(text, w)) == count)


def _footer(found: Explanation) -> list[tuple[str, dict[str, Any]]]:
    agreement = ", ".join(f"{name} {a} of {n}" for name, (a, n) in found.agreement().items())
    style = {"fontsize": 9.5, "color": INK}
    lines = [
        (f"Answer on the cues: {found.answer}", style),
        (f"Versions of the cues that agree: {agreement}", style),
    ]
    if found.answer != found.right:
        lines.append(("This is not the option that the pool calls right: its cues have changed since.", style))
    lines.append((f"Closest call: {closest_call(found)}", style))
    for other in found.quartet:
        lines.append((f"Quartet: {other['qa_id']}   {option_text(other)}", {"fontsize": 8.5, "color": GREY}))
    return lines


def _write(axes: "Axes", lines: list[tuple[str, dict[str, Any]]]) -> None:
    axes.axis("off")
    for i, (text, style) in enumerate(lines):
        axes.text(0.0, 1 - (i + 0.5) / len(lines), text, va="center", **style)


def _frames_shown(found: Explanation) -> list[int]:
    """Positions among the key moments that get a frame, first and last among them."""
    count = len(found.frames)
    return sorted(set(np.linspace(0, count - 1, min(count, MOST_FRAMES)).round().astype(int).tolist()))


def _draw_frames(
    figure: "Figure",
    cell: Any,
    found: Explanation,
    cues: ClipCues,
    clip: Clip | None,
    shown: list[int],
    size: tuple[int, int],
) -> None:
    columns = max(len(shown), 4)
    row = cell.subgridspec(1, columns, wspace=0.03)
    images = clip_frames(clip, cues, found.frames[shown])
    for column, moment in enumerate(shown):
        axes = figure.add_subplot(row[column])
        frame = int(found.frames[moment])
        boxes = [
            Box.of(cues.boxes[entity - 1, frame], ROLES[role], _TAGS[role], corner)
            for corner, (role, entity) in enumerate(found.roles.items())
            if entity > 0 and np.isfinite(cues.boxes[entity - 1, frame]).all()
        ]
        draw_frame(axes, images[column] if images is not None else None, size, boxes)
        hidden = found.form.signal == "dir_pred" and moment == 2
        note = " (not shown to a model)" if hidden else ""
        axes.set_title(
            f"{moment + 1}: {found.times[moment]:.2f} s{note}", fontsize=9, pad=3, color=GREY if hidden else INK
        )


def _draw_world(axes: "Axes", found: Explanation) -> None:
    form = found.form
    frames = [int(f) for f in found.frames]
    stated = frames[form.stated]
    paths = []
    for role, entity in found.roles.items():
        at: tuple[int, ...] = ()
        if role == "viewer" and form.needs_axes:
            at = (stated,) if form.viewer == "fixed" else tuple(frames)
        if role == "a" and form.oriented_target:
            at = tuple(frames)
        label = f"{_TAGS[role]}: {found.scene.labels[entity]}"
        paths.append(WorldPath(entity, label, ROLES[role], at))
    if 0 not in found.roles.values():
        paths.append(WorldPath(0, "camera", GREY))
    draw_top_down(axes, found.scene, paths, frames, _links(found, frames, stated))
    axes.set_anchor("NW")
    axes.set_title("from above, in median depths;\nthe camera first looks up the page", fontsize=8.5, loc="left")
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.06), ncols=2, fontsize=8, frameon=False, borderaxespad=0)


def _links(found: Explanation, frames: list[int], stated: int) -> list[tuple[int, int, int, int]]:
    """Lines along which distances and directions are taken."""
    form, roles = found.form, found.roles
    if form.signal not in ("dis", "dir"):
        return []
    if form.num_targets == 2:
        return [(roles["a"], f, roles["b"], f) for f in frames]
    return [(roles["viewer"], stated if form.viewer == "fixed" else f, roles["a"], f) for f in frames]


def _draw_signal(figure: "Figure", cell: Any, found: Explanation) -> None:
    panels, states = found.derivation.panels, found.derivation.states
    rows = len(states[0].signs)
    grid = cell.subgridspec(len(panels) + 1, 1, height_ratios=[4.0] * len(panels) + [0.5 * rows + 0.3], hspace=0.34)
    span = max(float(np.ptp(found.times)), 1e-6)
    window = (found.times[0] - 0.09 * span, found.times[-1] + 0.09 * span)
    for i, panel in enumerate(panels):
        axes = figure.add_subplot(grid[i])
        _draw_panel(axes, panel, found)
        axes.set_xlim(window)
        axes.tick_params(labelbottom=False)
    _draw_states(figure.add_subplot(grid[-1]), found, window)


def _draw_panel(axes: "Axes", panel: Panel, found: Explanation) -> None:
    from matplotlib.ticker import AutoLocator, FuncFormatter, LogLocator, NullLocator

    ensemble = found.ensemble()
    exact = found.origin == VERSIONS.index("exact truth")
    for band in panel.bands:
        axes.fill_between([band.start, band.end], band.low, band.high, color="#E6E6E6", lw=0, zorder=0)
    for series in panel.series:
        colour = line_colour(series.role)
        values = series.values[:, ensemble]
        axes.fill_between(series.times, values.min(axis=1), values.max(axis=1), color=colour, alpha=0.22, lw=0)
        axes.plot(series.times, series.values[:, 0], color=colour, lw=1.8, marker="o", ms=5, label=series.label)
        if exact.any():
            axes.plot(series.times, series.values[:, exact][:, 0], color=EXACT, lw=1, ls=":", zorder=3)
    for line in panel.between:
        axes.plot(line.times, line.values[:, 0], "x", color=line_colour(line.role), ms=4, mew=1, zorder=3)
    every = np.concatenate([s.values.ravel() for s in (*panel.series, *panel.between)])
    low, high = float(np.nanmin(every)), float(np.nanmax(every))
    unseen = _draw_limits(axes, panel, low, high)
    if panel.series[0].role in AXES:
        axes.set_ylim(-1.08, 1.08)
    if panel.logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(AutoLocator() if high < 6 * low else LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.3g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    title = "\n".join(textwrap.wrap(panel.title + (f"   ({unseen})" if unseen else ""), 95))
    axes.set_title(title, fontsize=9.5, loc="left", pad=19)
    axes.set_ylabel("\n".join(textwrap.wrap(panel.unit, 34)), fontsize=8.5)
    axes.tick_params(labelsize=8)
    for time in found.times:
        axes.axvline(time, color="#E0E0E0", lw=0.8, zorder=-1)
    _legend(axes, panel, bool(exact.any()))


def _draw_limits(axes: "Axes", panel: Panel, low: float, high: float) -> str:
    """Draw the limits that are near the signal; returns what to say of the others."""
    unseen = []
    for value, text in panel.limits:
        if panel.logarithmic and not low / 1.5 < value < 1.5 * high:
            unseen.append(f"{text}: {value:.3g}, far {'below' if value < low else 'above'}")
            continue
        axes.axhline(value, color=GREY, lw=1, ls="--")
        axes.annotate(
            f"{text}: {value:.3g}",
            (1, value),
            (-4, 2),
            axes.get_yaxis_transform(),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=8,
            color=GREY,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5},
        )
    return "; ".join(unseen)


def _legend(axes: "Axes", panel: Panel, exact: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles, labels = axes.get_legend_handles_labels()
    if len(panel.series) == 1:
        labels = ["cues as they are"]
    if panel.between:
        colour = line_colour(panel.series[0].role) if len(panel.series) == 1 else GREY
        handles.append(Line2D([], [], color=colour, lw=0, marker="x", ms=4))
        labels.append("between moments")
    handles.append(Patch(color=GREY, alpha=0.3))
    labels.append("all of the ensemble")
    if exact:
        handles.append(Line2D([], [], color=EXACT, lw=1, ls=":"))
        labels.append("exact truth")
    if panel.bands:
        handles.append(Patch(color="#E6E6E6"))
        labels.append(panel.band_means)
    axes.legend(
        handles,
        labels,
        fontsize=8,
        ncols=len(handles),
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        frameon=False,
        borderpad=0.1,
        borderaxespad=0.25,
        handlelength=1.6,
        columnspacing=1.2,
    )


def _draw_states(axes: "Axes", found: Explanation, window: tuple[float, float]) -> None:
    """A strip with a block a state, a row an axis."""
    from matplotlib.ticker import FuncFormatter

    letters = axes.get_window_extent().width / _LETTER
    states = found.derivation.states
    rows = len(states[0].signs)
    centres = np.array([(s.start + s.end) / 2 for s in states])
    starts, ends = np.array([s.start for s in states]), np.array([s.end for s in states])
    if len(states) > 1 and (starts == ends).all():
        middles = (centres[1:] + centres[:-1]) / 2
        starts = np.concatenate([[2 * centres[0] - middles[0]], middles])
        ends = np.concatenate([middles, [2 * centres[-1] - middles[-1]]])
    starts, ends = np.clip(starts, *window), np.clip(ends, *window)
    for state, start, end in zip(states, starts, ends, strict=True):
        share = (end - start) / (window[1] - window[0])
        for row, (sign, words) in enumerate(zip(state.signs, state.words, strict=True)):
            axes.barh(
                rows - 1 - row, end - start, left=start, height=0.92, color=SIGNS[sign], edgecolor="white", lw=1.5
            )
            text = "\n".join(textwrap.wrap(words, max(int(share * letters), 6)))
            axes.text((start + end) / 2, rows - 1 - row, text, ha="center", va="center", fontsize=8.5, color=INK)
    axes.set(xlim=window, ylim=(-0.5, rows - 0.5), yticks=[])
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g} s"))
    axes.set_ylabel("states" if rows > 1 else "state", fontsize=8.5)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _draw_attention(axes: "Axes", view: ModelView, things: Sequence[str]) -> None:
    """Circles whose areas are shares of attention, over time and things, a colour a key moment."""
    from matplotlib import colormaps
    from matplotlib.ticker import FuncFormatter

    seconds = np.array([token.seconds for token in view.tokens])
    row_of = {name: row for row, name in enumerate(things)}
    rows = np.array([row_of.get(token.what, -1) for token in view.tokens])
    shown, count = rows >= 0, len(view.glances)
    for row in range(0, len(things), 2):
        axes.axhspan(row - 0.5, row + 0.5, color=FAINT, lw=0, zorder=-1)
    for i, glance in enumerate(view.glances):
        colour = colormaps["viridis"](0.9 * i / max(count - 1, 1))
        # Moments one under another, as in the legend.
        heights = rows[shown] + (0.7 * (i + 0.5) / count - 0.35)
        axes.scatter(seconds[shown], heights, 260 * glance.shares[shown], color=colour, lw=0, alpha=0.85)
        axes.plot(
            [glance.start, glance.end], [-0.62, -0.62], color=colour, marker="|", ms=9, mew=3, lw=3, clip_on=False
        )
        told = f"{glance.told}" if glance.told else ""
        for row, text in enumerate([f"{i + 1}: {glance.moment}", *textwrap.wrap(told, 52)]):
            axes.annotate(
                text,
                (1.02, 1 - (i + 0.15) / count),
                (0, -11.5 * row),
                "axes fraction",
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=INK if row else colour,
                weight="normal" if row else "bold",
            )
    near = seconds[shown & (np.max([glance.shares for glance in view.glances], axis=0) > NEGLIGIBLE)]
    ends = [end for glance in view.glances for end in (glance.start, glance.end)]
    axes.set_xlim(min([*near, *ends]) - 0.2, max([*near, *ends]) + 0.2)
    axes.set(ylim=(len(things) - 0.5, -0.5), yticks=range(len(things)), yticklabels=list(things))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g} s"))
    axes.tick_params(labelsize=8, length=0)
    axes.set_title(
        f"where the model's selector looked: areas are shares of a key moment's attention.   {view.letters()}",
        fontsize=9.5,
        loc="left",
        pad=15,
    )
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
