"""3D tokens for the GSM, from what the pipeline caches of a clip (ClipCues) or from its frames.

An encoder of cues has two halves behind one small interface: `extract` turns cues into arrays, once a question and
without weights; `forward` turns a batch of these arrays into tokens of the language model's width. An encoder of frames
(`reads_video`) is given the patches that the vision tower is given. Every token has a cell (time group, row, column) of
the video's grid of vision tokens, 2 frames x 2 x 2 patches: its position for RoPE in the GSM, and the vision token that
it is added to with fusion `add`.

- `point_map`: a token a cell: where its visible surface is in 3D, how sure that is, and how the camera stands.
- `tracks`: a token a tracked thing and time group while it is visible, and one for the camera: centre, box,
  orientation. Tracks are cues like the point map: they come from the detector and tracker, not from the answers.
- `pairs`: a token an agent or the camera, another thing and time group while both are visible: the one as the other
  sees it.
- `pi3`: a token a cell: the features of pi3's picture encoder, frozen, of its eight patches (arXiv 2512.20557, section
  4; what the published model has).

Tokens of `tracks` and `pairs` have an address (dsr.model.address): labels in the language model's own word embeddings,
because a question names things by their labels, and the time.

Lengths are in units of the clip's median depth; positions are in the first camera's frame (OpenCV) and in the current
camera's. Time is given as in the questions, in seconds of the clip. Only the frames that the model is shown are read,
for the scale as well. What was not observed is zero with a validity of zero.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PretrainedConfig
from transformers.image_utils import OPENAI_CLIP_STD
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLPatchMerger

from dsr.cues.schema import ClipCues
from dsr.geometry.frames import CAMERA_FROM_VIEWPOINT
from dsr.model.address import Address, draw, label, value_width
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
"""Cell of a padding token, and what stands behind a label's words."""
KIND_SCALE = 0.3
"""Size of the mark of an encoder's tokens beside values and address."""

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


class GeometryTokens(NamedTuple):  # DeepSpeed finds no tensors in a dataclass
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
    is_addressed = False
    """Needs the model's Address."""

    @staticmethod
    def extract(cues: ClipCues, grid: Grid, encode: Encode) -> dict[str, np.ndarray]:
        """Arrays of one clip, first axis k; keys as in `inputs`."""
        raise NotImplementedError

    @staticmethod
    def take(inputs: Mapping[str, Tensor], videos: Tensor) -> dict[str, Tensor]:
        """The inputs of some of a batch's videos, [n] indices."""
        return {name: tensor[videos.to(tensor.device)] for name, tensor in inputs.items()}

    def forward(
        self, inputs: Mapping[str, Tensor], words: nn.Embedding, address: Address | None = None
    ) -> GeometryTokens:
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

    def forward(
        self, inputs: Mapping[str, Tensor], words: nn.Embedding, address: Address | None = None
    ) -> GeometryTokens:
        cells = inputs["cells"]
        states = self.merger(inputs["values"].to(words.weight.dtype))
        return GeometryTokens(states * (cells[..., :1] != PADDING), cells)


