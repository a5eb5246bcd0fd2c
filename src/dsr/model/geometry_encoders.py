"""3D tokens for the GSM, from what the pipeline caches of a clip (ClipCues) or from its frames.

An encoder of cues has two halves behind one small interface: `extract` turns cues into arrays, once a question and
without weights; `forward` turns a batch of these arrays into tokens of the language model's width. An encoder of frames
(`reads_video`) is given the patches that the vision tower is given. Every token has a cell (time group, row, column) of
the video's grid of vision tokens, 2 frames x 2 x 2 patches: its position for RoPE in the GSM, and the vision token that
it is added to with fusion `add`.

- `point_map`: a token a cell: where its visible surface is in 3D, how sure that is, and how the camera stands.
- `tracks`: a token a tracked thing and time group while it is visible, and one for the camera: centre, box,
  orientation, with the thing's label in the language model's own word embeddings, because a question names things by
  their labels. Tracks are cues like the point map: they come from the detector and tracker, not from the answers.
- `pi3`: a token a cell: the features of pi3's picture encoder, frozen, of its eight patches (arXiv 2512.20557, section
  4; what the published model has).

Lengths are in units of the clip's median depth; positions are in the first camera's frame (OpenCV) and in the current
camera's. Time is given as in the questions, in seconds of the clip. Only the frames that the model is shown are read,
for the scale as well. What was not observed is zero with a validity of zero.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PretrainedConfig
from transformers.image_utils import OPENAI_CLIP_STD
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLPatchMerger

from dsr.cues.schema import ClipCues
from dsr.geometry.frames import CAMERA_FROM_VIEWPOINT
from dsr.perception.dinov2 import IMAGE_MEAN, IMAGE_STD, PATCH, DinoV2, DinoV2Config

FRAMES = 2
"""Frames in a time group (the vision tower's temporal patch)."""
MERGE = 2
"""Patches on a side of a cell."""
PI3_REGISTERS = 4
CLIP_MEAN = (0.48145466, 0.4576275, 0.40821073)
"""Mean that the published model takes back from the patches; CLIP's own second value is 0.4578275."""
CAMERA_LABEL = "camera"
LARGEST = 10.0
"""Values are clipped to this: a far background must not drown the rest."""
MAX_LABEL_TOKENS = 8
REACH = 2
"""Frames before and after one between which a velocity is taken."""
NEAREST, SLOWEST = 0.05, 0.02
"""Median depths, and those a second: less counts as this much."""
PERIODS = np.array([2.0, 4.0, 8.0, 16.0, 32.0, 64.0])
"""Seconds; a time is told by its sine and cosine at each."""
PADDING = -1
"""Cell of a padding token."""

Encode = Callable[[str], Sequence[int]]
"""Text to token ids, for labels."""


@dataclass(frozen=True)
class Grid:
    """The grid of vision tokens of a video, which geometry tokens share."""

    frames: int
    """Frames that the model is shown; an odd one is repeated, as the video processor does."""
    rows: int
    columns: int

    @property
    def groups(self) -> int:
        return -(-self.frames // FRAMES)


@dataclass(frozen=True)
class GeometryTokens:
    """Letters: v videos of the batch, k tokens, d width."""

    states: Tensor
    """[v, k, d], zero where padded."""
    cells: Tensor
    """[v, k, 3] int64: time group, row, column; PADDING where padded."""

    @property
    def mask(self) -> Tensor:
        """[v, k] bool, False where padded."""
        return self.cells[..., 0] != PADDING


class GeometryEncoder(nn.Module):
    """Interface of an encoder.

    Built from the language model's text configuration and the encoder's own sizes, where it has any. `inputs` of cues
    are padded over k, with `cells` among them.
    """

    name: str
    inputs: tuple[str, ...] = ("values", "cells")
    reads_video = False

    @staticmethod
    def extract(cues: ClipCues, grid: Grid, encode: Encode) -> dict[str, np.ndarray]:
        """Arrays of one clip, first axis k; keys as in `inputs`."""
        raise NotImplementedError

    @staticmethod
    def take(inputs: Mapping[str, Tensor], videos: Tensor) -> dict[str, Tensor]:
        """The inputs of some of a batch's videos, [n] indices."""
        return {name: tensor[videos.to(tensor.device)] for name, tensor in inputs.items()}

    def forward(self, inputs: Mapping[str, Tensor], words: nn.Embedding) -> GeometryTokens:
        """Tokens of a batch of videos; `words` is the language model's embedding."""
        raise NotImplementedError


class PointMapEncoder(GeometryEncoder):
    """Cells of the point map.

    `values` [k, 46] float32, for each of a group's two frames: mean position of the cell's valid points in the first
    camera's frame (3) and in the current camera's (3), their mean confidence, the share of valid points; position (3),
    x axis and y axis (3 + 3) of the current camera in the first camera's frame. Then the group's time (12).
    """

    name = "point_map"

    def __init__(self, config: PretrainedConfig, sizes: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.merger = merger(FRAMES * 17 + 2 * len(PERIODS), config)

    @staticmethod
    def extract(cues: ClipCues, grid: Grid, encode: Encode) -> dict[str, np.ndarray]:
        view = _View.of(cues, grid)
        points = cues.point_map[view.frames] / view.scale  # [t, h, w, 3]
        confidence = cues.confidence[view.frames][..., None]
        valid = np.isfinite(points).all(axis=-1, keepdims=True) & (confidence > 0)
        points = np.where(valid, points, 0)
        in_first = np.einsum("tij,thwj->thwi", view.rotation, points) + view.position[:, None, None]
        channels = np.where(valid, np.concatenate([in_first, points, confidence], axis=-1), 0)
        total, count, area = (_pool(a, grid) for a in (channels, valid * 1.0, np.ones_like(confidence)))
        camera = np.concatenate([view.position, view.rotation[..., 0], view.rotation[..., 1]], axis=-1)
        camera = np.broadcast_to(camera[:, None, None], (*total.shape[:3], 9))
        values = np.concatenate([total / np.maximum(count, 1), count / np.maximum(area, 1), camera], axis=-1)
        values = values.reshape(grid.groups, FRAMES, grid.rows, grid.columns, -1).transpose(0, 2, 3, 1, 4)
        cells = np.indices((grid.groups, grid.rows, grid.columns)).reshape(3, -1).T
        values = np.concatenate([values.reshape(len(cells), -1), view.time[cells[:, 0]]], axis=-1)
        return {"values": _clip(values), "cells": np.ascontiguousarray(cells)}

    def forward(self, inputs: Mapping[str, Tensor], words: nn.Embedding) -> GeometryTokens:
        cells = inputs["cells"]
        states = self.merger(inputs["values"].to(words.weight.dtype))
        return GeometryTokens(states * (cells[..., :1] != PADDING), cells)


class TrackEncoder(GeometryEncoder):
    """Tracked things and the camera over time.

    `values` [k, 110] float32, for each of a group's two frames: visible, is an agent, is the camera, orientation
    confidence (4); box centre and size as shares of the picture (4); centre in the first camera's frame (3) and in the
    current camera's (3), direction (3) and logarithm of the distance (1) from the current camera; forward and left axis
    in the first camera's frame (6) and in the current camera's (6); in the thing's own axes, direction of the camera
    (3) and where the camera faces (3); velocity in the first camera's frame (3), its direction in the current camera's
    axes (3) and in the thing's own (3), direction of motion as the moving camera sees it (3), logarithm of the speed
    (1). All zero in a frame where the thing is not visible, as is what is not known. Then the group's time (12). The
    camera is an agent whose box is the whole picture.
    `words` [k, 8] int64, token ids of the label, PADDING after them.
    """

    name = "tracks"
    inputs = ("values", "cells", "words")

    def __init__(self, config: PretrainedConfig, sizes: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.merger = merger(FRAMES * 49 + 2 * len(PERIODS), config)
        self.label = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    @staticmethod
    def extract(cues: ClipCues, grid: Grid, encode: Encode) -> dict[str, np.ndarray]:
        view = _View.of(cues, grid)
        things = _things(cues, view)
        n = len(things)
        things = things.reshape(n, grid.groups, FRAMES, -1)
        visible = things[..., 0]  # [n + 1, g, 2]
        middle = things[..., 4:6].sum(axis=2) / np.maximum(visible.sum(axis=2), 1)[..., None]  # x, y in [0, 1]
        size = np.array([grid.rows, grid.columns])
        cell = np.clip(np.floor(middle[..., ::-1] * size), 0, size - 1)
        group = np.broadcast_to(np.arange(grid.groups)[:, None], (n, grid.groups, 1))
        cells = np.concatenate([group, cell], axis=-1).astype(np.int64)
        words = np.full((n, MAX_LABEL_TOKENS), PADDING, np.int64)
        for row, label in zip(words, [*cues.labels.tolist(), CAMERA_LABEL], strict=True):
            # With the space that a word has inside a sentence, so that it is the same token as in the question.
            ids = list(encode(f" {label}"))[:MAX_LABEL_TOKENS]
            row[: len(ids)] = ids
        words = np.broadcast_to(words[:, None], (n, grid.groups, MAX_LABEL_TOKENS))
        shown = visible.any(axis=-1)
        cells = cells[shown]
        values = np.concatenate([things[shown].reshape(len(cells), -1), view.time[cells[:, 0]]], axis=-1)
        return {"values": _clip(values), "cells": cells, "words": words[shown]}

    def forward(self, inputs: Mapping[str, Tensor], words: nn.Embedding) -> GeometryTokens:
        cells, ids = inputs["cells"], inputs["words"]
        spelled = (ids != PADDING)[..., None]
        name = (words(ids.clamp(min=0)) * spelled).sum(-2) / spelled.sum(-2).clamp(min=1)
        states = self.merger(inputs["values"].to(words.weight.dtype)) + self.label(name)
        return GeometryTokens(states * (cells[..., :1] != PADDING), cells)


class Pi3Encoder(GeometryEncoder):
    """Features of pi3's DINOv2 ViT-L/14 (four registers), grouped and projected as Qwen's merger does.

    Inputs: `patches` [n, 3 * 2 * 14 * 14] of all videos in the order of Qwen2.5-VL's video processor, normalised with
    CLIP's statistics; `grid_thw` [v, 3] of these; `places` [v, 3], the grid of the video that each is laid over (its
    own, except where the geometry is another clip's).
    """

    name = "pi3"
    inputs = ("patches", "grid_thw")
    reads_video = True

    def __init__(self, config: PretrainedConfig, sizes: Mapping[str, int] | None = None) -> None:
        """
        Args:
            config: text configuration of the language model.
            sizes: of the encoder, where they are not ViT-L/14's (DinoV2Config).
        """
        super().__init__()
        encoder = DinoV2Config(registers=PI3_REGISTERS, **dict(sizes or {}))
        self.encoder = DinoV2(encoder).requires_grad_(False)
        self.merger = Qwen2_5_VLPatchMerger(config.hidden_size, FRAMES * MERGE**2 * encoder.width, spatial_merge_size=1)

    @staticmethod
    def take(inputs: Mapping[str, Tensor], videos: Tensor) -> dict[str, Tensor]:
        patches = inputs["patches"].split(inputs["grid_thw"].prod(-1).tolist())
        return {
            "patches": torch.cat([patches[video] for video in videos.tolist()]),
            "grid_thw": inputs["grid_thw"][videos.to(inputs["grid_thw"].device)],
        }

    def train(self, mode: bool = True) -> "Pi3Encoder":
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, inputs: Mapping[str, Tensor], words: nn.Embedding) -> GeometryTokens:
        grids, places = inputs["grid_thw"].tolist(), inputs["places"].tolist()
        patches = inputs["patches"].split([t * h * w for t, h, w in grids])
        states = [self.merger(self._features(*video)) for video in zip(patches, grids, strict=True)]
        cells = [_laid_over(grid, place, s.device) for grid, place, s in zip(grids, places, states, strict=True)]
        return GeometryTokens(
            pad_sequence(states, batch_first=True), pad_sequence(cells, batch_first=True, padding_value=PADDING)
        )

    @torch.no_grad()
    def _features(self, patches: Tensor, grid_thw: Sequence[int]) -> Tensor:
        """[cells, 8 * width] of one video, each cell's patches by frame, row and column."""
        t, h, w = grid_thw
        # It may be kept in a shorter format than what learns.
        frames = imagenet_frames(patches, grid_thw).to(next(self.encoder.parameters()).dtype)
        features = self.encoder(frames).patches.to(self.merger.ln_q.weight.dtype)  # [2t, h * w, width]
        features = features.view(t, FRAMES, h // MERGE, MERGE, w // MERGE, MERGE, -1)
        return features.permute(0, 2, 4, 1, 3, 5, 6).flatten(0, 2).flatten(1)


ENCODERS: dict[str, type[GeometryEncoder]] = {
    encoder.name: encoder for encoder in (PointMapEncoder, TrackEncoder, Pi3Encoder)
}


def imagenet_frames(patches: Tensor, grid_thw: Sequence[int]) -> Tensor:
    """Pictures [frames, 3, height, width] with ImageNet's statistics, from patches with CLIP's."""
    t, h, w = grid_thw
    blocks = patches.view(t, h // MERGE, w // MERGE, MERGE, MERGE, 3, FRAMES, PATCH, PATCH)
    frames = blocks.permute(0, 6, 5, 1, 3, 7, 2, 4, 8).reshape(t * FRAMES, 3, h * PATCH, w * PATCH)
    clip_mean, clip_std, mean, std = (
        torch.tensor(values, device=patches.device, dtype=patches.dtype)[:, None, None]
        for values in (CLIP_MEAN, OPENAI_CLIP_STD, IMAGE_MEAN, IMAGE_STD)
    )
    return (frames * clip_std + clip_mean - mean) / std


def _laid_over(grid: Sequence[int], place: Sequence[int], device: torch.device) -> Tensor:
    """[k, 3] int64 cells of a grid of patches, on another grid of patches."""
    t, rows, columns = grid[0], grid[1] // MERGE, grid[2] // MERGE
    cells = torch.cartesian_prod(*(torch.arange(n, device=device) for n in (t, rows, columns)))
    size = torch.tensor([place[0], place[1] // MERGE, place[2] // MERGE], device=device)
    return cells * size // torch.tensor([t, rows, columns], device=device)


def merger(num_values: int, config: PretrainedConfig) -> nn.Sequential:
    """Two-layer projection to the language model's width, the shape of Qwen's patch merger."""
    return nn.Sequential(
        nn.Linear(num_values, config.hidden_size), nn.GELU(), nn.Linear(config.hidden_size, config.hidden_size)
    )


def pad_arrays(arrays: Sequence[np.ndarray], fill: float) -> Tensor:
    """[v, max k, ...] tensor of arrays [k, ...] with `fill` behind the shorter ones."""
    padded = np.full((len(arrays), max(len(a) for a in arrays), *arrays[0].shape[1:]), fill, arrays[0].dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(padded)


def concatenate(tokens: Sequence[GeometryTokens]) -> GeometryTokens:
    """All encoders' tokens of each video, one after another."""
    return GeometryTokens(torch.cat([t.states for t in tokens], 1), torch.cat([t.cells for t in tokens], 1))


@dataclass(frozen=True)
class _View:
    """The frames that the model is shown, and how the camera stands in each, seen from the first one."""

    frames: np.ndarray
    """[t] indices into the cue frames, t = 2 x groups, the last repeated where the number is odd."""
    rotation: np.ndarray
    """[t, 3, 3] first camera from current camera."""
    position: np.ndarray
    """[t, 3] current camera's position in the first camera's frame, in median depths."""
    time: np.ndarray
    """[groups, 12] sines and cosines of each group's mean time."""
    seconds: np.ndarray
    """[t] float64, times of the frames."""
    scale: float
    """The median depth of the shown frames: of their points, or of their tracks where there is no point map."""

    @classmethod
    def of(cls, cues: ClipCues, grid: Grid) -> "_View":
        last = min(grid.frames, cues.num_frames) - 1
        frames = np.minimum(np.arange(grid.groups * FRAMES), last)
        first_from_camera = np.linalg.inv(cues.camera_poses[0]) @ cues.camera_poses[frames]
        depth = cues.point_map[: last + 1][cues.confidence[: last + 1] > 0][:, 2]
        if not len(depth):
            depth = cues.centers[:, : last + 1][cues.visible[:, : last + 1]][:, 2]
        scale = float(np.median(depth)) if len(depth) else 1.0
        scale = scale if scale > 0 else 1.0
        seconds = cues.timestamps[frames]
        phase = 2 * np.pi * seconds.reshape(-1, FRAMES).mean(axis=1, keepdims=True) / PERIODS
        time = np.concatenate([np.sin(phase), np.cos(phase)], axis=-1)
        return cls(frames, first_from_camera[:, :3, :3], first_from_camera[:, :3, 3] / scale, time, seconds, scale)


def _things(cues: ClipCues, view: _View) -> np.ndarray:
    """[n + 1, t, 49] values of the tracks and, last, of the camera; see TrackEncoder."""
    frames, n, t = view.frames, cues.num_tracks, len(view.frames)

    def with_camera(tracks: np.ndarray, camera: Any) -> np.ndarray:
        """[n + 1, t, ...] in the order of the result, from [n, t, ...] and a frame's value for the camera."""
        return np.concatenate([tracks, np.broadcast_to(camera, (1, *tracks.shape[1:]))])

    size = np.array([cues.meta["width"], cues.meta["height"]], np.float64)
    corners = cues.boxes[:, frames].reshape(n, t, 2, 2) / size
    visible = with_camera(cues.visible[:, frames], True)
    is_agent = with_camera(np.repeat(cues.is_agent[:, None], t, axis=1), True)
    is_camera = with_camera(np.zeros((n, t), bool), True)
    axes = with_camera(cues.orientations[:, frames].astype(np.float64), CAMERA_FROM_VIEWPOINT)  # camera from agent
    seen_from_first = view.rotation @ axes
    centers = with_camera(cues.centers[:, frames] / view.scale, 0.0)
    directions, distances = _direction(centers)
    places = np.einsum("tij,ntj->nti", view.rotation, centers) + view.position
    velocity = _velocity(places, visible, view.seconds)
    heading, speed = _direction(velocity)
    values = [
        *(a[..., None] for a in (visible, visible & is_agent, is_camera)),
        with_camera(cues.orientation_confidence[:, frames], 1.0)[..., None],
        with_camera(corners.mean(axis=2), 0.5),
        with_camera(corners[:, :, 1] - corners[:, :, 0], 1.0),
        places,
        centers,
        directions,
        np.log(np.maximum(distances, NEAREST)),
        *(seen_from_first[..., axis] for axis in (0, 1)),
        *(axes[..., axis] for axis in (0, 1)),
        np.einsum("ntij,nti->ntj", axes, -directions),
        axes[..., 2, :],
        velocity,
        np.einsum("tij,nti->ntj", view.rotation, heading),
        np.einsum("ntij,nti->ntj", seen_from_first, heading),
        _direction(_velocity(centers, visible, view.seconds))[0],
        np.log(np.maximum(speed, SLOWEST)),
    ]
    return np.where(visible[..., None], np.nan_to_num(np.concatenate(values, axis=-1)), 0.0)


def _direction(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors [..., 3], shorter where there is hardly a direction, and lengths [..., 1]."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(length, SLOWEST), length


def _velocity(places: np.ndarray, visible: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """[n, t, 3] change a second of places [n, t, 3] that are visible [n, t], at times [t].

    Between the frames up to REACH before and after, or nearer ones where those do not show the thing; NaN where there
    are none.
    """
    t = np.arange(len(seconds))
    velocity = np.full(places.shape, np.nan)
    for reach in range(1, REACH + 1):
        before, after = np.maximum(t - reach, 0), np.minimum(t + reach, t[-1])
        span = seconds[after] - seconds[before]
        seen = visible[:, before] & visible[:, after] & (span > 0)
        change = (places[:, after] - places[:, before]) / np.where(span > 0, span, 1.0)[:, None]
        velocity = np.where(seen[..., None], change, velocity)
    return velocity


def _pool(values: np.ndarray, grid: Grid) -> np.ndarray:
    """Sums of values [t, h, w, c] over the grid's cells: [t, rows, columns, c]; zeros where there is no map.

    A cell smaller than a point takes the point at its corner (what reduceat does for repeated starts).
    """
    t, h, w, c = values.shape
    if not h * w:
        return np.zeros((t, grid.rows, grid.columns, c))
    rows, columns = np.arange(grid.rows) * h // grid.rows, np.arange(grid.columns) * w // grid.columns
    return np.add.reduceat(np.add.reduceat(values, rows, axis=1), columns, axis=2)


def _clip(values: np.ndarray) -> np.ndarray:
    return np.clip(values, -LARGEST, LARGEST).astype(np.float32)
