"""Orient Anything: the orientation of a thing from one picture of it (arXiv 2412.18605, github SpatialVision).

- One set of batches over all the frames and agents of a clip. Pictures and masks are consumed one pair at a time, so
  that masks can be decoded as they are needed.
- The background is removed with the track's mask and is black, as what the published preprocessing makes of a cut-out:
  rembg leaves black under a zero alpha, the padding is black, and the conversion to RGB drops the alpha.
- The published preprocessing: cut out, pad to a square whose side is the thing's longer one over 0.85, resize to 256
  pixels (bicubic), keep the middle 224.
- Angles become rotation matrices here, and are nowhere else.

Angles, as the published drawing code shows them (`get_proj2D_XYZ` for the arrows in the picture, `render_3D_axis` for
the axes laid over it; front and top agree), x right and y up in the picture:

- azimuth 0 faces the camera; growing, it turns the thing's front to the picture's left (90: left, 180: away from the
  camera, 270: right);
- polar above 0: the camera looks down on the thing, its front dips when it faces the camera and its top leans towards
  the camera (90: seen from straight above);
- rotation above 0 turns the picture counter-clockwise, after the other two.

They describe a camera that looks straight at the thing (`render_3D_axis` draws them so). A thing beside the middle of
the picture is seen along another ray, so its rotation is turned from the optical axis to that ray: what faces the
camera faces the camera's place, not its image plane. At a field of view of 70 degrees this is up to 35 degrees.

Letters: K pictures of agents.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dsr.perception.batches import in_batches
from dsr.perception.checkpoints import load_exactly, read_pt
from dsr.perception.dinov2 import DinoV2, DinoV2Config, image_statistics
from dsr.perception.transformer import computing_in, default_dtype
from dsr.weights import foundation_weights

PUBLISHED = foundation_weights()["orientation"].published
AZIMUTHS, POLARS, ROTATIONS = 360, 180, 180
"""A class a degree; polar and rotation start at -90."""
OUTPUTS = AZIMUTHS + POLARS + ROTATIONS + 2
FOREGROUND = 0.85
RESIZED, SIDE = 256, 224
MIN_SIDE = 16
"""Pixels that the longer side of a thing must have; enlarged more than 14 times, nothing of it can be recognised."""
UNUSED = "dinov2.embeddings.mask_token"


@dataclass(frozen=True)
class OrientAnythingConfig:
    """Sizes; the default is `croplargeEX2`."""

    backbone: DinoV2Config = field(default_factory=DinoV2Config)

    @classmethod
    def tiny(cls) -> "OrientAnythingConfig":
        """The same architecture with a small backbone, for tests."""
        return cls(DinoV2Config.tiny())


class AngleHead(nn.Module):
    """The class token to logits of every class of angle."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net1 = nn.Sequential(nn.Linear(width, OUTPUTS), nn.BatchNorm1d(OUTPUTS), nn.ReLU())
        self.net2 = nn.Sequential(nn.Linear(OUTPUTS, OUTPUTS), nn.BatchNorm1d(OUTPUTS))

    def forward(self, x: Tensor) -> Tensor:
        return self.net2(self.net1(x))


