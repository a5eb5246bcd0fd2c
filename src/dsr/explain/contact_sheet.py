"""A clip's cues on one page: frames with masks and boxes, depth, who is visible when, and the scene from above."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsr.cues.clips import Clip
from dsr.cues.schema import ClipCues
from dsr.explain.frames import Box, clip_frames, draw_frame, segmentation
from dsr.explain.palette import FAINT, GREY, INK, track_colour
from dsr.explain.pictures import write_png
from dsr.explain.top_down import Path as WorldPath
from dsr.explain.top_down import draw_top_down
from dsr.params import Ensemble
from dsr.questions.engine.scene import build_scene

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS, FRAME_ROWS = 6, 2
_WIDTH = 15.0
_AXES_SHOWN = 5
_MASK_OPACITY = 0.4
_PLAIN = Ensemble(members=1, margin=0.0)


def write_contact_sheet(path: Path, cues: ClipCues, clip: Clip | None) -> None:
    """Write the page as PNG."""
    write_png(path, lambda: draw_contact_sheet(cues, clip))


def draw_contact_sheet(cues: ClipCues, clip: Clip | None) -> "Figure":
    from matplotlib.figure import Figure

    size = (int(cues.meta["width"]), int(cues.meta["height"]))
    frames = np.unique(np.linspace(0, cues.num_frames - 1, COLUMNS * FRAME_ROWS).round().astype(int))
    picture = _WIDTH * 0.96 / COLUMNS * size[1] / size[0]
    strip = max(0.22 * cues.num_tracks, 0.4)
    # Every second row is a space, for titles and ticks.
    heights = [0.3, 0.35, FRAME_ROWS * (picture + 0.25), 0.35, picture, 0.5, 3.6 + strip, 0.65]
    figure = Figure(figsize=(_WIDTH, sum(heights)), facecolor="white")
    rows = figure.add_gridspec(
        len(heights), 1, height_ratios=heights, left=0.02, right=0.985, top=1, bottom=0, hspace=0
    )
    _draw_title(figure.add_subplot(rows[0]), cues)
    _draw_frames(figure, rows[2], cues, clip, frames, size)
    _draw_depth(figure, rows[4], cues, frames[:: max(len(frames) // COLUMNS, 1)][:COLUMNS])
    lower = rows[6].subgridspec(1, 4, width_ratios=(0.4, 4.6, 1.6, 8.2), wspace=0)
    _draw_world(figure.add_subplot(lower[1]), cues)
    timeline = lower[3].subgridspec(2, 1, height_ratios=(3.4, strip), hspace=0.08)
    _draw_tracks(figure.add_subplot(timeline[0]), figure.add_subplot(timeline[1]), cues)
    return figure


def _draw_title(axes: "Axes", cues: ClipCues) -> None:
    backend = cues.meta.get("identity", {}).get("backend", "?")
    agents = int(cues.is_agent.sum())
    text = (
        f"{cues.meta.get('clip_id', '')}: {cues.num_frames} frames, {cues.num_tracks} tracks ({agents} agents), "
        f"cues of the {backend} backend"
    )
    axes.axis("off")
    axes.text(0, 0.2, text, fontsize=12, weight="bold", va="center", color=INK)


def _draw_frames(
    figure: "Figure", cell: Any, cues: ClipCues, clip: Clip | None, frames: np.ndarray, size: tuple[int, int]
) -> None:
    grid = cell.subgridspec(FRAME_ROWS, COLUMNS, wspace=0.03, hspace=0.14)
    images = clip_frames(clip, cues, frames)
    for place, frame in enumerate(frames):
        axes = figure.add_subplot(grid[divmod(place, COLUMNS)])
        boxes = [
            Box.of(cues.boxes[track, frame], track_colour(track), str(cues.labels[track]), corner=int(track) % 4)
            for track in np.flatnonzero(cues.visible[:, frame])
        ]
        draw_frame(axes, images[place] if images is not None else None, size, boxes, mask_overlay(cues, int(frame)))
        axes.set_title(f"{cues.timestamps[frame]:.2f} s", fontsize=8.5, pad=2)


def mask_overlay(cues: ClipCues, frame: int) -> np.ndarray | None:
    """[H, W, 4] float, every track's mask of a frame in its colour, clear elsewhere; None without masks."""
    from matplotlib.colors import to_rgb

    segments = segmentation(cues, frame)
    if segments is None:
        return None
    colours = [(*to_rgb(track_colour(track)), _MASK_OPACITY) for track in range(cues.num_tracks)]
    return np.array([(0.0, 0.0, 0.0, 0.0), *colours])[segments]


