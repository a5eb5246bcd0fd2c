"""A scene seen from above: trajectories in the world, the camera's path, and viewers' axes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dsr.explain.palette import GREY, PALE
from dsr.questions.engine.scene import CAMERA, Scene
from dsr.questions.engine.signals import Members

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Plane:
    """The plane that is looked down upon: right and ahead, as the camera first looked, in the world."""

    right: np.ndarray
    ahead: np.ndarray

    def project(self, vectors: np.ndarray) -> np.ndarray:
        """[..., 2] of [..., 3]."""
        return np.stack([vectors @ self.right, vectors @ self.ahead], axis=-1)


def ground_plane(scene: Scene) -> Plane:
    """The ground of a scene: up is that of the agents, who mostly stand upright, or else of the camera."""
    up = Members(scene, slice(0, 1)).up[0, :, 0].astype(float)
    camera = scene.axes[CAMERA, ..., 0].astype(float)
    if not np.isfinite(up).all():
        up = camera[:, :, 2].mean(axis=0)
    up /= np.linalg.norm(up)
    # A camera that looks straight down has no way ahead; the top of its image is one.
    candidates = [camera[0, :, 0], camera[0, :, 2]]
    flat = [axis - (axis @ up) * up for axis in candidates]
    ahead = next((f / np.linalg.norm(f) for f in flat if np.linalg.norm(f) > 0.1), flat[1])
    return Plane(np.cross(ahead, up), ahead)


def places_from_above(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Places and forward directions of a clip's entities on the ground, in median depths, on the cues as they are.

    Returns:
        [E, T, 2] right and ahead of where the camera first was and looked; [E, T, 2] the same of unit vectors forward.
        NaN where unknown.
    """
    plane = ground_plane(scene)
    positions, axes = scene.positions[..., 0].astype(float), scene.axes[..., 0, 0].astype(float)
    return plane.project(positions), plane.project(axes)


@dataclass(frozen=True)
class Path:
    """An entity whose path is shown, in its colour."""

    entity: int
    label: str
    colour: str
    axes_at: tuple[int, ...] = ()
    """Frames at which its forward (long) and left (short) are drawn."""


def draw_top_down(
    axes: "Axes",
    scene: Scene,
    paths: Sequence[Path],
    moments: Sequence[int] = (),
    links: Sequence[tuple[int, int, int, int]] = (),
) -> None:
    """Draw paths from above, in median depths.

    Args:
        moments: frames that are numbered on every path; between the first and the last it is drawn strong.
        links: lines from (entity, frame) to (entity, frame).
    """
    plane = ground_plane(scene)
    place = plane.project(scene.positions[..., 0].astype(float))
    interval = slice(min(moments), max(moments) + 1) if len(moments) else slice(None)
    shown = np.concatenate([place[p.entity, interval] for p in paths])
    shown = shown[np.isfinite(shown).all(axis=-1)]
    centre = (shown.min(axis=0) + shown.max(axis=0)) / 2
    half = max(float(np.ptp(shown, axis=0).max()) / 2 * 1.25, 0.15)
    own = {p.entity for p in paths}
    for entity in range(len(scene.labels)):
        if entity not in own:
            axes.plot(*place[entity].T, color=PALE, lw=1, zorder=1)
    for start, start_frame, end, end_frame in links:
        line = np.stack([place[start, start_frame], place[end, end_frame]])
        axes.plot(*line.T, color=GREY, lw=0.8, ls=":", zorder=1.5)
    for path in paths:
        _draw_path(axes, path, place[path.entity], interval, moments, half)
        for frame in path.axes_at:
            _draw_axes(
                axes, path.colour, place[path.entity, frame], scene.axes[path.entity, frame, ..., 0], plane, half
            )
    axes.set_xlim(centre[0] - half, centre[0] + half)
    axes.set_ylim(centre[1] - half, centre[1] + half)
    axes.set_aspect("equal", adjustable="box")
    axes.tick_params(labelsize=7, colors=GREY)
    axes.grid(color="#F0F0F0", lw=0.6)
    axes.set_axisbelow(True)


def _draw_path(
    axes: "Axes", path: Path, place: np.ndarray, interval: slice, moments: Sequence[int], half: float
) -> None:
    axes.plot(*place.T, color=path.colour, lw=0.8, alpha=0.35, zorder=2)
    strong = place[interval]
    axes.plot(*strong.T, color=path.colour, lw=2.2, zorder=3, label=path.label)
    known = strong[np.isfinite(strong).all(axis=-1)]
    if not len(known):
        return
    axes.plot(*known[0], marker="o", ms=8, mfc="white", mec=path.colour, mew=1.8, zorder=4)
    moves = np.abs(known[-1] - known[0]).max() > 0.02 * half
    axes.plot(*known[-1], marker="s" if moves else "o", ms=6, color=path.colour, zorder=4)
    last = None
    for number, frame in enumerate(moments, start=1):
        spot = place[frame]
        if not np.isfinite(spot).all():
            continue
        axes.plot(*spot, marker=".", ms=5, color=path.colour, zorder=5)
        # Numbers closer together than they are wide would hide each other.
        if last is None or np.abs(spot - last).max() > 0.09 * half:
            axes.annotate(
                str(number), tuple(spot), (5, 4), textcoords="offset points", fontsize=8, color=path.colour, zorder=6
            )
            last = spot


def _draw_axes(axes: "Axes", colour: str, spot: np.ndarray, rotation: np.ndarray, plane: Plane, half: float) -> None:
    """Forward long, left short: seen from above, left is left of forward."""
    for axis, size, width in ((0, 0.3, 1.6), (1, 0.14, 1.0)):
        way = plane.project(rotation[:, axis].astype(float)) * size * half
        if np.isfinite([*spot, *way]).all():
            axes.annotate(
                "",
                tuple(spot + way),
                tuple(spot),
                arrowprops={"arrowstyle": "-|>", "color": colour, "lw": width, "shrinkA": 0, "shrinkB": 0},
                zorder=4,
                annotation_clip=True,
            )
