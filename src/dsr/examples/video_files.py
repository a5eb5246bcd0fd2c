"""Videos with the frames that a model is shown of them, and cues where there are any.

A clip with cues is sampled where they were; one without, uniformly.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from dsr import project
from dsr.clips.video import VideoError, probe, read_frames, uniform_frames
from dsr.console import StageError
from dsr.cues.schema import MASKS, ClipCues, CuesError, read_cues
from dsr.examples.views import bare_cues

NUM_FRAMES = 32
"""Frames of a clip without cues."""
_CLIPS_KEPT = 64


def catalog_files(root: Path) -> dict[str, Path]:
    """The video of every usable clip of the catalogue that has one.

    Raises:
        StageError: there is no catalogue.
    """
    try:
        catalog = pd.read_parquet(root / project.CATALOG, columns=["clip_id", "status", "file"])
    except FileNotFoundError:
        raise StageError(f"{root / project.CATALOG} does not exist: run `dsr catalog`") from None
    usable = catalog[(catalog["status"] == "ok") & (catalog["file"] != "")]
    return {clip: root / file for clip, file in zip(usable["clip_id"], usable["file"], strict=True)}


class VideoFiles:
    """Frames and cues of videos by clip.

    Args:
        files: clip -> video.
        cues: folder of `<clip>.npz`; may not exist.
    """

    def __init__(self, files: Mapping[str, Path], cues: Path) -> None:
        self.files, self._folder = dict(files), cues
        self.cues = lru_cache(_CLIPS_KEPT)(self._read_cues)

    def problem(self, clip_id: str) -> str:
        """Why a clip cannot be shown; "" if it can."""
        try:
            self.cues(clip_id)
        except (CuesError, VideoError) as error:
            return str(error)
        return ""

    def frames(self, clip_id: str, count: int, shown_frames: int | None, max_pixels: int) -> np.ndarray:
        """[count or fewer, H, W, 3] uint8, evenly spread over the first `shown_frames` cue frames.

        Raises:
            VideoError: the file cannot be decoded.
        """
        index = self.cues(clip_id).frame_index[:shown_frames]
        chosen = index[uniform_frames(len(index), min(count, len(index)))]
        return read_frames(self.files[clip_id], chosen, max_pixels)

    def _read_cues(self, clip_id: str) -> ClipCues:
        if clip_id not in self.files:
            raise VideoError("no video")
        if not self.files[clip_id].is_file():
            raise VideoError(f"no video: {self.files[clip_id]} does not exist")
        path = self._folder / f"{clip_id}.npz"
        if path.is_file():
            return read_cues(path, skip=MASKS)
        return cues_of_video(self.files[clip_id])


def cues_of_video(path: Path) -> ClipCues:
    """Cues that know the times and the size of a video's frames and nothing else.

    Raises:
        VideoError: it cannot be read.
    """
    info = probe(path)
    index = uniform_frames(info.num_frames, min(NUM_FRAMES, info.num_frames))
    return bare_cues(info.timestamps[index].astype(np.float64), index.astype(np.int64), info.width, info.height)