class OrientAnything(nn.Module):
    """DINOv2 and a head with 360 azimuths, 180 polar angles, 180 rotations and 2 for whether the thing has a front."""

    def __init__(self, config: OrientAnythingConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or OrientAnythingConfig()
        self.compute_dtype = torch.float32
        self.dinov2 = DinoV2(config.backbone)
        self.down_sampler = AngleHead(config.backbone.width)

    @classmethod
    def from_file(
        cls,
        path: Path,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        config: OrientAnythingConfig | None = None,
    ) -> "OrientAnything":
        """The published checkpoint (`croplargeEX2/dino_weight.pt`) in evaluation mode.

        Args:
            dtype: what the backbone computes in; bfloat16 on a GPU and float32 elsewhere if not given.

        Raises:
            StageError: no such file, not a checkpoint that loads without pickled code, or parameters missing,
                unexpected or of another shape.
        """
        with torch.device("meta"):
            model = cls(config)
        tensors = read_pt(path, PUBLISHED)
        tensors.pop(UNUSED, None)
        load_exactly(model, tensors, path, PUBLISHED, published_layout(model))
        model.compute_dtype = dtype or default_dtype(device)
        return model.to(device).eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [K, 722] of pictures [K, 3, 224, 224] normalised with `dinov2.image_statistics`."""
        with computing_in(self.compute_dtype, images.device):
            summary = self.dinov2(images).cls
        return self.down_sampler(summary.float())


def orientations(
    model: OrientAnything,
    views: Iterable[tuple[np.ndarray, np.ndarray]],
    batch_size: int = 32,
    directions: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Orientations of agents.

    Args:
        views: K pairs of a frame [H, W, 3] uint8 RGB and the agent's mask [H, W] bool in it; consumed lazily.
        directions: [K, 3] the ray to each agent in the camera's frame, of any length, such as its centre; the optical
            axis if not given.

    Returns:
        rotations [K, 3, 3] float32, camera-from-agent (agent: x forward, y left, z up; camera: OpenCV), and confidence
        [K] float32 in [0, 1] that the thing has a front. NaN and 0 where the mask is empty or too small to see a thing
        in, or where the model's output or the direction is not finite.
    """
    device = next(model.parameters()).device
    mean, std = (statistic.to(device) for statistic in image_statistics())
    seen: list[bool] = []

    def crops() -> Iterator[np.ndarray]:
        for frame, mask in views:
            crop = agent_crop(frame, mask)
            seen.append(crop is not None)
            if crop is not None:
                yield crop

    def run(batch: list[np.ndarray]) -> list[Tensor]:
        pictures = torch.from_numpy(np.stack(batch)).to(device)
        with torch.inference_mode():
            logits = model((pictures.permute(0, 3, 1, 2).float() / 255 - mean) / std)
        return list(logits.float().cpu())

    found = in_batches(run, crops(), batch_size)
    angles, confidence = np.full((len(seen), 3), np.nan), np.zeros(len(seen))
    if found:
        angles[seen], confidence[seen] = decode(torch.stack(found))
    rotations = rotation_matrices(angles)
    if directions is not None:
        rotations = turned_to(directions) @ rotations
    known = np.isfinite(rotations).all(axis=(1, 2))
    rotations[~known] = np.nan
    return rotations.astype(np.float32), np.where(known, confidence, 0).astype(np.float32)


def agent_crop(frame: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """Crop of what a mask covers, as the model takes it.

    Args:
        frame: [H, W, 3] uint8 RGB.
        mask: [H, W] bool.

    Returns:
        [224, 224, 3] uint8, black outside the mask; None if the mask is empty or smaller than MIN_SIDE.

    Raises:
        ValueError: frame and mask are not of one size.
    """
    if frame.shape[:2] != mask.shape:
        raise ValueError(f"a mask of {mask.shape[1]}x{mask.shape[0]} on a frame of {frame.shape[1]}x{frame.shape[0]}")
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    height, width = bottom - top, right - left
    if max(height, width) < MIN_SIDE:
        return None
    side = int(max(height, width) / FOREGROUND)
    # In two steps, square and then margin, so that it rounds as published.
    square = max(height, width)
    y = (side - square) // 2 + (square - height) // 2
    x = (side - square) // 2 + (square - width) // 2
    padded = np.zeros((side, side, 3), np.uint8)
    inside = mask[top:bottom, left:right, None]
    padded[y : y + height, x : x + width] = np.where(inside, frame[top:bottom, left:right], 0)
    resized = Image.fromarray(padded).resize((RESIZED, RESIZED), Image.Resampling.BICUBIC)
    margin = (RESIZED - SIDE) // 2
    return np.asarray(resized)[margin : margin + SIDE, margin : margin + SIDE]


def decode(logits: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Angles [K, 3] float64 (azimuth, polar, rotation; degrees, the likeliest classes) and confidence [K] of logits
    [K, 722]; NaN and 0 where a logit is not finite."""
    azimuth, polar, rotation, front = logits.split([AZIMUTHS, POLARS, ROTATIONS, 2], dim=-1)
    classes = torch.stack([part.argmax(dim=-1) for part in (azimuth, polar, rotation)], dim=-1)
    finite = logits.isfinite().all(dim=-1).numpy()
    angles = classes.numpy() - np.array([0.0, POLARS // 2, ROTATIONS // 2])
    confidence = front.softmax(dim=-1)[:, 0].numpy()
    return np.where(finite[:, None], angles, np.nan), np.where(finite, confidence, 0)


def rotation_matrices(angles: np.ndarray) -> np.ndarray:
    """Camera-from-agent rotations [..., 3, 3] of (azimuth, polar, rotation) [..., 3] in degrees; see the module."""
    azimuth, polar, rotation = np.moveaxis(np.radians(angles), -1, 0)
    sin_a, cos_a, sin_p, cos_p = np.sin(azimuth), np.cos(azimuth), np.sin(polar), np.cos(polar)
    zero, one = np.zeros_like(azimuth), np.ones_like(azimuth)
    upright = _matrix(
        # forward, left, up as columns; rows are the camera's right, down, ahead.
        [-sin_a, cos_a, zero],
        [cos_a * sin_p, sin_a * sin_p, -cos_p],
        [-cos_a * cos_p, -sin_a * cos_p, -sin_p],
    )
    sin_r, cos_r = np.sin(rotation), np.cos(rotation)
    # Counter-clockwise as one sees it, in a picture whose y points down.
    turn = _matrix([cos_r, sin_r, zero], [-sin_r, cos_r, zero], [zero, zero, one])
    return turn @ upright


def turned_to(directions: np.ndarray) -> np.ndarray:
    """The smallest rotations [..., 3, 3] that turn the optical axis (z) to directions [..., 3] of any length; NaN for
    one that is not finite, has no length or points straight back."""
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y, z = np.moveaxis(directions / np.linalg.norm(directions, axis=-1, keepdims=True), -1, 0)
        share = 1 / (1 + z)
        return _matrix(
            [1 - x * x * share, -x * y * share, x],
            [-x * y * share, 1 - y * y * share, y],
            [-x, -y, z],
        )


def published_layout(model: OrientAnything) -> dict[str, tuple[str, ...]]:
    """For each of the model's names, its names in the published checkpoint, which has the layout of Hugging Face's
    Dinov2Model: queries, keys and values apart."""
    layout: dict[str, tuple[str, ...]] = {}
    for ours in model.state_dict():
        name = ours
        for meta, hugging_face in _HUGGING_FACE.items():
            name = name.replace(meta, hugging_face)
        layout[ours] = tuple(name.replace("query|key|value", part) for part in _QKV) if "|" in name else (name,)
    return layout


_QKV = ("query", "key", "value")
_HUGGING_FACE = {
    "dinov2.cls_token": "dinov2.embeddings.cls_token",
    "dinov2.pos_embed": "dinov2.embeddings.position_embeddings",
    "dinov2.patch_embed.proj": "dinov2.embeddings.patch_embeddings.projection",
    "dinov2.norm.": "dinov2.layernorm.",
    "dinov2.blocks.": "dinov2.encoder.layer.",
    ".attn.qkv.": ".attention.attention.query|key|value.",
    ".attn.proj.": ".attention.output.dense.",
    ".ls1.gamma": ".layer_scale1.lambda1",
    ".ls2.gamma": ".layer_scale2.lambda1",
}


def _matrix(*rows: Sequence[np.ndarray]) -> np.ndarray:
    """[..., 3, 3] of rows of [...] arrays."""
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