class AddressedEncoder(GeometryEncoder):
    """Values in one part of a token's width, an address in the others.

    Beside `values` and `cells`: `seconds` [k] float32, the group's mean time in seconds of the clip; `things` [k, n]
    int64, the track that a token is of, or its viewer and target, the number of tracks for the camera; `labels`
    [tracks + 1, 8] int64, token ids of the things' labels, PADDING after them.
    """

    inputs: tuple[str, ...] = ("values", "cells", "seconds", "things", "labels")
    is_addressed = True
    num_values: int

    def __init__(self, config: PretrainedConfig, sizes: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.values = nn.Linear(self.num_values, value_width(config))
        self.kind = nn.Parameter(torch.empty(config.hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        draw(self.values)
        nn.init.normal_(self.kind, std=KIND_SCALE)

    def forward(
        self, inputs: Mapping[str, Tensor], words: nn.Embedding, address: Address | None = None
    ) -> GeometryTokens:
        if address is None:
            raise ValueError(f"{self.name} needs an address")
        cells, dtype = inputs["cells"], words.weight.dtype
        values, labels = self.values(inputs["values"].to(dtype)), spelled(inputs["labels"], words)
        states = address.token(values, inputs["seconds"], labels, inputs["things"].clamp(min=0)) + self.kind.to(dtype)
        return GeometryTokens(states * (cells[..., :1] != PADDING), cells)


class TrackEncoder(AddressedEncoder):
    """Tracked things and the camera over time, addressed as targets.

    `values` [k, 98] float32, for each of a group's two frames: visible, is an agent, is the camera, orientation
    confidence (4); box centre and size as shares of the picture (4); centre in the first camera's frame (3) and in the
    current camera's (3), direction (3) and logarithm of the distance (1) from the current camera; forward and left axis
    in the first camera's frame (6) and in the current camera's (6); in the thing's own axes, direction of the camera
    (3) and where the camera faces (3); velocity in the first camera's frame (3), its direction in the current camera's
    axes (3) and in the thing's own (3), direction of motion as the moving camera sees it (3), logarithm of the speed
    (1). All zero in a frame where the thing is not visible, as is what is not known. The camera is an agent whose box
    is the whole picture. `things` [k, 1].
    """

    name = "tracks"
    num_values = FRAMES * 49

    @staticmethod
    def extract(cues: ClipCues, grid: Grid, encode: Encode) -> dict[str, np.ndarray]:
        view = _View.of(cues, grid)
        things = _by_group(_things(cues, view), grid)
        thing, group = np.nonzero(things[..., 0].any(axis=-1))
        return {
            "values": _clip(things[thing, group].reshape(len(thing), TrackEncoder.num_values)),
            "cells": _cells(things, grid)[thing, group],
            "seconds": view.group_seconds[group].astype(np.float32),
            "things": thing[:, None],
            "labels": label_words(cues, encode),
        }


class PairEncoder(AddressedEncoder):
    """Things as agents and the camera see them over time.

    A token a viewer (an agent or the camera), a target (any other thing, or the camera), and time group in which both
    are visible in one frame; its cell is the target's. `values` [k, 72] float32, for each of a group's two frames: both
    visible, the viewer's orientation known, the target's known (3); in the viewer's axes, direction of the target (3),
    logarithm of the distance (1), the target's forward and left axis (6); direction of the target's velocity relative
    to the viewer's (3), logarithm of that speed (1), direction of motion as the moving, turning viewer sees it (3),
    direction (3) and logarithm of the speed (1) of the target's own motion; in the first camera's frame, the target
    from the viewer (3), the viewer's forward and left axis (6); in the viewer's axes, where the target is (3): two of
    these tell how one target lies from another. All zero in a frame where not both are visible, as is what is not
    known. `things` [k, 2] are viewer and target.
    """

    name = "pairs"
    num_values = FRAMES * 36

    @staticmethod
    def extract(cues: ClipCues, grid: Grid, encode: Encode) -> dict[str, np.ndarray]:
        view = _View.of(cues, grid)
        viewers, targets = _pairs(cues)
        values = _by_group(_seen_by(cues, view, viewers, targets), grid)
        pair, group = np.nonzero(values[..., 0].any(axis=-1))
        viewer, target = viewers[pair], targets[pair]
        return {
            "values": _clip(values[pair, group].reshape(len(pair), PairEncoder.num_values)),
            "cells": _cells(_by_group(_things(cues, view), grid), grid)[target, group],
            "seconds": view.group_seconds[group].astype(np.float32),
            "things": np.stack([viewer, target], axis=-1),
            "labels": label_words(cues, encode),
        }


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

    def forward(
        self, inputs: Mapping[str, Tensor], words: nn.Embedding, address: Address | None = None
    ) -> GeometryTokens:
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
    encoder.name: encoder for encoder in (PointMapEncoder, TrackEncoder, PairEncoder, Pi3Encoder)
}


def spelled(ids: Tensor, words: nn.Embedding) -> Tensor:
    """Labels [..., d] of token ids [..., n], PADDING after them."""
    ids = ids[..., : int((ids != PADDING).flatten(0, -2).any(0).sum())]  # as long as the longest
    return label(words(ids.clamp(min=0)), ids != PADDING)


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


def pad_arrays(arrays: Sequence[np.ndarray]) -> Tensor:
    """[v, max k, ...] tensor of arrays [k, ...]; behind the shorter ones 0, in arrays of integers PADDING.

    At least one token wide: attention to nothing would not be a number.
    """
    fill = PADDING if arrays[0].dtype.kind == "i" else 0
    padded = np.full((len(arrays), max(1, *map(len, arrays)), *arrays[0].shape[1:]), fill, arrays[0].dtype)
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
    seconds: np.ndarray
    """[t] float64, times of the frames."""
    scale: float
    """The median depth of the shown frames: of their points, or of their tracks where there is no point map."""

    @property
    def group_seconds(self) -> np.ndarray:
        """[groups] mean time of each group's frames."""
        return self.seconds.reshape(-1, FRAMES).mean(axis=1)

    @property
    def time(self) -> np.ndarray:
        """[groups, 12] sines and cosines of each group's mean time."""
        phase = 2 * np.pi * self.group_seconds[:, None] / PERIODS
        return np.concatenate([np.sin(phase), np.cos(phase)], axis=-1)

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
        rotation, position = first_from_camera[:, :3, :3], first_from_camera[:, :3, 3] / scale
        return cls(frames, rotation, position, cues.timestamps[frames], scale)


@dataclass(frozen=True)
class _Motion:
    """Tracks and, last, the camera, in the shown frames; NaN where not known. Letters: n tracks, t frames."""

    visible: np.ndarray
    """[n + 1, t] bool."""
    centers: np.ndarray
    """[n + 1, t, 3] in the current camera's frame, in median depths."""
    axes: np.ndarray
    """[n + 1, t, 3, 3] current camera from the thing's own axes (forward, left, up)."""
    places: np.ndarray
    """[n + 1, t, 3] in the first camera's frame."""
    world_axes: np.ndarray
    """[n + 1, t, 3, 3] first camera from the thing's own axes."""
    velocity: np.ndarray
    """[n + 1, t, 3] in the first camera's frame, median depths a second."""

    @classmethod
    def of(cls, cues: ClipCues, view: _View) -> "_Motion":
        frames = view.frames
        visible = _with_camera(cues.visible[:, frames], True)
        axes = _with_camera(cues.orientations[:, frames].astype(np.float64), CAMERA_FROM_VIEWPOINT)
        centers = _with_camera(cues.centers[:, frames] / view.scale, 0.0)
        places = np.einsum("tij,ntj->nti", view.rotation, centers) + view.position
        velocity = _velocity(places, visible, view.seconds)
        return cls(visible, centers, axes, places, view.rotation @ axes, velocity)


def _with_camera(tracks: np.ndarray, camera: Any) -> np.ndarray:
    """[n + 1, ...] from the tracks' values [n, ...] and the camera's, which is the last."""
    return np.concatenate([tracks, np.broadcast_to(camera, (1, *tracks.shape[1:]))])


def _things(cues: ClipCues, view: _View) -> np.ndarray:
    """[n + 1, t, 49] values of the tracks and, last, of the camera; see TrackEncoder."""
    frames, n, t = view.frames, cues.num_tracks, len(view.frames)
    motion = _Motion.of(cues, view)
    size = np.array([cues.meta["width"], cues.meta["height"]], np.float64)
    corners = cues.boxes[:, frames].reshape(n, t, 2, 2) / size
    is_agent = _with_camera(np.repeat(cues.is_agent[:, None], t, axis=1), True)
    is_camera = _with_camera(np.zeros((n, t), bool), True)
    directions, distances = _direction(motion.centers)
    heading, speed = _direction(motion.velocity)
    values = [
        *(a[..., None] for a in (motion.visible, motion.visible & is_agent, is_camera)),
        _with_camera(cues.orientation_confidence[:, frames], 1.0)[..., None],
        _with_camera(corners.mean(axis=2), 0.5),
        _with_camera(corners[:, :, 1] - corners[:, :, 0], 1.0),
        motion.places,
        motion.centers,
        directions,
        np.log(np.maximum(distances, NEAREST)),
        *(motion.world_axes[..., axis] for axis in (0, 1)),
        *(motion.axes[..., axis] for axis in (0, 1)),
        np.einsum("ntij,nti->ntj", motion.axes, -directions),
        motion.axes[..., 2, :],
        motion.velocity,
        np.einsum("tij,nti->ntj", view.rotation, heading),
        np.einsum("ntij,nti->ntj", motion.world_axes, heading),
        _direction(_velocity(motion.centers, motion.visible, view.seconds))[0],
        np.log(np.maximum(speed, SLOWEST)),
    ]
    return np.where(motion.visible[..., None], np.nan_to_num(np.concatenate(values, axis=-1)), 0.0)


def _pairs(cues: ClipCues) -> tuple[np.ndarray, np.ndarray]:
    """Viewers and targets [p] of all pairs: indices of tracks, their number for the camera."""
    is_agent = _with_camera(cues.is_agent, True)
    viewers, targets = np.nonzero(is_agent[:, None] & ~np.eye(len(is_agent), dtype=bool))
    return viewers, targets


def _seen_by(cues: ClipCues, view: _View, viewers: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """[p, t, 36] values of targets as viewers see them; see PairEncoder."""
    motion = _Motion.of(cues, view)
    both = motion.visible[viewers] & motion.visible[targets]
    facing = _with_camera(cues.is_agent, True)[:, None] & np.isfinite(motion.world_axes).all(axis=(-1, -2))
    # A track that is no agent may have axes all the same; it faces nowhere.
    world_axes = np.where(facing[..., None, None], motion.world_axes, np.nan)
    axes = world_axes[viewers]  # [p, t, 3, 3]

    def in_axes(vectors: np.ndarray) -> np.ndarray:
        return np.einsum("ptij,pti->ptj", axes, vectors)

    apart = motion.places[targets] - motion.places[viewers]
    place = in_axes(apart)
    directions, distances = _direction(place)
    relative, relative_speed = _direction(_velocity(apart, both, view.seconds))
    turning = _velocity(place, both & facing[viewers], view.seconds)
    heading, speed = _direction(motion.velocity[targets])
    values = [
        *(a[..., None] for a in (both, facing[viewers], facing[targets])),
        directions,
        np.log(np.maximum(distances, NEAREST)),
        *(in_axes(world_axes[targets][..., axis]) for axis in (0, 1)),
        in_axes(relative),
        np.log(np.maximum(relative_speed, SLOWEST)),
        _direction(turning)[0],
        in_axes(heading),
        np.log(np.maximum(speed, SLOWEST)),
        apart,
        *(axes[..., axis] for axis in (0, 1)),
        place,
    ]
    return np.where(both[..., None], np.nan_to_num(np.concatenate(values, axis=-1)), 0.0)


def _by_group(values: np.ndarray, grid: Grid) -> np.ndarray:
    """[n, groups, 2, c] of values [n, t, c]."""
    return values.reshape(len(values), grid.groups, FRAMES, values.shape[-1])


def _cells(things: np.ndarray, grid: Grid) -> np.ndarray:
    """[n + 1, groups, 3] int64 cells of things [n + 1, groups, 2, 49] by the mean centre of their boxes."""
    visible = things[..., 0]
    middle = things[..., 4:6].sum(axis=2) / np.maximum(visible.sum(axis=2), 1)[..., None]  # x, y in [0, 1]
    size = np.array([grid.rows, grid.columns])
    cell = np.clip(np.floor(middle[..., ::-1] * size), 0, size - 1)
    group = np.broadcast_to(np.arange(grid.groups)[:, None], (len(things), grid.groups, 1))
    return np.concatenate([group, cell], axis=-1).astype(np.int64)


def label_words(cues: ClipCues, encode: Encode) -> np.ndarray:
    """[n + 1, 8] int64 token ids of the tracks' labels and, last, the camera's; PADDING after them."""
    words = np.full((cues.num_tracks + 1, MAX_LABEL_TOKENS), PADDING, np.int64)
    for row, name in zip(words, [*cues.labels.tolist(), CAMERA_LABEL], strict=True):
        # With the space that a word has inside a sentence, so that it is the same token as in the question.
        ids = list(encode(f" {name}"))[:MAX_LABEL_TOKENS]
        row[: len(ids)] = ids
    return words


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
