"""A clip's row, cues and frames, and boxes and masks on them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dsr import project
from dsr.clips.video import VideoError, read_frames
from dsr.console import StageError, warn
from dsr.cues.clips import Clip, read_clips
from dsr.cues.schema import ClipCues, CuesError, cue_path, read_cues
from dsr.cues.store import read_manifest
from dsr.explain.palette import FAINT, GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CORNERS = ((0, 0), (1, 1), (1, 0), (0, 1))
"""Corners of a box that can carry its tag: (right, bottom)."""


@dataclass(frozen=True)
class Box:
    xyxy: tuple[float, float, float, float]
    """Pixels of the original video."""
    colour: str
    tag: str
    corner: int = 0
    """Corner that carries the tag; boxes in one place with different corners do not hide each other's."""

    @classmethod
    def of(cls, xyxy: np.ndarray, colour: str, tag: str, corner: int = 0) -> "Box":
        left, top, right, bottom = (float(v) for v in xyxy)
        return cls((left, top, right, bottom), colour, tag, corner)


def find_clip(root: Path, clip_id: str) -> Clip | None:
    """The clip's row of curated.parquet; None where there is none, which costs the video (and the truth) alone."""
    if not (root / project.CURATED).exists():
        return None
    return next((clip for clip in read_clips(root) if clip.clip_id == clip_id), None)


def find_cues(root: Path, clip_id: str, skip: Collection[str] = ()) -> ClipCues:
    """A clip's cues.

    Args:
        skip: arrays not to read, as in `read_cues`.

    Raises:
        StageError: there are none; why, if the manifest knows, or else clips that have some.
    """
    try:
        path = cue_path(root / project.CUES, clip_id)
    except ValueError as error:
        raise StageError(str(error)) from None
    if path.exists():
        try:
            return read_cues(path, skip=skip)
        except CuesError as error:
            raise StageError(str(error)) from None
    try:
        clips = read_manifest(root / project.CUES)["clips"]
    except CuesError as error:
        raise StageError(str(error)) from None
    if clip_id in clips:
        reason = clips[clip_id].get("reason") or f"{path.name} is gone: run the cues stage again"
        raise StageError(f"clip {clip_id} has no cues: {reason}")
    known = sorted(name for name, entry in clips.items() if entry.get("status") == "ok")
    raise StageError(
        f"{project.CUES_MANIFEST} knows no clip {clip_id!r}; it has {len(known)}, such as {', '.join(known[:3])}"
    )


def clip_frames(
    clip: Clip | None, cues: ClipCues, frames: Sequence[int] | np.ndarray, max_pixels: int = 640 * 480
) -> np.ndarray | None:
    """Images [n, H, W, 3] uint8 of cue frames; None, with a warning, where the video is missing or unreadable."""
    if clip is None or clip.video is None:
        return None
    try:
        return read_frames(clip.video, cues.frame_index[np.asarray(frames, int)], max_pixels)
    except (VideoError, OSError) as error:
        warn(f"{clip.video.name}: {error}; boxes are drawn without the video")
        return None


def segmentation(cues: ClipCues, frame: int) -> np.ndarray | None:
    """[H, W] uint16 in the original video's size, track + 1 in its mask and 0 elsewhere; None without masks."""
    segments = np.zeros((int(cues.meta["height"]), int(cues.meta["width"])), np.uint16)
    for track in np.flatnonzero(cues.visible[:, frame]):
        try:
            segments[cues.mask(int(track), frame)] = track + 1
        except CuesError:
            continue
    return segments if segments.any() else None


def draw_frame(
    axes: "Axes", image: np.ndarray | None, size: tuple[int, int], boxes: Sequence[Box], mask: np.ndarray | None = None
) -> None:
    """Draw a frame, or an empty one, with boxes.

    Args:
        size: width and height of the original video, in whose pixels boxes are.
        mask: [H, W, 4] float RGBA to lay over it.
    """
    from matplotlib.patches import Rectangle

    width, height = size
    extent = (0, width, height, 0)
    if image is None:
        axes.set_facecolor(FAINT)
        axes.text(width / 2, 0.97 * height, "no video", color=GREY, ha="center", va="bottom", fontsize=8)
    else:
        axes.imshow(image, extent=extent, interpolation="bilinear")
    if mask is not None:
        axes.imshow(mask, extent=extent, interpolation="nearest")
    for box in boxes:
        left, top, right, bottom = box.xyxy
        # A dark line under the coloured one keeps it visible on any background.
        for colour, line in (("black", 3.2), (box.colour, 1.8)):
            axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, lw=line))
        to_right, to_bottom = _CORNERS[box.corner]
        x, y = (right if to_right else left), (bottom if to_bottom else top)
        # Tags stay inside the picture, whatever the box does.
        x, y = min(max(x, 0), width), min(max(y, 0.07 * height), 0.93 * height)
        axes.text(
            x,
            y,
            box.tag,
            color="white",
            fontsize=6.5,
            ha="right" if to_right else "left",
            va="top" if to_bottom else "bottom",
            bbox={"facecolor": box.colour, "edgecolor": "none", "pad": 1.0},
            clip_on=True,
        )
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], aspect="equal")
