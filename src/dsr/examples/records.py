"""Rows of a question table and the clips that they are about: what a batch is made of.

A row that cannot be used (no cues, no video, malformed) is returned with its reason, so that used + missing = rows.
A clip is decoded and resized once: its patches are kept as bytes while they fit into the cache, as are its cues.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from dsr import console, project
from dsr.clips.video import VideoError, read_frames
from dsr.console import StageError
from dsr.cues.schema import ClipCues, CuesError, read_cues
from dsr.mcq import Question, read_row, row_problem
from dsr.model.chat import encode
from dsr.model.geometry_encoders import ENCODERS, FRAMES, Grid

T = TypeVar("T")
DECODED_PIXELS = 1920 * 1080
"""Larger frames are made smaller as they are decoded."""


@dataclass(frozen=True)
class Example(Question):
    """A question that can be asked, with what a lesson makes of it."""

    shown_frames: int = 0
    """At least one; no more than the clip has."""
    hint: str = ""
    """An option's line, told in the places of the geometry tokens (dsr.training.curriculum)."""
    hint_weight: float = 1.0
    """How far the geometry tokens are moved to what tells the hint: 0 not at all, 1 all the way."""
    gap: int = 0
    """Positions left out before the options, as if there were more to read."""
    lesson: Literal["options", "geometry", "whole"] = "whole"
    """What of the question is given, to whom (dsr.training.curriculum)."""


@dataclass(frozen=True)
class Missing:
    """A question that cannot be asked."""

    qa_id: str
    clip_id: str
    reason: str


@dataclass(frozen=True)
class Video:
    """What the vision tower is given of a clip.

    Letters: g time groups, p patches of a group.
    """

    patches: Tensor
    """[g * p, 3 * 2 * 14 * 14] uint8, in the order of Qwen2.5-VL's video processor."""
    grid_thw: tuple[int, int, int]
    """Groups, and rows and columns of patches."""


