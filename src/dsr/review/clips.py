"""A question's clip as the page shows it: the video's file or its frames, named things and their boxes, and the view
from above of a clip that is trajectories alone.

No cue and no frame after the last moment that a question shows is given before the reviewer has answered; of a video
file the page plays no more than that.
"""

import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from PIL import Image

from dsr import project
from dsr.clips.video import VideoError, VideoInfo, probe, read_frames
from dsr.console import StageError
from dsr.cues.clips import Clip, read_clips
from dsr.cues.schema import PIXELWISE, ClipCues
from dsr.explain.frames import find_cues
from dsr.explain.palette import GREY, ROLES
from dsr.explain.top_down import places_from_above
from dsr.params import Ensemble
from dsr.questions.engine.scene import build_scene
from dsr.questions.language.families import FORM_INDEX, FORMS

MOST_FRAMES = 60
"""Frames that stand for a video which a browser does not play."""
FRAME_PIXELS = 640 * 480
JPEG_QUALITY = 85
LEAD = 1.0
"""Seconds of the clip around the question's moments that are sent as frames."""
_PLAIN = Ensemble(members=1, margin=0.0)

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """The last few values of a slow function, each computed once whatever the number of threads that ask."""

    def __init__(self, function: Callable[[str], Value], size: int) -> None:
        self._function, self._size = function, size
        self._values: OrderedDict[str, Value] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, key: str) -> Value:
        with self._lock:
            if key not in self._values:
                self._values[key] = self._function(key)
                while len(self._values) > self._size:
                    self._values.popitem(last=False)
            self._values.move_to_end(key)
            return self._values[key]


@dataclass(frozen=True)
class Frames:
    """Frames of a clip around a question's moments."""

    times: list[float]
    jpegs: list[bytes]


class Clips:
    """Clips of questions under a project folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        try:
            self._clips = {clip.clip_id: clip for clip in read_clips(root)}
        except StageError:
            self._clips = {}
        self._cues: Recent[ClipCues | str] = Recent(self._read_cues, 8)
        self._info: Recent[VideoInfo | str] = Recent(self._probe, 64)
        self._decoding = threading.Lock()

    # --- Files ---

    def video(self, clip_id: str) -> Path:
        """File of a clip's video.

        Raises:
            StageError: there is none, or none within the project.
        """
        clip = self._clips.get(clip_id)
        if clip is None:
            raise StageError(f"{project.CURATED} keeps no clip {clip_id}")
        if clip.video is None:
            raise StageError("the clip is trajectories alone")
        path = clip.video.resolve()
        if not path.is_file():
            raise StageError(f"{clip.video.name} does not exist")
        if not any(path.is_relative_to(folder) for folder in self._folders()):
            raise StageError(f"{clip.video.name} is a link to a file outside of the project's folders")
        return path

    def _folders(self) -> list[Path]:
        """The project, and the folders of sources, which may be links to another disk."""
        raw = self._root / project.RAW
        sources = [path.resolve() for path in raw.iterdir() if path.is_dir()] if raw.is_dir() else []
        return [self._root.resolve(), *sources]

    def _probe(self, clip_id: str) -> VideoInfo | str:
        try:
            return probe(self.video(clip_id))
        except (StageError, VideoError, OSError) as error:
            return str(error)

    def _read_cues(self, clip_id: str) -> ClipCues | str:
        try:
            return find_cues(self._root, clip_id, skip=PIXELWISE)
        except StageError as error:
            return str(error)

    # --- What is shown ---

    def describe(self, row: dict[str, Any], revealed: bool) -> dict[str, Any]:
        """A question's clip, for the page.

        Args:
            row: of the pool or the benchmark.
            revealed: the reviewer has answered; what follows the last shown moment may be seen.

        Returns:
            width, height; origin, seconds of the video at which the clip, and so the question's times, begin; and in
            seconds of the video: first and last, what may be seen; start and end of the loop; stated, the
            moment of the boxes; moments; video: "" or the reason why there is none; frames: times of the video's
            frames; targets: role, label, colour and box; tracks: their boxes over time; above: `_above`, or null.
        """
        clip, cues, info = self._clips.get(row["videoID"]), self._cues(row["videoID"]), self._info(row["videoID"])
        found = cues if isinstance(cues, ClipCues) else None
        origin = _origin(clip, found, info)
        if found is not None:
            found = replace(found, timestamps=found.timestamps + origin)
        start, end = origin + float(row["start_time"]), origin + float(row["end_time"])
        form = FORMS[FORM_INDEX[row["form"]]] if row.get("form") in FORM_INDEX else None
        moments = [start, end]
        if found is not None and form is not None and max(row["frames"]) < found.num_frames:
            moments = found.timestamps[list(row["frames"])].tolist()
        hidden = form is not None and form.signal == "dir_pred"
        if hidden:
            start, moments = moments[0], moments if revealed else [t for t in moments if t <= end]
        first = clip.start if clip else min(0.0, start)
        last = _last(clip, found, info, end)
        if hidden and not revealed:
            last = end
        size = _size(clip, found, info)
        targets = _targets(row, form.roles if form else ())
        return {
            "width": size[0],
            "height": size[1],
            "origin": origin,
            "first": first,
            "last": last,
            "start": start,
            "end": moments[-1] if hidden and revealed else end,
            "stated": origin + float(row["end_time"] if hidden else row["start_time"]),
            "moments": moments,
            "video": info if isinstance(info, str) else "",
            "frames": _between(info.timestamps, first, last) if isinstance(info, VideoInfo) else [],
            "targets": targets,
            "tracks": _tracks(row, found, last),
            "above": _above(row, targets, found, last) if clip is None or clip.video is None else None,
            "problem": cues if isinstance(cues, str) else "",
        }

    def frames(self, row: dict[str, Any], revealed: bool) -> Frames:
        """Frames around a question's moments, evenly thinned to MOST_FRAMES, for a video that a browser does not play.

        Raises:
            StageError: the video cannot be read either.
        """
        path = self.video(row["videoID"])
        about = self.describe(row, revealed)
        if about["video"]:
            raise StageError(about["video"])
        info = self._info(row["videoID"])
        assert isinstance(info, VideoInfo)
        low, high = max(about["first"], about["start"] - LEAD), min(about["last"], about["end"] + LEAD)
        near = np.flatnonzero((info.timestamps >= low - 1e-3) & (info.timestamps <= high + 1e-3))
        if len(near) > MOST_FRAMES:
            near = near[np.linspace(0, len(near) - 1, MOST_FRAMES).round().astype(int)]
        with self._decoding:
            try:
                images = read_frames(path, near, FRAME_PIXELS)
            except (VideoError, OSError) as error:
                raise StageError(str(error)) from None
        return Frames(info.timestamps[near].tolist(), [_jpeg(image) for image in images])


def _origin(clip: Clip | None, cues: ClipCues | None, info: VideoInfo | str) -> float:
    """Seconds of the video at which a clip begins: the time of its first frame."""
    if isinstance(info, VideoInfo) and cues is not None and cues.frame_index[0] < info.num_frames:
        return float(info.timestamps[cues.frame_index[0]])
    return clip.start if clip is not None else 0.0


def _last(clip: Clip | None, cues: ClipCues | None, info: VideoInfo | str, end: float) -> float:
    if clip is not None and clip.end > clip.start:
        return min(clip.end, float(info.timestamps[-1])) if isinstance(info, VideoInfo) else clip.end
    return float(cues.timestamps[-1]) if cues is not None else end


def _size(clip: Clip | None, cues: ClipCues | None, info: VideoInfo | str) -> tuple[int, int]:
    """Width and height in whose pixels boxes are."""
    if cues is not None:
        return int(cues.meta["width"]), int(cues.meta["height"])
    if clip is not None and clip.width and clip.height:
        return clip.width, clip.height
    return (info.width, info.height) if isinstance(info, VideoInfo) else (640, 480)


def _between(timestamps: np.ndarray, first: float, last: float) -> list[float]:
    shown = timestamps[(timestamps >= first - 1e-3) & (timestamps <= last + 1e-3)]
    return np.round(shown, 4).tolist()


def _targets(row: dict[str, Any], roles: tuple[str, ...]) -> list[dict[str, Any]]:
    if not {"labels", "boxes"} <= set(row):
        return []
    named = roles if len(roles) == len(row["labels"]) else tuple(ROLES)[: len(row["labels"])]
    return [
        {"role": role, "label": str(label), "colour": ROLES[role], "box": [int(v) for v in box]}
        for role, label, box in zip(named, row["labels"], row["boxes"], strict=False)
    ]


def _entities(row: dict[str, Any]) -> list[int]:
    """Tracks of viewer and targets as in the pool's columns, the camera -1."""
    viewer = [int(row["viewpoint"])] if int(row["viewpoint"]) > -2 else []
    return [*viewer, *(int(track) for track in row["targets"])]


