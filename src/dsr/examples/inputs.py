"""Inputs that a checkpoint is given of a clip under a view: patches of frames, and arrays of the geometry encoders.

A clip is decoded and resized once: its patches are kept as bytes, and what a view changes is made from them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from dsr.clips.video import VideoError
from dsr.cues.schema import CuesError
from dsr.examples.clips import ClipStore
from dsr.examples.views import GeometryView, VideoView, change_cues, change_frames
from dsr.model.chat import encode
from dsr.model.geometry_encoders import ENCODERS, FRAMES, Grid

DECODED_PIXELS = 1920 * 1080
"""Larger frames are made smaller as they are decoded."""


@dataclass(frozen=True)
class Video:
    """Frames as the vision tower is given them.

    Letters: g time groups, p patches of a group.
    """

    patches: Tensor
    """[g * p, 3 * 2 * 14 * 14] uint8, in the order of Qwen2.5-VL's video processor."""
    grid_thw: tuple[int, int, int]
    """Groups, and rows and columns of patches."""


class ClipInputs:
    """Inputs made of a store's clips for one processor.

    Args:
        processor: of the model; its video processor decides the size of frames, its tokenizer reads labels.
    """

    def __init__(self, clips: ClipStore, processor: Any) -> None:
        self.clips, self.processor = clips, processor

    def problem(self, clip_id: str) -> str:
        """Reason why a clip cannot be used, "" if it can. Decodes it while the cache has room."""
        if (reason := self.clips.problem(clip_id)) or self.clips.is_full:
            return reason
        return self.unreadable(clip_id)

    def unreadable(self, clip_id: str) -> str:
        """Reason why a clip does not decode, "" if it does."""
        try:
            self.video(clip_id, 1)
        except (CuesError, VideoError) as error:
            return str(error)
        return ""

    def video(self, clip_id: str, shown_frames: int, view: VideoView = "whole") -> Video:
        """The first frames of a clip's cue frames.

        Raises:
            CuesError: the clip has no cues, which say where its frames are.
            VideoError: its file cannot be decoded.
        """
        whole = self.clips.cache.get(("video", clip_id), lambda: self._decode(clip_id), lambda v: v.patches.nbytes)
        t, h, w = whole.grid_thw
        groups = min(-(-shown_frames // FRAMES), t)
        patches = whole.patches[: groups * h * w]
        if shown_frames % FRAMES and groups < t:
            # The last group's second frame is not shown: repeat its first one, as the video processor does.
            patches = patches.clone()
            last = patches[-h * w :].view(h * w, 3, FRAMES, -1)
            last[:, :, 1] = last[:, :, 0]
        video = Video(patches, (groups, h, w))
        if view == "whole":
            return video
        sizes = self.processor.video_processor
        return change_patches(video, view, shown_frames, sizes.merge_size, sizes.patch_size)

    def geometry(self, clip_id: str, encoder: str, grid: Grid, view: GeometryView = "own") -> dict[str, np.ndarray]:
        """An encoder's arrays of a clip for a grid of vision tokens.

        Raises:
            CuesError: no cues.
        """
        return self.clips.cache.get(
            (encoder, clip_id, grid, view),
            lambda: ENCODERS[encoder].extract(change_cues(self.clips.cues(clip_id), view), grid, self.tokens),
            lambda arrays: sum(a.nbytes for a in arrays.values()),
        )

    def seconds_per_group(self, clip_id: str) -> float:
        """Mean seconds between two time groups."""
        timestamps = self.clips.cues(clip_id).timestamps
        return float(FRAMES * (timestamps[-1] - timestamps[0]) / max(len(timestamps) - 1, 1))

    def normalise(self, patches: Tensor) -> Tensor:
        """Float patches as the video processor makes them, from its patches of bytes [n, 3 * 2 * 14 * 14]."""
        video = self.processor.video_processor
        # Mean and deviation are scaled instead of the pixels, as there, for the same rounding.
        mean, std = (torch.tensor(x)[:, None] / video.rescale_factor for x in (video.image_mean, video.image_std))
        return ((patches.view(len(patches), 3, -1).float() - mean) / std).flatten(1)

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text."""
        return encode(self.processor.tokenizer, [text])[0]

    def _decode(self, clip_id: str) -> Video:
        cues, processor = self.clips.cues(clip_id), self.processor.video_processor
        if self.clips.without_video([clip_id]):
            height, width = smart_resize(
                int(cues.meta["height"]),
                int(cues.meta["width"]),
                factor=processor.patch_size * processor.merge_size,
                min_pixels=processor.size["shortest_edge"],
                max_pixels=processor.size["longest_edge"],
            )
            frames = torch.zeros(cues.num_frames, height, width, 3, dtype=torch.uint8)
        else:
            frames = torch.from_numpy(self.clips.frames(clip_id, cues.frame_index, DECODED_PIXELS))
        # Bytes are kept; `normalise` does the rest, so that the cache holds four times as many clips.
        batch = processor(
            videos=[frames.permute(0, 3, 1, 2)], do_rescale=False, do_normalize=False, return_tensors="pt"
        )
        return Video(batch["pixel_values_videos"], tuple(batch["video_grid_thw"][0].tolist()))


def change_patches(video: Video, view: VideoView, shown_frames: int, merge: int, patch: int) -> Video:
    """A video of which other frames are shown.

    Args:
        shown_frames: frames that are the video's own; a last one that was repeated to fill a group is not.
        merge: patches along a side of a vision token.
        patch: pixels along a side of a patch.
    """
    groups, rows, columns = video.grid_thw
    split = (groups, rows // merge, columns // merge, merge, merge, 3, FRAMES, patch, patch)
    # [group, row, column, row in token, column in token, channel, frame, y, x] <-> [group, frame, y…, x…, channel]
    order = (0, 6, 1, 3, 7, 2, 4, 8, 5)
    pixels = video.patches.view(split).permute(order)
    shape = pixels.shape
    frames = pixels.reshape(groups * FRAMES, rows * patch, columns * patch, 3)[:shown_frames].numpy()
    changed = change_frames(frames, view)
    repeats = groups * FRAMES - len(changed)
    whole = torch.from_numpy(np.concatenate([changed, np.repeat(changed[-1:], repeats, axis=0)]))
    patches = whole.view(shape).permute(*np.argsort(order).tolist()).reshape(video.patches.shape)
    return Video(patches.contiguous(), video.grid_thw)
