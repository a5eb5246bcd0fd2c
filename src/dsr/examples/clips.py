"""One store of clips for training, scoring, endpoints and their controls: where each video and its cues are.

What is read is kept while it fits. NumPy alone: dsr.examples.inputs makes of it what a checkpoint is given.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from dsr import console, project
from dsr.clips.video import VideoError, frames_between, probe, read_frames, uniform_frames
from dsr.console import StageError
from dsr.cues.schema import ARRAYS, MASKS, ClipCues, CuesError, cue_path, read_cues
from dsr.examples.views import bare_cues
from dsr.files import sha256_json

T = TypeVar("T")
NUM_FRAMES = 32
"""Frames of a clip without cues."""
CACHE_BYTES = 2 << 30
_SAMPLE = 1 << 20


class ClipStore:
    """Videos and cues of clips by their ids.

    Args:
        videos: file of each clip; None: it has none (trajectories alone).
        cues: folder of `<clip>.npz`.
        needs_cues: False: a clip without cues is one in which nothing was observed, sampled uniformly.
        unknown: reason why a clip that is not in `videos` cannot be shown.
        parts: seconds [start, end] of a clip's file that are the clip, where it is not all of it and has no cues.
    """

    def __init__(
        self,
        videos: Mapping[str, Path | None],
        cues: Path,
        needs_cues: bool = True,
        cache_bytes: int = CACHE_BYTES,
        unknown: str = "no video",
        parts: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        self.videos, self._cues, self._parts = dict(videos), cues, dict(parts or {})
        self._needs_cues, self._unknown = needs_cues, unknown
        self._hashes: dict[str, str] = {}
        self.cache = Cache(cache_bytes)

    @classmethod
    def of_project(cls, root: Path, needs_cues: bool = True, cache_bytes: int = CACHE_BYTES) -> "ClipStore":
        """Clips of the catalogue that can be used.

        Raises:
            StageError: there is no catalogue.
        """
        catalog = project.read_table(root, project.CATALOG, "catalog", ("clip_id", "status", "file"))
        usable = catalog[catalog["status"] == "ok"]
        videos = {clip: root / file if file else None for clip, file in zip(usable.clip_id, usable.file, strict=True)}
        return cls(videos, root / project.CUES, needs_cues, cache_bytes, "not in the catalogue")

    @classmethod
    def of_benchmark(cls, questions: pd.DataFrame, folder: Path) -> "ClipStore":
        """Videos that a benchmark's table names, with cues in `<folder>/cues/` where somebody has made them."""
        videos: dict[str, Path | None] = {}
        for clip, file in zip(questions["videoID"], questions["file"], strict=True):
            if file and videos.setdefault(clip, Path(file)) != Path(file):
                raise StageError(f"two videos have the id {clip}: {videos[clip]} and {file}")
        cut = questions[questions["start"].notna()] if "start" in questions else questions[:0]
        parts = {row["videoID"]: (row["start"], row["end"]) for row in cut.to_dict("records")}
        return cls(videos, folder / "cues", needs_cues=False, parts=parts)

    @property
    def is_full(self) -> bool:
        return self.cache.is_full

    def cues(self, clip_id: str) -> ClipCues:
        """Cues without masks.

        Raises:
            CuesError: none, or unreadable.
            VideoError: the clip needs none, and its video cannot be read.
        """
        return self.cache.get(("cues", clip_id), lambda: self._read_cues(clip_id), _cue_bytes)

    def frames(self, clip_id: str, index: np.ndarray, max_pixels: int) -> np.ndarray:
        """Frames [len(index), H, W, 3] uint8 of a clip's video.

        Raises:
            VideoError: no video, or one that cannot be decoded.
        """
        video = self.videos.get(clip_id)
        if video is None:
            raise VideoError("no video")
        return read_frames(video, index, max_pixels)

    def hash(self, clip_id: str) -> str:
        """Hash of a clip's cues and video; of a clip without a problem."""
        if clip_id not in self._hashes:
            video = self.videos[clip_id]
            self._hashes[clip_id] = sha256_json([_cues_hash(self.cues(clip_id)), _file_hash(video) if video else None])
        return self._hashes[clip_id]

    def problem(self, clip_id: str) -> str:
        """Reason why a clip cannot be shown; "" if it can."""
        if clip_id not in self.videos:
            return self._unknown
        video = self.videos[clip_id]
        if video is not None and not video.is_file():
            return f"no video: {video} does not exist"
        try:
            cues = self.cues(clip_id)
        except (CuesError, VideoError) as error:
            return str(error)
        return "" if {"width", "height"} <= cues.meta.keys() else "cues without the width and height of the video"

    def without_video(self, clip_ids: Iterable[str]) -> list[str]:
        """Clips of which there are trajectories alone."""
        return [clip for clip in clip_ids if clip in self.videos and self.videos[clip] is None]

    def without_cues(self, clip_ids: Iterable[str]) -> list[str]:
        """Clips with a video and without cues."""
        return [clip for clip in clip_ids if clip in self.videos and not cue_path(self._cues, clip).is_file()]

    def _read_cues(self, clip_id: str) -> ClipCues:
        path, video = cue_path(self._cues, clip_id), self.videos.get(clip_id)
        if path.is_file():
            return read_cues(path, skip=MASKS)
        if self._needs_cues or video is None:
            raise CuesError(f"no cues: {path} does not exist")
        info = probe(video)
        first, count = 0, info.num_frames
        if clip_id in self._parts:
            first, count = frames_between(info.timestamps, *self._parts[clip_id])
            if not count:
                start, end = self._parts[clip_id]
                raise VideoError(f"no frames between {start:g} s and {end:g} s: the video has {info.duration:.1f} s")
        index = uniform_frames(count, min(NUM_FRAMES, count), first)
        times = info.timestamps[index] - info.timestamps[first]
        return bare_cues(times.astype(np.float64), index.astype(np.int64), info.width, info.height)