def _tracks(row: dict[str, Any], cues: ClipCues | None, last: float) -> dict[str, Any]:
    """times [T], and for each target its boxes, null where it is not seen."""
    if cues is None or not {"viewpoint", "targets"} <= set(row):
        return {"times": [], "boxes": []}
    shown = np.flatnonzero(cues.timestamps <= last + 1e-3)
    boxes = [
        [_box(cues, track, int(frame)) for frame in shown] if 0 <= track < cues.num_tracks else [None] * len(shown)
        for track in _entities(row)
    ]
    return {"times": np.round(cues.timestamps[shown], 4).tolist(), "boxes": boxes}


def _box(cues: ClipCues, track: int, frame: int) -> list[float] | None:
    box = cues.boxes[track, frame]
    return np.round(box, 1).tolist() if cues.visible[track, frame] and np.isfinite(box).all() else None


def _above(
    row: dict[str, Any], targets: list[dict[str, Any]], cues: ClipCues | None, last: float
) -> dict[str, Any] | None:
    """The view from above: times [T], and of each entity label, colour, places and forward directions [T] of (right,
    ahead) in median depths, null where unknown. The question's own come last, drawn over the others."""
    scene = build_scene(cues, _PLAIN, np.random.default_rng(0)) if cues is not None else None
    if cues is None or scene is None or not {"viewpoint", "targets"} <= set(row):
        return None
    places, ways = places_from_above(scene)
    shown = np.flatnonzero(cues.timestamps <= last + 1e-3)
    named = {track + 1: target for track, target in zip(_entities(row), targets, strict=False)}
    order = sorted(range(len(scene.labels)), key=lambda entity: entity in named)
    return {
        "times": np.round(cues.timestamps[shown], 4).tolist(),
        "entities": [
            {
                "label": scene.labels[entity],
                "colour": named[entity]["colour"] if entity in named else GREY,
                "named": entity in named,
                "places": [_pair(places[entity, frame]) for frame in shown],
                "ways": [_pair(ways[entity, frame]) for frame in shown],
            }
            for entity in order
        ],
    }


def _pair(vector: np.ndarray) -> list[float] | None:
    return np.round(vector, 3).tolist() if np.isfinite(vector).all() else None


def _jpeg(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=JPEG_QUALITY)
    return content.getvalue()
