"""Sources of cues. A backend is one file and one line in `dsr.cues.extract.BACKENDS`.

A backend says what its cues depend on (`identity`) and makes them (`extract`); keys, files, failures and worker
processes are the store's and the stage's. A backend is pickled to every worker process, so it holds parameters,
and loads weights when it first extracts.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dsr.clips.video import frames_between, uniform_frames
from dsr.console import num_workers
from dsr.cues.clips import Clip
from dsr.cues.schema import ClipCues


class ClipFailure(ValueError):
    """A clip without cues; the message is one line for a person and names file and field."""


class Backend(ABC):
    """Maker of cues."""

    def start(self, root: Path) -> None:  # noqa: B027 (most backends need nothing)
        """Prepare, once in the stage's process, before anything else.

        Args:
            root: the project folder.

        Raises:
            StageError: something that every clip needs is missing.
        """

    def processes(self, requested: int) -> int:
        """Number of processes to extract in, where 0 requests as many as are useful."""
        return num_workers(requested)

    @abstractmethod
    def identity(self, clip: Clip) -> dict[str, Any]:
        """JSON of everything that the clip's cues depend on besides its row, its video and the code: the
        parameters that it uses, the hashes of weights and of the clip's own files.

        Raises:
            ClipFailure: a file is missing.
        """

    @abstractmethod
    def extract(self, clip: Clip) -> ClipCues:
        """Cues without `meta`.

        Raises:
            ClipFailure: no cues can be made, and why. Any other error also costs this clip alone.
        """


@dataclass(frozen=True, eq=False)
class Decoded:
    """The cue frames of a clip."""

    frames: np.ndarray
    """[T, H, W, 3] uint8 RGB, as shown."""
    indices: np.ndarray
    """[T] int64, in the decoded video."""
    timestamps: np.ndarray
    """[T] float64, seconds since the clip's first frame."""


class DecodingBackend(Backend):
    """A backend that sees frames, decoded ahead by processes of their own."""

    decoders: int
    """Processes that decode ahead, for each that extracts."""

    @abstractmethod
    def decode(self, clip: Clip) -> Decoded:
        """The clip's cue frames.

        Raises:
            ClipFailure, VideoError: they cannot be had.
        """

    @abstractmethod
    def extract_decoded(self, clip: Clip, decoded: Decoded) -> ClipCues:
        """Extract the cues of decoded frames; raises as `extract`."""

    def extract(self, clip: Clip) -> ClipCues:
        return self.extract_decoded(clip, self.decode(clip))


def cue_frames(timestamps: np.ndarray, clip: Clip, count: int) -> np.ndarray:
    """[count] int64, indices of the clip's cue frames in its decoded video.

    Args:
        timestamps: [F] float64, seconds of the video's frames.

    Raises:
        ClipFailure: fewer than `count` frames in the clip.
    """
    first, available = frames_between(timestamps, clip.start, clip.end)
    if available < count:
        raise ClipFailure(f"{available} frames between {clip.start:g} s and {clip.end:g} s, {count} needed")
    return uniform_frames(available, count, first)


def clip_times(timestamps: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """[T] float64, seconds since the clip's first frame, of its cue frames.

    A part of a longer video has the times, and so the questions, that it has as a file of its own.

    Args:
        timestamps: [F] float64, seconds of the video's frames.
        frames: [T] int64, as `cue_frames` gives them; the first is the clip's first.
    """
    return timestamps[frames] - timestamps[frames[0]]
