"""Clips as a control shows them to a checkpoint: a clip store that the collator can use in the place of the real one.

A clip is decoded once; what a control changes is made from the patches that are kept.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache

import numpy as np
import torch

from dsr.evaluation.controls import Control
from dsr.examples.records import ClipStore, Video
from dsr.examples.views import Geometry, change_cues, change_frames
from dsr.examples.views import Video as View
from dsr.model.geometry_encoders import ENCODERS, FRAMES, Grid

_GEOMETRIES_KEPT = 512
_GEOMETRY_OF = "geometry of "
"""Begins the name of a donor; no clip's id has a space."""
_VIDEO_OF: Mapping[Geometry, View] = {
    "own": "whole",
    "shuffled": "whole",
    "zeroed": "black",
    "first_frame": "first_frame",
    "reversed": "reversed",
    "mirrored": "mirrored",
}
"""What an encoder that looks at the video sees for each view of the geometry."""


class ShownClips:
    """What `dsr.examples.collate.Collator` asks of a store, for a control that changes what is shown.

    The collator is made with `control="shuffled_geometry"` and `donors`, which say for every clip where its geometry
    is to be taken from: a name that this store knows. So an encoder of cues and one that looks at the video itself are
    treated alike.

    Args:
        lenders: for shuffled geometry, the clip that lends each clip its own.
    """

    def __init__(self, store: ClipStore, control: Control, lenders: Mapping[str, str]) -> None:
        self.store, self.control, self.lenders = store, control, lenders
        self._changed = lru_cache(_GEOMETRIES_KEPT)(self._make_geometry)

    def donors(self, clip_ids: Iterable[str]) -> dict[str, str]:
        """Where the geometry of clips is to be taken from."""
        return {clip_id: _GEOMETRY_OF + self.lenders.get(clip_id, clip_id) for clip_id in clip_ids}

    def video(self, clip_id: str, shown_frames: int) -> Video:
        """As `ClipStore.video`; of a donor, the video that the geometry is of."""
        view, own_id = self.control.video, clip_id
        if clip_id.startswith(_GEOMETRY_OF):
            view, own_id = _VIDEO_OF[self.control.geometry], clip_id.removeprefix(_GEOMETRY_OF)
        video = self.store.video(own_id, shown_frames)
        if view == "whole":
            return video
        processor = self.store.processor.video_processor
        return change_patches(video, view, shown_frames, processor.merge_size, processor.patch_size)

    def geometry(self, clip_id: str, encoder: str, grid: Grid) -> dict[str, np.ndarray]:
        """As `ClipStore.geometry`, of a donor."""
        own_id = clip_id.removeprefix(_GEOMETRY_OF)
        if self.control.geometry in ("own", "shuffled"):
            return self.store.geometry(own_id, encoder, grid)
        return self._changed(own_id, encoder, grid)

    def seconds_per_group(self, clip_id: str) -> float:
        """As `ClipStore.seconds_per_group`."""
        return self.store.seconds_per_group(clip_id)

    def _make_geometry(self, clip_id: str, encoder: str, grid: Grid) -> dict[str, np.ndarray]:
        cues = change_cues(self.store.cues(clip_id), self.control.geometry)
        return ENCODERS[encoder].extract(cues, grid, self.store.tokens)


def change_patches(video: Video, view: View, shown_frames: int, merge: int, patch: int) -> Video:
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