class ClipStore:
    """Cues and frames of clips, read when first asked for and kept while they fit."""

    def __init__(
        self, root: Path, processor: Any, cache_bytes: int = 2 << 30, files: Mapping[str, str] | None = None
    ) -> None:
        """
        Args:
            root: project folder with data/clips/catalog.parquet and data/cues/.
            processor: of the model; its video processor decides the size of frames, its tokenizer reads labels.
            files: clip -> video below `root`; None: those of the catalogue.

        Raises:
            StageError: there is no catalogue.
        """
        self.files = dict(_catalog_files(root) if files is None else files)
        self.root = root
        self.processor = processor
        self.blank_clips: set[str] = set()
        """Clips without a video (trajectories alone), whose frames are black."""
        self._cache = _Cache(cache_bytes)

    @property
    def is_full(self) -> bool:
        return self._cache.is_full

    def cues(self, clip_id: str) -> ClipCues:
        """
        Raises:
            CuesError: none, or unreadable.
        """
        return self._cache.get(("cues", clip_id), lambda: self._read_cues(clip_id), _cue_bytes)

    def video(self, clip_id: str, shown_frames: int) -> Video:
        """The first frames of a clip's cue frames.

        Raises:
            CuesError: the clip has no cues, which say where its frames are.
            VideoError: its file cannot be decoded.
        """
        whole = self._cache.get(("video", clip_id), lambda: self._decode(clip_id), lambda v: v.patches.nbytes)
        t, h, w = whole.grid_thw
        groups = min(-(-shown_frames // FRAMES), t)
        patches = whole.patches[: groups * h * w]
        if shown_frames % FRAMES and groups < t:
            # The last group's second frame is not shown: repeat its first one, as the video processor does.
            patches = patches.clone()
            last = patches[-h * w :].view(h * w, 3, FRAMES, -1)
            last[:, :, 1] = last[:, :, 0]
        return Video(patches, (groups, h, w))

    def geometry(self, clip_id: str, encoder: str, grid: Grid) -> dict[str, np.ndarray]:
        """An encoder's arrays of a clip for a grid of vision tokens.

        Raises:
            CuesError: no cues.
        """
        return self._cache.get(
            (encoder, clip_id, grid),
            lambda: ENCODERS[encoder].extract(self.cues(clip_id), grid, self.tokens),
            lambda arrays: sum(a.nbytes for a in arrays.values()),
        )

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text, for an encoder that reads words."""
        return encode(self.processor.tokenizer, [text])[0]

    def seconds_per_group(self, clip_id: str) -> float:
        """Mean seconds between two time groups."""
        timestamps = self.cues(clip_id).timestamps
        return float(FRAMES * (timestamps[-1] - timestamps[0]) / max(len(timestamps) - 1, 1))

    def problem(self, clip_id: str) -> str:
        """Why a clip cannot be used; '' if it can. Decodes it while the cache has room."""
        if clip_id not in self.files:
            return "not in the catalogue"
        try:
            cues = self.cues(clip_id)
            if not {"width", "height"} <= cues.meta.keys():
                return "cues without the width and height of the video"
            if not self.is_full:
                self.video(clip_id, cues.num_frames)
        except (CuesError, VideoError) as error:
            return str(error)
        file = self.files[clip_id]
        return "" if not file or (self.root / file).is_file() else f"no video: {file} does not exist"

    def _read_cues(self, clip_id: str) -> ClipCues:
        path = self.root / project.CUES / f"{clip_id}.npz"
        if not path.is_file():
            raise CuesError(f"no cues: {project.CUES / path.name} does not exist")
        return read_cues(path, skip=("mask_rle", "mask_offsets"))

    def _decode(self, clip_id: str) -> Video:
        cues, processor = self.cues(clip_id), self.processor.video_processor
        if file := self.files.get(clip_id):
            frames = torch.from_numpy(read_frames(self.root / file, cues.frame_index, DECODED_PIXELS))
        else:
            self.blank_clips.add(clip_id)
            height, width = smart_resize(
                int(cues.meta["height"]),
                int(cues.meta["width"]),
                factor=processor.patch_size * processor.merge_size,
                min_pixels=processor.size["shortest_edge"],
                max_pixels=processor.size["longest_edge"],
            )
            frames = torch.zeros(cues.num_frames, height, width, 3, dtype=torch.uint8)
        # Bytes are kept; `normalise` does the rest, so that the cache holds four times as many clips.
        batch = processor(
            videos=[frames.permute(0, 3, 1, 2)], do_rescale=False, do_normalize=False, return_tensors="pt"
        )
        return Video(batch["pixel_values_videos"], tuple(batch["video_grid_thw"][0].tolist()))


def _catalog_files(root: Path) -> dict[str, str]:
    try:
        catalog = pd.read_parquet(root / project.CATALOG, columns=["clip_id", "status", "file"])
    except FileNotFoundError:
        raise StageError(f"{root / project.CATALOG} does not exist: run `dsr catalog`") from None
    catalog = catalog[catalog["status"] == "ok"]
    return dict(zip(catalog["clip_id"], catalog["file"], strict=True))


def normalise(patches: Tensor, processor: Any) -> Tensor:
    """Float patches as the video processor makes them, from its patches of bytes [n, 3 * 2 * 14 * 14]."""
    video = processor.video_processor
    # Mean and deviation are scaled instead of the pixels, as there, for the same rounding.
    mean, std = (torch.tensor(x)[:, None] / video.rescale_factor for x in (video.image_mean, video.image_std))
    return ((patches.view(len(patches), 3, -1).float() - mean) / std).flatten(1)


def load_examples(table: pd.DataFrame, store: ClipStore, workers: int = 1) -> tuple[list[Example], list[Missing]]:
    """Check every row of a question table and its clip.

    Args:
        table: the published columns (videoID, question, options, answer, type); ours (qa_id, shown_frames) are used
            where they are there.
        workers: threads that decode.

    Returns:
        Examples and missing rows, each in the table's order; together as many as there are rows.
    """
    clips = list(dict.fromkeys(table["videoID"].astype(str)))
    with ThreadPoolExecutor(workers) as pool:
        problems = dict(zip(clips, console.track(pool.map(store.problem, clips), "clips", len(clips)), strict=True))
    examples: list[Example] = []
    missing: list[Missing] = []
    for number, row in enumerate(table.to_dict("records")):
        question = read_row({"qa_id": number, **row})
        reason = problems[question.clip_id] or row_problem(row, published=True)
        if reason:
            missing.append(Missing(question.qa_id, question.clip_id, reason))
        else:
            examples.append(example_of(question, store))
    return examples, missing


def example_of(question: Question, store: ClipStore) -> Example:
    """A question with the number of frames that its clip really shows."""
    frames = store.cues(question.clip_id).num_frames
    return Example(**{**vars(question), "shown_frames": min(question.shown_frames or frames, frames)})


def _cue_bytes(cues: ClipCues) -> int:
    return cues.point_map.nbytes + cues.confidence.nbytes + cues.orientations.nbytes + cues.boxes.nbytes


class _Cache:
    """Values kept while their bytes fit; the one unused for longest goes first. Safe for threads."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.is_full = False
        self._bytes = 0
        self._values: OrderedDict[Any, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any, make: Callable[[], T], size: Callable[[T], int]) -> T:
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