def find_problems(clip_ids: Iterable[str], problem: Callable[[str], str], workers: int) -> dict[str, str]:
    """Reason for each clip that cannot be shown; clips are looked at in threads."""
    clips = list(dict.fromkeys(clip_ids))
    with ThreadPoolExecutor(console.num_workers(workers)) as pool:
        found = console.track(pool.map(problem, clips), "clips", len(clips))
        return {clip: reason for clip, reason in zip(clips, found, strict=True) if reason}


class Cache:
    """Values kept while their bytes fit; the one unused for longest goes first. Safe for threads."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.is_full = False
        self._bytes = 0
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T], size: Callable[[T], int]) -> T:
        """Value of a key, made where it is not kept."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key][0]
        value = make()
        with self._lock:
            if key not in self._values:
                self._values[key] = value, size(value)
                self._bytes += size(value)
            while self._bytes > self.max_bytes and len(self._values) > 1:
                self.is_full = True
                self._bytes -= self._values.popitem(last=False)[1][1]
        return value

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())


def _cue_bytes(cues: ClipCues) -> int:
    return cues.point_map.nbytes + cues.confidence.nbytes + cues.orientations.nbytes + cues.boxes.nbytes


def _cues_hash(cues: ClipCues) -> str:
    """Hash of all arrays but the masks (no model reads them), and of the size of the video."""
    digest = hashlib.sha256(f"{cues.meta.get('width')}x{cues.meta.get('height')}".encode())
    for name in ARRAYS:
        if name not in MASKS:
            array = np.ascontiguousarray(getattr(cues, name))
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def _file_hash(path: Path) -> str:
    """Hash of a file's size and its first and last MiB: videos of a benchmark have gigabytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        digest = hashlib.sha256(f"{size} ".encode() + file.read(_SAMPLE))
        if size > _SAMPLE:
            file.seek(max(size - _SAMPLE, _SAMPLE))
            digest.update(file.read())
    return digest.hexdigest()
