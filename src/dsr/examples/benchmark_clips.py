"""Clips of a published benchmark, for a checkpoint: videos in a folder, with cues where somebody has made them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsr.clips.video import VideoError
from dsr.cues.schema import ClipCues, CuesError
from dsr.examples.records import ClipStore
from dsr.examples.video_files import VideoFiles


class BenchmarkClips(ClipStore):
    """A clip store over video files instead of the catalogue.

    A clip without cues is shown with the geometry of a scene in which nothing was observed.
    """

    def __init__(self, files: Mapping[str, Path], cues: Path, processor: Any, cache_bytes: int = 2 << 30) -> None:
        """
        Args:
            files: clip -> video.
            cues: folder of `<clip>.npz`; may not exist.
        """
        self._videos = VideoFiles(files, cues)
        self._cues_folder = cues
        super().__init__(Path(), processor, cache_bytes, files={clip: str(file) for clip, file in files.items()})

    def problem(self, clip_id: str) -> str:
        """As `ClipStore.problem`."""
        return self._videos.problem(clip_id) or super().problem(clip_id)

    @property
    def clips_without_cues(self) -> int:
        return sum(not (self._cues_folder / f"{clip}.npz").is_file() for clip in self.files)

    def _read_cues(self, clip_id: str) -> ClipCues:
        try:
            return self._videos.cues(clip_id)
        except VideoError as error:
            raise CuesError(str(error)) from None