def _draw_depth(figure: "Figure", cell: Any, cues: ClipCues, frames: np.ndarray) -> None:
    depth = cues.point_map[..., 2]
    known = depth[np.isfinite(depth)]
    grid = cell.subgridspec(1, COLUMNS, wspace=0.03)
    if not known.size:
        axes = figure.add_subplot(grid[:])
        axes.axis("off")
        axes.text(0.5, 0.5, "no point map", ha="center", va="center", color=GREY)
        return
    low, high = np.percentile(known, [2, 90])
    for place, frame in enumerate(frames):
        axes = figure.add_subplot(grid[place])
        axes.set_facecolor(FAINT)
        axes.imshow(
            depth[frame],
            cmap="viridis_r",
            vmin=low,
            vmax=high,
            interpolation="nearest",
            aspect="auto",
        )
        axes.set(xticks=[], yticks=[])
        scale = f" ({low:.2g} yellow, {high:.2g} violet)" if place == 0 else ""
        axes.set_title(f"depth, {cues.timestamps[frame]:.2f} s{scale}", fontsize=8.5, pad=2, loc="left")


def _draw_world(axes: "Axes", cues: ClipCues) -> None:
    scene = build_scene(cues, _PLAIN, np.random.default_rng(0))
    axes.set_anchor("NW")
    axes.set_title("from above, in median depths; the camera first looks up the page", fontsize=8.5, loc="left")
    if scene is None:
        axes.text(0.5, 0.5, "no track is seen in front of the camera", ha="center", color=GREY)
        axes.set(xticks=[], yticks=[])
        return
    paths = [WorldPath(0, "camera", INK, _spread(scene.oriented[0]))]
    for track, label in enumerate(cues.labels.tolist()):
        at = _spread(scene.oriented[track + 1]) if cues.is_agent[track] else ()
        paths.append(WorldPath(track + 1, str(label), track_colour(track), at))
    draw_top_down(axes, scene, paths)
    axes.set_xlabel("○ first, ■ last; long arrow: forward, short: left", fontsize=8, color=GREY, loc="left")


def _spread(known: np.ndarray) -> tuple[int, ...]:
    """A few frames, spread over those that are known."""
    frames = np.flatnonzero(known)
    if not len(frames):
        return ()
    return tuple(int(f) for f in np.unique(frames[np.linspace(0, len(frames) - 1, _AXES_SHOWN).round().astype(int)]))


def _draw_tracks(depth: "Axes", strip: "Axes", cues: ClipCues) -> None:
    """Depth of each centre with its stated uncertainty, and when each track is visible and oriented."""
    times = cues.timestamps
    middles = (times[1:] + times[:-1]) / 2
    starts, ends = np.concatenate([times[:1], middles]), np.concatenate([middles, times[-1:]])
    for track, label in enumerate(cues.labels.tolist()):
        colour, z = track_colour(track), cues.centers[track, :, 2]
        spread = z * cues.center_uncertainty[track]
        depth.fill_between(times, z - spread, z + spread, color=colour, alpha=0.25, lw=0)
        depth.plot(times, z, color=colour, lw=1.6, marker=".", ms=4, label=str(label))
        y = cues.num_tracks - 1 - track
        shown = cues.visible[track]
        strip.barh([y] * int(shown.sum()), (ends - starts)[shown], left=starts[shown], height=0.7, color=colour, lw=0)
        oriented = times[np.isfinite(cues.orientations[track, :, 0, 0])]
        strip.plot(oriented, [y] * len(oriented), ".", color="white", ms=3.5)
    depth.set_title("depth of the centres, with the backend's own uncertainty", fontsize=9, loc="left")
    depth.tick_params(labelbottom=False, labelsize=8)
    edge = 0.02 * (times[-1] - times[0])
    window = (times[0] - edge, times[-1] + edge)
    depth.set_xlim(window)
    depth.grid(color=FAINT)
    names = [f"{label}{' (agent)' if a else ''}" for label, a in zip(cues.labels.tolist(), cues.is_agent, strict=True)]
    strip.set(xlim=window, ylim=(-0.6, max(cues.num_tracks, 1) - 0.4), yticks=range(cues.num_tracks))
    strip.set_yticklabels(names[::-1], fontsize=8)
    strip.tick_params(axis="x", labelsize=8)
    strip.set_xlabel("seconds; a bar: visible, a white dot: facing known", fontsize=8, color=GREY)
    for side in ("top", "right", "left"):
        strip.spines[side].set_visible(False)
